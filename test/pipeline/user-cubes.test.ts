/** A cube of a user over two datasets, on the real pipeline: computed, verified, never mixed with other cubes, and removed. */
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
  it('appears in no snapshot while the processors do not compute it', async () => {
    const finished = await place.run(place.args('sink', '--once', '--tables', tables));
    expect(finished.code).toBe(0);
    expect(finished.stderr).toContain('processors send other cubes');
    expect(place.manifest.id).toBe(before.id);
  });

  it('is computed by processors with the same declarations, and its table holds exactly its rows', async () => {
    await place.process('--tables', tables);
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

  it('is never mixed: a sink without it publishes nothing, and then the pipeline leaves it', async () => {
    const { id } = place.manifest;
    expect((await place.sink()).snapshot).toBeNull();
    expect(place.manifest.id).toBe(id);
    await place.process();
    await place.sink();
    expect(Object.keys(place.manifest.cubes ?? {})).not.toContain('categories');
    expect(hashes(place.manifest)).toEqual(hashes(before));
  });
});
