/** Reads at exact positions, on a broker. */
import { expect } from 'vitest';
import { LogReader } from '../kafka/log.ts';
import { ensureRetainedTopics } from '../kafka/topics.ts';
import { broker, test, until } from './harness.ts';

const sockets = () => process.getActiveResourcesInfo().filter((name) => name === 'TCPSocketWrap').length;

// Method: four fetches on a new reader in one turn of the event loop, as the shards of a member do; then the open
// sockets of this process are counted.
test('a reader leaves no connection behind, even when its first fetches come at once', async ({ place }) => {
  const topic = place.names.deltas;
  await ensureRetainedTopics(broker, [{ topic, partitions: 4 }]);
  await until('the admin connection is gone', () => sockets() === 0);
  const reader = new LogReader(broker);
  await Promise.all(
    [0, 1, 2, 3].map((partition) => reader.fetch([{ topic, partition, next: 0 }], { waitMs: 1 })),
  );
  expect(sockets()).toBeGreaterThan(0);
  await reader.close();
  await until('all sockets are closed', () => sockets() === 0);
});
