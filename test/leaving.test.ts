/** A member that leaves has left, whatever state kafkajs' consumer is in. */
import { expect, test } from 'vitest';
import { type Broker, createBroker } from '../kafka/client.ts';
import { Membership } from '../kafka/membership.ts';
import { createLogger } from '../logger.ts';

// Method: a consumer in kafkajs' place that hands out what it was configured with, and whose disconnecting hangs, as it
// does on a connection that is open and dead. kafkajs asks `restartOnFailure` after every crash, also one that meets with
// the disconnecting.
test('does not come back after a crash meanwhile, and does not wait for a dead connection', async () => {
  const silent = createLogger('silent');
  const real = createBroker({ brokers: ['127.0.0.1:1'], registryUrl: 'http://127.0.0.1:1' }, silent);
  let restarts: () => Promise<boolean> = async () => false;
  const consumer = {
    events: { CRASH: 'crash', GROUP_JOIN: 'join' },
    on: () => () => undefined,
    connect: async () => undefined,
    subscribe: async () => undefined,
    run: async () => undefined,
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
    onCrash: () => undefined,
  });
  expect(await restarts()).toBe(true);
  const leaving = membership.leave();
  expect(await restarts()).toBe(false);
  await leaving;
}, 20_000);
