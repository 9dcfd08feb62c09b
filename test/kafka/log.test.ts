/** Reads at exact positions, on a broker. */
import { randomBytes } from 'node:crypto';
import { expect, vi } from 'vitest';
import { logBounds } from '../../kafka/bounds.ts';
import type { Broker } from '../../kafka/client.ts';
import { LogInterrupted } from '../../kafka/failures.ts';
import { LogReader } from '../../kafka/log.ts';
import { scanTopic } from '../../kafka/scan.ts';
import { ensureCompactedTopics, ensureRetainedTopics } from '../../kafka/topics.ts';
import { broker, test, until } from '../support/harness.ts';

const sockets = () => process.getActiveResourcesInfo().filter((name) => name === 'TCPSocketWrap').length;

// Method: four fetches on a new reader in one turn of the event loop, as the shards of a member do; then the open
// sockets of this process are counted.
test('a reader leaves no connection behind, even when its first fetches come at once', async ({ place }) => {
  const topic = place.names.deltas;
  await ensureRetainedTopics(broker, [{ topic, partitions: 4 }]);
  // On a loaded machine a broker describes a topic before it leads its partitions.
  await logBounds(broker, [topic]);
  await until('the connections of the set-up are gone', () => sockets() === 0);
  const reader = new LogReader(broker);
  await Promise.all(
    [0, 1, 2, 3].map((partition) => reader.fetch([{ topic, partition, next: 0 }], { waitMs: 1 })),
  );
  expect(sockets()).toBeGreaterThan(0);
  await reader.close();
  await until('all sockets are closed', () => sockets() === 0);
});

// Method: kafkajs' cluster replaced by one whose only broker fails; what kafkajs forgets it does not close.
test('a broker that failed is disconnected as well as forgotten', async () => {
  const failed = Object.assign(new Error('cut'), { name: 'KafkaJSConnectionError', host: 'broker', port: 9 });
  const disconnected: string[] = [];
  const brokerOf = (host: string) => ({
    connectionPool: { host, port: 9 },
    disconnect: async () => {
      disconnected.push(host);
    },
    fetch: () => Promise.reject(failed),
  });
  const brokers = { 1: brokerOf('broker'), 2: brokerOf('another') };
  const cluster = {
    connect: async () => undefined,
    disconnect: async () => undefined,
    addMultipleTargetTopics: async () => undefined,
    refreshMetadata: async () => undefined,
    refreshMetadataIfNecessary: async () => undefined,
    findLeaderForPartitions: () => ({ 1: [0] }),
    findBroker: async () => brokers[1],
    removeBroker: () => undefined,
    brokerPool: { brokers },
  };
  const reader = new LogReader({ ...broker, createCluster: () => cluster as never });
  const fetching = reader.fetch([{ topic: 't', partition: 0, next: 0 }], { waitMs: 1 });
  await expect(fetching).rejects.toBeInstanceOf(LogInterrupted);
  expect(disconnected).toEqual(['broker']);
});

// Method: as before; the broker's connection is being opened by another request.
test.for(['Broker not connected', "Cannot read properties of undefined (reading 'connectionPool')"])(
  '%s is an interruption, not a damaged batch',
  async (said) => {
    const failed = new Error(said);
    failed.stack = `Error: ${said}\n    at Broker.metadata (/node_modules/kafkajs/src/broker/index.js:14:9)`;
    const cluster = {
      connect: async () => undefined,
      addMultipleTargetTopics: async () => undefined,
      refreshMetadata: async () => undefined,
      refreshMetadataIfNecessary: () => Promise.reject(failed),
    };
    const reader = new LogReader({ ...broker, createCluster: () => cluster as never });
    const fetching = reader.fetch([{ topic: 't', partition: 0, next: 0 }], { waitMs: 1 });
    await expect(fetching).rejects.toBeInstanceOf(LogInterrupted);
  },
);

// Method: the smallest segments that a broker allows. The first one ends with a batch whose last record, or whose only one, a later
// message of its key makes useless; the broker cleans it within its 15 s, and keeps the batch, because its producer is idempotent.
test.for([
  ['lost its last record', ['kept', 'changed']],
  ['lost all its records', ['changed']],
] as const)('a segment that ends with a batch that %s is read to its end', async ([, keys], { place }) => {
  vi.setConfig({ testTimeout: 240_000 });
  const topic = place.names.dumpIndex;
  const settings = { 'min.cleanable.dirty.ratio': '0.01' };
  await ensureCompactedTopics(broker, [{ topic, partitions: 1, segmentBytes: 1_048_576, settings }]);
  const send = async (...messages: { key: string; value: Buffer }[]) => {
    const producer = broker.kafka.producer({ idempotent: true, maxInFlightRequests: 1 });
    await producer.connect();
    await producer.send({ topic, messages });
    await producer.disconnect();
  };
  await send(...keys.map((key) => ({ key, value: randomBytes(300_000) })));
  for (const key of ['changed', 'other', 'another']) await send({ key, value: randomBytes(900_000) });
  const offsets = async () => {
    const found: number[] = [];
    for await (const { messages } of scanTopic(broker, topic, { isCompacted: true }))
      found.push(...messages.map(({ offset }) => offset));
    return found;
  };
  const all = keys.length + 3;
  await until('the first segment is clean', async () => (await offsets()).length < all, 120_000);
  const left = [0, 1, 2, 3, 4].slice(0, all).filter((offset) => offset !== keys.length - 1);
  expect(await offsets()).toEqual(left);
});

// Method: the answer of a broker whose remote store was too slow, from a broker in kafkajs' place.
test.for([
  ['with a compacted topic passes over one offset', true, [7]],
  ['with any other topic passes over none', false, []],
] as const)('an empty answer before the end %s', async ([, isCompacted, offsets]) => {
  const empty = {
    partition: 0,
    highWatermark: '9',
    lastStableOffset: '9',
    abortedTransactions: [],
    messages: [],
  };
  const cluster = {
    connect: async () => undefined,
    addMultipleTargetTopics: async () => undefined,
    refreshMetadataIfNecessary: async () => undefined,
    findLeaderForPartitions: () => ({ 1: [0] }),
    findBroker: async () => ({
      fetch: async () => ({ responses: [{ topicName: 't', partitions: [empty] }] }),
    }),
  };
  const reader = new LogReader({ ...broker, createCluster: () => cluster } as unknown as Broker);
  const [fetched] = await reader.fetch([{ topic: 't', partition: 0, next: 7 }], { waitMs: 1, isCompacted });
  expect(fetched?.messages.map(({ offset }) => offset)).toEqual(offsets);
});
