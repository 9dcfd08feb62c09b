/**
 * Appends finished record batches to partitions, over kafkajs' connections and metadata. `append` returns when all
 * in-sync replicas have the batch. It repeats an attempt whose result is unknown, so a batch may be in the log twice, but
 * always before the batch that the caller appends next.
 */
import { setTimeout as delay } from 'node:timers/promises';
import Encoder from 'kafkajs/src/protocol/encoder.js';
import response from 'kafkajs/src/protocol/requests/produce/v7/response.js';
import { type Broker, sendFailure } from './producer.ts';

/** One broker of kafkajs' cluster, with the connection pool that its types hide. */
interface Node {
  readonly connectionPool: { send(request: unknown): Promise<unknown> };
  disconnect(): Promise<void>;
}

const produceKey = 0;
/** The first version that takes zstd, Kafka 2.1. */
const produceVersion = 7;
const allInSync = -1;
/** How long the broker may wait for its replicas. */
const replicasMs = 30_000;
/** How long `append` repeats a batch while no broker accepts it. */
const patienceMs = 30_000;
const firstPauseMs = 100;
const longestPauseMs = 3_000;

export class Appender {
  readonly #broker: Broker;
  readonly #cluster: ReturnType<Broker['createCluster']>;
  #closed = false;

  constructor(broker: Broker) {
    this.#broker = broker;
    this.#cluster = broker.createCluster();
  }

  /** @throws kafkajs' connection error */
  async connect(): Promise<void> {
    await this.#cluster.connect();
  }

  /** @throws ReelflowError brokerUnreachable */
  async append(topic: string, partition: number, batch: Buffer): Promise<void> {
    const deadline = performance.now() + patienceMs;
    for (let pauseMs = firstPauseMs; ; pauseMs = Math.min(longestPauseMs, 2 * pauseMs)) {
      try {
        await this.#attempt(topic, partition, batch);
        return;
      } catch (thrown) {
        if (!mayPass(thrown) || this.#closed || performance.now() + pauseMs > deadline) {
          throw sendFailure(thrown, topic, this.#broker);
        }
        this.#broker.logger.debug({ topic, partition, reason: String(thrown) }, 'repeating an append');
        await delay(pauseMs);
        await this.#recover(thrown);
      }
    }
  }

  /** Also ends attempts in progress. */
  async close(): Promise<void> {
    this.#closed = true;
    await this.#cluster.disconnect().catch(() => undefined);
  }

  async #attempt(topic: string, partition: number, batch: Buffer): Promise<void> {
    if (this.#closed) throw new Error('closed');
    await this.#cluster.addMultipleTargetTopics([topic]);
    await this.#cluster.refreshMetadataIfNecessary();
    const [nodeId] = Object.keys(this.#cluster.findLeaderForPartitions(topic, [partition]));
    if (nodeId === undefined) {
      throw Object.assign(new Error(`${topic}/${partition} has no leader`), { retriable: true });
    }
    const node = (await this.#cluster.findBroker({ nodeId })) as unknown as Node;
    try {
      await node.connectionPool.send({ request: produceRequest(topic, partition, batch), response });
    } catch (thrown) {
      if ((thrown as Error).name === 'KafkaJSConnectionClosedError') await node.disconnect();
      throw thrown;
    }
  }

  async #recover(thrown: unknown): Promise<void> {
    if (this.#closed) return;
    const { host, port } = thrown as { host?: string; port?: number };
    if (host !== undefined && port !== undefined) this.#cluster.removeBroker({ host, port });
    // A failure here shows at the next attempt, which counts it.
    await this.#cluster.connect().catch(() => undefined);
    await this.#cluster.refreshMetadata().catch(() => undefined);
  }
}

/** Whether a later attempt may succeed. kafkajs' exhausted retries count as one attempt of several here. */
function mayPass(thrown: unknown): boolean {
  const { retriable, name } = thrown as { retriable?: boolean; name?: string };
  return retriable === true || name === 'KafkaJSNumberOfRetriesExceeded' || name === 'KafkaJSLockTimeout';
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
