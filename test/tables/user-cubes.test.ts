/** Cubes of users: what is additive over titles comes through, everything else is refused with file, line and hint. */
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { beforeEach, expect, test } from 'vitest';
import { builtIn, builtInFolder } from '../../tables/built-in.ts';
import { readFolder } from '../../tables/declaration-folder.ts';
import { temporaryFolder } from '../support/temporary-folder.ts';

let folder: string;

beforeEach(() => {
  folder = temporaryFolder();
});

const good = `/*
kind: cube
about: Rated titles by type and rating.
reads:
  title.basics: [tconst, titleType]
  title.ratings: [tconst, averageRating, numVotes]
key: [titleType, rating]
texts: [titleType]
measures: [titles, votes]
onlyDuckdb: it is for a test
*/
SELECT titleType, averageRating AS rating, count(*) AS titles, sum(numVotes) AS votes
FROM title_basics JOIN title_ratings ON title_basics.tconst = title_ratings.tconst
GROUP BY titleType, averageRating
`;
const sqlLine = 12;
const write = (text: string, name = 'types.sql') => writeFileSync(join(folder, name), text);

test('a good cube comes through, and a table of the same folder may read it', async () => {
  write(good);
  write(
    `/*
kind: table
about: Titles by type.
reads: [types]
key: [titleType]
measures: [total_titles]
columns: { titleType: VARCHAR, total_titles: BIGINT }
order: titleType
*/
SELECT titleType, CAST(sum(titles) AS BIGINT) AS total_titles FROM types GROUP BY titleType`,
    'a_table.sql',
  );
  const { problems, cubes, tables } = await readFolder(folder);
  expect(problems).toEqual([]);
  expect([...cubes, ...tables].map(({ name }) => name)).toEqual(['types', 'a_table']);
});

test.each(['order', 'history', 'title_basics', 'title_sums', 'recent'])(
  'a cube named %s is refused',
  async (name) => {
    write(good, `${name}.sql`);
    const { problems } = await readFolder(folder);
    expect(problems).toMatchObject([{ line: 1, hint: 'Rename the file.' }]);
  },
);

test('a cube of one dataset comes through when it is its own gate', async () => {
  write(`/*
kind: cube
about: Titles by type and year, rated or not.
reads:
  title.basics: [tconst, titleType, startYear]
gate: title.basics
key: [titleType, startYear]
texts: [titleType]
measures: [titles]
*/
SELECT titleType, startYear, count(*) AS titles FROM title_basics GROUP BY titleType, startYear
`);
  const { problems, cubes } = await readFolder(folder);
  expect(problems).toEqual([]);
  expect(cubes).toMatchObject([{ name: 'types', gate: 'title.basics' }]);
});

test.each([
  ['with a comment and a semicolon at its end', good.replace(/\n$/, '; -- by type\n/* the end */\n')],
  ['with names in other letters', good.replace('FROM title_basics', 'FROM Title_Basics')],
  ['with two hyphens in a text', good.replace('GROUP BY', "WHERE '--' <> ';' GROUP BY")],
])('a cube %s can be used inside of brackets', async (_, text) => {
  write(text);
  const { problems, cubes } = await readFolder(folder);
  expect(problems).toEqual([]);
  expect(cubes[0]?.contribution).toMatch(/ averageRating\) AS contribution$/);
});

test('every built-in cube would pass', async () => {
  for (const { name } of builtIn.cubes) {
    write(readFileSync(join(builtInFolder, `${name}.sql`), 'utf8'), `my_${name}.sql`);
  }
  expect((await readFolder(folder)).problems).toEqual([]);
});

const sums = 'count(*) AS titles, sum(numVotes) AS votes';
test.each<[string, string, number, string]>([
  [
    'titles above the mean',
    good.replace(
      'GROUP BY',
      'WHERE averageRating > (SELECT avg(averageRating) FROM title_ratings)\nGROUP BY',
    ),
    sqlLine,
    'not additive',
  ],
  ['a maximum', good.replace('sum(numVotes)', 'max(numVotes)'), sqlLine, 'not additive'],
  [
    'a number of distinct texts',
    good
      .replace('sum(numVotes)', 'count(DISTINCT titleType)')
      .replace(/titleType, average/g, 'average')
      .replace('[titleType, rating]', '[rating]')
      .replace('texts: [titleType]\n', ''),
    sqlLine - 1,
    'not additive',
  ],
  [
    'a LEFT JOIN',
    good.replace('JOIN', 'LEFT JOIN'),
    sqlLine,
    'titles without rows in title.ratings contribute',
  ],
  [
    'a dataset that is not joined',
    good.replace('  title.ratings:', '  title.akas: [titleId, ordering]\n  title.ratings:'),
    sqlLine + 1,
    'titles without rows in title.akas contribute',
  ],
  [
    'a text that is taken apart',
    good
      .replace(/titleType, average/g, 'length(titleType), average')
      .replace('SELECT length(titleType)', 'SELECT length(titleType) AS n')
      .replace('[titleType, rating]', '[n, rating]')
      .replace('texts: [titleType]\n', ''),
    sqlLine - 1,
    'text',
  ],
  [
    'a text that is compared',
    good.replace('GROUP BY', "WHERE titleType = 'Drama'\nGROUP BY"),
    sqlLine,
    'text',
  ],
  ['no rating', good.replace(/ {2}title.ratings.*\n/, ''), 4, 'title.ratings'],
  ['a gate that it does not read', good.replace('reads:', 'gate: title.akas\nreads:'), 4, 'title.akas'],
  ['a gate that is not a dataset', good.replace('reads:', 'gate: title.films\nreads:'), 4, 'gate'],
  ['an unknown dataset', good.replace('title.basics:', 'title.films:'), 5, 'title.films'],
  ['an unknown column', good.replace('titleType]\n  title.r', 'medium]\n  title.r'), 5, 'no column medium'],
  [
    'columns that do not begin with the key',
    good.replace('[tconst, titleType]', '[titleType, tconst]'),
    5,
    'begin with its key',
  ],
  [
    'a dataset of people',
    good.replace('  title.ratings:', '  name.basics: [nconst]\n  title.ratings:'),
    6,
    'no titles',
  ],
  [
    'a text of many values',
    good.replace('titleType]\n  title.r', 'titleType, primaryTitle]\n  title.r'),
    5,
    'too many different values',
  ],
  [
    'a product that exceeds 32 bits',
    good.replace('sum(numVotes)', 'sum(numVotes * averageRating)'),
    sqlLine,
    'it fails on a title with 2147483647 in its columns: Out of Range Error: Overflow in multiplication of INT32',
  ],
  [
    'a key that exceeds 32 bits',
    good
      .replace('averageRating AS rating', 'CAST(numVotes AS BIGINT) + 1 AS rating')
      .replace('averageRating\n`', 'numVotes\n`')
      .replace('titleType, averageRating\n', 'titleType, numVotes\n'),
    sqlLine,
    'it fails on a title with 2147483647 in its columns: rating is too large',
  ],
  [
    'a key that is the number for null',
    good
      .replace('averageRating AS rating', 'numVotes - 1 AS rating')
      .replace('titleType, averageRating\n', 'titleType, numVotes\n'),
    sqlLine,
    'it fails on a title with -2147483647 in its columns: rating is too large',
  ],
  [
    'a measure that exceeds 53 bits',
    good.replace('sum(numVotes)', 'sum(CAST(numVotes AS BIGINT) * numVotes)'),
    sqlLine,
    'it fails on a title with 2147483647 in its columns: votes is too large',
  ],
  [
    'a cube without a count, whose groups can sum up to 0',
    good.replace('count(*) AS titles, ', '').replace('[titles, votes]', '[votes]'),
    9,
    'no measure is above 0 for every row',
  ],
  [
    'a cube that counts what may be null',
    good
      .replace('[tconst, titleType]', '[tconst, titleType, runtimeMinutes]')
      .replace('count(*)', 'count(runtimeMinutes)')
      .replace('sum(numVotes)', 'sum(averageRating - 10)'),
    9,
    'no measure is above 0 for every row',
  ],
  [
    'a measure that is not an integer',
    good.replace('sum(numVotes)', 'sum(numVotes) / 2'),
    9,
    'votes is DOUBLE',
  ],
  [
    'texts that are not named',
    good.replace('texts: [titleType]\n', ''),
    7,
    'the texts of the key are titleType',
  ],
  [
    'texts that are none',
    good.replace('texts: [titleType]', 'texts: [titleType, rating]'),
    8,
    'the texts of the key are titleType',
  ],
  ['a column that is neither', good.replace(sums, `${sums}, 1 AS more`), sqlLine, 'more is neither'],
  [
    'a key that is not grouped',
    good.replace('GROUP BY titleType, averageRating', 'GROUP BY titleType'),
    sqlLine,
    'must appear in the GROUP BY',
  ],
  [
    'a key that does not identify a row',
    good.replace('GROUP BY titleType, averageRating', 'GROUP BY titleType, averageRating, numVotes'),
    7,
    'does not identify',
  ],
  ['a table function', good.replace('FROM title_basics', "FROM read_csv('x')"), sqlLine + 1, 'read_csv'],
  [
    'an undeclared relation',
    good.replace('FROM title_basics', 'FROM title_akas'),
    sqlLine + 1,
    'no relation title_akas',
  ],
  ['a filter that nothing passes', good.replace('GROUP BY', 'WHERE false GROUP BY'), sqlLine, 'nothing'],
  [
    'SQL that Flink cannot take, unsaid',
    good
      .replace(/onlyDuckdb.*\n/, '')
      .replace(
        'JOIN title_ratings ON title_basics.tconst = title_ratings.tconst',
        'JOIN title_ratings USING (tconst)',
      ),
    sqlLine - 1,
    'USING',
  ],
])('%s is refused', async (_, text, line, reason) => {
  write(text);
  const { problems, cubes } = await readFolder(folder);
  expect(problems).toMatchObject([{ file: join(folder, 'types.sql') }]);
  expect(problems[0]?.reason).toContain(reason);
  expect(problems[0]?.line).toBe(line);
  expect(problems[0]?.hint).toMatch(/^[A-Z].*\.$/s);
  expect(cubes).toEqual([]);
});
