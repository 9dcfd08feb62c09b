/** The sink's cubes on a real DuckDB file: signed rows gather, and are summed in place when that makes them fewer than half. */
import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import type { CubeStore } from '../../sinks/cube-store.ts';
import { rowsOf } from '../../tables/cubes/cube.ts';
import { cubeNamed, rowOf } from '../support/cube-rows.ts';
import { openCubes } from '../support/gold-lab.ts';
import { temporaryFolder } from '../support/temporary-folder.ts';

const groups = 40_000;

let folder: string;
let store: CubeStore;

beforeEach(async () => {
  folder = temporaryFolder();
  store = await openCubes(folder);
});

afterEach(() => store.close());

/** Adds one row to each group of a shard: as many titles as `sign` says. */
async function add(shard: number, sign: 1 | -1, cube = cubeNamed('contributor')): Promise<void> {
  const key = [Int32Array.from({ length: groups }, (_, row) => row), new Int32Array(groups).fill(55)];
  const measures = cube.measures.map(() => new Float64Array(groups).fill(sign));
  const rows = rowsOf(cube, [...key, ...measures], groups);
  await store.transaction(() => store.addCubeRows(shard, rows));
}

/** Writes the cubes out as a snapshot does. @returns the rows of the contributor cube, by shard */
async function exported(name: string): Promise<unknown[]> {
  await store.sumCubes(new Set(['contributor']));
  mkdirSync(join(folder, name));
  await store.exportCube(join(folder, name, 'contributor.parquet'), 'contributor');
  const rows = await store.connection.runAndReadAll(
    `SELECT shard, count(*)::INTEGER, sum(titles)::INTEGER FROM '${join(folder, name, 'contributor.parquet')}'
    GROUP BY shard ORDER BY shard`,
  );
  return rows.getRowsJson();
}

test('rows are summed in place if the sum is less than half, and a snapshot does not change', async () => {
  for (let time = 0; time < 3; time++) for (const shard of [0, 1]) await add(shard, 1);
  const before = await exported('before');
  expect(before).toEqual([
    [0, groups, 3 * groups],
    [1, groups, 3 * groups],
  ]);
  expect(await store.compact()).toEqual({ before: 6 * groups, after: 2 * groups });
  expect(await exported('after')).toEqual(before);
  // What comes next is added to the sums that the store has, and not to the rows that were summed in place.
  await add(1, 1);
  const expected = [
    [0, groups, 3 * groups],
    [1, groups, 4 * groups],
  ];
  expect(await exported('next')).toEqual(expected);
  store.close();
  store = await openCubes(folder);
  expect(await exported('again')).toEqual(expected);
});

test('rows stay as they are if a sum would not halve them', async () => {
  for (const shard of [0, 1, 2]) await add(shard, 1);
  await add(0, 1);
  await exported('before');
  expect(await store.compact()).toEqual({ before: 4 * groups, after: 4 * groups });
});

test('rows that sum to 0 leave nothing', async () => {
  for (const sign of [1, -1, 1, -1] as const) await add(0, sign);
  expect(await exported('before')).toEqual([]);
  expect(await store.compact()).toEqual({ before: 4 * groups, after: 0 });
});

test('a cube that no version declares is kept, also when the store is opened again, until no shard has rows of it', async () => {
  const foreign = { ...cubeNamed('contributor'), measures: ['films', 'credits', 'votes'] };
  await add(0, 1, foreign);
  await add(1, 1, foreign);
  await store.transaction(() => store.clearShard(0));
  expect(await store.compact()).toEqual({ before: groups, after: groups });
  store.close();
  store = await openCubes(folder);
  await add(1, 1, foreign);
  expect(await store.compact()).toEqual({ before: 2 * groups, after: 2 * groups });
  // The declared cube of the same name has a table of its own.
  expect(await exported('before')).toEqual([]);
  await store.transaction(() => store.clearShard(1));
  expect(await store.compact()).toEqual({ before: 0, after: 0 });
  const tables = await store.connection.runAndReadAll(
    "SELECT name FROM (SHOW TABLES) WHERE name LIKE 'cube_contributor%'",
  );
  expect(tables.getRows()).toHaveLength(1);
});

test('a table that a rolled back transaction has created is created again', async () => {
  const foreign = { ...cubeNamed('contributor'), measures: ['films', 'credits', 'votes'] };
  const rows = rowOf(foreign, 1, 55, 1, 1, 10);
  const failing = store.transaction(async () => {
    await store.addCubeRows(0, rows);
    throw new Error('the end');
  });
  await expect(failing).rejects.toThrow('the end');
  // A base clears what the same transaction has added before it.
  await store.transaction(async () => {
    await store.addCubeRows(0, rows);
    await store.clearShard(0);
    await store.addCubeRows(0, rows);
  });
  expect(await store.compact()).toEqual({ before: 1, after: 1 });
});
