/** The devices of a refresh on a real cluster: a dataset's topic and the topic of the index. */
import { createHash } from 'node:crypto';
import type { Producer } from 'kafkajs';
import { type LogBounds, logBounds, UnknownTopic } from '../../kafka/bounds.ts';
import type { Broker } from '../../kafka/client.ts';
import type { LogReader } from '../../kafka/log.ts';
import { untilServed } from '../../kafka/outage.ts';
import { type Range, scan, scanTopic } from '../../kafka/scan.ts';
import { crashPoint } from '../../runtime/crash-points.ts';
import { type DatasetName, datasets } from '../../topics/catalog.ts';
import {
  type ChunkDecoder,
  deleteColumns,
  originOf,
  RejectedMessage,
  recordColumns,
} from '../../topics/chunk.ts';
import { readDeadLetter } from '../../topics/dead-letter.ts';
import { Ownership } from '../../topics/ownership.ts';
import { sendServed } from '../producer.ts';
import type { IndexLog, IndexMessage, Refusals, SourceLog, Touched, Written } from './devices.ts';

const hashHexDigits = 32;
/** Compaction leaves one message of this key; no dataset has this name. */
const clockKey = 'clock';

type Place = Refusals['places'][number];

/** The bounds of a topic by partition. */
export type BoundsOf = (topic: string) => Promise<ReadonlyMap<number, LogBounds>>;

interface KafkaSourceLogOptions {
  readonly boundsOf: BoundsOf;
  readonly reader: LogReader;
  readonly topic: string;
  readonly dataset: DatasetName;
  readonly decoder: ChunkDecoder;
  readonly refusals: ConsumerRefusals;
}

export class KafkaSourceLog implements SourceLog {
  readonly #options: KafkaSourceLogOptions;
  /** From the newest bounds: each request for them opens a connection. */
  #partitions: number | undefined;

  constructor(options: KafkaSourceLogOptions) {
    this.#options = options;
  }

  refusals(since: readonly number[]): Promise<Refusals> {
    const { refusals, topic } = this.#options;
    return refusals.of(topic, since);
  }

  async bounds(): Promise<LogBounds[]> {
    const { boundsOf, topic } = this.#options;
    const found = await boundsOf(topic);
    this.#partitions = found.size;
    return [...found].sort(([a], [b]) => a - b).map(([, bounds]) => bounds);
  }

  async hashesOf(ranges: readonly Range[]): Promise<Map<number, Map<number, string>>> {
    const { reader, topic } = this.#options;
    const found = new Map<number, Map<number, string>>();
    for await (const { partition, messages } of scan(reader, topic, ranges)) {
      const hashes = found.get(partition) ?? new Map<number, string>();
      found.set(partition, hashes);
      for (const { offset, timestampMs, leaderEpoch, key, value } of messages) {
        const hash = createHash('sha256')
          .update(`${leaderEpoch} ${timestampMs} `)
          .update(key ?? '')
          .update(value ?? '');
        hashes.set(offset, hash.digest('hex').slice(0, hashHexDigits));
      }
    }
    return found;
  }

  async scan(
    ranges: readonly Range[],
    onTouched: (touched: Touched) => void,
    isOwn: (written: Written) => boolean = () => false,
  ): Promise<void> {
    const { reader, topic, dataset, decoder } = this.#options;
    const { idPrefix, columns } = datasets[dataset];
    const records = recordColumns(dataset, [(columns[0] as { name: string }).name]);
    const deletes = deleteColumns(dataset);
    this.#partitions ??= (await this.bounds()).length;
    const ownership = new Ownership(idPrefix, this.#partitions);
    for await (const { partition, messages } of scan(reader, topic, ranges)) {
      for (const { offset, value } of messages) {
        records.clear();
        deletes.clear();
        try {
          const own = await decoder.asOwn(value);
          if (isOwn({ partition, offset, ...originOf(own) })) continue;
          const owner = { ownership, partition };
          const { runId, chunk, replaces, ...counts } = decoder.decode(own, records, deletes, owner);
          onTouched({
            partition,
            offset,
            runId,
            chunk,
            records: counts.records + counts.deletes,
            replaces,
            ids: idsOf(records.column(0), deletes.column(0)),
          });
        } catch (thrown) {
          // Consumers refuse the message too: it touches nothing.
          if (!(thrown instanceof RejectedMessage)) throw thrown;
        }
      }
    }
  }
}

/** The bounds of a topic by partition, once a broker answers. @throws UnknownTopic, if the brokers do not know it */
export async function boundsOf(
  broker: Broker,
  topic: string,
  signal?: AbortSignal,
): Promise<ReadonlyMap<number, LogBounds>> {
  // As a result, not as an error: `untilServed` would wait for a topic that a starting broker may not know yet.
  const ask = () => logBounds(broker, [topic]).catch(unknownTopicOf);
  const found = await untilServed(broker.outages, `bounds of ${topic}`, ask, signal);
  if (found instanceof UnknownTopic) throw found;
  return found.get(topic) ?? new Map();
}

function unknownTopicOf(thrown: unknown): UnknownTopic {
  if (thrown instanceof UnknownTopic) return thrown;
  throw thrown;
}

function* idsOf(...columns: ArrayLike<number>[]): Generator<number> {
  for (const column of columns) {
    let last = -1;
    for (let row = 0; row < column.length; row++) {
      const id = column[row] as number;
      if (id === last) continue;
      last = id;
      yield id;
    }
  }
}

/** Reads the dead letters of consumers, once for all datasets whose indexes have read the same letters. */
export class ConsumerRefusals {
  readonly #boundsOf: BoundsOf;
  readonly #reader: LogReader;
  readonly #topic: string;
  readonly #read = new Map<string, Promise<{ byTopic: Map<string, Place[]>; end: number[] }>>();

  /** @param topic of the dead letters */
  constructor(boundsOf: BoundsOf, reader: LogReader, topic: string) {
    this.#boundsOf = boundsOf;
    this.#reader = reader;
    this.#topic = topic;
  }

  async of(topic: string, since: readonly number[]): Promise<Refusals> {
    const key = since.join();
    const found = this.#read.get(key) ?? this.#from(since);
    this.#read.set(key, found);
    const { byTopic, end } = await found;
    return { places: byTopic.get(topic) ?? [], end };
  }

  async #from(since: readonly number[]): Promise<{ byTopic: Map<string, Place[]>; end: number[] }> {
    const bounds = await this.#boundsOf(this.#topic);
    const ranges = [...bounds].map(([partition, { start, end }]) => {
      const next = since[partition] ?? start;
      // A topic that was recreated or trimmed is read from its start.
      return { partition, start: next < start || next > end ? start : next, end };
    });
    const byTopic = new Map<string, Place[]>();
    const seen = new Set<string>();
    for await (const { partition: from, messages } of scan(this.#reader, this.#topic, ranges)) {
      for (const message of messages) {
        const entry = readDeadLetter({ ...message, partition: from });
        if (entry.kind !== 'letter' || !('topic' in entry.letter.source)) continue;
        const { topic, partition, offset } = entry.letter.source;
        const place = `${topic}/${partition}/${offset}`;
        if (seen.has(place)) continue;
        seen.add(place);
        byTopic.set(topic, [...(byTopic.get(topic) ?? []), { partition, offset }]);
      }
    }
    const end: number[] = [];
    for (const range of ranges) end[range.partition] = range.end;
    return { byTopic, end };
  }
}

interface KafkaIndexLogOptions {
  readonly broker: Broker;
  readonly producer: Producer;
  readonly topic: string;
  /** The topic does not exist, which a dry run takes for an empty one. */
  readonly isMissing: boolean;
  /** Once it is aborted, nothing waits for the end of an outage. */
  readonly signal?: AbortSignal | undefined;
}

export class KafkaIndexLog implements IndexLog {
  readonly messages = new Map<string, Buffer>();
  readonly #options: KafkaIndexLogOptions;

  private constructor(options: KafkaIndexLogOptions) {
    this.#options = options;
  }

  /** Reads the topic. */
  static async open(options: KafkaIndexLogOptions): Promise<KafkaIndexLog> {
    const log = new KafkaIndexLog(options);
    const { broker, topic, isMissing } = options;
    if (isMissing) return log;
    for await (const { messages } of scanTopic(broker, topic, { isCompacted: true })) {
      for (const { key, value } of messages) {
        if (key === null) continue;
        if (value === null) log.messages.delete(key.toString());
        else log.messages.set(key.toString(), value);
      }
    }
    return log;
  }

  /**
   * The time that the broker stamps on a message of the index; this host's time if the topic has other settings.
   * @param dryRun sends no message, and takes this host's time
   */
  async timeMs(dryRun: boolean): Promise<number> {
    if (dryRun) return Date.now();
    const [receipt] = await this.#send([{ key: clockKey, value: Buffer.of(0) }]);
    const timeMs = Number(receipt?.logAppendTime ?? -1);
    return timeMs >= 0 ? timeMs : Date.now();
  }

  async append(messages: readonly IndexMessage[]): Promise<void> {
    crashPoint('before-index-message');
    await this.#send(messages);
  }

  #send(messages: readonly IndexMessage[]) {
    const { broker, producer, topic, signal } = this.#options;
    const record = { topic, messages: messages.map((message) => ({ ...message, partition: 0 })) };
    return sendServed(broker, producer, `append ${messages[0]?.key} to ${topic}`, record, signal);
  }
}
