/**
 * A version of the program whose cubes read other datasets than those of the version that has published: a whole shard over
 * logs in memory, opened with one set of cubes after the other.
 */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { DuckDBInstance } from '@duckdb/node-api';
import { afterEach, beforeEach, expect, test } from 'vitest';
import type { Cube } from '../../tables/cubes/cube.ts';
import { cubes, fingerprintOf } from '../../tables/cubes/cube-set.ts';
import { type DeltaPart, decodeDeltaHeader, toOf } from '../../topics/delta-wire.ts';
import { aka, basics, principal, rating } from '../support/chunks.ts';
import { addDeltas, type Cubes } from '../support/cube-model.ts';
import { hashesBelow } from '../support/damage.ts';
import { deltaSchemaId, Logs, type ShardOverLogs, shardOver } from '../support/shard-over-logs.ts';

let folder: string;
let instance: DuckDBInstance;
let logs: Logs;
let open: ShardOverLogs | undefined;

beforeEach(async () => {
  folder = mkdtempSync(join(tmpdir(), 'reelflow-cube-sets-'));
  instance = await DuckDBInstance.create();
  logs = new Logs();
  logs.produce(
    { dataset: 'title.basics', records: [basics(1, 'Drama')], deletes: [] },
    { dataset: 'title.ratings', records: [rating(1, 7)], deletes: [] },
    { dataset: 'title.principals', records: [principal(1, 1, 5)], deletes: [] },
    { dataset: 'title.akas', records: [aka(1, 1, 'DE')], deletes: [] },
  );
});
afterEach(async () => {
  await end();
  instance.closeSync();
  rmSync(folder, { recursive: true, force: true });
});

const all = [...cubes];
const withoutAkas = all.filter(({ reads }) => reads['title.akas'] === undefined);
const akas = 'imdb.title.akas';

async function end(): Promise<void> {
  await open?.shard.close(0);
  open = undefined;
}

/** Opens the shard with these cubes in the place of the one that is open. */
async function start(set: readonly Cube[]): Promise<ShardOverLogs> {
  await end();
  const started = shardOver(logs, instance, folder, {}, [], set);
  await started.shard.open(undefined);
  open = started;
  return started;
}

/** Publishes all that the cubes of this set read. */
async function publish(set: readonly Cube[]): Promise<void> {
  const { shard, until } = await start(set);
  const ends = Object.fromEntries(shard.topics.map((topic) => [topic, logs.of(topic).length]));
  shard.aimAt(ends);
  await until(ends);
}

const headers = (): DeltaPart[] => logs.deltas.map((value) => decodeDeltaHeader(value, deltaSchemaId).header);

/** The sum of what is published, from the last base on. */
function sum(): Cubes {
  const published: Cubes = new Map();
  const base = headers().findLastIndex(({ kind }) => kind === 'base');
  addDeltas(published, logs.deltas.slice(Math.max(0, base)), deltaSchemaId);
  return published;
}

test('a cube set with a further dataset begins with a base and then reads the dataset', async () => {
  await publish(withoutAkas);
  const before = headers().length;
  await publish(all);
  const more = headers().slice(before);
  expect(more.map(({ kind }) => kind)).toEqual(['base', 'delta']);
  expect(toOf(more[0] as DeltaPart)).not.toHaveProperty(akas);
  expect(toOf(more[1] as DeltaPart)).toMatchObject({ [akas]: 1 });
  const both = sum();
  logs.deltas.length = 0;
  await end();
  await publish(all);
  expect(both).toEqual(sum());
});

test('a cube set without an earlier dataset is refused before any change, and the earlier one continues', async () => {
  await publish(all);
  await end();
  const stores = hashesBelow(folder);
  const published = logs.deltas.length;
  await expect(start(withoutAkas)).rejects.toMatchObject({
    kind: 'topicMismatch',
    detail: expect.stringContaining(akas),
    hint: expect.stringContaining('reelflow reset'),
  });
  expect(hashesBelow(folder)).toEqual(stores);
  expect(logs.deltas).toHaveLength(published);
  logs.produce({ dataset: 'title.akas', records: [aka(1, 2, 'FR')], deletes: [] });
  await publish(all);
  expect(headers().at(-1)).toMatchObject({ kind: 'delta', cubeSet: fingerprintOf(all) });
});

// Method: all deltas go; a store that knew where they led could be yesterday's.
test('a shard is not opened when no delta remains to tell the published position', async () => {
  await publish(all);
  await end();
  logs.starts.set('reelflow.deltas', logs.deltas.length);
  const stores = hashesBelow(folder);
  const refusal = { kind: 'deltasTrimmed', hint: expect.stringContaining('reelflow reset') };
  await expect(start(all)).rejects.toMatchObject(refusal);
  expect(hashesBelow(folder)).toEqual(stores);
  for (const path of Object.keys(stores)) rmSync(join(folder, path));
  await expect(start(all)).rejects.toMatchObject(refusal);
  expect(logs.deltas).toHaveLength(1);
});
