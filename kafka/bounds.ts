/**
 * Start and end offsets of partitions: three small requests to each leader, however many topics there are. An offset
 * that no leader reports is an error or absent, never zero.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import type Cluster from 'kafkajs/src/cluster/index.js';
import { type Broker, withAdmin, withCluster } from './client.ts';
import { isUnknownTopic, isWithoutLeader } from './failures.ts';

export interface LogBounds {
  /** First offset that the log still holds. */
  readonly start: number;
  /** Offset after the last message that a consumer of committed messages can read. */
  readonly end: number;
}

/** By topic and partition. */
export type BoundsByTopic = Map<string, Map<number, LogBounds>>;

/** A requested topic does not exist. */
export class UnknownTopic extends Error {
  constructor(topic: string, cause: unknown) {
    super(`${topic} does not exist`, { cause });
    this.name = 'UnknownTopic';
  }
}

/** How long a topic may be without a leader: after its creation, or while leadership moves. */
const leaderPatienceMs = 10_000;
/** How long a broker may take to learn of a topic that another one has just created. */
const unknownPatienceMs = 2_000;

/** Bounds of all partitions of all these topics. @throws UnknownTopic, ReelflowError brokerUnreachable */
export async function logBounds(broker: Broker, topics: readonly string[]): Promise<BoundsByTopic> {
  const startedMs = performance.now();
  for (;;) {
    try {
      return await readBounds(broker, topics);
    } catch (thrown) {
      const waitedMs = performance.now() - startedMs;
      if (isUnknownTopic(thrown)) {
        if (waitedMs > unknownPatienceMs) throw await asUnknownTopic(broker, topics, thrown);
      } else if (!isWithoutLeader(thrown) || waitedMs > leaderPatienceMs) throw thrown;
      await sleep(100);
    }
  }
}

/** Bounds of those of the topics that exist and answer. @throws ReelflowError brokerUnreachable */
export async function availableLogBounds(broker: Broker, topics: readonly string[]): Promise<BoundsByTopic> {
  const existing = await withAdmin(broker, async (admin) => new Set(await admin.listTopics()));
  const requested = [...new Set(topics)].filter((topic) => existing.has(topic));
  try {
    return await readBounds(broker, requested);
  } catch (thrown) {
    // One topic that has just been deleted or has no leader fails the request for all: ask for each alone.
    const found = await Promise.all(
      requested.map((topic) => readBounds(broker, [topic]).catch((): BoundsByTopic => new Map())),
    );
    const answered = found.flatMap((bounds) => [...bounds]);
    if (answered.length === 0) throw thrown;
    return new Map(answered);
  }
}

async function readBounds(broker: Broker, topics: readonly string[]): Promise<BoundsByTopic> {
  if (topics.length === 0) return new Map();
  return withCluster(broker, topics, async (cluster) => {
    // One after the other: while a connection opens, a second request makes kafkajs open another one and forget it.
    const starts = await readOffsets(cluster, topics, true);
    const ends = await readOffsets(cluster, topics, false);
    const bounds: BoundsByTopic = new Map();
    for (const [topic, partitions] of ends) {
      const known = new Map<number, LogBounds>();
      for (const [partition, end] of partitions) {
        const start = starts.get(topic)?.get(partition);
        if (start !== undefined) known.set(partition, { start, end });
      }
      bounds.set(topic, known);
    }
    return bounds;
  });
}

async function readOffsets(
  cluster: Cluster,
  topics: readonly string[],
  fromBeginning: boolean,
): Promise<Map<string, Map<number, number>>> {
  const requests = topics.map((topic) => ({
    topic,
    fromBeginning,
    partitions: cluster
      .findTopicPartitionMetadata(topic)
      .map(({ partitionId }) => ({ partition: partitionId })),
  }));
  const answers = await cluster.fetchTopicsOffset(requests);
  return new Map(
    answers.map(({ topic, partitions }) => [
      topic,
      new Map(partitions.map(({ partition, offset }) => [partition, Number(offset)])),
    ]),
  );
}

async function asUnknownTopic(broker: Broker, topics: readonly string[], thrown: unknown): Promise<unknown> {
  const existing = await withAdmin(broker, async (admin) => new Set(await admin.listTopics()));
  // kafkajs names no topic. One that exists again by now is named with the others.
  const missing = topics.filter((topic) => !existing.has(topic));
  return new UnknownTopic((missing.length > 0 ? missing : topics).join(', '), thrown);
}
