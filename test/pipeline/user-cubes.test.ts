/** A cube of a user over two datasets, on the real pipeline: added, verified, left out while others are sent, and removed. */
import { globSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { Manifest } from '../../sinks/gold/manifest.ts';
import type { Verification } from '../../sinks/verify/verify.ts';
import { builtIn } from '../../tables/built-in.ts';
import { lastJson, Place, writeDatasets } from '../support/harness.ts';

const categories = `/*
kind: cube
about: Rated titles by the category of their credits and by rating.
reads:
  title.principals: [tconst, ordering, category]
  title.ratings: [tconst, averageRating, numVotes]
key: [category, rating]
texts: [category]
measures: [titles, credits, votes]
*/
SELECT category, averageRating AS rating, count(*) AS titles, sum(credits) AS credits, sum(numVotes) AS votes
FROM (
  SELECT tconst, category, count(*) AS credits FROM title_principals GROUP BY tconst, category
) AS pairs
JOIN title_ratings ON pairs.tconst = title_ratings.tconst
GROUP BY category, averageRating
`;
const ofCategories = `/*
kind: table
about: Rated titles by the category of their credits.
reads: [categories]
key: [category]
measures: [total_titles, total_credits]
columns:
  category: { type: VARCHAR, about: What the person did; null if it is unknown. }
  total_titles: BIGINT
  total_credits: { type: BIGINT, about: Credits of this category., unit: credits }
order: total_titles DESC, category
*/
SELECT category, CAST(sum(titles) AS BIGINT) AS total_titles, CAST(sum(credits) AS BIGINT) AS total_credits
FROM categories GROUP BY category
`;

let place: Place;
let data: string;
let tables: string;
let before: Manifest;

beforeAll(async () => {
  place = new Place();
  data = writeDatasets(`${place.folder}/data`, {
    'title.ratings': 'tconst\taverageRating\tnumVotes\ntt0000001\t5.0\t10\ntt0000002\t7.5\t20\n',
    'title.principals': [
      'tconst\tordering\tnconst\tcategory\tjob\tcharacters',
      ...['1\tnm0000001\tactor', '2\tnm0000002\tactor', '3\tnm0000003\tdirector', '4\tnm0000004\t\\N'].map(
        (row) => `tt0000001\t${row}\t\\N\t\\N`,
      ),
      'tt0000002\t1\tnm0000001\tactor\t\\N\t\\N',
      'tt0000003\t1\tnm0000001\twriter\t\\N\t\\N',
      '',
    ].join('\n'),
    'title.basics':
      'tconst\ttitleType\tprimaryTitle\toriginalTitle\tisAdult\tstartYear\tendYear\truntimeMinutes\tgenres\n',
  });
  before = await place.pipeline(data, { replay: ['--shards', '2'] });
  tables = place.files('tables', { 'categories.sql': categories, 'category_analysis.sql': ofCategories });
});

afterAll(() => place.close(false));

const hashes = ({ tables: of }: Manifest) =>
  Object.fromEntries(builtIn.tables.map(({ name }) => [name, of[name]?.contentHash]));

describe.sequential('a cube of a user', () => {
  it('has no table while the processors do not compute it, the manifest says why, and the others stay', async () => {
    const finished = await place.run(place.args('sink', '--once', '--tables', tables));
    expect(finished.code).toBe(0);
    expect(finished.stderr).toContain('processors send other cubes');
    expect(place.manifest.leftOut).toEqual({
      category_analysis: 'cube categories is missing, or of another version, on shards: 1',
    });
    expect(place.manifest.tables).not.toHaveProperty('category_analysis');
    expect(hashes(place.manifest)).toEqual(hashes(before));
    const verified = await place.run([
      'verify',
      '--gold',
      place.gold,
      '--tables',
      tables,
      '--data',
      data,
      '--json',
    ]);
    expect(lastJson<Verification>(verified)).toMatchObject({
      equal: true,
      unchecked: [expect.any(String), expect.stringContaining('category_analysis')],
    });
  });

  it('is computed by processors with the same declarations, and its table holds exactly its rows', async () => {
    const { stderr } = await place.run(place.args('process', '--until-caught-up', '--tables', tables));
    expect(stderr).toMatch(/"again":\["title.principals"\],"dropped":\[\]/);
    expect(stderr).toMatch(/"cubes":\["categories"\]/);
    await place.sink('--tables', tables);
    const shown = await place.run([
      'gold',
      'show',
      'category_analysis',
      '--gold',
      place.gold,
      '--tables',
      tables,
      '--json',
    ]);
    expect(lastJson<{ rows: unknown }>(shown).rows).toEqual([
      ['actor', 2, 3],
      ['director', 1, 1],
      [null, 1, 1],
    ]);
    expect(hashes(place.manifest)).toEqual(hashes(before));
    expect(Object.keys(place.manifest.cubes ?? {})).toContain('categories');
  });

  it.each(['data', 'topics'])('equals what the %s give', async (input) => {
    const more = input === 'data' ? ['--data', data] : ['--namespace', place.namespace];
    const finished = await place.run(['verify', '--gold', place.gold, '--tables', tables, '--json', ...more]);
    expect(finished.code, finished.stderr).toBe(0);
    expect(lastJson<Verification>(finished).tables.category_analysis).toEqual({ rows: 3, differences: 0 });
  });

  it('is kept by a sink that does not declare it, through the loss of its state', async () => {
    await place.sink();
    expect(place.manifest.tables).not.toHaveProperty('category_analysis');
    expect(Object.keys(place.manifest.cubes ?? {})).toContainEqual(expect.stringMatching(/^categories\./));
    for (const file of globSync('**/sink.duckdb*', { cwd: place.state })) rmSync(join(place.state, file));
    await place.sink('--tables', tables);
    expect(place.manifest.tables.category_analysis?.rows).toBe(3);
  });

  it('is removed by processors that do not declare it, and the others have their earlier hashes', async () => {
    await place.process();
    await place.sink();
    expect(Object.keys(place.manifest.cubes ?? {}).filter((name) => name.startsWith('categories'))).toEqual(
      [],
    );
    expect(place.manifest.leftOut).toBeUndefined();
    expect(hashes(place.manifest)).toEqual(hashes(before));
    const shardSets = Object.values(place.manifest.shards).map(({ cubeSet }) => cubeSet);
    expect(new Set(shardSets)).toEqual(new Set(Object.values(before.shards).map(({ cubeSet }) => cubeSet)));
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
    working.kill('SIGTERM');
    await waiting.logged('its shards', says('shard opened'));
    waiting.kill('SIGTERM');
    expect((await Promise.all([working.done, waiting.done])).map(({ code }) => code)).toEqual([0, 0]);
  });
});
