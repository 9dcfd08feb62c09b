/**
 * Tables of a user on the real pipeline: they appear without a new record, equal a batch computation, have their charts, fail
 * alone, and leave without a trace.
 */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { Manifest } from '../../sinks/gold/manifest.ts';
import type { Verification } from '../../sinks/verify/verify.ts';
import { builtIn } from '../../tables/built-in.ts';
import { exampleTable } from '../../tables/example.ts';
import { lastJson, Place, smallDataset, spoken } from '../support/harness.ts';

const ofGenres = `/*
kind: table
about: Votes by single genre.
reads: [title]
key: [genre]
measures: [total_titles, total_votes]
columns:
  genre: { type: VARCHAR, about: A genre. }
  total_titles: BIGINT
  total_votes: BIGINT
order: total_votes DESC, genre
plots:
  - { title: Votes by genre of the user, kind: bar, x: genre, y: sum(total_votes) }
onlyDuckdb: it takes lists apart
*/
SELECT genre, CAST(sum(titles) AS BIGINT) AS total_titles, CAST(sum(votes) AS BIGINT) AS total_votes
FROM (SELECT unnest(string_split(genres, ',')) AS genre, titles, votes FROM title) AS each
GROUP BY genre
`;
/** The ratings of the check's sample rows are below 28; those of IMDb are not. */
const failing = `/*
kind: table
about: Titles by rating.
reads: [feature_ratings]
key: [rating]
measures: [most]
columns:
  rating: { type: INTEGER, about: Ten times a rating. }
  most: { type: BIGINT, about: Ten times a rating. }
order: rating
onlyDuckdb: it is for a test
*/
SELECT rating, CAST(CAST(CAST(max(rating) AS INTEGER) + 100 AS TINYINT) AS BIGINT) AS most
FROM feature_ratings GROUP BY rating
`;

let place: Place;
let data: string;
let tables: string;
let before: Manifest;

beforeAll(async () => {
  place = new Place();
  data = await smallDataset(join(place.folder, 'data'), 400, 11);
  before = await place.pipeline(data);
  tables = place.files('tables', { 'votes_by_year.sql': exampleTable, 'votes_by_genre.sql': ofGenres });
});

afterAll(() => place.close(false));

const hashes = ({ tables: of }: Manifest) =>
  Object.fromEntries(builtIn.tables.map(({ name }) => [name, of[name]?.contentHash]));

describe.sequential('tables of a user', () => {
  it('appear in a snapshot of their own, beside the same built-in tables', async () => {
    await place.sink('--tables', tables);
    expect(Object.keys(place.manifest.tables)).toEqual([
      ...builtIn.tables.map(({ name }) => name),
      'votes_by_genre',
      'votes_by_year',
    ]);
    expect(hashes(place.manifest)).toEqual(hashes(before));
    expect((await place.sink('--tables', tables)).snapshot).toBeNull();
  });

  it('equal what the files and the topics give', async () => {
    for (const input of [
      ['--data', data],
      ['--namespace', place.namespace],
    ]) {
      const finished = await place.run([
        'verify',
        '--gold',
        place.gold,
        '--tables',
        tables,
        '--json',
        ...input,
      ]);
      expect(finished.code, finished.stderr).toBe(0);
      const { tables: verified } = lastJson<Verification>(finished);
      expect(verified.votes_by_genre).toMatchObject({ differences: 0 });
      expect(verified.votes_by_genre?.rows).toBeGreaterThan(3);
    }
  });

  it('are named by a verification without their folder, which is not called a defect', async () => {
    const finished = await place.run(['verify', '--gold', place.gold, '--namespace', place.namespace]);
    expect(finished.code).toBe(16);
    expect(finished.stderr).toContain(
      'Name the folder that declares votes_by_genre, votes_by_year with --tables',
    );
    expect(finished.stderr).not.toContain('defect');
  });

  it('that the snapshot lacks are named by a verification, which asks for the options of the sink', async () => {
    const more = place.files('more', {
      'votes_by_year.sql': exampleTable,
      ...{ 'votes_by_genre.sql': ofGenres, 'more_votes.sql': ofGenres },
    });
    const finished = await place.run(['verify', '--gold', place.gold, '--data', data, '--tables', more]);
    expect(finished.code).toBe(16);
    expect(finished.stderr).toContain('more_votes: the manifest does not name it\n');
    expect(finished.stderr).toContain('Pass the same --only and --tables as the sink did');
    expect(finished.stderr).not.toContain('altered');
  });

  it('show all their columns when they are tried in a pipe', async () => {
    const args = ['tables', 'try', '--data', data, '--tables', tables, '--table', 'votes_by_genre'];
    const { stdout } = await place.run(args);
    expect(stdout).toContain('votes_by_genre');
    expect(stdout).not.toMatch(/\d+ of \d+ columns/);
  });

  it('have their notes and charts in show and report, by option or by variable', async () => {
    const shown = await place.run([
      'gold',
      'show',
      'votes_by_genre',
      '--gold',
      place.gold,
      '--tables',
      tables,
    ]);
    expect(shown.stdout).toContain('Votes by single genre.');
    expect(shown.stdout).toContain('Votes by genre of the user');
    const file = join(place.folder, 'report.html');
    await place.run(['gold', 'report', '--gold', place.gold, '--out', file], { REELFLOW_TABLES: tables });
    const page = readFileSync(file, 'utf8');
    expect(page).toContain('id="votes_by_year"');
    expect(page).toContain('Votes by genre of the user');
  });

  it('fail alone: a table that only real rows break is left out and named, the others are published', async () => {
    const broken = place.files('broken', { 'ratings.sql': failing, 'votes_by_genre.sql': ofGenres });
    const { contentHash } = place.manifest.tables.votes_by_genre ?? {};
    await place.sink('--tables', broken);
    const { leftOut, tables: held } = place.manifest;
    expect(Object.keys(leftOut ?? {})).toEqual(['ratings']);
    expect(leftOut?.ratings).toContain('INT8');
    expect(held).not.toHaveProperty('ratings');
    expect(held.votes_by_genre?.contentHash).toBe(contentHash);
    expect(hashes(place.manifest)).toEqual(hashes(before));
    expect((await place.sink('--tables', broken)).snapshot).toBeNull();
  });

  it.each(['process', 'sink', 'verify', 'flink sql', 'gold report', 'monitor', 'demo'])(
    'that are wrong end %s before anything starts',
    async (command) => {
      const wrong = place.files('wrong', { 'films.sql': ofGenres.replace('[title]', '[films]') });
      const finished = await place.run([...command.split(' '), '--tables', wrong]);
      expect(finished.code).toBe(35);
      expect(spoken(finished)).toContain(`Detail: ${wrong}/films.sql:4: there is no cube films`);
    },
  );

  it('leave without a trace', async () => {
    await place.sink();
    expect(Object.keys(place.manifest.tables)).toEqual(builtIn.tables.map(({ name }) => name));
    expect(hashes(place.manifest)).toEqual(hashes(before));
  });
});
