/**
 * Reads consumer groups without joining, committing or changing anything: groups of the classic protocol, of the consumer
 * protocol (KIP-848), of the streams protocol (KIP-1071) by their commits alone, and those that only commit. What the cluster
 * does not report is null or absent, never zero, and a group that cannot be read does not affect the others.
 */
import kafkajs, { type Admin, type GroupDescription } from 'kafkajs';
import type Cluster from 'kafkajs/src/cluster/index.js';
import { messageOf } from '../runtime/errors.ts';
import { type Broker, withAdmin, withCluster } from './client.ts';
import {
  canDescribeConsumerGroups,
  type DescribedGroup,
  describeConsumerGroup,
  isUnknownGroup,
} from './consumer-group-describe.ts';
import { asBrokerError, brokerFailureOf, kafkaCodeOf } from './failures.ts';
import { patiently } from './patience.ts';

export interface CommittedOffset {
  /** Next offset to read, exclusive. */
  readonly next: number;
  readonly metadata: string;
}

/** Member ids by topic and partition; absent where no member is assigned. */
type Owners = ReadonlyMap<string, ReadonlyMap<number, string>>;

export interface Group {
  readonly exists: boolean;
  /** null while it is unknown: during a rebalance, and for assignments in a format of their own. */
  readonly owners: Owners | null;
  /** Number of members; null while it is unknown. */
  readonly members: number | null;
  /** Topics to which its members subscribe; null without members, and while it is unknown. */
  readonly subscribed: ((topic: string) => boolean) | null;
  /** topic → partition; only where an offset is committed */
  readonly committed: ReadonlyMap<string, ReadonlyMap<number, CommittedOffset>>;
  /** Why the group could not be read; null when it could. */
  readonly problem: string | null;
  /** Whether the problem is a right that the user lacks. */
  readonly isRefused?: boolean;
}

const readable = { problem: null, isRefused: false };

/** A group that the cluster does not know. */
const absent: Group = {
  exists: false,
  owners: new Map(),
  members: 0,
  subscribed: null,
  committed: new Map(),
  ...readable,
};

/** Groups as they are now, by name. @throws ReelflowError brokerUnreachable */
export async function readGroups(broker: Broker, names: readonly string[]): Promise<Map<string, Group>> {
  if (names.length === 0) return new Map();
  return withAdmin(broker, async (admin) => {
    const classic = await describedGroups(broker, admin, names);
    // The older request reports a group of the consumer protocol as "Dead", like one that does not exist.
    const others = names.filter((name) => {
      const description = classic.get(name);
      return !(description instanceof Unread) && (description?.state ?? 'Dead') === 'Dead';
    });
    const newer = others.length === 0 ? new Map() : await readConsumerGroups(broker, others);
    const unknown = others.filter((name) => !newer.has(name));
    const kinds = unknown.length === 0 ? new Map() : await listedGroups(admin);
    const groups = new Map<string, Group>();
    for (const name of names) {
      const committed = await committedBy(broker, admin, name);
      const description = classic.get(name);
      const membership =
        newer.get(name) ??
        membersOfKind(kinds.get(name)) ??
        (description instanceof Unread ? description : classicMembersOf(description));
      groups.set(name, groupOf(membership, committed));
    }
    return groups;
  });
}

/** Names of all groups that commit offsets: members of any protocol, or commits alone. @throws ReelflowError */
export async function listGroups(broker: Broker): Promise<string[]> {
  return withAdmin(broker, async (admin) =>
    [...(await listedGroups(admin))]
      .filter(([, kind]) => ['consumer', 'streams', ''].includes(kind))
      .map(([group]) => group)
      .sort(),
  );
}

/** The kind of each group of the cluster: consumer, streams, share, connect, …, or empty for a group that only commits. */
async function listedGroups(admin: Admin): Promise<Map<string, string>> {
  const { groups } = await withCoordinator(() => admin.listGroups());
  return new Map(groups.map(({ groupId, protocolType }) => [groupId, protocolType]));
}

/** A part of a group that could not be read. */
class Unread {
  readonly problem: string;
  readonly isRefused: boolean;

  constructor(thrown: unknown) {
    const { cause, hint } = thrown as { cause?: unknown; hint?: string };
    const what = cause instanceof Error ? `${messageOf(thrown)}: ${cause.message}` : messageOf(thrown);
    this.isRefused = brokerFailureOf(thrown) === 'rights';
    this.problem = this.isRefused ? `${what}. ${hint}` : what;
  }
}

/** A group with a topic that the user may not describe: the broker leaves out what the group has committed there. */
export function withRefusedTopic(group: Group, refusal: unknown): Group {
  return { ...group, ...(group.problem === null && new Unread(refusal)), exists: true };
}

type GroupMembers = Pick<Group, 'exists' | 'owners' | 'members' | 'subscribed'>;

const withoutMembers: GroupMembers = { exists: true, owners: new Map(), members: 0, subscribed: null };

/** Of groups that no request here describes; undefined for a kind that the other requests describe. */
function membersOfKind(kind: string | undefined): GroupMembers | Unread | undefined {
  if (kind === 'streams') return { exists: true, owners: null, members: null, subscribed: null };
  if (kind !== 'share') return undefined;
  return new Unread(
    new Error('a share group (KIP-932), which commits no offsets: see kafka-share-groups.sh --describe'),
  );
}

function groupOf(membership: GroupMembers | Unread, committed: Group['committed'] | Unread): Group {
  const commits: Group['committed'] = committed instanceof Unread ? new Map() : committed;
  if (membership instanceof Unread) {
    return { exists: true, owners: null, members: null, subscribed: null, committed: commits, ...membership };
  }
  const exists = membership.exists || commits.size > 0 || committed instanceof Unread;
  if (!exists) return absent;
  const { problem, isRefused } = committed instanceof Unread ? committed : readable;
  return { ...membership, exists, committed: commits, problem, isRefused };
}

/** Keeps a failure that concerns one group with that group. @throws failures that concern the whole cluster */
function unread(broker: Broker, thrown: unknown): Unread {
  const failure = brokerFailureOf(thrown);
  const isOfGroup =
    failure === 'unavailable' ||
    failure === 'refused' ||
    (failure === 'rights' && kafkaCodeOf(thrown) !== 'CLUSTER_AUTHORIZATION_FAILED');
  if (!isOfGroup) throw thrown;
  return new Unread(asBrokerError(thrown, broker.endpoints));
}

async function describedGroups(
  broker: Broker,
  admin: Admin,
  names: readonly string[],
): Promise<Map<string, GroupDescription | Unread>> {
  try {
    const { groups } = await withCoordinator(() => admin.describeGroups([...names]));
    return new Map(groups.map((group) => [group.groupId, group]));
  } catch (thrown) {
    const [name] = names;
    const problem = unread(broker, thrown);
    if (names.length === 1 && name !== undefined) return new Map([[name, problem]]);
    // One group fails the request for all: ask for each alone.
    const found = new Map<string, GroupDescription | Unread>();
    for (const one of names)
      for (const entry of await describedGroups(broker, admin, [one])) found.set(...entry);
    return found;
  }
}

async function committedBy(
  broker: Broker,
  admin: Admin,
  groupId: string,
): Promise<Group['committed'] | Unread> {
  try {
    const committed = new Map<string, Map<number, CommittedOffset>>();
    for (const { topic, partitions } of await withCoordinator(() => admin.fetchOffsets({ groupId }))) {
      const known = partitions.filter(({ offset }) => Number(offset) >= 0);
      if (known.length === 0) continue;
      const entries = known.map(
        ({ partition, offset, metadata }) =>
          [partition, { next: Number(offset), metadata: metadata ?? '' }] as const,
      );
      committed.set(topic, new Map(entries));
    }
    return committed;
  } catch (thrown) {
    return unread(broker, thrown);
  }
}

/** A group of the classic protocol. */
function classicMembersOf(group: GroupDescription | undefined): GroupMembers {
  if (group === undefined || group.state === 'Dead') return absent;
  if (group.state === 'Empty') return withoutMembers;
  const unknown = { exists: true, owners: null, members: group.members.length, subscribed: null };
  if (group.state !== 'Stable' || group.protocolType !== 'consumer') return unknown;
  const owners = new Map<string, Map<number, string>>();
  const topics = new Set<string>();
  try {
    for (const { memberId, memberAssignment, memberMetadata } of group.members) {
      const { AssignerProtocol } = kafkajs;
      const assignment = AssignerProtocol.MemberAssignment.decode(memberAssignment)?.assignment ?? {};
      assign(owners, memberId, Object.entries(assignment));
      for (const topic of AssignerProtocol.MemberMetadata.decode(memberMetadata)?.topics ?? [])
        topics.add(topic);
    }
  } catch {
    // Only the assignor of this group can decode these bytes.
    return unknown;
  }
  for (const topic of owners.keys()) topics.add(topic);
  return { exists: true, owners, members: group.members.length, subscribed: (topic) => topics.has(topic) };
}

function assign(
  owners: Map<string, Map<number, string>>,
  memberId: string,
  assignment: Iterable<readonly [string, readonly number[]]>,
): void {
  for (const [topic, partitions] of assignment) {
    const known = owners.get(topic) ?? new Map<number, string>();
    for (const partition of partitions) known.set(partition, memberId);
    owners.set(topic, known);
  }
}

/** Those of the groups that use the consumer protocol. */
async function readConsumerGroups(
  broker: Broker,
  names: readonly string[],
): Promise<Map<string, GroupMembers | Unread>> {
  return withCluster(broker, [], async (cluster) => {
    const found = new Map<string, GroupMembers | Unread>();
    for (const name of names) {
      try {
        const group = await withCoordinator(() => describedConsumerGroup(cluster, name));
        if (group !== undefined) found.set(name, consumerMembersOf(group));
      } catch (thrown) {
        found.set(name, unread(broker, thrown));
      }
    }
    return found;
  });
}

/** @returns undefined if no group of this name uses the consumer protocol */
async function describedConsumerGroup(cluster: Cluster, name: string): Promise<DescribedGroup | undefined> {
  const coordinator = await cluster.findGroupCoordinator({ groupId: name });
  if (!canDescribeConsumerGroups(coordinator)) return undefined;
  const group = await describeConsumerGroup(coordinator, name);
  if (group === undefined || isUnknownGroup(group)) return undefined;
  if (group.errorCode !== 0) throw protocolError(group);
  return group;
}

/** Codes of ConsumerGroupDescribe, as kafkajs names them for other requests. */
const codeNames: Readonly<Record<number, string>> = {
  14: 'GROUP_LOAD_IN_PROGRESS',
  15: 'GROUP_COORDINATOR_NOT_AVAILABLE',
  16: 'NOT_COORDINATOR_FOR_GROUP',
  30: 'GROUP_AUTHORIZATION_FAILED',
};

function protocolError({ errorCode, errorMessage }: DescribedGroup): Error {
  const type = codeNames[errorCode] ?? 'KAFKAJS_UNKNOWN_ERROR_CODE';
  const text = errorMessage ?? `ConsumerGroupDescribe failed with error code ${errorCode}`;
  return Object.assign(new Error(text), { name: 'KafkaJSProtocolError', type, retriable: errorCode !== 30 });
}

function consumerMembersOf({ state, members }: DescribedGroup): GroupMembers {
  if (state === 'Dead') return absent;
  if (members.length === 0) return withoutMembers;
  const owners = new Map<string, Map<number, string>>();
  for (const { memberId, assignment } of members) assign(owners, memberId, assignment);
  return {
    exists: true,
    // While members change, a partition may be between two of them.
    owners: state === 'Stable' ? owners : null,
    members: members.length,
    subscribed: subscriptionOf(members, owners),
  };
}

function subscriptionOf(members: DescribedGroup['members'], owners: Owners): Group['subscribed'] {
  const topics = new Set([...members.flatMap(({ subscribedTopics }) => subscribedTopics), ...owners.keys()]);
  const patterns: RegExp[] = [];
  for (const { subscribedPattern } of members) {
    if (subscribedPattern === null || subscribedPattern === '') continue;
    try {
      patterns.push(new RegExp(`^(?:${subscribedPattern})$`));
    } catch {
      // RE2 syntax that JavaScript does not have.
      return null;
    }
  }
  return (topic) => topics.has(topic) || patterns.some((pattern) => pattern.test(topic));
}

/**
 * A new cluster creates the topic of committed offsets when the first client asks for a coordinator. A command that only looks
 * waits for less than one that acts.
 */
export const coordinatorPatienceMs = { looking: 6_000, acting: 30_000 };

/** kafkajs does not, or not for long, repeat requests about groups when the coordinator has just moved, loads, or is missing. */
export function withCoordinator<T>(
  request: () => Promise<T>,
  patienceMs = coordinatorPatienceMs.looking,
): Promise<T> {
  return patiently(request, 200, (thrown) => (brokerFailureOf(thrown) === 'unavailable' ? patienceMs : 0));
}
