/**
 * Membership of a consumer group and nothing else: a kafkajs consumer that is paused for ever keeps the heartbeat and
 * the assignment, while the data is read by `log.ts`. Whole shards are assigned: partition p of every topic goes to
 * one member. kafkajs' own assigner deals partitions out one by one, which would split a shard.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import kafkajs, { type Consumer, type PartitionAssigner } from 'kafkajs';
import { messageOf, ReelflowError } from '../runtime/errors.ts';
import { asBrokerError, type Broker } from './client.ts';
import { withCoordinator } from './groups.ts';

const { MemberAssignment, MemberMetadata } = kafkajs.AssignerProtocol;

const sessionTimeoutMs = 6_000;
const heartbeatIntervalMs = 1_000;
/** How long leaving may take: kafkajs waits for requests under way, on a dead connection half a minute. */
const leaveWithinMs = 5_000;

/** What a member says of itself when it joins: for each shard that it holds a store of, how far that store is. */
export type Freshness = ReadonlyMap<number, number>;

export interface MembershipOptions {
  readonly broker: Broker;
  readonly groupId: string;
  readonly topics: readonly string[];
  /** `shards` deals shards out evenly, to those who have the freshest store; `single` gives all to one member. */
  readonly assignment: 'shards' | 'single';
  readonly freshness: () => Freshness;
  /** The shards that are this member's from now on, all others are not. Called at every rebalance. */
  readonly onAssigned: (shards: readonly number[]) => void;
  /** The membership is over for good. */
  readonly onCrash: (reason: unknown) => void;
}

export interface Commit {
  readonly topic: string;
  readonly partition: number;
  readonly next: number;
  readonly metadata: string;
}

export class Membership {
  readonly #consumer: Consumer;
  readonly #options: MembershipOptions;
  #stopping = false;

  private constructor(options: MembershipOptions) {
    this.#options = options;
    this.#consumer = options.broker.kafka.consumer({
      groupId: options.groupId,
      sessionTimeout: sessionTimeoutMs,
      rebalanceTimeout: sessionTimeoutMs,
      heartbeatInterval: heartbeatIntervalMs,
      // While everything is paused this is how long kafkajs sleeps between two looks at the heartbeat.
      maxWaitTimeInMs: 250,
      allowAutoTopicCreation: false,
      partitionAssigners: [wholeShards(options)],
      // A crash (the coordinator is loading, a connection is cut) that meets with `leave` would start it again after it
      // was disconnected: a ghost that heartbeats for ever, keeps the process alive and the shards from others.
      retry: { retries: 5, restartOnFailure: async () => !this.#stopping },
    });
  }

  /** Joins the group; assignments arrive through `onAssigned`. @throws ReelflowError brokerUnreachable */
  static async join(options: MembershipOptions): Promise<Membership> {
    const membership = new Membership(options);
    const consumer = membership.#consumer;
    const { CRASH, GROUP_JOIN } = consumer.events;
    consumer.on(CRASH, ({ payload }) => {
      if (!membership.#stopping && !payload.restart) options.onCrash(asGroupError(payload.error, options));
    });
    consumer.on(GROUP_JOIN, ({ payload }) => {
      // Synchronously, before kafkajs fetches anything for this assignment.
      consumer.pause(options.topics.map((topic) => ({ topic })));
      const shards = new Set(Object.values(payload.memberAssignment).flat());
      options.onAssigned([...shards].sort((a, b) => a - b));
    });
    try {
      await consumer.connect();
      await consumer.subscribe({ topics: [...options.topics] });
      await consumer.run({ autoCommit: false, eachBatch: async () => undefined });
    } catch (thrown) {
      await consumer.disconnect().catch(() => undefined);
      throw asBrokerError(thrown, options.broker.endpoints);
    }
    return membership;
  }

  /** Mirrors positions to the group, for monitors. A rebalance in this moment may refuse it; the next one tells. */
  async commit(commits: readonly Commit[]): Promise<void> {
    try {
      await this.#consumer.commitOffsets(
        commits.map(({ topic, partition, next, metadata }) => ({
          topic,
          partition,
          offset: String(next),
          metadata,
        })),
      );
    } catch (thrown) {
      this.#options.broker.logger.debug({ reason: messageOf(thrown) }, 'positions not mirrored');
    }
  }

  /** Leaves the group; without an answer the group forgets this member when its session ends. */
  async leave(): Promise<void> {
    this.#stopping = true;
    const left = this.#consumer.disconnect().catch(() => undefined);
    await Promise.race([left, sleep(leaveWithinMs, undefined, { ref: false })]);
  }
}

/**
 * Commits for a group that nobody is a member of; kafkajs' admin would join it first, which takes seconds a topic.
 * @throws KafkaJSError, also when the group has a member
 */
export async function commitAlone(
  broker: Broker,
  groupId: string,
  commits: readonly Omit<Commit, 'metadata'>[],
): Promise<void> {
  const cluster = broker.createCluster();
  try {
    await cluster.connect();
    await withCoordinator(async () => {
      const coordinator = await cluster.findGroupCoordinator({ groupId });
      await coordinator.offsetCommit({
        groupId,
        groupGenerationId: -1,
        memberId: '',
        topics: commits.map(({ topic, partition, next }) => ({
          topic,
          partitions: [{ partition, offset: String(next), metadata: '' }],
        })),
      });
    });
  } finally {
    await cluster.disconnect();
  }
}

function wholeShards({ topics, assignment, freshness }: MembershipOptions): PartitionAssigner {
  const name = assignment === 'shards' ? 'reelflow-shards' : 'reelflow-single';
  return ({ cluster }) => ({
    name,
    version: 1,
    protocol: () => ({
      name,
      metadata: MemberMetadata.encode({
        version: 1,
        topics: [...topics],
        userData: Buffer.from(JSON.stringify([...freshness()])),
      }),
    }),
    assign: async ({ members }) => {
      const count = Math.max(...topics.map((topic) => cluster.findTopicPartitionMetadata(topic).length));
      const claims = members.map(({ memberId, memberMetadata }) => ({
        memberId,
        freshness: readFreshness(MemberMetadata.decode(memberMetadata)?.userData),
      }));
      const owners = assignment === 'shards' ? dealShards(count, claims) : dealAllToOne(count, claims);
      return members.map(({ memberId }) => {
        const own = owners.flatMap((owner, shard) => (owner === memberId ? [shard] : []));
        return {
          memberId,
          memberAssignment: MemberAssignment.encode({
            version: 1,
            userData: Buffer.alloc(0),
            assignment: Object.fromEntries(
              topics.map((topic) => {
                const partitions = cluster.findTopicPartitionMetadata(topic).length;
                return [topic, own.filter((shard) => shard < partitions)];
              }),
            ),
          }),
        };
      });
    },
  });
}

/** Why kafkajs has given the membership up, as an error for people. */
function asGroupError(thrown: unknown, { groupId, broker }: MembershipOptions): unknown {
  if ((thrown as { type?: string }).type === 'INCONSISTENT_GROUP_PROTOCOL') {
    return new ReelflowError('busy', 'Another program is a member of our consumer group', {
      detail: `Group ${groupId}: ${messageOf(thrown)}`,
      hint: 'End it, or use another --namespace.',
      cause: thrown,
    });
  }
  return asBrokerError(thrown, broker.endpoints);
}

export interface Claim {
  readonly memberId: string;
  readonly freshness: Freshness;
}

/**
 * Deals shards out: nobody gets more than one shard more than another, and within that a shard goes to the member
 * whose store of it is furthest. Pure and independent of the order of the claims.
 * @returns the member of each shard
 */
export function dealShards(count: number, claims: readonly Claim[]): string[] {
  const members = [...claims].sort((a, b) => (a.memberId < b.memberId ? -1 : 1));
  const least = Math.floor(count / members.length);
  let larger = count % members.length;
  const held = new Map(members.map(({ memberId }) => [memberId, 0]));
  const owners: string[] = new Array(count);
  const hasRoom = (memberId: string) => {
    const shards = held.get(memberId) ?? 0;
    return shards < least || (shards === least && larger > 0);
  };
  const give = (shard: number, memberId: string) => {
    const shards = (held.get(memberId) ?? 0) + 1;
    if (shards > least) larger -= 1;
    held.set(memberId, shards);
    owners[shard] = memberId;
  };
  const wishes = members
    .flatMap(({ memberId, freshness }) =>
      [...freshness].map(([shard, applied]) => ({ memberId, shard, applied })),
    )
    .filter(({ shard }) => shard < count)
    .sort((a, b) => b.applied - a.applied || a.shard - b.shard || (a.memberId < b.memberId ? -1 : 1));
  for (const { memberId, shard } of wishes) {
    if (owners[shard] === undefined && hasRoom(memberId)) give(shard, memberId);
  }
  for (let shard = 0; shard < count; shard++) {
    if (owners[shard] !== undefined) continue;
    const poorest = members.reduce((a, b) =>
      (held.get(b.memberId) ?? 0) < (held.get(a.memberId) ?? 0) ? b : a,
    );
    give(shard, poorest.memberId);
  }
  return owners;
}

/** All to the first member that already has a store, else to the first by name. */
function dealAllToOne(count: number, claims: readonly Claim[]): string[] {
  const [first] = [...claims].sort(
    (a, b) => b.freshness.size - a.freshness.size || (a.memberId < b.memberId ? -1 : 1),
  );
  return new Array(count).fill(first?.memberId);
}

function readFreshness(userData: Buffer | undefined): Freshness {
  try {
    const entries: unknown = JSON.parse(userData?.toString() ?? '');
    if (!Array.isArray(entries)) return new Map();
    return new Map(
      entries.filter(
        (entry): entry is [number, number] =>
          Array.isArray(entry) && Number.isInteger(entry[0]) && Number.isFinite(entry[1]),
      ),
    );
  } catch {
    return new Map();
  }
}
