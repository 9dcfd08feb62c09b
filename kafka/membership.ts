/**
 * Membership of a consumer group and nothing else: a permanently paused kafkajs consumer keeps the heartbeat and the
 * assignment, while `log.ts` reads the data. `shard-assignment.ts` assigns whole shards.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import type { Consumer } from 'kafkajs';
import { messageOf, ReelflowError } from '../runtime/errors.ts';
import type { Broker } from './client.ts';
import { asBrokerError, isPassing, isRefusal, kafkaCodeOf } from './failures.ts';
import { coordinatorPatienceMs, withCoordinator } from './groups.ts';
import { untilServed } from './outage.ts';
import { endPauses, neverFetches } from './paused-consumer.ts';
import { type ShardAssignment, wholeShards } from './shard-assignment.ts';

/** After this time without a heartbeat the coordinator removes a member. */
export const sessionTimeoutMs = 6_000;
const heartbeatIntervalMs = 1_000;
/** How long leaving may take: kafkajs waits for pending requests, on a dead connection for half a minute. */
const leaveWithinMs = 5_000;
const commitAgainMs = 1_000;
/** How long leaving waits for commits: in an outage kafkajs repeats one for ten seconds. */
const commitWithinMs = 2_000;

/** Names the activity to the outage monitor. */
const membership = 'group membership';

interface MembershipOptions extends ShardAssignment {
  readonly broker: Broker;
  readonly groupId: string;
  /**
   * Receives the shards of this member at every rebalance; it owns no others.
   * @param waits whether it gets none because members with another declaration hold them
   */
  readonly onAssigned: (shards: readonly number[], waits: boolean) => void;
  /** The membership has ended permanently. */
  readonly onCrash: (reason: unknown) => void;
}

export interface Commit {
  readonly topic: string;
  readonly partition: number;
  readonly next: number;
  readonly metadata: string;
}

/** One member, from `join` to `leave`. */
export class Membership {
  readonly #options: MembershipOptions;
  readonly #leaving = new AbortController();
  /** Commits that the group has not accepted yet, by topic and partition. */
  readonly #due = new Map<string, Commit>();
  #committing: Promise<void> | undefined;
  /** Number of requests that the group has accepted. */
  #accepted = 0;
  #consumer!: Consumer;

  private constructor(options: MembershipOptions) {
    this.#options = options;
  }

  /** Joins the group; assignments arrive through `onAssigned`. @throws ReelflowError brokerUnreachable */
  static async join(options: MembershipOptions): Promise<Membership> {
    const joined = new Membership(options);
    try {
      await joined.#join();
    } catch (thrown) {
      throw asBrokerError(thrown, options.broker.endpoints);
    }
    return joined;
  }

  async #join(): Promise<void> {
    const { broker, topics, onAssigned } = this.#options;
    const consumer = this.#createConsumer();
    this.#consumer = consumer;
    const { COMMIT_OFFSETS, CRASH, GROUP_JOIN } = consumer.events;
    consumer.on(CRASH, ({ payload }) => {
      if (consumer === this.#consumer) this.#onCrash(payload);
    });
    consumer.on(GROUP_JOIN, ({ payload }) => {
      broker.outages.resumes(membership);
      // Synchronously, before kafkajs fetches anything for this assignment.
      consumer.pause(topics.map((topic) => ({ topic })));
      const assigned = Object.values(payload.memberAssignment);
      const shards = new Set(assigned.flat());
      // Their new owners commit their positions.
      for (const [key, { partition }] of this.#due) if (!shards.has(partition)) this.#due.delete(key);
      onAssigned(
        [...shards].sort((a, b) => a - b),
        assigned.length === 0,
      );
    });
    consumer.on(COMMIT_OFFSETS, () => {
      this.#accepted += 1;
    });
    try {
      await consumer.connect();
      await consumer.subscribe({ topics: [...topics] });
      await consumer.run({ autoCommit: false, eachBatch: async () => undefined });
      if (this.#isLeaving) await consumer.disconnect();
    } catch (thrown) {
      await consumer.disconnect().catch(() => undefined);
      throw thrown;
    }
  }

  get #isLeaving(): boolean {
    return this.#leaving.signal.aborted;
  }

  #createConsumer(): Consumer {
    const { broker, groupId } = this.#options;
    neverFetches(groupId);
    return broker.kafka.consumer({
      groupId,
      sessionTimeout: sessionTimeoutMs,
      rebalanceTimeout: sessionTimeoutMs,
      heartbeatInterval: heartbeatIntervalMs,
      // How long a paused consumer sleeps between two checks of the heartbeat.
      maxWaitTimeInMs: 250,
      allowAutoTopicCreation: false,
      partitionAssigners: [wholeShards(this.#options)],
      // A crash (coordinator loading, connection cut) during `leave` would restart the consumer after its disconnect. It would
      // send heartbeats permanently, keep the process alive and withhold its shards from other members.
      retry: { retries: 5, restartOnFailure: async () => !this.#isLeaving },
    });
  }

  /** kafkajs restarts its consumer after some failures. It gives up after others that pass, such as a missing coordinator. */
  #onCrash({ error, restart }: { readonly error: Error; readonly restart: boolean }): void {
    if (this.#isLeaving) return;
    const { broker, onCrash } = this.#options;
    if (restart) broker.outages.waits(membership, messageOf(error));
    else if (isPassing(error)) void this.#joinAgain(error);
    else onCrash(asGroupError(error, this.#options));
  }

  async #joinAgain(reason: Error): Promise<void> {
    const { broker, onCrash } = this.#options;
    broker.logger.debug({ reason: messageOf(reason) }, 'joining the group again');
    const { signal } = this.#leaving;
    try {
      await untilServed(broker.outages, 'joining the group', () => this.#join(), signal);
    } catch (thrown) {
      if (!this.#isLeaving) onCrash(asGroupError(thrown, this.#options));
    }
  }

  /** Whether the group has accepted all commits. */
  get isCommitted(): boolean {
    return this.#due.size === 0;
  }

  /**
   * Commits offsets to the group, for monitors, one request at a time. What the group refuses, as in a rebalance, is committed
   * again: no message need follow that would bring the next commit, and the lag would stay wrong. A permanent refusal ends the
   * membership.
   */
  commit(commits: readonly Commit[]): void {
    for (const commit of commits) this.#due.set(keyOf(commit), commit);
    this.#committing ??= this.#commitDue();
  }

  async #commitDue(): Promise<void> {
    // Shards that publish in the same turn share a request.
    await Promise.resolve();
    const { signal } = this.#leaving;
    while (this.#due.size > 0) {
      const commits = [...this.#due.values()];
      if (await this.#isAccepted(commits)) {
        for (const commit of commits)
          if (this.#due.get(keyOf(commit)) === commit) this.#due.delete(keyOf(commit));
      } else if (signal.aborted) break;
      else await sleep(commitAgainMs, undefined, { signal }).catch(() => undefined);
    }
    this.#committing = undefined;
  }

  /** Between the end of a membership and the next one kafkajs drops commits without an error, and without its event. */
  async #isAccepted(commits: readonly Commit[]): Promise<boolean> {
    const before = this.#accepted;
    try {
      await this.#consumer.commitOffsets(
        commits.map(({ topic, partition, next, metadata }) => ({
          topic,
          partition,
          offset: String(next),
          metadata,
        })),
      );
      return this.#accepted > before;
    } catch (thrown) {
      const { broker, onCrash } = this.#options;
      broker.logger.debug({ reason: messageOf(thrown) }, 'offsets not committed');
      const reason = asGroupError(thrown, this.#options);
      if (isRefusal(reason)) onCrash(reason);
      return false;
    }
  }

  /**
   * Leaves the group after the commits that are due. Without an answer, the coordinator removes this member when its session
   * times out.
   */
  async leave(): Promise<void> {
    this.#leaving.abort();
    await Promise.race([this.#committing, sleep(commitWithinMs, undefined, { ref: false })]);
    this.#options.broker.outages.resumes(membership, false);
    const left = this.#consumer.disconnect().catch(() => undefined);
    endPauses(this.#options.groupId);
    await Promise.race([left, sleep(leaveWithinMs, undefined, { ref: false })]);
  }
}

const keyOf = ({ topic, partition }: Commit) => `${topic}/${partition}`;

/**
 * Commits for a group without members. kafkajs' admin would join the group first, which takes seconds per topic.
 * @throws ReelflowError busy, if the group has a member; brokerUnreachable
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
    }, coordinatorPatienceMs.acting);
  } catch (thrown) {
    throw asBrokerError(thrown, broker.endpoints);
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
