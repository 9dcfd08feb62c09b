/**
 * The inner modules of kafkajs that the code imports. A release of kafkajs may change them without notice. Method: each member
 * that our declarations promise is looked for in the installed package, so that a failure names the member and who uses it.
 */
import { globSync, readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { join } from 'node:path';
import { expect, test } from 'vitest';

const root = join(import.meta.dirname, '../..');
const require = createRequire(import.meta.url);

type Class = { prototype: object };
const inClass = (of: unknown, ...members: string[]) =>
  members.filter(
    (name) => typeof Object.getOwnPropertyDescriptor((of as Class).prototype, name)?.value !== 'function',
  );
const inObject = (of: unknown, ...members: string[]) =>
  members.filter((name) => typeof (of as Record<string, unknown>)[name] !== 'function');
/** Members that a constructor sets: its source names them. */
const inSource = (of: unknown, ...members: string[]) =>
  members.filter((name) => !new RegExp(`this\\.${name}\\b`).test(String(of)));

/** By module: the members that are missing. */
const missing: Readonly<Record<string, (module: unknown) => string[]>> = {
  'cluster/index.js': (Cluster) => [
    ...inClass(
      Cluster,
      'connect',
      'disconnect',
      'addMultipleTargetTopics',
      'refreshMetadata',
      'refreshMetadataIfNecessary',
      'findLeaderForPartitions',
      'findTopicPartitionMetadata',
      'findBroker',
      'findGroupCoordinator',
      'removeBroker',
    ),
    ...inSource(Cluster, 'brokerPool'),
    ...inSource(require('kafkajs/src/cluster/brokerPool.js'), 'metadata', 'brokers', 'retrier'),
    ...inClass(
      require('kafkajs/src/broker/index.js'),
      'listOffsets',
      'disconnect',
      'initProducerId',
      'fetch',
      'offsetCommit',
    ),
    ...inSource(require('kafkajs/src/broker/index.js'), 'nodeId', 'connectionPool', 'versions'),
  ],
  'admin/index.js': (admin) =>
    ['logger', 'retry', 'cluster'].filter((option) => !new RegExp(`\\b${option}\\b`).test(String(admin))),
  'broker/index.js': (Broker) => [
    ...inClass(Broker, 'isConnected', 'apiVersions'),
    ...inSource(Broker, 'versions', 'connectionPool'),
    ...inSource(require('kafkajs/src/network/connectionPool.js'), 'pool'),
  ],
  'cluster/brokerPool.js': (BrokerPool) => [
    ...inClass(BrokerPool, 'withBroker'),
    ...inSource(BrokerPool, 'metadataExpireAt'),
  ],
  'network/requestQueue/index.js': (RequestQueue) => inSource(RequestQueue, 'throttledUntil'),
  'network/requestQueue/socketRequest.js': (SocketRequest) => inSource(SocketRequest, 'sentAt'),
  'network/connection.js': (Connection) => [
    ...inClass(Connection, 'processData', 'send'),
    ...inSource(Connection, 'socket', 'bytesBuffered', 'authHandlers'),
  ],
  'protocol/encoder.js': (Encoder) =>
    inClass(
      Encoder,
      'writeUVarInt',
      'writeBoolean',
      'writeUVarIntBytes',
      'writeInt16',
      'writeInt32',
      'writeString',
      'writeBuffer',
    ),
  'protocol/requests/produce/v7/response.js': (response) => inObject(response, 'decode', 'parse'),
  'consumer/consumerGroup.js': (Group) => [
    ...inClass(Group, 'fetch', 'checkForStaleAssignment', 'recoverFromFetch'),
    ...inSource(Group, 'lastRequest', 'groupId', 'maxWaitTime', 'cluster'),
  ],
  'consumer/batch.js': (Batch) => inSource(Batch, 'messages', 'messagesWithinOffset'),
  'loggers/index.js': (loggers) => inObject(loggers, 'createLogger'),
  'network/socketFactory.js': (factory) => (typeof factory === 'function' ? [] : ['the factory itself']),
};

/** Inner modules by the sources that import them, also for their types. */
function importers(): Map<string, string[]> {
  const found = new Map<string, string[]>();
  for (const path of globSync('{kafka,producers,processors,sinks,monitor,cli,flink}/**/*.ts', {
    cwd: root,
  })) {
    if (path.endsWith('.d.ts')) continue;
    for (const [, module = ''] of readFileSync(join(root, path), 'utf8').matchAll(
      /'kafkajs\/src\/([^']+)'/g,
    )) {
      found.set(module, [...(found.get(module) ?? []), path]);
    }
  }
  return found;
}

test('kafkajs is pinned to one version, and that is the installed one', () => {
  const { dependencies } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8'));
  expect(dependencies.kafkajs).toMatch(/^\d+\.\d+\.\d+$/);
  expect(require('kafkajs/package.json').version).toBe(dependencies.kafkajs);
});

test('every inner module that the code imports is checked here', () => {
  expect([...importers().keys()].sort()).toEqual(Object.keys(missing).sort());
});

test.each([...importers()])('kafkajs/src/%s has what %j use', (module, users) => {
  const gone = missing[module]?.(require(`kafkajs/src/${module}`)) ?? ['the module'];
  expect(gone.map((member) => `${member}, for ${users.join(', ')}`)).toEqual([]);
});

test('a member that is gone is named', () => {
  class Batch {
    messages = [];
  }
  expect(missing['consumer/batch.js']?.(Batch)).toContain('messagesWithinOffset');
  expect(missing['loggers/index.js']?.({})).toEqual(['createLogger']);
});
