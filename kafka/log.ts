/**
 * Reads partitions at exactly the offsets that the caller requests. An offset outside the log is an error, never a
 * reset, and nothing is committed. It uses the cluster and fetch request of kafkajs without its consumer, which resets
 * the offset on OFFSET_OUT_OF_RANGE and drops fetched data when it pauses.
 */
import type { default as Cluster, FetchedMessage } from 'kafkajs/src/cluster/index.js';
import Batch from 'kafkajs/src/consumer/batch.js';
import { messageOf, ReelflowError } from '../runtime/errors.ts';
import type { Broker } from './client.ts';
import { asBrokerError, isRefusal, LogInterrupted } from './failures.ts';

export interface LogMessage {
  readonly offset: number;
  /** Milliseconds since 1970, set by the sender. */
  readonly timestampMs: number;
  /** Epoch of the leader that appended it. Messages that replace lost ones have another epoch. Absent where no batch names it. */
  readonly leaderEpoch?: number | undefined;
  readonly key: Buffer | null;
  readonly value: Buffer | null;
  readonly headers?: Readonly<Record<string, Buffer | undefined>>;
  /** Control and aborted records occupy an offset and carry no data. */
  readonly isMarker: boolean;
  /** Represents an offset of an undecodable batch that the user chose to skip. */
  readonly isUndecodable: boolean;
}

export interface Want {
  readonly topic: string;
  readonly partition: number;
  /** Next offset to read. */
  readonly next: number;
}

export interface Fetched extends Want {
  /** From `next` on, without a gap unless the log has one. */
  readonly messages: LogMessage[];
  /** High watermark of the partition. */
  readonly highWatermark: number;
}

/** The log does not hold the requested offset: no longer, or not yet. */
export class OutsideLog extends Error {
  readonly topic: string;
  readonly partition: number;
  constructor(topic: string, partition: number) {
    super(`${topic}/${partition}: the offset is outside the log`);
    this.name = 'OutsideLog';
    this.topic = topic;
    this.partition = partition;
  }
}

export interface FetchLimits {
  /** How long the broker may wait for the first byte, in milliseconds. */
  readonly waitMs: number;
  /** Maximum of the whole response, compressed. */
  readonly bytesMax?: number;
  /** Maximum of one partition, compressed. */
  readonly partitionBytesMax?: number;
  /** Compaction may have removed all records of a batch. */
  readonly isCompacted?: boolean;
}

const isolationReadCommitted = 1;
const skippedMax = 100_000;
/** Makes a broker send the first batch of a partition and no more. */
const oneBatch = 1;

const empty = { timestampMs: 0, key: null, value: null, isMarker: false, isUndecodable: false };

interface Answer {
  readonly lastStableOffset: string;
  readonly messages: readonly FetchedMessage[];
}

/**
 * A marker at the last offset of a batch that holds no record from `next` on. Compaction removes records and keeps the batch with
 * its offsets, even without records if it is the last batch of its producer. If the segment ends there, each answer holds that
 * batch alone, and without the marker a reader would never get past it.
 */
function emptyBatchMarker(
  next: number,
  { messages, lastStableOffset }: Answer,
  { isCompacted = false }: FetchLimits,
): LogMessage[] {
  const last = messages.at(-1)?.batchContext;
  // Only compacted logs have empty batches. An empty answer of another log, such as that of a slow remote store, needs no marker.
  if (last === undefined && !isCompacted) return [];
  // A batch without records: at least the offset `next` has none. Beyond the last stable offset nothing is readable yet.
  const offset = last === undefined ? next : Number(last.firstOffset) + last.lastOffsetDelta;
  if (offset < next || next >= Number(lastStableOffset)) return [];
  return [{ ...empty, offset, isMarker: true }];
}

/** Reads on connections of its own, until `close`. */
export class LogReader {
  readonly #broker: Broker;
  readonly #cluster: Cluster;
  readonly #topics = new Set<string>();
  readonly #skips: ReadonlySet<string> | 'all';
  #connected = false;
  #turn: Promise<unknown> = Promise.resolve();

  /** @param skips `topic:partition:offset` of undecodable batches to skip, or `all` of them */
  constructor(broker: Broker, skips: readonly string[] | 'all' = []) {
    this.#skips = skips === 'all' ? skips : new Set(skips);
    this.#broker = broker;
    this.#cluster = broker.createCluster();
  }

  /**
   * One fetch request per broker that leads a wanted partition.
   * @returns messages of the partitions for which a broker answered
   * @throws OutsideLog, LogInterrupted, ReelflowError undecodableBatch
   */
  fetch(wants: readonly Want[], limits: FetchLimits): Promise<Fetched[]> {
    // One call at a time: kafkajs opens a connection for each concurrent call, keeps the last one and never closes the
    // others, which keep the process alive.
    const turn = this.#turn.then(() => this.#fetch(wants, limits));
    this.#turn = turn.catch(() => undefined);
    return turn;
  }

  /** @param isProbe refuses undecodable batches, even those that `skips` names */
  async #fetch(wants: readonly Want[], limits: FetchLimits, isProbe = false): Promise<Fetched[]> {
    if (wants.length === 0) return [];
    try {
      await this.#prepare(wants);
      const byLeader = this.#byLeader(wants);
      const answers = await Promise.all(
        [...byLeader].map(([nodeId, own]) => this.#fetchFrom(nodeId, own, limits)),
      );
      return answers.flat();
    } catch (thrown) {
      const reason = await this.#explain(thrown);
      if (reason !== undefined) throw reason;
      // Neither Kafka nor the network failed, so the bytes are damaged. Fetching partition by partition shows where, and
      // batch by batch, because intact batches may precede the damaged one.
      if (wants.length === 1 && limits.partitionBytesMax !== oneBatch) {
        return this.#fetch(wants, { ...limits, partitionBytesMax: oneBatch }, isProbe);
      }
      if (wants.length === 1) return [await this.#skipOrRefuse(wants[0] as Want, limits, thrown, isProbe)];
      const answers: Fetched[] = [];
      for (const want of wants) answers.push(...(await this.#fetch([want], { ...limits, waitMs: 0 })));
      return answers;
    }
  }

  /**
   * Skips the batch at an offset of `skips`. Only its bytes contain its length, so this tries the following offsets
   * until one can be read.
   */
  async #skipOrRefuse(want: Want, limits: FetchLimits, cause: unknown, isProbe: boolean): Promise<Fetched> {
    const { topic, partition } = want;
    const refusal = new ReelflowError('undecodableBatch', 'A record batch cannot be decoded', {
      detail: `${topic}, partition ${partition}, offset ${want.next}: ${messageOf(cause)}`,
      hint: `Check the broker's log segment. To continue without the batch: --skip-batch ${topic}:${partition}:${want.next} (it counts as rejected).`,
      cause,
    });
    const isSkipped = this.#skips === 'all' || this.#skips.has(`${topic}:${partition}:${want.next}`);
    if (isProbe || !isSkipped) throw refusal;
    const messages: LogMessage[] = [];
    for (let next = want.next; messages.length < skippedMax; next++) {
      messages.push({ ...empty, offset: next, isUndecodable: true });
      try {
        const [behind] = await this.#fetch([{ ...want, next: next + 1 }], { ...limits, waitMs: 0 }, true);
        return { ...want, messages, highWatermark: behind?.highWatermark ?? next + 1 };
      } catch (thrown) {
        if (thrown instanceof OutsideLog) return { ...want, messages, highWatermark: next + 1 };
        if (!(thrown instanceof ReelflowError && thrown.kind === 'undecodableBatch')) throw thrown;
      }
    }
    throw refusal;
  }

  async close(): Promise<void> {
    await this.#cluster.disconnect().catch(() => undefined);
  }

  async #prepare(wants: readonly Want[]): Promise<void> {
    if (!this.#connected) {
      await this.#cluster.connect();
      this.#connected = true;
    }
    const fresh = wants.map(({ topic }) => topic).filter((topic) => !this.#topics.has(topic));
    if (fresh.length > 0) {
      await this.#cluster.addMultipleTargetTopics(fresh);
      for (const topic of fresh) this.#topics.add(topic);
    }
    await this.#cluster.refreshMetadataIfNecessary();
  }

  #byLeader(wants: readonly Want[]): Map<string, Want[]> {
    const byLeader = new Map<string, Want[]>();
    for (const want of wants) {
      const leaders = this.#cluster.findLeaderForPartitions(want.topic, [want.partition]);
      const [leader] = Object.keys(leaders);
      if (leader === undefined)
        throw new LogInterrupted(new Error(`${want.topic}/${want.partition} has no leader`));
      const own = byLeader.get(leader);
      if (own === undefined) byLeader.set(leader, [want]);
      else own.push(want);
    }
    return byLeader;
  }

  async #fetchFrom(nodeId: string, wants: readonly Want[], limits: FetchLimits): Promise<Fetched[]> {
    const broker = await this.#cluster.findBroker({ nodeId });
    const topics = new Map<string, { partition: number; fetchOffset: string; maxBytes: number }[]>();
    for (const { topic, partition, next } of wants) {
      const partitions = topics.get(topic) ?? [];
      partitions.push({
        partition,
        fetchOffset: String(next),
        maxBytes: limits.partitionBytesMax ?? 1024 * 1024,
      });
      topics.set(topic, partitions);
    }
    const { responses } = await broker.fetch({
      maxWaitTime: limits.waitMs,
      minBytes: 1,
      maxBytes: limits.bytesMax ?? 16 * 1024 * 1024,
      isolationLevel: isolationReadCommitted,
      topics: [...topics].map(([topic, partitions]) => ({ topic, partitions })),
    });
    return responses.flatMap(({ topicName, partitions }) =>
      partitions.map((answer): Fetched => {
        const want = wants.find(
          ({ topic, partition }) => topic === topicName && partition === answer.partition,
        ) as Want;
        const batch = new Batch(topicName, String(want.next), answer);
        const real = new Set(batch.messages);
        const messages = batch.messagesWithinOffset.map(
          (message): LogMessage => ({
            offset: Number(message.offset),
            timestampMs: Number(message.timestamp),
            leaderEpoch: message.batchContext?.partitionLeaderEpoch,
            key: message.key,
            value: message.value,
            headers: message.headers,
            isMarker: !real.has(message),
            isUndecodable: false,
          }),
        );
        // With several partitions an answer may be empty because the others filled the response.
        if (messages.length === 0 && wants.length === 1)
          messages.push(...emptyBatchMarker(want.next, answer, limits));
        return { ...want, highWatermark: Number(answer.highWatermark), messages };
      }),
    );
  }

  /** Removes a broker and closes its connections, which kafkajs would leave open. */
  #drop(host: string, port: number): void {
    const dropped = Object.values(this.#cluster.brokerPool.brokers).find(
      ({ connectionPool }) => connectionPool.host === host && connectionPool.port === port,
    );
    this.#cluster.removeBroker({ host, port });
    dropped?.disconnect().catch(() => undefined);
  }

  /** @returns what to throw, or undefined when neither Kafka nor the network is the reason */
  async #explain(thrown: unknown): Promise<unknown> {
    if (thrown instanceof ReelflowError || thrown instanceof LogInterrupted || thrown instanceof OutsideLog) {
      return thrown;
    }
    const known = asBrokerError(thrown, this.#broker.endpoints);
    if (isRefusal(known)) return known;
    const error = thrown as {
      name?: string;
      topic?: string;
      partition?: number;
      host?: string;
      port?: number;
    };
    if (error.name === 'KafkaJSOffsetOutOfRange') {
      return new OutsideLog(String(error.topic), Number(error.partition));
    }
    const isNamed = error.name?.startsWith('KafkaJS') === true && error.name !== 'KafkaJSPartialMessageError';
    if (isNamed || known instanceof ReelflowError) {
      if (error.host !== undefined && error.port !== undefined) {
        this.#drop(error.host, error.port);
      }
      await this.#cluster.refreshMetadata().catch(() => undefined);
      return new LogInterrupted(known);
    }
    return undefined;
  }
}
