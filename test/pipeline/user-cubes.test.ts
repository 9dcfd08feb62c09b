/**
 * A user's folder on the real pipeline: added, verified, drawn, kept up to date with a dump, left out while processors send
 * other cubes, changed, and removed.
 */
import { fork } from 'node:child_process';
import { once } from 'node:events';
import { globSync, readFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { Manifest } from '../../sinks/gold/manifest.ts';
import type { Verification } from '../../sinks/verify/verify.ts';
import { builtIn } from '../../tables/built-in.ts';
import { startMonitor } from '../support/browser.ts';
import { headerOf, lastJson, Place, servicesEnv, writeDatasets } from '../support/harness.ts';
import { categories, userFolder } from '../support/user-folder.ts';

const header = (dataset: 'title.ratings' | 'title.principals' | 'title.basics' | 'name.basics') =>
  headerOf(dataset).trimEnd();
const dump = (folder: string, ratings: string[], credits: string[], titles: string[]) =>
  writeDatasets(folder, {
    'title.ratings': [header('title.ratings'), ...ratings, ''].join('\n'),
    'title.principals': [header('title.principals'), ...credits.map((row) => `${row}\t\\N\t\\N`), ''].join(
      '\n',
    ),
    'title.basics': [
      header('title.basics'),
      ...titles.map((row) => `${row}\t0\t1999\t\\N\t${row.includes('short') ? '\\N' : '90'}\tDrama`),
      '',
    ].join('\n'),
    'name.basics': [header('name.basics'), 'nm0000005\tFive\t\\N\t\\N\t\\N\t\\N', ''].join('\n'),
  });

let place: Place;
let data: string;
let tables: string;
let before: Manifest;
/** Of the built-in tables. */
let expected: Record<string, string | undefined>;

beforeAll(async () => {
  place = new Place();
  data = dump(
    `${place.folder}/data`,
    ['tt0000001\t5.0\t10', 'tt0000002\t7.5\t20'],
    [
      'tt0000001\t1\tnm0000001\tactor',
      'tt0000001\t2\tnm0000002\tactor',
      'tt0000001\t3\tnm0000003\tdirector',
      'tt0000001\t4\tnm0000004\t\\N',
      'tt0000002\t1\tnm0000001\tactor',
      'tt0000003\t1\tnm0000001\twriter',
      'tt0000003\t2\tnm0000005\tactor',
    ],
    ['tt0000002\tmovie\tTwo\tZwei', 'tt0000003\tshort\tThree\tDrei'],
  );
  before = await place.pipeline(data, { replay: ['--shards', '2'] });
  expected = hashes(before);
  tables = place.files('tables', userFolder);
});

afterAll(() => place.close(false));

const hashes = ({ tables: all }: Manifest) =>
  Object.fromEntries(builtIn.tables.map(({ name }) => [name, all[name]?.contentHash]));
const inGold = (...args: string[]) => place.run([...args, '--gold', place.gold, '--tables', tables]);
async function rowsOf(table: string): Promise<unknown[][]> {
  return lastJson<{ rows: unknown[][] }>(await inGold('gold', 'show', table, '--json')).rows;
}

/** A process that its parent asks to finish while it waits for members with other cubes, as `run` asks. */
async function codeWhenAskedToFinish(args: readonly string[]): Promise<number> {
  const asked = fork(fileURLToPath(new URL('../../cli/reelflow.js', import.meta.url)), [...args], {
    stdio: ['ignore', 'ignore', 'pipe', 'ipc'],
    env: {
      ...process.env,
      ...servicesEnv,
    },
  });
  const ended = once(asked, 'exit');
  let said = '';
  let isAsked = false;
  asked.stderr?.on('data', (bytes: Buffer) => {
    said += bytes;
    if (isAsked || !said.includes('members with other cubes hold the shards')) return;
    isAsked = true;
    asked.send('finish');
  });
  return (await ended)[0] as number;
}

describe.sequential('a cube of a user', () => {
  it('has no table while the processors do not compute it, the manifest says why, and the others stay', async () => {
    const finished = await place.run(place.args('sink', '--once', '--tables', tables));
    expect(finished.code).toBe(0);
    expect(finished.stderr).toContain('processors send other cubes');
    expect(place.manifest.leftOut).toEqual({
      category_analysis: 'cube categories is missing, or of another version, on shards: 1',
      credited_people: 'cube credited is missing, or of another version, on shards: 1',
      type_counts: 'cube types is missing, or of another version, on shards: 1',
    });
    expect(place.manifest.tables).not.toHaveProperty('category_analysis');
    expect(hashes(place.manifest)).toEqual(expected);
    const verified = await inGold('verify', '--data', data, '--json');
    expect(lastJson<Verification>(verified)).toMatchObject({
      equal: true,
      unchecked: expect.arrayContaining([
        expect.stringContaining('category_analysis'),
        expect.stringContaining('type_counts'),
      ]),
    });
  });

  it('is computed by processors with the same declarations, and its table holds exactly its rows', async () => {
    const { stderr } = await place.run(place.args('process', '--until-caught-up', '--tables', tables));
    expect(stderr).toMatch(/"again":\["title.principals"\],"dropped":\[\]/);
    expect(stderr).toMatch(/"cubes":\["categories","credited","types"\]/);
    await place.sink('--tables', tables);
    expect(await rowsOf('category_analysis')).toEqual([
      ['actor', 2, 3],
      ['director', 1, 1],
      [null, 1, 1],
    ]);
    expect(await rowsOf('type_counts')).toEqual([
      ['movie', 1, 90],
      ['short', 1, 0],
    ]);
    // This person is credited on an unrated title only.
    expect(await rowsOf('credited_people')).toContainEqual(['nm0000005', 'Five', 1]);
    expect(await rowsOf('voted_titles')).toEqual([
      ['tt0000001', null, 10],
      ['tt0000002', 'Two', 20],
      ['tt0000003', 'Three', 0],
    ]);
    expect(hashes(place.manifest)).toEqual(expected);
    expect(Object.keys(place.manifest.cubes ?? {})).toContain('categories');
  });

  it.each(['data', 'topics'])('equals what the %s give', async (input) => {
    const more = input === 'data' ? ['--data', data] : ['--namespace', place.namespace];
    const finished = await inGold('verify', '--json', ...more);
    expect(finished.code, finished.stderr).toBe(0);
    const { tables: verified } = lastJson<Verification>(finished);
    expect(verified.category_analysis).toEqual({ rows: 3, differences: 0 });
    expect(verified.type_counts).toEqual({ rows: 2, differences: 0 });
    expect(verified.credited_people).toEqual({ rows: 5, differences: 0 });
    expect(verified.voted_titles).toEqual({ rows: 3, differences: 0 });
  });

  it('has its chart in the report and on the page', async () => {
    const file = join(place.folder, 'report.html');
    await inGold('gold', 'report', '--out', file);
    expect(readFileSync(file, 'utf8')).toContain('Titles by category');
    const { url, running } = await startMonitor(place, '--tables', tables);
    const answer = await fetch(new URL(`/plots?snapshot=${place.manifest.id}`, url));
    expect(((await answer.json()) as { plots: unknown[] }).plots).toContainEqual({
      ...{ table: 'category_analysis', title: 'Titles by category', kind: 'bar' },
      points: [
        ['actor', 2],
        ['director', 1],
      ],
    });
    running.kill('SIGTERM');
    expect((await running.done).code).toBe(0);
  });

  it('follows the next dump', async () => {
    const next = dump(
      `${place.folder}/next`,
      ['tt0000002\t7.5\t20', 'tt0000003\t6.0\t5'],
      [
        'tt0000001\t3\tnm0000003\tdirector',
        'tt0000002\t1\tnm0000001\tactor',
        'tt0000003\t1\tnm0000001\twriter',
      ],
      ['tt0000002\tmovie\tToo\tZwei', 'tt0000003\tmovie\tThree\tDrei', 'tt0000004\tmovie\tFour\tVier'],
    );
    await place.pipeline(next, {
      replay: ['--max-removed', '100'],
      process: ['--tables', tables],
      sink: ['--tables', tables],
    });
    expect(await rowsOf('category_analysis')).toEqual([
      ['actor', 1, 1],
      ['writer', 1, 1],
    ]);
    expect(await rowsOf('type_counts')).toEqual([['movie', 3, 270]]);
    expect(await rowsOf('voted_titles')).toEqual([
      ['tt0000002', 'Too', 20],
      ['tt0000003', 'Three', 5],
      ['tt0000004', 'Four', 0],
    ]);
    expect((await inGold('verify', '--data', next)).code).toBe(0);
    expected = hashes(place.manifest);
    data = next;
  });

  it('is kept by a sink that does not declare it, through the loss of its state', async () => {
    await place.sink();
    expect(place.manifest.tables).not.toHaveProperty('category_analysis');
    expect(Object.keys(place.manifest.cubes ?? {})).toContainEqual(expect.stringMatching(/^categories\./));
    for (const file of globSync('**/sink.duckdb*', { cwd: place.state })) rmSync(join(place.state, file));
    await place.sink('--tables', tables);
    expect(place.manifest.tables.category_analysis?.rows).toBe(2);
  });

  it('is computed again alone when its declaration changes', async () => {
    const { tables: held } = place.manifest;
    tables = place.files('changed', {
      ...userFolder,
      'categories.sql': categories.replace('count(*) AS credits', '2 * count(*) AS credits'),
    });
    const { stderr } = await place.run(place.args('process', '--until-caught-up', '--tables', tables));
    expect(stderr).toMatch(/"cubes":\["categories"\]/);
    expect(stderr).not.toContain('"again":["');
    await place.sink('--tables', tables);
    expect(await rowsOf('category_analysis')).toEqual([
      ['actor', 1, 2],
      ['writer', 1, 2],
    ]);
    expect(place.manifest.tables.voted_titles?.contentHash).toBe(held.voted_titles?.contentHash);
    expect(hashes(place.manifest)).toEqual(expected);
    expect((await inGold('verify', '--data', data)).code).toBe(0);
  });

  it('is removed by processors that do not declare it, and the others have their earlier hashes', async () => {
    await place.process();
    await place.sink();
    expect(Object.keys(place.manifest.cubes ?? {}).filter((name) => name.startsWith('categories'))).toEqual(
      [],
    );
    expect(place.manifest.leftOut).toBeUndefined();
    expect(hashes(place.manifest)).toEqual(expected);
    const shardSets = Object.values(place.manifest.shards).map(({ cubeSet }) => cubeSet);
    expect(new Set(shardSets)).toEqual(new Set(Object.values(before.shards).map(({ cubeSet }) => cubeSet)));
  });

  // Method: only a title with 777 votes makes the cast fail, and no sample of the check has it.
  it('that fails on real rows is left out by its processors, and all other tables follow the next dump', async () => {
    const failing = place.files('failing', {
      ...userFolder,
      'rare.sql': `/*
kind: cube
about: Rated titles by rating.
reads:
  title.ratings: [tconst, averageRating, numVotes]
key: [rating]
measures: [titles]
onlyDuckdb: it is for a test
*/
SELECT averageRating AS rating, count(CASE WHEN numVotes = 777 THEN CAST(numVotes AS TINYINT) ELSE 1 END) AS titles
FROM title_ratings GROUP BY averageRating
`,
      'rare_titles.sql': `/*
kind: table
about: Rated titles by rating.
reads: [rare]
key: [rating]
measures: [total_titles]
columns: { rating: { type: INTEGER, about: In tenths. }, total_titles: BIGINT }
order: rating
onlyDuckdb: it is for a test
*/
SELECT rating, CAST(sum(titles) AS BIGINT) AS total_titles FROM rare GROUP BY rating
`,
    });
    await place.process('--tables', failing);
    await place.sink('--tables', failing);
    expect(place.manifest.tables.rare_titles?.rows).toBe(2);
    const next = dump(
      `${place.folder}/rare`,
      ['tt0000002\t7.5\t777', 'tt0000003\t6.0\t5'],
      ['tt0000002\t1\tnm0000001\tactor'],
      ['tt0000002\tmovie\tToo\tZwei', 'tt0000003\tmovie\tThree\tDrei'],
    );
    await place.replay(next, '--max-removed', '100');
    const ended = await place.run(place.args('process', '--until-caught-up', '--tables', failing));
    expect([ended.code, ended.stderr]).toEqual([35, expect.stringContaining('rare cannot be computed')]);
    expect(ended.stderr).toContain('"msg":"cube left out"');
    await place.sink('--tables', failing);
    expect(place.manifest.leftOut).toEqual({ rare_titles: expect.stringContaining('cube rare is missing') });
    expect(await rowsOf('voted_titles')).toContainEqual(['tt0000002', 'Too', 777]);
    const verified = await place.run(['verify', '--gold', place.gold, '--data', next, '--tables', failing]);
    expect(verified.code, verified.stderr).toBe(0);
  });

  it('takes no shards from members that work without it, until they have left', async () => {
    const working = place.start(place.args('process'));
    const says = (text: string) => (line: { msg: string }) => line.msg.includes(text);
    await working.logged('its shards', says('shard opened'));
    const other = place.args('process', '--tables', tables, '--state', join(place.folder, 'other'));
    const refused = await place.run([...other, '--until-caught-up']);
    expect([refused.code, refused.stderr]).toEqual([
      19,
      expect.stringContaining('other cubes hold the shards'),
    ]);
    const waiting = place.start(other);
    await waiting.logged('that it waits', says('members with other cubes hold the shards'));
    const third = place.args('process', '--tables', tables, '--state', join(place.folder, 'third'));
    expect(await codeWhenAskedToFinish(third)).toBe(19);
    working.kill('SIGTERM');
    await waiting.logged('its shards', says('shard opened'));
    waiting.kill('SIGTERM');
    expect((await Promise.all([working.done, waiting.done])).map(({ code }) => code)).toEqual([0, 0]);
  });
});
