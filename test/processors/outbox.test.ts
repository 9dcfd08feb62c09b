/**
 * What is between the commit of a micro-batch and its delta on the topic: a whole shard on a real store, whose producer is
 * stopped, or looks at what is committed.
 */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { DuckDBInstance } from '@duckdb/node-api';
import { afterEach, beforeEach, expect, test } from 'vitest';
import type { ShardContext } from '../../processors/shard-context.ts';
import { basics, type Chunk, rating } from '../support/chunks.ts';
import { addDeltas, type Cubes, Rows } from '../support/cube-model.ts';
import { deltaSchemaId, Logs, type ShardOverLogs, shardOver } from '../support/shard-over-logs.ts';

type Send = (record: { topic: string; messages: { value: Buffer }[] }) => Promise<unknown>;

let folder: string;
let instance: DuckDBInstance;
let logs: Logs;
let rows: Rows;
let open: ShardOverLogs | undefined;

beforeEach(async () => {
  folder = mkdtempSync(join(tmpdir(), 'reelflow-outbox-'));
  instance = await DuckDBInstance.create();
  logs = new Logs();
  rows = new Rows();
});
afterEach(async () => {
  await open?.shard.close(0);
  open = undefined;
  instance.closeSync();
  rmSync(folder, { recursive: true, force: true });
});

function produce(title: number): void {
  const chunks: Chunk[] = [
    { dataset: 'title.basics', records: [basics(title, 'Drama')], deletes: [] },
    { dataset: 'title.ratings', records: [rating(title, 7)], deletes: [] },
  ];
  logs.produce(...chunks);
  for (const chunk of chunks) rows.apply(chunk);
}

/** Opens the shard in the place of the one that is open. @param send in the producer's place; default: onto the log */
async function start(send?: Send): Promise<ShardOverLogs> {
  await open?.shard.close(0);
  // One micro-batch for all that is there: no window ends in between.
  const window = { periodMs: 2 ** 30, recordsMax: 1_000, bytesMax: 1_000_000 };
  const producer = { send } as unknown as ShardContext['producer'];
  const started = shardOver(logs, instance, folder, { window, ...(send && { producer }) });
  open = started;
  await started.shard.open(undefined);
  return started;
}

async function publishAll({ shard, until }: ShardOverLogs): Promise<void> {
  shard.aimAt(logs.ends);
  await until(logs.ends);
}

function expectExact(): void {
  const cubes: Cubes = new Map();
  addDeltas(cubes, logs.deltas, deltaSchemaId);
  expect(cubes).toEqual(rows.cubes());
}

test('the next owner of a store publishes a committed delta once', async () => {
  produce(1);
  await publishAll(await start());
  const stopped = await start(async () => {
    throw new Error('power cut');
  });
  produce(2);
  stopped.shard.aimAt(logs.ends);
  await stopped.fetch();
  expect(await stopped.failed).toMatchObject({ message: 'power cut' });
  expect(logs.deltas).toHaveLength(1);
  expect(stopped.shard.appliedPosition).toEqual({ 'imdb.title.basics': 2, 'imdb.title.ratings': 2 });

  await start();
  expect(logs.deltas).toHaveLength(2);
  expectExact();
  produce(3);
  await publishAll(await start());
  expect(logs.deltas).toHaveLength(3);
  expectExact();
});

// Method: another connection to the store's database sees what is committed, and nothing else.
test('every published delta was committed first', async () => {
  const other = await instance.connect();
  const committed: number[] = [];
  const send: Send = async ({ topic, messages }) => {
    const stores = await other.runAndReadAll(
      `SELECT database_name FROM duckdb_tables() WHERE table_name = 'outbox'`,
    );
    for (const [store] of stores.getRows()) {
      const found = await other.runAndReadAll(
        `SELECT count(*)::INTEGER FROM "${store}".outbox WHERE md5(message) IN
          (${messages.map(({ value }) => `md5('\\x${value.toString('hex').match(/../g)?.join('\\x')}'::BLOB)`).join(', ')})`,
      );
      committed.push(Number(found.getRows()[0]?.[0]));
    }
    const baseOffset = String(logs.of(topic).length);
    logs.of(topic).push(...messages.map(({ value }) => value));
    return [{ topicName: topic, partition: 0, errorCode: 0, baseOffset }];
  };
  const started = await start(send);
  for (const title of [1, 2]) {
    produce(title);
    await publishAll(started);
  }
  other.closeSync();
  expect(committed).toEqual([1, 1]);
  expectExact();
});
