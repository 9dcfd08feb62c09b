/** Declarations as files: what a file says is what the pipeline gets, and a wrong one is refused with file and line. */
import { mkdirSync, readdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { builtInFolder } from '../../tables/built-in.ts';
import { noteOf } from '../../tables/column-notes.ts';
import { cubeSetOf, cubes } from '../../tables/cubes/cube-set.ts';
import { DeclarationFile } from '../../tables/declaration-file.ts';
import { DeclarationProblem } from '../../tables/declaration-problem.ts';
import { goldTables } from '../../tables/gold-tables.ts';
import { readCube, readGoldTable } from '../../tables/read-declaration.ts';
import { temporaryFolder } from '../support/temporary-folder.ts';

const folder = temporaryFolder();

function fileOf(text: string, name = 'votes_by_year.sql'): string {
  const path = join(folder, name);
  writeFileSync(path, text);
  return path;
}

/** The problem of a declaration of a gold table. */
function problemOf(text: string, name?: string) {
  try {
    readGoldTable(new DeclarationFile(fileOf(text, name)));
  } catch (thrown) {
    if (thrown instanceof DeclarationProblem) return thrown.problem;
    throw thrown;
  }
  throw new Error('the declaration was accepted');
}

const plain = `/*
kind: table
about: Votes by year.
reads: [title]
key: [startYear]
measures: [total_votes]
columns:
  startYear: INTEGER
  total_votes: { type: BIGINT, about: All votes of the year., unit: votes }
order: startYear
*/
-- Titles without a year do not count.
SELECT startYear, CAST(sum(votes) AS BIGINT) AS total_votes
FROM title WHERE startYear IS NOT NULL GROUP BY startYear;
`;

test('every file of the built-in folder is a declared cube or table, and the reverse', () => {
  const names = readdirSync(builtInFolder).sort();
  const declared = [...cubes, ...goldTables].map(({ name }) => `${name}.sql`);
  expect(names).toEqual(declared.sort());
});

test('every column of a built-in table has a note', () => {
  for (const { columns, notes } of goldTables) {
    for (const column of Object.keys(columns)) expect(noteOf(column, notes).about).not.toBe('');
  }
});

test('every built-in table reads cubes, or relations of the sink, that its SQL names', () => {
  const known = [
    ...cubes.map(({ name }) => name),
    'names',
    'title_names',
    'dictionary',
    'history',
    'history_span',
  ];
  for (const { name, reads, integers } of goldTables) {
    for (const relation of reads) {
      expect(known, name).toContain(relation);
      expect(integers, name).toMatch(new RegExp(`\\b${relation}(_sums)?\\b`));
    }
  }
});

test('every relation of a table whose rows are computed by id has this id, and so has the table', () => {
  const columns = new Map<string, readonly string[]>(cubes.map(({ name, key }) => [name, key]));
  columns.set('names', ['nconst']);
  columns.set('title_names', ['tconst']);
  const tables = goldTables.filter(({ rowsBy }) => rowsBy !== undefined);
  expect(tables.length).toBeGreaterThan(0);
  for (const { name, reads, key, rowsBy } of tables) {
    expect(key, name).toContain(rowsBy);
    for (const relation of reads.filter((each) => each !== 'dictionary')) {
      expect(columns.get(relation), `${name} reads ${relation}`).toContain(rowsBy);
    }
  }
});

test('the built-in cubes have the versions of the deltas that exist', () => {
  expect(cubeSetOf(cubes).split(' ')).toEqual([
    'contributor:0e53667778df',
    'director:2f2132eedb2e',
    'feature_akas:b60787b6370e',
    'feature_basics:1528b99966b6',
    'feature_episode:e5573bed5ac1',
    'feature_principals:409bddf5df0f',
    'feature_ratings:0ee828afe527',
    'language:e82dddc8e6dd',
    'region:2c4f19493011',
    'title:20f7c94b3745',
    'writer:50bc82c1b8a8',
  ]);
});

test('a plain SELECT is the integer form, and the final form has its columns', () => {
  const table = readGoldTable(new DeclarationFile(fileOf(plain)));
  expect(table).toMatchObject({
    name: 'votes_by_year',
    reads: ['title'],
    select: 'startYear, total_votes',
    columns: { startYear: 'INTEGER', total_votes: 'BIGINT' },
    notes: { total_votes: { about: 'All votes of the year.', unit: 'votes' } },
    plots: [],
  });
  expect(table.integers).toMatch(/^-- Titles[\s\S]*GROUP BY startYear$/);
  expect(table).not.toHaveProperty('beside');
});

test('WITH integers AS splits the two forms, whatever brackets, texts and comments hold', () => {
  const sql = `-- The integers (first)
  /* ) */ WITH integers AS (
    SELECT ')' AS a, count(*) AS n FROM title -- ) FROM integers
  )
  -- Then fractions.
  SELECT a, (SELECT max(n) FROM integers) AS most, 'FROM integers' AS text FROM integers JOIN other ON b = a`;
  const { integers, select, beside } = readGoldTable(
    new DeclarationFile(fileOf(plain.replace(/\*\/[\s\S]*/, `*/\n${sql}`))),
  );
  expect(integers.trim()).toBe("SELECT ')' AS a, count(*) AS n FROM title -- ) FROM integers");
  expect(select).toBe("a, (SELECT max(n) FROM integers) AS most, 'FROM integers' AS text");
  expect(beside).toBe('JOIN other ON b = a');
});

test('a cube is read as it is declared', () => {
  const text = `/*
kind: cube
about: Titles by type.
reads:
  title.basics: [tconst, titleType]
  title.ratings: [tconst, averageRating]
key: [titleType, rating]
texts: [titleType]
measures: [titles]
*/
SELECT 1`;
  expect(readCube(new DeclarationFile(fileOf(text, 'medium.sql')))).toEqual({
    name: 'medium',
    reads: { 'title.basics': ['tconst', 'titleType'], 'title.ratings': ['tconst', 'averageRating'] },
    key: ['titleType', 'rating'],
    texts: ['titleType'],
    measures: ['titles'],
    contribution: '\n    SELECT 1',
  });
});

test.each([
  ['no comment', 'SELECT 1', 1, 'does not begin with a comment'],
  ['a comment that is not closed', '/*\nkind: table\nSELECT 1', 1, 'does not begin with a comment'],
  ['no statement', plain.replace(/\*\/[\s\S]*/, '*/\n'), 12, 'no SELECT'],
  ['metadata that is not YAML', plain.replace('key: [startYear]', 'key: [startYear'), 6, 'not YAML'],
  ['a key twice', plain.replace('order:', 'about: x\norder:'), 10, 'not YAML'],
  [
    'a property that does not exist',
    plain.replace('order:', 'sort: x\norder:'),
    10,
    'sort is not a property',
  ],
  ['a property that is missing', plain.replace('order: startYear\n', ''), 1, 'order'],
  ['a value of another type', plain.replace('[title]', 'title'), 4, 'reads'],
  ['an unknown type of a column', plain.replace(': INTEGER', ': INT'), 8, 'columns.startYear'],
  ['no key', plain.replace('[startYear]', '[]'), 5, 'key'],
  ['a cube where a table is expected', plain.replace('kind: table', 'kind: cube'), 2, 'kind'],
  [
    'a last SELECT from something else',
    plain.replace(/\*\/[\s\S]*/, '*/\n\nWITH integers AS (SELECT 1) SELECT 2 FROM title'),
    13,
    'not FROM integers',
  ],
  [
    'an open bracket',
    plain.replace(/\*\/[\s\S]*/, '*/\nWITH integers AS (SELECT (1) SELECT 2'),
    12,
    'bracket',
  ],
])('%s is refused with its line', (_, text, line, reason) => {
  const problem = problemOf(text);
  expect(problem.file).toBe(join(folder, 'votes_by_year.sql'));
  expect(problem.reason).toContain(reason);
  expect(problem.line).toBe(line);
  expect(problem.hint).toMatch(/^[A-Z].*\.$/);
});

test('a file whose name is not a valid table name, and one that cannot be read, are refused', () => {
  expect(problemOf(plain, 'Votes.sql').reason).toContain('not a valid table name');
  mkdirSync(join(folder, 'a_folder.sql'));
  expect(() => new DeclarationFile(join(folder, 'a_folder.sql'))).toThrow(/a_folder\.sql:1: EISDIR/);
});
