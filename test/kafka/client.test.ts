/** What kafkajs throws when brokers go away, as the failure that a person and a supervisor can act on. */
import { type AddressInfo, createServer, Socket } from 'node:net';
import createAdmin from 'kafkajs/src/admin/index.js';
import KafkaBroker from 'kafkajs/src/broker/index.js';
import { expect, inject, onTestFinished, test } from 'vitest';
import { type Broker, clusterIdOf, createBroker, withAdmin } from '../../kafka/client.ts';
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
  const broker = { ...real, createAdmin: () => admin } as unknown as Broker;
  const asks: (() => Promise<unknown>)[] = [
    () => admin.listTopics(),
    () => admin.describeCluster(),
    () => admin.fetchTopicMetadata({ topics: ['any'] }),
  ];
  for (const ask of asks) {
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
      pool: [{ socket: new Socket() }],
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

// Method: servers that answer the first bytes so, or not at all. kafkajs would wait for 30 s at each of nine attempts.
test.concurrent.for([
  ['in HTTP', 'HTTP/1.1 400 Bad Request\r\n\r\n', 'it says "HTTP/1.1 400 Bad Request"'],
  ['as a port that requires TLS', Buffer.from([0x15, 3, 3, 0, 2, 2, 40]), 'it requires TLS'],
  ['in bytes', Buffer.from([0xff, 0, 0, 1, 2]), 'it says ff00000102'],
  ['nothing', undefined, 'the port does not answer a request of Kafka'],
] as const)(
  'a port that answers %s is said to speak no Kafka',
  { timeout: 60_000 },
  async ([, answer, words]) => {
    const server = createServer((socket) => {
      socket.on('error', () => undefined);
      if (answer !== undefined) socket.once('data', () => socket.write(answer));
    });
    const { promise, resolve } = Promise.withResolvers<void>();
    server.listen(0, '127.0.0.1', resolve);
    await promise;
    onTestFinished(() => void server.close());
    const { port } = server.address() as AddressInfo;
    const broker = createBroker(
      { brokers: [`127.0.0.1:${port}`], registryUrl: 'http://127.0.0.1:1' },
      createLogger('silent'),
    );
    await expect(clusterIdOf(broker)).rejects.toMatchObject({
      kind: 'brokerUnreachable',
      detail: expect.stringContaining(words),
    });
  },
);

// Method: ports that accept connections and never answer, counted; among three addresses the last one may be a real broker.
test('a command that only looks tries a silent address twice, and each of several', {
  timeout: 60_000,
}, async () => {
  const silentPort = async (onConnection: () => void) => {
    const server = createServer((socket) => {
      socket.on('error', () => undefined);
      onConnection();
    });
    const { promise, resolve } = Promise.withResolvers<void>();
    server.listen(0, '127.0.0.1', resolve);
    await promise;
    onTestFinished(() => void server.close());
    return `127.0.0.1:${(server.address() as AddressInfo).port}`;
  };
  const lookerAt = (brokers: string[]) =>
    createBroker({ brokers, registryUrl: 'http://127.0.0.1:1' }, createLogger('silent'), 'look');
  const asks = [clusterIdOf, (broker: Broker) => withAdmin(broker, (admin) => admin.listTopics())];
  await Promise.all(
    asks.map(async (ask) => {
      let connections = 0;
      const address = await silentPort(() => connections++);
      await expect(ask(lookerAt([address]))).rejects.toMatchObject({
        kind: 'brokerUnreachable',
        detail: expect.stringContaining('the port does not answer'),
      });
      expect(connections).toBe(2);
    }),
  );
  const addresses = [await silentPort(() => {}), await silentPort(() => {}), ...inject('brokers')];
  expect(await clusterIdOf(lookerAt(addresses))).not.toBe('');
});
