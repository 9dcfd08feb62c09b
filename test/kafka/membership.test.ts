/** Membership of a consumer group on a real broker. */
import { setTimeout as delay } from 'node:timers/promises';
import { expect, vi } from 'vitest';
import { readGroups } from '../../kafka/groups.ts';
import { Membership } from '../../kafka/membership.ts';
import { ensureRetainedTopics } from '../../kafka/topics.ts';
import { broker, test, until } from '../support/harness.ts';

vi.setConfig({ testTimeout: 120_000 });

// Method: the clock of this process steps back after the member has joined; without heartbeats the coordinator would
// remove it after its session timeout of six seconds.
test('a member stays in its group when the wall clock steps back an hour', async ({ place }) => {
  const topic = place.names.deltas;
  await ensureRetainedTopics(broker, [{ topic, partitions: 1 }]);
  const group = `${place.namespace}.clock`;
  const crashes: unknown[] = [];
  let assignments = 0;
  const membership = await Membership.join({
    broker,
    groupId: group,
    topics: [topic],
    assignment: 'shards',
    freshness: () => new Map(),
    onAssigned: () => {
      assignments += 1;
    },
    onCrash: (reason) => crashes.push(reason),
  });
  place.onEnd(() => membership.leave());
  const membersNow = async () => (await readGroups(broker, [group])).get(group)?.members;
  await until('it is assigned', () => assignments === 1);
  const [realNow, hourMs] = [Date.now.bind(Date), 3_600_000];
  const clock = vi.spyOn(Date, 'now').mockImplementation(() => realNow() - hourMs);
  try {
    const startedMs = performance.now();
    while (performance.now() - startedMs < 14_000) {
      expect(await membersNow()).toBe(1);
      await delay(500);
    }
    expect({ assignments, crashes }).toEqual({ assignments: 1, crashes: [] });
  } finally {
    clock.mockRestore();
  }
});
