/** Declarations of users: a good folder comes through, and everything that could be wrong is refused with file, line and hint. */
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { beforeEach, describe, expect, test } from 'vitest';
import { ReelflowError } from '../../runtime/errors.ts';
import { builtIn } from '../../tables/built-in.ts';
import { readFolder } from '../../tables/declaration-folder.ts';
import { declarationsWith, userDeclarations } from '../../tables/user-declarations.ts';
import { temporaryFolder } from '../support/temporary-folder.ts';

let folder: string;

beforeEach(() => {
  folder = temporaryFolder();
});

const good = `/*
kind: table
about: Rated titles by single genre.
reads: [title]
key: [genre]
measures: [total_titles, s1]
columns:
  genre: { type: VARCHAR, about: A genre. }
  total_titles: BIGINT
  avg_rating: DOUBLE
order: total_titles DESC, genre
plots:
  - { title: Titles by genre, kind: bar, x: genre, y: sum(total_titles) }
onlyDuckdb: it takes lists apart
*/
WITH integers AS (
  SELECT genre, CAST(sum(titles) AS BIGINT) AS total_titles,
    CAST(sum(rating * titles) AS BIGINT) AS s1
  FROM (SELECT unnest(string_split(genres, ',')) AS genre, rating, titles FROM title) AS each
  GROUP BY genre
)
SELECT genre, total_titles, s1 / CAST(10 * total_titles AS DOUBLE) AS avg_rating
FROM integers
`;
/** The line on which the SQL starts. */
const sqlLine = 16;

const write = (text: string, name = 'genre_ratings.sql') => writeFileSync(join(folder, name), text);
const withSql = (sql: string) => good.replace(/\*\/[\s\S]*/, `*/\n${sql}`);
/** A table of one key and one measure. */
const plain = (sql: string) =>
  withSql(sql)
    .replace('[genre]', '[genres]')
    .replace('  genre: { type: VARCHAR, about: A genre. }\n', '  genres: VARCHAR\n')
    .replace('[total_titles, s1]', '[total_titles]')
    .replace('  avg_rating: DOUBLE\n', '')
    .replace('DESC, genre', 'DESC, genres')
    .replace('x: genre,', 'x: genres,');
const plainLine = sqlLine - 1;

test('a good folder comes through, with the files of its tables', async () => {
  write(good);
  const { problems, tables } = await readFolder(folder);
  expect(problems).toEqual([]);
  expect(tables).toMatchObject([{ name: 'genre_ratings', file: join(folder, 'genre_ratings.sql') }]);
});

test.each([
  ['names', 'nconst', 'primaryName', 'contributor', 'titles'],
  ['title_names', 'tconst', 'originalTitle', 'feature_ratings', 'votes'],
])('a table may show %s, which have one row for each %s', async (relation, id, text, cube, measure) => {
  write(`/*
kind: table
about: Figures with their names.
reads: [${cube}, ${relation}]
key: [id]
attributes: [${text}]
measures: [total]
columns:
  id: { type: INTEGER, about: The number of an id. }
  ${text}: VARCHAR
  total: { type: BIGINT, about: A sum. }
order: id
onlyDuckdb: an example
*/
SELECT sums.${id} AS id, ${text}, total
FROM (SELECT ${id}, CAST(sum(${measure}) AS BIGINT) AS total FROM ${cube} GROUP BY ${id}) AS sums
LEFT JOIN ${relation} ON ${relation}.${id} = sums.${id}
`);
  expect((await readFolder(folder)).problems).toEqual([]);
});

test('--only reads the names of titles only if a table shows them, and then the cube that gives their position', async () => {
  const names = async (table: string) =>
    (await declarationsWith(undefined, [table])).cubes.map(({ name }) => name);
  expect(await names('genre_analysis')).toEqual(['title']);
  expect(await names('series')).toEqual(['feature_ratings', 'feature_basics', 'feature_episode']);
});

test('the child process hands over what it checked, beside the built-in tables', async () => {
  write(good);
  const { cubes, tables } = await declarationsWith(folder);
  expect(tables.map(({ name }) => name)).toEqual([
    ...builtIn.tables.map(({ name }) => name),
    'genre_ratings',
  ]);
  expect(cubes).toEqual(builtIn.cubes);
});

test('--only leaves out built-in tables, and the cubes that nothing reads', async () => {
  write(good);
  const { cubes, tables } = await declarationsWith(folder, ['region_analysis']);
  expect(tables.map(({ name }) => name)).toEqual(['region_analysis', 'genre_ratings']);
  expect(cubes.map(({ name }) => name)).toEqual(['title', 'region']);
});

test('every wrong file is named at once, as one error with its exit code', async () => {
  write(good);
  write(good.replace('[title]', '[movie]'), 'one.sql');
  write('SELECT 1', 'two.sql');
  const thrown = await userDeclarations(folder).catch((error: unknown) => error);
  expect(thrown).toBeInstanceOf(ReelflowError);
  expect(thrown).toMatchObject({
    exitCode: 35,
    detail: expect.stringMatching(
      /one\.sql:4: there is no cube movie\. Read [^\n]+\n[^\n]+two\.sql:1: the file does not begin with a comment\. Put [^\n]+$/,
    ),
  });
});

test('a table of a cube that has a problem names this cube, and a folder that does not exist is named', async () => {
  write('/*\nkind: cube\n*/\nSELECT 1', 'movie.sql');
  write(good.replace('[title]', '[movie]'), 'one.sql');
  const { problems } = await readFolder(folder);
  expect(problems.map(({ reason }) => reason)).toContain('the cube movie has a problem of its own');
  const none = await readFolder(join(folder, 'none'));
  expect(none.problems).toMatchObject([{ reason: 'the folder does not exist' }]);
});

test('SQL that does not end is ended, and its file named', async () => {
  // Long before the product of nine tables fills the memory of the check.
  const from = Array.from({ length: 9 }, (_, i) => `title AS t${i}`).join(', ');
  write(plain(`SELECT t0.genres, CAST(count(*) AS BIGINT) AS total_titles FROM ${from} GROUP BY t0.genres`));
  const thrown = await userDeclarations(folder, 200).catch((error: unknown) => error);
  expect(thrown).toMatchObject({ kind: 'declarationUnusable' });
  expect((thrown as ReelflowError).detail).toContain(`${folder}/genre_ratings.sql:1: its check did not end`);
});

const count = 'CAST(sum(titles) AS BIGINT) AS total_titles';
const select = `SELECT genres, ${count}\nFROM title\nGROUP BY genres`;

describe('refused', () => {
  test.each<[string, string, number, string]>([
    [
      'a property that is missing',
      good.replace(/order:.*\n/, ''),
      1,
      'order: invalid input: expected string',
    ],
    [
      'aliases of aliases',
      good.replace(
        'kind: table',
        `kind: table\na: &a [x,x,x,x,x,x,x,x,x]\nb: &b [${'*a,'.repeat(9)}]\nc: &c [${'*b,'.repeat(9)}]\nd: [${'*c,'.repeat(9)}]`,
      ),
      1,
      'the metadata cannot be read: Excessive alias count',
    ],
    ['a tag that YAML does not know', good.replace('[title]', '!films [title]'), 4, 'Unresolved tag: !films'],
    ['an unknown cube', good.replace('[title]', '[title, films]'), 4, 'no cube films'],
    ['two statements', plain(`${select};\nSELECT 2`), plainLine, 'found 2'],
    ['a statement that is not a SELECT', plain("COPY title TO 'x'"), plainLine, 'not a SELECT'],
    ['a syntax error', plain('SELECT genres\nFROM title\nGROUPED BY x'), plainLine + 2, 'syntax error'],
    ['an unknown column', plain(select.replace('sum(titles)', 'sum(films)')), plainLine, 'no column films'],
    [
      'an unknown column on a later line',
      plain(select.replace('GROUP BY genres', 'WHERE yeer > 1\nGROUP BY genres')),
      plainLine + 2,
      'no column yeer',
    ],
    [
      'an unlisted relation',
      plain(select.replace('FROM title', 'FROM region')),
      plainLine + 1,
      'no relation region',
    ],
    [
      'a relation of the sink',
      plain(select.replace('FROM title', 'FROM title_sums')),
      plainLine + 1,
      'no relation title_sums',
    ],
    [
      'a file',
      plain(select.replace('FROM title', "FROM '/etc/passwd.csv'")),
      plainLine + 1,
      'no relation /etc/passwd.csv',
    ],
    [
      'a table function',
      plain(select.replace('FROM title', "FROM read_csv('x')")),
      plainLine + 1,
      'table function read_csv',
    ],
    [
      'the network',
      plain(select.replace('FROM title', "FROM 'https://example.org/x.parquet'")),
      plainLine + 1,
      'no relation https',
    ],
    ['an extension', plain('INSTALL httpfs'), plainLine, 'not a SELECT'],
    [
      'a table function before the columns that it explains',
      plain("SELECT genre, total FROM read_parquet('x')"),
      plainLine,
      'table function read_parquet',
    ],
    ['a misspelt property', good.replace('order:', 'odrer:'), 11, 'odrer is not a property'],
    [
      'an unknown type',
      good.replace('total_titles: BIGINT', 'total_titles: TEXT'),
      9,
      'columns.total_titles: expected one of BIGINT, INTEGER, DOUBLE,',
    ],
    [
      'a function that writes a file',
      plain(select.replace('sum(titles)', "enable_logging(storage = 'file')")),
      plainLine,
      'enable_logging',
    ],
    ['an environment variable', plain(select.replace('sum(titles)', "getenv('HOME')")), plainLine, 'getenv'],
    ['a random number', plain(select.replace('sum(titles)', 'random()')), plainLine, 'random'],
    ['the date', plain(select.replace('sum(titles)', 'current_date')), plainLine, 'current_date'],
    ['a row number', plain(select.replace('sum(titles)', 'rowid')), plainLine, 'rowid'],
    ['any value', plain(select.replace('sum(titles)', 'any_value(titles)')), plainLine, 'any_value'],
    ['a limit', plain(`${select}\nLIMIT 3`), plainLine + 1, 'LIMIT'],
    ['a sample', plain(select.replace('FROM title', 'FROM title TABLESAMPLE 10%')), plainLine + 1, 'sample'],
    [
      'an order by the date',
      good.replace('order: total_titles DESC, genre', 'order: current_date'),
      11,
      'current_date',
    ],
    [
      'an order that is more than that',
      good.replace('order: total_titles DESC, genre', 'order: "genre; DROP TABLE title"'),
      11,
      'order',
    ],
    [
      'an order that leaves ties',
      good.replace('order: total_titles DESC, genre', 'order: length(genre)'),
      11,
      'place of equal rows',
    ],
    [
      'a plot that reads a file',
      good.replace('y: sum(total_titles)', `y: "(SELECT count(*) FROM 'f.csv')"`),
      13,
      'f.csv',
    ],
    ['a plot of an unknown column', good.replace('x: genre,', 'x: genra,'), 13, 'genra'],
    [
      'a measure that is not an integer',
      good.replace('CAST(sum(rating * titles) AS BIGINT)', 'sum(rating * titles) / 10'),
      6,
      's1 is DOUBLE',
    ],
    [
      'a key that is not grouped',
      plain(`SELECT genres, ${count}\nFROM title\nGROUP BY startYear`),
      plainLine,
      'must appear in the GROUP BY',
    ],
    [
      'a key that does not identify a row',
      plain(`SELECT genres, ${count}\nFROM title\nGROUP BY genres, startYear`),
      5,
      'does not identify',
    ],
    [
      'a count of the rows of a cube',
      plain('SELECT genres, count(*) AS total_titles\nFROM title\nGROUP BY genres'),
      plainLine,
      'how many shards',
    ],
    [
      'a maximum of a measure',
      plain('SELECT genres, max(titles) AS total_titles\nFROM title\nGROUP BY genres'),
      plainLine,
      'how many shards',
    ],
    [
      'the rows of a cube without a sum',
      plain('SELECT startYear, genres, rating, titles AS total_titles\nFROM title')
        .replace('[genres]', '[startYear, genres, rating]')
        .replace(
          '  genres: VARCHAR\n',
          '  startYear: INTEGER\n  genres: VARCHAR\n  rating: { type: INTEGER, about: In tenths. }\n',
        )
        .replace('DESC, genres', 'DESC, startYear, genres, rating'),
      plainLine + 2,
      'how many shards',
    ],
    ['a measure that the SELECT lacks', good.replace('s1]', 's2]'), 6, 'no column s2'],
    [
      'a column of another type',
      good.replace('avg_rating: DOUBLE', 'avg_rating: BIGINT'),
      10,
      'avg_rating is DOUBLE',
    ],
    [
      'a column that the SELECT lacks',
      good.replace('avg_rating: DOUBLE', 'avg_year: DOUBLE'),
      10,
      'no column avg_year',
    ],
    [
      'columns in another order',
      good.replace(
        '  total_titles: BIGINT\n  avg_rating: DOUBLE\n',
        '  avg_rating: DOUBLE\n  total_titles: BIGINT\n',
      ),
      7,
      'the SELECT has the columns',
    ],
    ['a column without a note', good.replaceAll('avg_rating', 'mean'), 10, 'no note'],
    ['a name twice', good.replace('[total_titles, s1]', '[total_titles, genre]'), 6, 'twice'],
    ['a type error', plain(select.replace('sum(titles)', 'sum(genres)')), plainLine, 'sum(VARCHAR)'],
    [
      'SQL that Flink cannot take, unsaid',
      good.replace(/onlyDuckdb.*\n/, ''),
      sqlLine - 1,
      'Flink cannot compute it',
    ],
    ['rows by id', good.replace('order:', 'rowsBy: tconst\norder:'), 11, 'kept by id'],
    ['standardised columns', good.replace('order:', 'standardised: [s1]\norder:'), 11, 'standardised'],
  ])('%s', async (_, text, line, reason) => {
    write(text);
    const { problems, tables } = await readFolder(folder);
    expect(problems).toMatchObject([{ file: join(folder, 'genre_ratings.sql') }]);
    expect(problems[0]?.reason).toContain(reason);
    expect(problems[0]?.line).toBe(line);
    expect(problems[0]?.hint).toMatch(/^[A-Z].*\.$/s);
    expect(tables).toEqual([]);
  });

  test.each(['genre_analysis', 'title', 'names', 'title_names'])(
    'the name %s, which reelflow has',
    async (name) => {
      write(good, `${name}.sql`);
      expect((await readFolder(folder)).problems).toMatchObject([{ line: 1, hint: 'Rename the file.' }]);
    },
  );

  test('a folder that does not exist, and one without declarations', async () => {
    const { problems } = await readFolder(join(folder, 'nowhere'));
    expect(problems).toMatchObject([
      { file: join(folder, 'nowhere'), hint: 'Name a folder with SQL files.' },
    ]);
    expect((await readFolder(folder)).problems[0]?.reason).toContain('no SQL file');
  });
});
