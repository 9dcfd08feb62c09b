/** Membership of a consumer group on a real broker. */
import { setTimeout as delay } from 'node:timers/promises';
import KafkaBroker from 'kafkajs/src/broker/index.js';
import Runner from 'kafkajs/src/consumer/runner.js';
import errors from 'kafkajs/src/errors.js';
import { describe, expect, vi } from 'vitest';
import { readGroups } from '../../kafka/groups.ts';
import { Membership } from '../../kafka/membership.ts';
import { ensureRetainedTopics } from '../../kafka/topics.ts';
import { broker, type Place, test, until } from '../support/harness.ts';

/** The answer to a member whose group has rebalanced meanwhile. */
const illegalGeneration = () =>
  new (errors.KafkaJSProtocolError as new (answer: object) => Error)({
    type: 'ILLEGAL_GENERATION',
    code: 22,
    retriable: false,
    message: 'Specified group generation id is not valid',
  });

vi.setConfig({ testTimeout: 120_000 });

/** A member of a group, each assignment that it was given, and why it ended. */
async function joined(place: Place, group: string, topic: string) {
  const shards: (readonly number[])[] = [];
  const crashes: unknown[] = [];
  const membership = await Membership.join({
    broker,
    groupId: group,
    topics: [topic],
    assignment: 'shards',
    freshness: () => new Map(),
    onAssigned: (given) => shards.push(given),
    onCrash: (reason) => crashes.push(reason),
  });
  place.onEnd(() => membership.leave());
  await until('it is assigned', () => shards.length > 0);
  return { membership, shards, crashes };
}

// Method: the clock of this process steps back after the member has joined; without heartbeats the coordinator would
// remove it after its session timeout of six seconds.
test('a member stays in its group when the wall clock steps back an hour', async ({ place }) => {
  const topic = place.names.deltas;
  await ensureRetainedTopics(broker, [{ topic, partitions: 1 }]);
  const group = `${place.namespace}.clock`;
  const { shards, crashes } = await joined(place, group, topic);
  const membersNow = async () => (await readGroups(broker, [group])).get(group)?.members;
  const [realNow, hourMs] = [Date.now.bind(Date), 3_600_000];
  const clock = vi.spyOn(Date, 'now').mockImplementation(() => realNow() - hourMs);
  try {
    const startedMs = performance.now();
    while (performance.now() - startedMs < 14_000) {
      expect(await membersNow()).toBe(1);
      await delay(500);
    }
    expect({ shards, crashes }).toEqual({ shards: [[0]], crashes: [] });
  } finally {
    clock.mockRestore();
  }
});

const committedIn = async (group: string, topic: string) => {
  const committed = (await readGroups(broker, [group])).get(group)?.committed.get(topic);
  return [0, 1].map((partition) => committed?.get(partition)?.next);
};

const commitsAt = (topic: string, next: number) =>
  [0, 1].map((partition) => ({ topic, partition, next, metadata: '' }));

/** Fails commits until it is restored. */
const failures = {
  /** What the group answers in a rebalance. */
  refused: () => vi.spyOn(KafkaBroker.prototype, 'offsetCommit').mockRejectedValue(illegalGeneration()),
  /** What kafkajs does while it restarts a consumer. */
  dropped: () => vi.spyOn(Runner.prototype, 'commitOffsets').mockReturnValue(undefined),
};

describe.each(['refused', 'dropped'] as const)('a commit that is %s', (how) => {
  test('is repeated until it holds', async ({ place }) => {
    const topic = place.names.deltas;
    await ensureRetainedTopics(broker, [{ topic, partitions: 2 }]);
    const group = `${place.namespace}.${how}`;
    const { membership } = await joined(place, group, topic);
    const commits = failures[how]();
    membership.commit(commitsAt(topic, 7));
    await until('it has failed', () => commits.mock.calls.length > 0);
    commits.mockRestore();
    expect(membership.isCommitted).toBe(false);
    await until('it holds', () => membership.isCommitted);
    expect(await committedIn(group, topic)).toEqual([7, 7]);
  });

  test('is not repeated for a shard that the member has lost', async ({ place }) => {
    const topic = place.names.deltas;
    await ensureRetainedTopics(broker, [{ topic, partitions: 2 }]);
    const group = `${place.namespace}.lost-${how}`;
    const { membership, shards } = await joined(place, group, topic);
    const commits = failures[how]();
    membership.commit(commitsAt(topic, 7));
    await until('it has failed', () => commits.mock.calls.length > 0);
    await joined(place, group, topic);
    await until('they share the shards', () => shards.at(-1)?.length === 1);
    commits.mockRestore();
    const [kept] = shards.at(-1) ?? [];
    await until('it has committed', () => membership.isCommitted);
    expect(await committedIn(group, topic)).toEqual([0, 1].map((shard) => (shard === kept ? 7 : undefined)));
  });
});

test('a commit that the broker refuses permanently ends the membership, and names the setting', async ({
  place,
}) => {
  const topic = place.names.deltas;
  await ensureRetainedTopics(broker, [{ topic, partitions: 1 }]);
  const { membership, crashes } = await joined(place, `${place.namespace}.large`, topic);
  // The broker's default is 4096.
  membership.commit([{ topic, partition: 0, next: 7, metadata: 'x'.repeat(4_097) }]);
  await until('it has ended', () => crashes.length > 0);
  expect(crashes[0]).toMatchObject({
    kind: 'brokerRefused',
    hint: 'Raise offset.metadata.max.bytes of the brokers.',
  });
});
