/**
 * Appends finished record batches to partitions, over kafkajs' connections and metadata. `append` returns when all
 * in-sync replicas have the batch. It repeats an attempt whose result is unknown; the batch is in the log once, because
 * the broker knows its sequence number. It waits out an outage of the brokers.
 */
import Encoder from 'kafkajs/src/protocol/encoder.js';
import response from 'kafkajs/src/protocol/requests/produce/v7/response.js';
import type { Broker } from '../kafka/client.ts';
import { kafkaCodeOf } from '../kafka/failures.ts';
import { unlessEnded, untilServed } from '../kafka/outage.ts';
import { ReelflowError } from '../runtime/errors.ts';
import { sendFailure } from './producer.ts';
import { ProducerIdentity, type ProducerStamp } from './producer-identity.ts';

/** One broker of kafkajs' cluster, with the connection pool that its types hide. */
interface Node {
  readonly connectionPool: { send(request: unknown): Promise<unknown> };
  disconnect(): Promise<void>;
}

/** The response to a request of one batch. */
interface Produced {
  readonly topics: readonly { readonly partitions: readonly { readonly baseOffset: string }[] }[];
}

const produceKey = 0;
/** The first version that takes zstd, Kafka 2.1. */
const produceVersion = 7;
const allInSync = -1;
/** How long the broker may wait for its replicas. */
const replicasMs = 30_000;
const transactionCoordinator = 1;

/** The broker has lost the state of this producer, for example with its messages: a new epoch starts over. */
const lostState = ['OUT_OF_ORDER_SEQUENCE_NUMBER', 'UNKNOWN_PRODUCER_ID', 'INVALID_PRODUCER_ID_MAPPING'];
const fenced = ['INVALID_PRODUCER_EPOCH', 'PRODUCER_FENCED'];

export class Appender {
  readonly #broker: Broker;
  readonly #cluster: ReturnType<Broker['createCluster']>;
  readonly #closed = new AbortController();
  readonly #ending: AbortSignal;
  /** By topic: replays of different datasets do not fence each other. */
  readonly #identities = new Map<string, Promise<ProducerIdentity>>();
  readonly #renewals = new Map<string, number>();

  /** @param signal once it is aborted, no append waits for the end of an outage */
  constructor(broker: Broker, signal?: AbortSignal) {
    this.#broker = broker;
    this.#ending = AbortSignal.any([this.#closed.signal, ...(signal === undefined ? [] : [signal])]);
    this.#cluster = broker.createCluster();
  }

  /** @throws kafkajs' connection error */
  async connect(): Promise<void> {
    await this.#cluster.connect();
  }

  /**
   * Appends a batch of one record. The caller runs one append at a time per partition.
   * @param build makes the batch with this producer id and sequence
   * @param onlyBehind append only if the broker has all earlier batches of this appender. The broker compares sequence
   *   numbers, which start over with a new identity: then nothing is appended
   * @returns its offset; undefined when the broker only says that it has the batch already, or when it was not appended
   * @throws ReelflowError busy, when a later replay has fenced this one; brokerUnreachable, when it is closed during an
   *   outage; brokerRefused; accessRefused
   */
  async append(
    topic: string,
    partition: number,
    build: (stamp: ProducerStamp) => Buffer,
    onlyBehind = false,
  ): Promise<number | undefined> {
    for (;;) {
      if (onlyBehind && this.renewals(topic) > 0) return undefined;
      const identity = this.#identityOf(topic);
      try {
        const batch = build((await identity).stamp(topic, partition));
        return await this.#untilServed(`append to ${topic}/${partition}`, () =>
          this.#attempt(topic, partition, batch),
        );
      } catch (thrown) {
        const code = kafkaCodeOf(thrown) ?? '';
        if (code === 'DUPLICATE_SEQUENCE_NUMBER') return undefined;
        if (fenced.includes(code)) throw fencedBy(topic, thrown);
        if (!lostState.includes(code)) throw sendFailure(thrown, topic, this.#broker);
        if (this.#identities.get(topic) === identity) {
          this.#identities.delete(topic);
          this.#renewals.set(topic, this.renewals(topic) + 1);
        }
      }
    }
  }

  /** How often the broker had lost the state of this producer of a topic. */
  renewals(topic: string): number {
    return this.#renewals.get(topic) ?? 0;
  }

  /** Also ends attempts in progress. */
  async close(): Promise<void> {
    this.#closed.abort();
    await this.#cluster.disconnect().catch(() => undefined);
  }

  #identityOf(topic: string): Promise<ProducerIdentity> {
    let identity = this.#identities.get(topic);
    if (identity === undefined) {
      identity = this.#untilServed(`producer id for ${topic}`, async () => {
        const request = { groupId: topic, coordinatorType: transactionCoordinator };
        return ProducerIdentity.begin(await this.#cluster.findGroupCoordinator(request), topic);
      });
      this.#identities.set(topic, identity);
    }
    return identity;
  }

  #untilServed<T>(activity: string, attempt: () => Promise<T>): Promise<T> {
    const { outages } = this.#broker;
    const recovering = async () => {
      try {
        return await attempt();
      } catch (thrown) {
        await this.#recover(thrown);
        throw thrown;
      }
    };
    return untilServed(outages, activity, () => unlessEnded(outages, this.#ending, recovering), this.#ending);
  }

  async #attempt(topic: string, partition: number, batch: Buffer): Promise<number> {
    this.#closed.signal.throwIfAborted();
    await this.#cluster.addMultipleTargetTopics([topic]);
    await this.#cluster.refreshMetadataIfNecessary();
    const [nodeId] = Object.keys(this.#cluster.findLeaderForPartitions(topic, [partition]));
    if (nodeId === undefined) {
      throw Object.assign(new Error(`${topic}/${partition} has no leader`), { retriable: true });
    }
    const node = (await this.#cluster.findBroker({ nodeId })) as unknown as Node;
    try {
      const request = produceRequest(topic, partition, batch);
      const { topics } = (await node.connectionPool.send({ request, response })) as Produced;
      return Number(topics[0]?.partitions[0]?.baseOffset);
    } catch (thrown) {
      if ((thrown as Error).name === 'KafkaJSConnectionClosedError') await node.disconnect();
      throw thrown;
    }
  }

  async #recover(thrown: unknown): Promise<void> {
    if (this.#closed.signal.aborted) return;
    const { host, port } = thrown as { host?: string; port?: number };
    if (host !== undefined && port !== undefined) this.#cluster.removeBroker({ host, port });
    // A failure here shows at the next attempt, which counts it.
    await this.#cluster.connect().catch(() => undefined);
    await this.#cluster.refreshMetadata().catch(() => undefined);
  }
}

function fencedBy(topic: string, cause: unknown): ReelflowError {
  return new ReelflowError('busy', `A later replay has taken over ${topic}`, {
    detail: 'The broker refuses the messages of this run, because another run has started since.',
    hint: 'Wait until the other replay ends. Then replay again if its files are not the ones you want.',
    cause,
  });
}

/** Produce, version 7, of one batch; see https://kafka.apache.org/protocol#The_Messages_Produce */
function produceRequest(topic: string, partition: number, batch: Buffer) {
  return {
    apiKey: produceKey,
    apiVersion: produceVersion,
    apiName: 'Produce',
    encode: async () =>
      new Encoder(batch.length + 1024)
        .writeString(null) // no transaction
        .writeInt16(allInSync)
        .writeInt32(replicasMs)
        .writeInt32(1) // topics
        .writeString(topic)
        .writeInt32(1) // partitions
        .writeInt32(partition)
        .writeInt32(batch.length)
        .writeBuffer(batch),
  };
}
