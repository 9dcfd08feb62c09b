/** Membership of a consumer group on a real broker. */
import { setTimeout as delay } from 'node:timers/promises';
import KafkaBroker from 'kafkajs/src/broker/index.js';
import errors from 'kafkajs/src/errors.js';
import { expect, vi } from 'vitest';
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

/** Answers commits in place of the brokers, until it is restored. */
const answerCommits = (answer: () => Promise<void>) =>
  vi
    .spyOn(KafkaBroker.prototype as unknown as { offsetCommit: () => Promise<void> }, 'offsetCommit')
    .mockImplementation(answer);

/** What the group answers to a commit in a rebalance, and what kafkajs does while it restarts a consumer. */
const answers = {
  refuses: () => Promise.reject(illegalGeneration()),
  drops: () => Promise.resolve(),
};

test('a commit that the group refuses is repeated until it holds', async ({ place }) => {
  const topic = place.names.deltas;
  await ensureRetainedTopics(broker, [{ topic, partitions: 2 }]);
  const group = `${place.namespace}.refused`;
  const { membership } = await joined(place, group, topic);
  const commits = answerCommits(answers.refuses);
  membership.commit(commitsAt(topic, 7));
  await until('it is refused', () => commits.mock.calls.length > 0);
  commits.mockRestore();
  expect(membership.isCommitted).toBe(false);
  await until('it holds', () => membership.isCommitted);
  expect(await committedIn(group, topic)).toEqual([7, 7]);
});

for (const answer of ['refuses', 'drops'] as const) {
  test(`after a rebalance a member commits again what a group ${answer}, of the shards that it keeps`, async ({
    place,
  }) => {
    const topic = place.names.deltas;
    await ensureRetainedTopics(broker, [{ topic, partitions: 2 }]);
    const group = `${place.namespace}.${answer}`;
    const { membership, shards } = await joined(place, group, topic);
    const commits = answerCommits(answers[answer]);
    membership.commit(commitsAt(topic, 7));
    await until('it is answered', () => commits.mock.calls.length > 0);
    // A refused commit is repeated without a rebalance too.
    if (answer === 'drops') commits.mockRestore();
    await joined(place, group, topic);
    await until('they share the shards', () => shards.at(-1)?.length === 1);
    commits.mockRestore();
    const [kept] = shards.at(-1) ?? [];
    await until('it has committed', () => membership.isCommitted);
    expect(await committedIn(group, topic)).toEqual([0, 1].map((shard) => (shard === kept ? 7 : undefined)));
  });
}
