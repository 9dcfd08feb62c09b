/**
 * Membership of a consumer group and nothing else: a permanently paused kafkajs consumer keeps the heartbeat and the
 * assignment, while `log.ts` reads the data. `shard-assignment.ts` assigns whole shards.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import type { Consumer } from 'kafkajs';
import { messageOf, ReelflowError } from '../runtime/errors.ts';
import type { Broker } from './client.ts';
import { asBrokerError, kafkaCodeOf } from './failures.ts';
import { withCoordinator } from './groups.ts';
import { type ShardAssignment, wholeShards } from './shard-assignment.ts';

const sessionTimeoutMs = 6_000;
const heartbeatIntervalMs = 1_000;
/** How long leaving may take: kafkajs waits for pending requests, on a dead connection for half a minute. */
const leaveWithinMs = 5_000;

export interface MembershipOptions extends ShardAssignment {
  readonly broker: Broker;
  readonly groupId: string;
  /** Receives the shards of this member at every rebalance; it owns no others. */
  readonly onAssigned: (shards: readonly number[]) => void;
  /** The membership has ended permanently. */
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
      // While everything is paused, kafkajs sleeps this long between two checks of the heartbeat.
      maxWaitTimeInMs: 250,
      allowAutoTopicCreation: false,
      partitionAssigners: [wholeShards(options)],
      // A crash (coordinator loading, connection cut) during `leave` would restart the consumer after its disconnect: a
      // ghost that heartbeats permanently, keeps the process alive and withholds its shards from other members.
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

  /** Commits offsets to the group, for monitors. A rebalance may refuse the commit; the next one covers it. */
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
      this.#options.broker.logger.debug({ reason: messageOf(thrown) }, 'offsets not committed');
    }
  }

  /** Leaves the group. Without an answer, the coordinator removes this member when its session times out. */
  async leave(): Promise<void> {
    this.#stopping = true;
    const left = this.#consumer.disconnect().catch(() => undefined);
    await Promise.race([left, sleep(leaveWithinMs, undefined, { ref: false })]);
  }
}

/**
 * Commits for a group without members. kafkajs' admin would join the group first, which takes seconds per topic.
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

/** Maps the error with which kafkajs ended the membership. */
function asGroupError(thrown: unknown, { groupId, broker }: MembershipOptions): unknown {
  if (kafkaCodeOf(thrown) === 'INCONSISTENT_GROUP_PROTOCOL') {
    return new ReelflowError('busy', 'Another program is a member of our consumer group', {
      detail: `Group ${groupId}: ${messageOf(thrown)}`,
      hint: 'End it, or use another --namespace.',
      cause: thrown,
    });
  }
  return asBrokerError(thrown, broker.endpoints);
}
