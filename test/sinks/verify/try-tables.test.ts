/** Declarations whose SQL fails on real rows, in a batch computation. */
import { expect, test } from 'vitest';
import { tryOut } from '../../../sinks/verify/try-tables.ts';
import type { Cube } from '../../../tables/cubes/cube.ts';
import type { GoldTable } from '../../../tables/gold-table.ts';
import { sample } from '../../support/harness.ts';

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
