/** Tables of users that fail or never end: the snapshot is published without them, and says so. */
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { confine } from '../../../database/duckdb.ts';
import type { CubeStore } from '../../../sinks/cube-store.ts';
import type { GoldTable } from '../../../tables/gold-table.ts';
import { goldTables } from '../../../tables/gold-tables.ts';
import { cubeNamed, rowOf } from '../../support/cube-rows.ts';
import { openCubes, publishCubes } from '../../support/gold-lab.ts';
import { temporaryFolder } from '../../support/temporary-folder.ts';
import { ofUser } from '../../support/user-folder.ts';

let folder: string;
let store: CubeStore;

beforeEach(async () => {
  folder = temporaryFolder();
  store = await openCubes(join(folder, 'state'));
  await store.transaction(() =>
    store.addCubeRows(
      0,
      rowOf(cubeNamed('title'), 1999, store.dictionary.numberOfText('Drama'), 55, 1, 10, 90, 1),
    ),
  );
});
afterEach(() => store.close());

const publish = (...own: GoldTable[]) =>
  publishCubes(store, join(folder, 'gold'), {
    tables: [...goldTables.slice(0, 1), ...own],
    userTableMs: 4_000,
  });

test("a user's table that does not end in time is left out, and the others are published", async () => {
  const slow = ofUser('slow', 'SELECT count(*) AS n FROM range(100000000000) AS a(x) WHERE hash(x) = 1');
  const quick = ofUser('quick', 'SELECT count(*) AS n FROM title');
  const { tables, leftOut } = await publish(slow, quick);
  expect(Object.keys(tables)).toEqual([goldTables[0]?.name, 'quick']);
  expect(leftOut).toEqual({ slow: 'its SQL did not end within 4 s' });
});

test("a user's table with two rows of one key is left out", async () => {
  const { tables, leftOut } = await publish(ofUser('twice', 'SELECT 7 AS n FROM range(2)'));
  expect(Object.keys(tables)).toEqual([goldTables[0]?.name]);
  expect(leftOut).toEqual({ twice: 'its key does not identify a row: n=7 occurs 2 times' });
});

test('SQL of users reaches no file but those of gold and state, and nothing gives it more', async () => {
  await confine(store.connection, [join(folder, 'state'), join(folder, 'gold')], 'open');
  const { tables, leftOut } = await publish(
    ofUser('files', `SELECT count(*) AS n FROM read_csv('${join(folder, 'other.csv')}')`),
  );
  expect(Object.keys(tables)).toEqual([goldTables[0]?.name]);
  expect(leftOut?.files).toContain('file system operations are disabled');
  await expect(store.connection.run('SET enable_external_access = true')).rejects.toThrow();
  await expect(store.connection.run("SET allowed_directories = ['/']")).rejects.toThrow();
  await store.onAllThreads(() => publish());
});
