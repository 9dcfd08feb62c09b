/**
 * The tables with names of titles on a real broker: a series whose parent has no rating, one whose parent has no row, equal
 * ratings, and names that a later dump changes. The figures are written down here; `verify` recomputes them from topics and
 * files after each dump.
 */
import { rmSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, inject, test } from 'vitest';
import { withDatabase } from '../../database/duckdb.ts';
import { type Manifest, readManifest, tableFile } from '../../sinks/gold/manifest.ts';
import { verifySnapshot } from '../../sinks/verify/verify.ts';
import { Registry } from '../../topics/registry.ts';
import { broker, headerOf, Place, writeDatasets } from '../support/harness.ts';

type Line = readonly (string | number | null)[];
const registry = new Registry({ url: inject('registryUrl') });
const table = (dataset: Parameters<typeof headerOf>[0], rows: readonly Line[]) =>
  headerOf(dataset) + rows.map((row) => `${row.map((cell) => cell ?? '\\N').join('\t')}\n`).join('');
const basics = (
  tconst: string,
  type: string | null,
  primary: string | null,
  original: string | null,
): Line => [...[tconst, type, primary, original, 0, 1990, null, 90, 'Drama,Comedy']];

const first = {
  'title.basics': table('title.basics', [
    basics('tt0000001', 'movie', 'Reel', 'Rolle'),
    basics('tt0000002', 'movie', 'Gold', 'Gold'),
    basics('tt0000003', 'tvSeries', 'Flow', 'Flow'),
    basics('tt0000011', 'tvEpisode', 'One', 'One'),
    basics('tt0000012', 'tvEpisode', 'Two', null),
    basics('tt0000013', 'tvEpisode', 'Three', 'Three'),
    basics('tt0000014', 'tvEpisode', 'Four', 'Four'),
    basics('tt0000016', null, null, null),
  ]),
  'title.ratings': table('title.ratings', [
    ...[['tt0000001', '9.0', 25_000] as const, ['tt0000002', '9.0', 25_000] as const],
    ['tt0000011', '7.0', 10],
    ['tt0000012', '7.0', 30],
    ['tt0000013', '5.0', 40],
    ['tt0000014', '5.0', 40],
    ['tt0000015', '6.0', 5],
    ['tt0000016', '8.0', 1],
  ]),
  'title.crew': table('title.crew', [
    ['tt0000001', 'nm0000001,nm0000002,nm0000001', null],
    ['tt0000002', 'nm0000001,nobody', 'nm0000002'],
    ['tt0000099', 'nm0000003', null],
  ]),
  'title.episode': table('title.episode', [
    ['tt0000011', 'tt0000003', 1, 1],
    ['tt0000012', 'tt0000003', 1, 2],
    ['tt0000013', 'tt0000003', null, null],
    ['tt0000014', 'tt0000003', null, null],
    ['tt0000015', 'tt0000098', 1, 1],
    ['tt0000099', 'tt0000003', 1, 3],
  ]),
  'name.basics': table('name.basics', [['nm0000001', 'Ada', null, null, null, null]]),
};
/** The series and a film have other names, an episode is gone, and an untitled rating changes. */
const later = {
  ...first,
  'title.basics': first['title.basics'].replace(/\tFlow\tFlow/, '\tFlood\tFlow').replace('\tRolle', '\tReel'),
  'title.ratings': first['title.ratings']
    .replace('tt0000015\t6.0', 'tt0000015\t9.0')
    .replace(/tt0000013.*\n/, ''),
};

let place: Place;
let before: Manifest;
const folder = (name: string) => join(place.folder, name);

async function verified(data: string): Promise<Manifest> {
  const options = { gold: place.gold, memoryLimit: '500MB', signal: new AbortController().signal };
  for (const input of [{ broker, registry, names: place.names }, { folder: data }]) {
    const { findings } = await verifySnapshot({ ...options, input });
    expect(findings).toEqual([]);
  }
  return place.manifest;
}

async function rows(manifest: Manifest, name: string, columns: string): Promise<unknown[][]> {
  return withDatabase(async (connection) => {
    const file = tableFile(place.gold, manifest.id, name);
    return (await connection.runAndReadAll(`SELECT ${columns} FROM read_parquet('${file}')`)).getRowsJson();
  });
}

beforeAll(async () => {
  place = new Place();
  await place.pipeline(writeDatasets(folder('first'), first));
  before = await verified(folder('first'));
}, 240_000);
afterAll(() => place.close(false));

test('titles and top_titles have names and the weighted rating, with its constants in the manifest', async () => {
  const mean = (9 + 9 + 7 + 7 + 5 + 5 + 6 + 8) / 8;
  expect(before.tables.titles?.constants).toEqual({ m: 25_000, C: mean });
  expect(before.titleNames).toEqual({ gaps: {} });
  const titles = await rows(before, 'titles', '* EXCLUDE (averageRating, runtimeMinutes)');
  const genres = ['Drama', 'Comedy'];
  expect(titles[0]).toEqual([
    ...['tt0000001', 'Reel', 'Rolle', 'movie', 1990, genres, '25000'],
    expect.closeTo(9 / 2 + mean / 2, 9),
  ]);
  expect(titles.map(([id, primary, original]) => [id, primary, original]).slice(1)).toEqual([
    ['tt0000002', 'Gold', 'Gold'],
    ['tt0000011', 'One', 'One'],
    ['tt0000012', 'Two', null],
    ['tt0000013', 'Three', 'Three'],
    ['tt0000014', 'Four', 'Four'],
    ['tt0000016', null, null],
  ]);
  expect(await rows(before, 'top_titles', 'titleType, rank, tconst, primaryTitle')).toEqual([
    ['movie', 1, 'tt0000001', 'Reel'],
    ['movie', 2, 'tt0000002', 'Gold'],
    // Both ratings are the mean of all, whatever the votes.
    ['tvEpisode', 1, 'tt0000011', 'One'],
    ['tvEpisode', 2, 'tt0000012', 'Two'],
    ['tvEpisode', 3, 'tt0000013', 'Three'],
    ['tvEpisode', 4, 'tt0000014', 'Four'],
  ]);
});

test('series and seasons count rated episodes, and their worst episode is the last of one ranking', async () => {
  const figures =
    'primaryTitle, total_episodes, total_votes, best_episode, best_rating, worst_episode, worst_rating';
  expect(await rows(before, 'series', `parentTconst, ${figures}`)).toEqual([
    ['tt0000003', 'Flow', '4', '120', 'tt0000012', 7, 'tt0000014', 5],
    ['tt0000098', null, '1', '5', 'tt0000015', 6, 'tt0000015', 6],
  ]);
  expect(await rows(before, 'seasons', `parentTconst, seasonNumber, ${figures}`)).toEqual([
    ['tt0000003', 1, 'Flow', '2', '40', 'tt0000012', 7, 'tt0000011', 7],
    ['tt0000003', null, 'Flow', '2', '80', 'tt0000013', 5, 'tt0000014', 5],
    ['tt0000098', 1, null, '1', '5', 'tt0000015', 6, 'tt0000015', 6],
  ]);
});

test('directors and writers count a title once, and what is not an id not at all', async () => {
  expect(await rows(before, 'directors', 'nconst, primaryName, total_titles')).toEqual([
    ['nm0000001', 'Ada', '2'],
    ['nm0000002', null, '1'],
  ]);
  expect(await rows(before, 'writers', 'nconst, primaryName, total_titles')).toEqual([
    ['nm0000002', null, '1'],
  ]);
});

test('a changed name and a changed mean of all ratings reach every table, and a lost state gives the same tables', async () => {
  const data = writeDatasets(folder('later'), later);
  await place.pipeline(data, { replay: ['--max-removed', '100'] });
  const after = await verified(data);
  expect(await rows(after, 'series', 'primaryTitle, total_episodes')).toEqual([
    ['Flood', '3'],
    [null, '1'],
  ]);
  expect((await rows(after, 'titles', 'originalTitle'))[0]).toEqual(['Reel']);
  // Of top_titles only the mean of all ratings has changed for the movies.
  expect(after.tables.top_titles?.contentHash).not.toBe(before.tables.top_titles?.contentHash);

  rmSync(join(place.state), { recursive: true });
  await place.process();
  await place.sink();
  const again = await verified(data);
  for (const name of ['titles', 'series', 'seasons', 'top_titles', 'directors']) {
    expect(again.tables[name]?.contentHash, name).toBe(after.tables[name]?.contentHash);
  }
}, 240_000);

test('a reset reads the names again', async () => {
  const { code } = await place.run(['reset', '--namespace', place.namespace, '--gold', place.gold]);
  expect(code).toBe(0);
  await place.process();
  await place.sink();
  const manifest = await verified(folder('later'));
  expect((await rows(readManifest(place.gold, manifest.id), 'series', 'primaryTitle'))[0]).toEqual(['Flood']);
}, 240_000);
