/** The sink's cubes on a real DuckDB file: signed rows gather, and are summed in place when that makes them fewer than half. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { CubeStore } from '../../sinks/cube-store.ts';
import { cubePlan, cubesOnTheWire } from '../../topics/delta-wire.ts';
import { nullInt } from '../../topics/row-plan.ts';
import { Columns } from '../../topics/rows.ts';

const groups = 40_000;
const [wire] = cubesOnTheWire.filter(({ name }) => name === 'contributor');

let folder: string;
let store: CubeStore;

beforeEach(async () => {
  folder = mkdtempSync(join(tmpdir(), 'reelflow-compaction-'));
  store = await CubeStore.open(folder, { clusterId: 'cluster', namespace: '' }, '500MB');
});

afterEach(() => {
  store.close();
  rmSync(folder, { recursive: true, force: true });
});

/** Adds one row to each group of a shard: as many titles as `sign` says. */
async function add(shard: number, sign: 1 | -1): Promise<void> {
  if (wire === undefined) throw new Error('there is no contributor cube');
  const rows = new Columns(cubePlan(wire, store.dictionary));
  rows.reserve(groups);
  rows.length = groups;
  rows.plan.forms.forEach((form, c) => {
    if (form === 'long') rows.longs[c]?.fill(sign);
    else rows.ints[c]?.fill(55);
  });
  for (let row = 0; row < groups; row++) rows.int(0)[row] = row;
  expect(rows.int(0)).not.toContain(nullInt);
  await store.transaction(() => store.addCubeRows(shard, wire, rows));
}

/** Writes the cubes out as a snapshot does. @returns the rows of the contributor cube, by shard */
async function exported(name: string): Promise<unknown[]> {
  await store.sumCubes();
  await store.exportCubes(join(folder, name));
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
