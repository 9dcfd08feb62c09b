/**
 * Reads consumer groups without joining, committing or changing anything. What the cluster does not report is absent,
 * never zero.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import kafkajs, { type Admin, type GroupDescription } from 'kafkajs';
import { type Broker, withAdmin } from './client.ts';

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
