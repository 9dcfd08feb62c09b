/** The SQL of declarations: what both engines take is let through, what only one takes is refused by name. */
import { expect, test } from 'vitest';
import type { Cube } from '../../tables/cubes/cube.ts';
import { cubes, declaredCubes } from '../../tables/cubes/cube-set.ts';
import { declaredTables } from '../../tables/gold-table.ts';
import { goldTables } from '../../tables/gold-tables.ts';
import { checkPortable, quotedForFlink } from '../../tables/portable-sql.ts';

const regionCube = cubes.find(({ name }) => name === 'region') as Cube;
const names = ['titles', 'year', 'votes'];

test.each([
  ['SELECT year::BIGINT FROM titles', '::BIGINT'],
  ['SELECT year FROM titles QUALIFY 1', 'QUALIFY'],
  ['SELECT any_value(year) FROM titles', 'any_value'],
  ['SELECT avg(votes) FROM titles', 'average of integers'],
  ['SELECT year / 10 FROM titles', 'divisor'],
  ['SELECT year / (votes + CAST(10 AS DOUBLE)) FROM titles', 'divisor'],
  ['SELECT year // 10 FROM titles', 'divisor'],
  ['SELECT year, count(*) FROM titles GROUP BY ALL', 'GROUP BY'],
  ['SELECT year, count(*) FROM titles GROUP BY 1', 'GROUP BY'],
  ['SELECT "year" FROM titles', '"year"'],
  ['SELECT Year FROM titles', 'Year'],
  ['SELECT CAST(year AS VARCHAR) FROM titles', 'VARCHAR'],
  ['SELECT year FROM titles SEMI JOIN titles', 'SEMI'],
  ['SELECT year FROM titles JOIN votes USING (year)', 'USING'],
  ['SELECT year FROM titles -- all', '-- all'],
  ['SELECT year FROM titles; DROP', '; DROP'],
  ['SELECT (year FROM titles', 'brackets'],
  ['SELECT year) FROM (titles', 'brackets'],
  [' ', 'no SQL'],
])('%j is refused', (sql, reason) => {
  expect(() => checkPortable(sql, names)).toThrow(reason);
});

test('a text that both engines take comes through, its names quoted and nothing else changed', () => {
  const sql =
    "SELECT year AS value, sum(votes) / CAST(count(*) AS DOUBLE) AS mean, 'year' AS text FROM titles GROUP BY year";
  checkPortable(sql, names);
  expect(quotedForFlink(sql)).toBe(
    "SELECT `year` AS `value`, sum(`votes`) / CAST(count(*) AS DOUBLE) AS `mean`, 'year' AS `text` FROM `titles` GROUP BY `year`",
  );
});

test('a cube that Flink cannot take is refused where it is declared, unless it says that it is for DuckDB alone', () => {
  const cube: Cube = { ...regionCube, contribution: regionCube.contribution.replace('JOIN', 'SEMI JOIN') };
  expect(() => declaredCubes([...cubes, cube])).toThrow('cube region: SEMI');
  expect(() =>
    declaredCubes([{ ...regionCube, contribution: 'SELECT startYear FROM title_ratings' }]),
  ).toThrow('startYear');
  expect(declaredCubes([{ ...cube, onlyDuckdb: 'a reason' }])).toHaveLength(1);
});

test('a gold table that Flink cannot take is refused where it is declared, unless it says that it is for DuckDB alone', () => {
  const [table] = goldTables;
  if (table === undefined) throw new Error('there are no gold tables');
  const foreign = { ...table, select: 'log10(total_titles) AS magnitude' };
  expect(() => declaredTables([foreign])).toThrow('gold table genre_analysis: the function log10');
  expect(() => declaredTables([{ ...table, integers: 'SELECT country FROM title' }])).toThrow('country');
  expect(declaredTables([{ ...foreign, onlyDuckdb: 'a reason' }])).toHaveLength(1);
});
