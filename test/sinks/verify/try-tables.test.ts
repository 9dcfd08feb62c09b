/** Declarations whose SQL fails on real rows, in a batch computation. */
import { spawnSync } from 'node:child_process';
import { expect, test } from 'vitest';
import { viewText } from '../../../cli/gold-text.ts';
import { exitCodes } from '../../../runtime/errors.ts';
import type { TableView } from '../../../sinks/gold/gold-reader.ts';
import { tryOut } from '../../../sinks/verify/try-tables.ts';
import { builtIn } from '../../../tables/built-in.ts';
import type { Cube } from '../../../tables/cubes/cube.ts';
import type { GoldTable } from '../../../tables/gold-table.ts';
import { program, sample } from '../../support/harness.ts';

const cubeWith = (votes: string): Cube => ({
  name: 'kinds',
  reads: { 'title.ratings': ['tconst', 'averageRating', 'numVotes'] },
  key: ['averageRating'],
  measures: ['votes'],
  contribution: `SELECT averageRating, sum(${votes}) AS votes FROM title_ratings GROUP BY averageRating`,
});
const tableWith = (votes: string): GoldTable => ({
  name: 'votes_by_kind',
  file: '/tables/votes_by_kind.sql',
  about: 'Votes.',
  reads: ['kinds'],
  plots: [],
  integers: `SELECT averageRating, CAST(${votes} AS BIGINT) AS total FROM kinds GROUP BY averageRating`,
  key: ['averageRating'],
  measures: ['total'],
  columns: { averageRating: 'INTEGER', total: 'BIGINT' },
  select: 'averageRating, total',
  order: 'averageRating',
  onlyDuckdb: 'it is for a test',
});

test.each([
  ['kinds', 'numVotes * 1000000000 * 1000000000 * 1000', 'sum(votes)'],
  ['votes_by_kind', 'numVotes', 'sum(votes) * 9000000000000000000 * 9000000000000000000'],
])('an overflow in %s names it, and is not a defect', async (name, measure, sum) => {
  const declarations = { cubes: [cubeWith(measure)], tables: [tableWith(sum)] };
  await expect(tryOut(sample, declarations, 1)).rejects.toMatchObject({
    kind: 'declarationUnusable',
    message: `${name} cannot be computed`,
  });
});

test('on real rows, the key of a table holds null exactly where its notes say so', async () => {
  const tables = builtIn.tables.filter(({ reads }) => !reads.includes('history'));
  const views = await tryOut(sample, { cubes: builtIn.cubes, tables }, 1_000_000);
  const [hold, say]: [string[], string[]] = [[], []];
  for (const { table, columns, rows } of views) {
    const { key } = tables.find(({ name }) => name === table) as GoldTable;
    for (const [at, { name, about }] of columns.entries()) {
      if (!key.includes(name)) continue;
      if (rows.some((row) => row[at] === null)) hold.push(`${table}.${name}`);
      if (/\bnull\b/.test(about)) say.push(`${table}.${name}`);
    }
  }
  expect(hold).toEqual(['title_ratings_agg.genres', 'seasons.seasonNumber']);
  expect(say).toEqual(hold);
});

test('a date is shown as gold holds it', async () => {
  const table: GoldTable = {
    ...tableWith('sum(votes)'),
    columns: { averageRating: 'INTEGER', day: 'DATE' },
    select: "averageRating, DATE '2024-05-01' AS day",
  };
  const [view] = await tryOut(sample, { cubes: [cubeWith('numVotes')], tables: [table] }, 1);
  expect(view?.rows[0]?.slice(1)).toEqual(['2024-05-01']);
  expect(viewText(view as TableView, 200)).toMatch(/ 2024-05-01$/m);
});

test('a table of changes between dumps is refused with the reason', () => {
  const args = ['tables', 'try', '--data', sample, '--table', 'trends'];
  const { status, stderr } = spawnSync(process.execPath, [program, ...args], { encoding: 'utf8' });
  expect(stderr).toBe(
    'Error: trends cannot be tried\n' +
      'Detail: It shows changes between dumps, and the files are of one dump.\n' +
      'Hint: Name another table with --table.\n',
  );
  expect(status).toBe(exitCodes.usage);
});
