/** Requests about groups while their coordinator moves. */
import Cluster from 'kafkajs/src/cluster/index.js';
import { afterEach, expect, inject, vi } from 'vitest';
import { withAdmin } from '../../kafka/client.ts';
import { coordinatorPatienceMs, readGroups, withCoordinator } from '../../kafka/groups.ts';
import { commitAlone } from '../../kafka/membership.ts';
import { ensureRetainedTopics } from '../../kafka/topics.ts';
import { reset } from '../../processors/reset.ts';
import { Registry } from '../../topics/registry.ts';
import { failureOf } from '../support/failure.ts';
import { broker, test } from '../support/harness.ts';

afterEach(() => vi.restoreAllMocks());

const failing = (times: number, error: Error) => {
  let asked = 0;
  return async () => {
    asked += 1;
    if (asked <= times) throw error;
    return asked;
  };
};
const moved = Object.assign(new Error('This is not the correct coordinator for this group'), {
  name: 'KafkaJSProtocolError',
  type: 'NOT_COORDINATOR_FOR_GROUP',
});

const absent = Object.assign(new Error('Failed to find group coordinator'), {
  name: 'KafkaJSGroupCoordinatorNotFound',
});

test('are repeated while there is none or it moves, not without end, and not after another error', async () => {
  expect(await withCoordinator(failing(2, moved))).toBe(3);
  expect(await withCoordinator(failing(1, absent))).toBe(2);
  const wrapped = Object.assign(new Error('gave up'), {
    name: 'KafkaJSNumberOfRetriesExceeded',
    cause: moved,
  });
  expect(await withCoordinator(failing(1, wrapped))).toBe(2);
  await expect(withCoordinator(failing(999, moved))).rejects.toBe(moved);
  const other = new Error('refused');
  await expect(withCoordinator(failing(1, other))).rejects.toBe(other);
});

test('are repeated for longer by a command that acts', async () => {
  const startedMs = performance.now();
  const found = async () => {
    if (performance.now() - startedMs < coordinatorPatienceMs.looking + 1_000) throw moved;
    return 'found';
  };
  expect(await withCoordinator(found, coordinatorPatienceMs.acting)).toBe('found');
});

// Method: every second request for a coordinator finds none, so each step has to ask twice.
test('reading and committing wait for a coordinator, at each of their steps', async ({ place }) => {
  const topic = place.names.deltas;
  await ensureRetainedTopics(broker, [{ topic, partitions: 1 }]);
  const { findGroupCoordinator } = Cluster.prototype;
  const [group, nobody] = [place.names.sinkGroup, `${place.namespace}.nobody`];
  place.onEnd(() => withAdmin(broker, (admin) => admin.deleteGroups([group])));
  let asked = 0;
  vi.spyOn(Cluster.prototype, 'findGroupCoordinator').mockImplementation(function (this: Cluster, of) {
    asked += 1;
    return asked % 2 === 1 ? Promise.reject(absent) : findGroupCoordinator.call(this, of);
  });
  await commitAlone(broker, group, [{ topic, partition: 0, next: 7 }]);
  const committed = new Map([[topic, new Map([[0, { next: 7, metadata: '' }]])]]);
  expect((await readGroups(broker, [group])).get(group)).toMatchObject({ problem: null, committed });
  // One that does not exist is asked for by both protocols.
  const before = asked;
  expect((await readGroups(broker, [nobody])).get(nobody)).toMatchObject({ problem: null, exists: false });
  expect(asked - before).toBe(6);
});

test('a reset waits for a coordinator', async ({ place }) => {
  vi.spyOn(Cluster.prototype, 'findGroupCoordinator').mockRejectedValueOnce(absent);
  const registry = new Registry({ url: inject('registryUrl') });
  const failure = await failureOf(
    reset({ broker, registry, names: place.names, generationMin: 0, dryRun: false }),
    'input',
  );
  expect(failure.message).toBe('There is nothing to reset');
});
