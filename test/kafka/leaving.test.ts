/** A member that leaves has left, whatever state kafkajs' consumer is in. */
import { expect, test, vi } from 'vitest';
import { type Broker, createBroker } from '../../kafka/client.ts';
import { Membership } from '../../kafka/membership.ts';
import { createLogger } from '../../runtime/logger.ts';

// Method: a consumer in kafkajs' place that hands out what it was configured with, and whose disconnecting hangs, as it
// does on a connection that is open and dead. kafkajs asks `restartOnFailure` after every crash, also one that meets with
// the disconnecting.
test('joins again after an outage, stays away once it leaves, and does not wait on a dead connection', async () => {
  const silent = createLogger('silent');
  const real = createBroker({ brokers: ['127.0.0.1:1'], registryUrl: 'http://127.0.0.1:1' }, silent);
  let crash: (error: unknown) => void = () => undefined;
  const crashes: unknown[] = [];
  let joins = 0;
  let restarts: () => Promise<boolean> = async () => false;
  const consumer = {
    events: { CRASH: 'crash', GROUP_JOIN: 'join' },
    on: (event: string, listener: (crash: unknown) => void) => {
      if (event === 'crash') crash = (error) => listener({ payload: { error, restart: false } });
    },
    connect: async () => undefined,
    subscribe: async () => undefined,
    run: async () => {
      joins += 1;
    },
    disconnect: () => new Promise(() => undefined),
  };
  const kafka = {
    consumer: ({ retry }: { retry: { restartOnFailure: () => Promise<boolean> } }) => {
      restarts = retry.restartOnFailure;
      return consumer;
    },
  };
  const membership = await Membership.join({
    broker: { ...real, kafka } as unknown as Broker,
    groupId: 'g',
    topics: ['t'],
    assignment: 'shards',
    freshness: () => new Map(),
    onAssigned: () => undefined,
    onCrash: (reason) => crashes.push(reason),
  });
  expect(await restarts()).toBe(true);
  const nothing = new TypeError("Cannot read properties of null (reading 'coordinator')");
  nothing.stack = `${nothing}\n    at Cluster.findGroupCoordinatorMetadata (/node_modules/kafkajs/src/cluster/index.js)`;
  crash(nothing);
  await vi.waitFor(() => expect(joins).toBe(2));
  const lost = Object.assign(new Error('Failed to find group coordinator'), {
    name: 'KafkaJSGroupCoordinatorNotFound',
  });
  crash(new Error('wrapped', { cause: lost }));
  await vi.waitFor(() => expect(joins).toBe(3));
  expect(crashes).toEqual([]);
  crash(Object.assign(new Error('Not authorized'), { type: 'GROUP_AUTHORIZATION_FAILED' }));
  expect(crashes).toMatchObject([{ kind: 'accessRefused' }]);
  const leaving = membership.leave();
  crash(nothing);
  expect(await restarts()).toBe(false);
  await leaving;
  expect(joins).toBe(3);
}, 20_000);
