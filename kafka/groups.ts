/**
 * Consumer groups and the ends of topics, for looking on: nothing is joined, committed or changed. Requests are few
 * however many topics there are. What the cluster does not tell is absent, never zero.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import kafkajs, { type Admin, type GroupDescription } from 'kafkajs';
import { asBrokerError, type Broker, withAdmin } from './client.ts';
import type { LogBounds } from './log.ts';

/** The cluster object's own request for many topics at once; kafkajs' admin asks for one topic at a time. */
interface OffsetsOfTopics {
  fetchTopicsOffset(
    topics: { topic: string; partitions: { partition: number }[]; fromBeginning: boolean }[],
  ): Promise<{ topic: string; partitions: { partition: number; offset: string }[] }[]>;
}

export interface CommittedOffset {
  /** Next offset to read, exclusive. */
  readonly next: number;
  readonly metadata: string;
}

/** Members by topic and partition; absent where nobody is assigned. */
export type Owners = ReadonlyMap<string, ReadonlyMap<number, string>>;

export interface Group {
  readonly exists: boolean;
  /** null while it cannot be told: in a rebalance, and for groups of the newer protocol. */
  readonly owners: Owners | null;
  /** topic → partition; only where there is a commit */
  readonly committed: ReadonlyMap<string, ReadonlyMap<number, CommittedOffset>>;
}

/** Groups as they are now, by name. @throws ReelflowError brokerUnreachable */
export async function readGroups(broker: Broker, names: readonly string[]): Promise<Map<string, Group>> {
  return withAdmin(broker, async (admin) => {
    const described = await withCoordinator(() => admin.describeGroups([...names]));
    const descriptions = new Map(described.groups.map((group) => [group.groupId, group]));
    const groups = new Map<string, Group>();
    for (const name of names) {
      const committed = new Map<string, Map<number, CommittedOffset>>();
      for (const { topic, partitions } of await fetchOffsets(admin, name)) {
        const known = partitions.filter(({ offset }) => Number(offset) >= 0);
        if (known.length === 0) continue;
        const entries = known.map(
          ({ partition, offset, metadata }) =>
            [partition, { next: Number(offset), metadata: metadata ?? '' }] as const,
        );
        committed.set(topic, new Map(entries));
      }
      // To a broker, a group that was never there is "Dead". One of the newer protocol may be called so, too.
      const description = descriptions.get(name);
      const isDead = description === undefined || description.state === 'Dead';
      const exists = !isDead || committed.size > 0;
      groups.set(name, { exists, owners: exists ? ownersOf(description) : new Map(), committed });
    }
    return groups;
  });
}

function ownersOf(group: GroupDescription | undefined): Owners | null {
  if (group?.state === 'Empty') return new Map();
  if (group?.state !== 'Stable' || group.protocolType !== 'consumer') return null;
  const owners = new Map<string, Map<number, string>>();
  try {
    for (const { memberId, memberAssignment } of group.members) {
      const assignment = kafkajs.AssignerProtocol.MemberAssignment.decode(memberAssignment)?.assignment ?? {};
      for (const [topic, partitions] of Object.entries(assignment)) {
        const known = owners.get(topic) ?? new Map<number, string>();
        for (const partition of partitions) known.set(partition, memberId);
        owners.set(topic, known);
      }
    }
    return owners;
  } catch {
    // Bytes that only this group's own assigner understands.
    return null;
  }
}

const fetchOffsets = (admin: Admin, groupId: string) =>
  withCoordinator(() => admin.fetchOffsets({ groupId }));

/** kafkajs does not repeat requests about groups when the coordinator has just moved, or is not there yet. */
export async function withCoordinator<T>(request: () => Promise<T>): Promise<T> {
  for (let attempt = 1; ; attempt++) {
    try {
      return await request();
    } catch (thrown) {
      const { name, retriable } = thrown as { name?: string; retriable?: boolean };
      if (attempt === 10 || name !== 'KafkaJSProtocolError' || retriable !== true) throw thrown;
      await sleep(200);
    }
  }
}

/**
 * Start and end offsets by topic and partition, in one request for each to every leader.
 * @returns only topics that exist and answer
 * @throws ReelflowError brokerUnreachable
 */
export async function readBounds(
  broker: Broker,
  topics: readonly string[],
): Promise<Map<string, Map<number, LogBounds>>> {
  const existing = await withAdmin(broker, async (admin) => new Set(await admin.listTopics()));
  const asked = [...new Set(topics)].filter((topic) => existing.has(topic));
  try {
    return await boundsOf(broker, asked);
  } catch (thrown) {
    // One topic that was deleted in this moment, or has no leader, spoils the answer for all: ask one by one.
    const found = await Promise.all(
      asked.map((topic) => boundsOf(broker, [topic]).catch(() => new Map<string, Map<number, LogBounds>>())),
    );
    const answered = found.flatMap((bounds) => [...bounds]);
    if (answered.length === 0) throw asBrokerError(thrown, broker.endpoints);
    return new Map(answered);
  }
}

async function boundsOf(
  broker: Broker,
  topics: readonly string[],
): Promise<Map<string, Map<number, LogBounds>>> {
  if (topics.length === 0) return new Map();
  const cluster = broker.createCluster();
  try {
    await cluster.connect();
    await cluster.addMultipleTargetTopics([...topics]);
    const offsets = async (fromBeginning: boolean) => {
      const wanted = topics.map((topic) => ({
        topic,
        fromBeginning,
        partitions: cluster
          .findTopicPartitionMetadata(topic)
          .map(({ partitionId }) => ({ partition: partitionId })),
      }));
      const answers = await (cluster as unknown as OffsetsOfTopics).fetchTopicsOffset(wanted);
      return new Map(
        answers.map(({ topic, partitions }) => [
          topic,
          new Map(partitions.map(({ partition, offset }) => [partition, Number(offset)])),
        ]),
      );
    };
    // One after the other: on a connection that is still being opened kafkajs would open a second one and forget it.
    const starts = await offsets(true);
    const ends = await offsets(false);
    return new Map(
      [...ends].map(([topic, partitions]) => [
        topic,
        new Map(
          [...partitions].map(([partition, end]) => [
            partition,
            { start: starts.get(topic)?.get(partition) ?? 0, end },
          ]),
        ),
      ]),
    );
  } finally {
    await cluster.disconnect().catch(() => undefined);
  }
}
