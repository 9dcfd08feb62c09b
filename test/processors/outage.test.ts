/**
 * Shards during an outage of the brokers: whole shards on real stores, over logs in memory whose producer and reader fail
 * as kafkajs does.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { DuckDBConnection } from '@duckdb/node-api';
import errors from 'kafkajs/src/errors.js';
import { beforeEach, expect, test, vi } from 'vitest';
import type { OutageMonitor } from '../../kafka/outage.ts';
import type { ShardContext } from '../../processors/shard-context.ts';
import { until } from '../support/harness.ts';
import { Logs, type ShardOverLogs, shardOver } from '../support/shard-over-logs.ts';
import { temporaryFolder } from '../support/temporary-folder.ts';

type Sent = Parameters<ShardContext['producer']['send']>[0];

let folder: string;
let logs: Logs;
let open: ShardOverLogs | undefined;
/** What the producer throws while it is set. */
let failure: Error | undefined;
/** Whether a message is stored although its sender gets no answer. */
let isAnswerLost: boolean;
let attempts: number;

beforeEach(() => {
  open = undefined;
  folder = temporaryFolder();
  logs = new Logs();
  failure = undefined;
  isAnswerLost = false;
  attempts = 0;
});

const made = (name: string, message: string): Error => {
  const Class = errors[name];
  if (Class === undefined) throw new RangeError(`kafkajs has no ${name}`);
  return new Class(message, {});
};
const connectionLost = () => made('KafkaJSConnectionError', 'connect ECONNREFUSED');
const refused = () =>
  Object.assign(made('KafkaJSProtocolError', 'The request included a message larger than the max'), {
    type: 'MESSAGE_TOO_LARGE',
  });

const producer = {
  send: async ({ topic, messages }: Sent) => {
    attempts += 1;
    const baseOffset = String(logs.of(topic).length);
    if (failure === undefined || isAnswerLost) {
      logs.of(topic).push(...messages.map(({ value }) => value as Buffer));
    }
    isAnswerLost = false;
    if (failure !== undefined) throw failure;
    return [{ topicName: topic, partition: 0, errorCode: 0, baseOffset }];
  },
} as unknown as ShardContext['producer'];

/** The next owner publishes what the outbox holds, and then what came since. */
async function expectNextOwnerContinues(): Promise<void> {
  const next = await start();
  expect(logs.deltas).toHaveLength(1);
  logs.produceTitle(2);
  next.shard.aimAt(logs.ends);
  await next.until(logs.ends);
  expect(logs.deltas).toHaveLength(2);
  logs.expectExact();
}

/** Opens the shard in the place of the one that is open. */
async function start(outage?: Pick<OutageMonitor, 'current'>): Promise<ShardOverLogs> {
  await open?.shard.close(0);
  const window = { periodMs: 2 ** 30, recordsMax: 1_000, bytesMax: 1_000_000 };
  const outages = outage && { waits: () => undefined, resumes: () => undefined, ...outage };
  const started = shardOver(logs, folder, { window, producer, ...(outages && { outages }) });
  open = started;
  await started.shard.open(undefined);
  return started;
}

/** Stages everything and lets the micro-batch meet the failure of the producer. */
async function meet({ shard, fetch }: ShardOverLogs): Promise<void> {
  shard.aimAt(logs.ends);
  await fetch();
  await until('the producer has failed twice', () => attempts >= 2);
}

test('a delta waits for the broker, and is published once', async () => {
  const started = await start();
  logs.produceTitle(1);
  failure = connectionLost();
  await meet(started);
  expect(started.shard.isWaiting).toBe(true);
  expect(logs.deltas).toHaveLength(0);
  failure = undefined;
  await started.until(logs.ends);
  expect(started.shard.isWaiting).toBe(false);
  expect(logs.deltas).toHaveLength(1);
  logs.expectExact();
});

// Method: the broker stores the first copy and breaks the connection before it answers.
test('a delta that was stored without an answer counts once', async () => {
  const started = await start();
  logs.produceTitle(1);
  failure = connectionLost();
  isAnswerLost = true;
  await meet(started);
  failure = undefined;
  await started.until(logs.ends);
  expect(logs.deltas).toHaveLength(2);
  logs.produceTitle(2);
  started.shard.aimAt(logs.ends);
  await started.until(logs.ends);
  // The second copy is skipped, as the sink skips it.
  logs.deltas.splice(1, 1);
  logs.expectExact();
});

test('a shard that closes during an outage leaves its delta to the next owner', async () => {
  const started = await start();
  logs.produceTitle(1);
  failure = connectionLost();
  await meet(started);
  const closingMs = performance.now();
  await started.shard.close(5_000);
  expect(performance.now() - closingMs).toBeLessThan(5_000);
  expect(logs.deltas).toHaveLength(0);
  failure = undefined;
  await expectNextOwnerContinues();
});

test('a dead letter waits for the broker, and is followed by its delta', async () => {
  const started = await start();
  logs.produceTitle(1);
  logs.of('imdb.title.ratings').push(Buffer.from('no chunk'));
  failure = connectionLost();
  await meet(started);
  failure = undefined;
  await started.until(logs.ends);
  expect(logs.of('imdb.dead-letter').map(String)).toEqual(['no chunk']);
  expect(logs.deltas).toHaveLength(1);
  logs.expectExact();
});

test('a permanent refusal ends the shard at once, and names topic and setting', async () => {
  const started = await start();
  logs.produceTitle(1);
  failure = refused();
  started.shard.aimAt(logs.ends);
  await started.fetch();
  expect(await started.failed).toMatchObject({
    kind: 'brokerRefused',
    detail: expect.stringContaining('reelflow.deltas'),
    hint: expect.stringContaining('max.message.bytes'),
  });
  expect(attempts).toBe(1);
});

// Method: a statement of the micro-batch is interrupted, as it is when a rebalance takes the shard from a slow machine.
test('a micro-batch interrupted by closing does not fail the member', async () => {
  let failures = 0;
  const window = { periodMs: 2 ** 30, recordsMax: 1_000, bytesMax: 1_000_000 };
  const onFailure = () => {
    failures += 1;
  };
  const started = shardOver(logs, folder, { window, producer, onFailure });
  open = started;
  await started.shard.open(undefined);
  logs.produceTitle(1);
  failure = connectionLost();
  await meet(started);
  await started.shard.close(0);
  expect(failures).toBe(0);
});

// Method: the group gives the shard away while a micro-batch is being applied, as it happens in a rebalance under load.
test('a shard that another member owns commits its micro-batch, and leaves its delta to the next owner', async () => {
  const started = await start();
  logs.produceTitle(1);
  started.shard.aimAt(logs.ends);
  await started.fetch();
  started.shard.lose();
  await started.shard.close(5_000);
  expect(attempts).toBe(0);
  expect(logs.deltas).toHaveLength(0);
  await expectNextOwnerContinues();
});

// Method: the outbox holds a delta, and the group gives the shard away before it is open.
test('a shard that is lost while it opens leaves the outbox to its owner', async () => {
  const started = await start();
  logs.produceTitle(1);
  failure = connectionLost();
  await meet(started);
  await started.shard.close(5_000);
  failure = undefined;
  const window = { periodMs: 2 ** 30, recordsMax: 1_000, bytesMax: 1_000_000 };
  const { shard } = shardOver(logs, folder, { window, producer });
  shard.lose();
  await expect(shard.open(undefined)).rejects.toThrow('another owner');
  await shard.close(0);
  expect(logs.deltas).toHaveLength(0);
  await expectNextOwnerContinues();
});

// Method: no answer ever comes, and the time for the micro-batch to finish is longer than the test.
test('a shard that closes in an outage gives up its requests at once', async () => {
  const started = await start({ current: { seconds: 5, reason: 'connect ECONNREFUSED' } });
  logs.produceTitle(1);
  const hanging = vi.spyOn(producer, 'send').mockImplementation(() => {
    attempts += 1;
    return Promise.withResolvers<never>().promise;
  });
  started.shard.aimAt(logs.ends);
  await started.fetch();
  await until('the delta is sent', () => attempts > 0);
  await started.shard.close(2 ** 30);
  hanging.mockRestore();
  await expectNextOwnerContinues();
});

// Method: the delta is stored, and its answer never comes.
test('a shard that closes does not wait for an answer that never comes', async () => {
  const started = await start();
  logs.produceTitle(1);
  const { send } = producer;
  const hanging = vi.spyOn(producer, 'send').mockImplementation(async (record) => {
    await send(record);
    return Promise.withResolvers<never>().promise;
  });
  started.shard.aimAt(logs.ends);
  await started.fetch();
  await until('the delta is stored', () => logs.deltas.length === 1);
  const startedMs = performance.now();
  await started.shard.close(0);
  expect(performance.now() - startedMs).toBeLessThan(10_000);
  hanging.mockRestore();
  await (await start()).until(logs.ends);
  logs.expectExact();
});

// Method: a statement takes longer than the patience for it, and no interrupt meets it.
test('a store is detached only after the last statement of its shard, and is whole', async () => {
  const started = await start();
  logs.produceTitle(1);
  const events: string[] = [];
  const { run } = DuckDBConnection.prototype;
  const spy = vi.spyOn(DuckDBConnection.prototype, 'run').mockImplementation(async function (
    this: DuckDBConnection,
    sql,
    ...rest
  ) {
    if (sql.startsWith('DETACH')) events.push('detach');
    if (!sql.includes('.source VALUES')) return run.call(this, sql, ...rest);
    events.push('statement');
    await sleep(2_500);
    const result = await run.call(this, sql, ...rest).finally(() => events.push('end'));
    return result;
  });
  const interrupt = vi.spyOn(DuckDBConnection.prototype, 'interrupt');
  started.shard.aimAt(logs.ends);
  await started.fetch();
  await until('the statement has begun', () => events.length > 0);
  await started.shard.close(0);
  expect(events.at(-1)).toBe('detach');
  expect(events.filter((event) => event === 'end')).toHaveLength(
    events.filter((event) => event === 'statement').length,
  );
  expect(interrupt.mock.calls.length).toBeGreaterThan(1);
  spy.mockRestore();
  interrupt.mockRestore();
  await (await start()).until(logs.ends);
  logs.expectExact();
});
