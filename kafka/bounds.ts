/**
 * Start and end offsets of partitions: three small requests to each leader, however many topics there are. An offset
 * that no leader reports is an error or absent, never zero.
 */
import type Cluster from 'kafkajs/src/cluster/index.js';
import { type Broker, clusterTopics, withCluster } from './client.ts';
import { isUnknownTopic, isWithoutLeader } from './failures.ts';
import { patiently } from './patience.ts';
import { partitionCounts } from './topics.ts';

export interface LogBounds {
  /** First offset that the log still holds. */
  readonly start: number;
  /** Offset after the last message that a consumer of committed messages can read. */
  readonly end: number;
}

export interface LogBoundsAndWatermark extends LogBounds {
  /**
   * Offset after the last message that is written to all in-sync replicas. Above `end` lie the messages that an open
   * transaction withholds from consumers of committed messages.
   */
  readonly highWatermark: number;
}

/** By topic and partition. */
export type BoundsByTopic<Bounds = LogBounds> = Map<string, Map<number, Bounds>>;

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

/** A topic that brokers do not know for this long counts as deleted. A broker that has just started does not know all topics. */
export const goneAfterMs = 10_000;

/** Bounds of all partitions of all these topics. @throws UnknownTopic, ReelflowError brokerUnreachable */
export async function logBounds(broker: Broker, topics: readonly string[]): Promise<BoundsByTopic> {
  const patienceMs = (thrown: unknown) => {
    if (isUnknownTopic(thrown)) return unknownPatienceMs;
    return isWithoutLeader(thrown) ? leaderPatienceMs : 0;
  };
  try {
    return await patiently(() => readOffsets(broker, topics, ofBounds), 100, patienceMs);
  } catch (thrown) {
    throw isUnknownTopic(thrown) ? await asUnknownTopic(broker, topics, thrown) : thrown;
  }
}

/**
 * Bounds of all partitions of those of the topics that exist. A topic that exists is never left out: the caller would take
 * its messages for none.
 * @throws ReelflowError brokerUnreachable, accessRefused
 */
export async function existingLogBounds(broker: Broker, topics: readonly string[]): Promise<BoundsByTopic> {
  const existing = await partitionCounts(broker, new Set(topics));
  try {
    return await logBounds(broker, [...existing.keys()]);
  } catch (thrown) {
    // One of them has just been deleted.
    if (thrown instanceof UnknownTopic) return existingLogBounds(broker, topics);
    throw thrown;
  }
}

/**
 * Bounds of those of the topics that exist and answer.
 * @param onRefused as of `partitionCounts`
 * @throws ReelflowError brokerUnreachable, accessRefused
 */
export async function availableLogBounds(
  broker: Broker,
  topics: readonly string[],
  onRefused?: (topic: string, refusal: unknown) => void,
): Promise<BoundsByTopic<LogBoundsAndWatermark>> {
  const requested = [...(await partitionCounts(broker, new Set(topics), onRefused)).keys()];
  try {
    return await readOffsets(broker, requested, ofWatermarks);
  } catch (thrown) {
    // One topic that has just been deleted or has no leader fails the request for all: ask for each alone.
    const found = await Promise.allSettled(
      requested.map((topic) => readOffsets(broker, [topic], ofWatermarks)),
    );
    const answered = found.flatMap((one) => (one.status === 'fulfilled' ? [...one.value] : []));
    if (answered.length === 0) throw thrown;
    return new Map(answered);
  }
}

/** An offset that the request ListOffsets can name. */
interface OffsetKind {
  /** Kafka's special timestamp. */
  readonly timestamp: -1 | -2;
  readonly isolationLevel: 0 | 1;
}

const ofBounds: Readonly<Record<keyof LogBounds, OffsetKind>> = {
  start: { timestamp: -2, isolationLevel: 1 },
  end: { timestamp: -1, isolationLevel: 1 },
};
const ofWatermarks: Readonly<Record<keyof LogBoundsAndWatermark, OffsetKind>> = {
  ...ofBounds,
  highWatermark: { timestamp: -1, isolationLevel: 0 },
};

/** The named offsets of each partition whose leader reports all of them. */
async function readOffsets<Name extends string>(
  broker: Broker,
  topics: readonly string[],
  kinds: Readonly<Record<Name, OffsetKind>>,
): Promise<BoundsByTopic<Record<Name, number>>> {
  const found: BoundsByTopic<Record<Name, number>> = new Map(topics.map((topic) => [topic, new Map()]));
  if (topics.length === 0) return found;
  const names = Object.keys(kinds) as Name[];
  await withCluster(broker, topics, async (cluster) => {
    // One after the other: a second request while a connection opens makes kafkajs open another one and forget it.
    for (const name of names) {
      for (const { topic, partition, offset } of await listOffsets(cluster, topics, kinds[name])) {
        const partitions = found.get(topic);
        partitions?.set(partition, { ...partitions.get(partition), [name]: offset } as Record<Name, number>);
      }
    }
  });
  for (const partitions of found.values()) {
    for (const [partition, offsets] of partitions) {
      if (names.some((name) => offsets[name] === undefined)) partitions.delete(partition);
    }
  }
  return found;
}

async function listOffsets(
  cluster: Cluster,
  topics: readonly string[],
  { timestamp, isolationLevel }: OffsetKind,
): Promise<{ topic: string; partition: number; offset: number }[]> {
  const byLeader = new Map<
    string,
    { topic: string; partitions: { partition: number; timestamp: number }[] }[]
  >();
  for (const topic of topics) {
    const ids = cluster.findTopicPartitionMetadata(topic).map(({ partitionId }) => partitionId);
    for (const [leader, own] of Object.entries(cluster.findLeaderForPartitions(topic, ids))) {
      const partitions = own.map((partition) => ({ partition, timestamp }));
      byLeader.set(leader, [...(byLeader.get(leader) ?? []), { topic, partitions }]);
    }
  }
  const answers = await Promise.all(
    [...byLeader].map(async ([nodeId, requests]) => {
      const leader = await cluster.findBroker({ nodeId });
      return leader.listOffsets({ isolationLevel, topics: requests });
    }),
  );
  return answers.flatMap(({ responses }) =>
    responses.flatMap(({ topic, partitions }) =>
      partitions.map(({ partition, offset }) => ({ topic, partition, offset: Number(offset) })),
    ),
  );
}

async function asUnknownTopic(broker: Broker, topics: readonly string[], thrown: unknown): Promise<unknown> {
  const { partitions: existing } = await clusterTopics(broker);
  // kafkajs does not say which topic is unknown. If all exist again by now, the error names all.
  const missing = topics.filter((topic) => !existing.has(topic));
  return new UnknownTopic((missing.length > 0 ? missing : topics).join(', '), thrown);
}
