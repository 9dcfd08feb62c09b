/**
 * SQL of users in the commands that read gold and files. The check of declarations refuses SQL that reads files; here it is
 * given past that check, and the database itself must refuse it.
 */
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { beforeAll, expect, test } from 'vitest';
import { GoldReader } from '../../sinks/gold/gold-reader.ts';
import { tryOut } from '../../sinks/verify/try-tables.ts';
import { verifySnapshot } from '../../sinks/verify/verify.ts';
import { builtIn } from '../../tables/built-in.ts';
import type { GoldTable } from '../../tables/gold-table.ts';
import { cubeNamed, rowOf } from '../support/cube-rows.ts';
import { openCubes, publishCubes } from '../support/gold-lab.ts';
import { headerOf } from '../support/harness.ts';
import { temporaryFolder } from '../support/temporary-folder.ts';
import { ofUser } from '../support/user-folder.ts';

const root = temporaryFolder();
let gold: string;
let data: string;
let secret: string;
let snapshot: string;

beforeAll(async () => {
  // A bracket: DuckDB reads such a path as a pattern.
  gold = join(root, 'gold [1]');
  data = join(root, 'data [1]');
  secret = join(root, 'secret.txt');
  mkdirSync(data);
  writeFileSync(secret, 'secret');
  writeFileSync(join(data, 'title.ratings.tsv'), `${headerOf('title.ratings')}tt0000001\t5.5\t10\n`);
  const basics = 'tt0000001\tmovie\tOne\tOne\t0\t1999\t\\N\t90\tDrama\n';
  writeFileSync(join(data, 'title.basics.tsv'), `${headerOf('title.basics')}${basics}`);
  const store = await openCubes(join(root, 'state'));
  const drama = store.dictionary.numberOfText('Drama');
  await store.transaction(() =>
    store.addCubeRows(0, rowOf(cubeNamed('title'), 1999, drama, 55, 1, 10, 90, 1)),
  );
  snapshot = (await publishCubes(store, gold, { tables: [counting] })).id;
  store.close();
});

const counting = ofUser('mine', 'SELECT count(*) AS n FROM title');
const reading = () => ofUser('mine', `SELECT count(*) AS n FROM read_text('${secret}')`);
const declarations = (table: GoldTable) => ({ cubes: builtIn.cubes, tables: [table] });
const refused = expect.stringContaining('file system operations are disabled by configuration');

test('`tables try` reads the files of its folder and no other', async () => {
  const [view] = await tryOut(data, declarations(counting), 10);
  expect(view?.rows).toEqual([[1]]);
  await expect(tryOut(data, declarations(reading()), 10)).rejects.toMatchObject({ message: refused });
});

test('a plot reads the files of gold and no other', async () => {
  const points = (x: string) =>
    GoldReader.open(
      gold,
      (reader) => reader.points(snapshot, 'mine', { title: 'T', kind: 'bar', x, y: 'sum(n)' }),
      [counting],
    );
  expect(await points("'all'")).toEqual([['all', 1]]);
  await expect(points(`(SELECT content FROM read_text('${secret}'))`)).rejects.toMatchObject({
    detail: refused,
  });
});

test('`verify` reads the files of its folder and no other', async () => {
  const { signal } = new AbortController();
  const verify = (table: GoldTable) =>
    verifySnapshot({
      gold,
      input: { folder: data },
      memoryLimit: '500MB',
      signal,
      declarations: declarations(table),
    });
  expect((await verify(counting)).tables.mine).toEqual({ rows: 1, differences: 0 });
  await expect(verify(reading())).rejects.toMatchObject({ detail: refused });
});
