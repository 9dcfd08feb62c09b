/**
 * Describes groups of the consumer protocol of KIP-848, which kafkajs does not know: the request ConsumerGroupDescribe
 * (API key 69, version 0), encoded here and sent through a connection of kafkajs.
 */
import type { Broker } from 'kafkajs/src/cluster/index.js';
import Encoder from 'kafkajs/src/protocol/encoder.js';

const apiKey = 69;
const apiVersion = 0;
/** Kafka's error codes. Brokers of Kafka 3.7 to 3.9 list the request, and answer it only where the protocol is enabled. */
const [unsupportedVersion, groupIdNotFound] = [35, 69];

/** Partitions by topic name. */
type TopicPartitions = ReadonlyMap<string, readonly number[]>;

interface DescribedMember {
  readonly memberId: string;
  readonly subscribedTopics: readonly string[];
  /** RE2 expression that a whole topic name must match. */
  readonly subscribedPattern: string | null;
  readonly assignment: TopicPartitions;
}

export interface DescribedGroup {
  readonly group: string;
  /** Kafka's error code: 0 for none. */
  readonly errorCode: number;
  readonly errorMessage: string | null;
  /** Empty, Assigning, Reconciling, Stable or Dead. */
  readonly state: string;
  readonly members: readonly DescribedMember[];
}

/** Whether a broker knows the request. */
export function canDescribeConsumerGroups({ versions }: Broker): boolean {
  const supported = versions?.[apiKey];
  return supported !== undefined && supported.minVersion <= apiVersion && supported.maxVersion >= apiVersion;
}

/** Whether the group does not exist, or uses another protocol. */
export function isUnknownGroup({ errorCode }: DescribedGroup): boolean {
  return errorCode === groupIdNotFound || errorCode === unsupportedVersion;
}

/** Asks the coordinator of the group. @throws KafkaJSError, when the request fails as a whole */
export async function describeConsumerGroup(
  coordinator: Broker,
  group: string,
): Promise<DescribedGroup | undefined> {
  return coordinator.connectionPool.send({
    request: { apiKey, apiVersion, apiName: 'ConsumerGroupDescribe', encode: async () => encode(group) },
    response: { decode: async (bytes) => decode(bytes)[0], parse: async (described) => described },
  });
}

/** Request header v2 adds tagged fields before the body; all lengths are one more, as unsigned varints. */
function encode(group: string): Encoder {
  return new Encoder()
    .writeUVarInt(0) // no tagged fields
    .writeUVarInt(1 + 1) // one group
    .writeUVarIntBytes(Buffer.from(group))
    .writeBoolean(false) // without authorized operations
    .writeUVarInt(0); // no tagged fields
}

function decode(bytes: Buffer): DescribedGroup[] {
  const reader = new CompactReader(bytes);
  reader.skipTags();
  reader.int32(); // throttle time
  const groups = reader.array((): DescribedGroup => {
    const errorCode = reader.int16();
    const errorMessage = reader.nullableString();
    const group = reader.string();
    const state = reader.string();
    reader.int32(); // group epoch
    reader.int32(); // assignment epoch
    reader.string(); // assignor
    const members = reader.array(() => readMember(reader));
    reader.int32(); // authorized operations
    reader.skipTags();
    return { group, errorCode, errorMessage, state, members };
  });
  reader.skipTags();
  return groups;
}

function readMember(reader: CompactReader): DescribedMember {
  const memberId = reader.string();
  reader.nullableString(); // instance id
  reader.nullableString(); // rack id
  reader.int32(); // member epoch
  reader.string(); // client id
  reader.string(); // client host
  const subscribedTopics = reader.array(() => reader.string());
  const subscribedPattern = reader.nullableString();
  const assignment = readAssignment(reader);
  readAssignment(reader); // target assignment
  reader.skipTags();
  return { memberId, subscribedTopics, subscribedPattern, assignment };
}

function readAssignment(reader: CompactReader): TopicPartitions {
  const topics = reader.array((): [string, number[]] => {
    reader.skip(16); // topic id
    const topic = reader.string();
    const partitions = reader.array(() => reader.int32());
    reader.skipTags();
    return [topic, partitions];
  });
  reader.skipTags();
  return new Map(topics);
}

/** Reads the compact types of Kafka's flexible versions (KIP-482). */
class CompactReader {
  readonly #bytes: Buffer;
  #at = 0;

  constructor(bytes: Buffer) {
    this.#bytes = bytes;
  }

  skip(bytes: number): void {
    this.#at += bytes;
  }

  int16(): number {
    this.#at += 2;
    return this.#bytes.readInt16BE(this.#at - 2);
  }

  int32(): number {
    this.#at += 4;
    return this.#bytes.readInt32BE(this.#at - 4);
  }

  #uvarint(): number {
    let value = 0;
    for (let shift = 0; ; shift += 7) {
      const byte = this.#bytes.readUInt8(this.#at++);
      value += (byte & 0x7f) * 2 ** shift;
      if (byte < 0x80) return value;
    }
  }

  nullableString(): string | null {
    const length = this.#uvarint() - 1;
    if (length < 0) return null;
    this.#at += length;
    return this.#bytes.toString('utf8', this.#at - length, this.#at);
  }

  string(): string {
    return this.nullableString() ?? '';
  }

  array<T>(element: () => T): T[] {
    const length = Math.max(0, this.#uvarint() - 1);
    return Array.from({ length }, element);
  }

  skipTags(): void {
    for (let left = this.#uvarint(); left > 0; left--) {
      this.#uvarint();
      this.skip(this.#uvarint());
    }
  }
}
