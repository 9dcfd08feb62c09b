/** What kafkajs throws when brokers go away, as the failure that a person and a supervisor can act on. */
// @ts-expect-error kafkajs has no types for its inside

import createAdmin from 'kafkajs/src/admin/index.js';
import KafkaBroker from 'kafkajs/src/broker/index.js';
import { expect, test } from 'vitest';
import { type Broker, createBroker, withAdmin } from '../../kafka/client.ts';
import { createLogger } from '../../runtime/logger.ts';

const silent = { debug() {}, info() {}, warn() {}, error() {} };

// Method: the admin of kafkajs itself over a cluster whose metadata is null, which is what kafkajs' cluster resolves to
// when every broker that it knows has failed.
test('metadata that no broker has answered is a broker that cannot be reached, and no defect', async () => {
  const real = createBroker(
    { brokers: ['127.0.0.1:1'], registryUrl: 'http://127.0.0.1:1' },
    createLogger('silent'),
  );
  const cluster = { connect: async () => {}, disconnect: async () => {}, metadata: async () => null };
  const admin = createAdmin({ logger: { namespace: () => silent }, cluster });
  const broker = { ...real, kafka: { admin: () => admin } } as unknown as Broker;
  for (const ask of [
    () => admin.listTopics(),
    () => admin.describeCluster(),
    () => admin.fetchTopicMetadata({ topics: ['any'] }),
  ]) {
    await expect(withAdmin(broker, ask)).rejects.toMatchObject({ kind: 'brokerUnreachable' });
  }
  const ownMistake = async () => (null as unknown as { length: number }).length;
  await expect(withAdmin(broker, ownMistake)).rejects.toBeInstanceOf(TypeError);
});

// Method: the broker class of kafkajs itself over a connection that is open; the first request on it gets no answer.
test('a broker that has not named its API versions is not connected, and is asked again', async () => {
  const answers = [() => Promise.reject(new Error('Request timed out')), async () => ({ apiVersions: [] })];
  const connection = { getSupportAuthenticationProtocol: () => false, authenticate: async () => undefined };
  const opening = new KafkaBroker({
    logger: { namespace: () => silent },
    connectionPool: {
      connectionTimeout: 1_000,
      isConnected: () => true,
      getConnection: async () => connection,
      setVersions: () => undefined,
      send: () => answers.shift()?.(),
    },
  });
  await expect(opening.connect()).rejects.toThrow('Request timed out');
  expect(opening.isConnected()).toBe(false);
  await opening.connect();
  expect(opening.isConnected()).toBe(true);
});
