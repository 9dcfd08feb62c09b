/**
 * The rows that count when messages replace groups of ids. Random chunks with deletes and replacements are loaded as `verify`
 * loads them, and the relations of the batch computation must hold the rows of a plain fold of the same log.
 */
import { type DuckDBConnection, DuckDBInstance } from '@duckdb/node-api';
import fc from 'fast-check';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { keepLastVersions } from '../../../sinks/verify/last-versions.ts';
import { RowLoader } from '../../../sinks/verify/row-loader.ts';
import { type DatasetName, datasetNames } from '../../../topics/catalog.ts';
import { RejectedMessage } from '../../../topics/chunk.ts';
import { Dictionary } from '../../../topics/dictionary.ts';
import { groupOf } from '../../../topics/id-groups.ts';
import { Ownership } from '../../../topics/ownership.ts';
import { type Chunk, chunk, cubeDatasets, decoderOf, encodeChunk, rating } from '../../support/chunks.ts';
import { Rows } from '../../support/cube-model.ts';

let instance: DuckDBInstance;
let connection: DuckDBConnection;

beforeEach(async () => {
  instance = await DuckDBInstance.create(':memory:');
  connection = await instance.connect();
});
afterEach(() => {
  connection.closeSync();
  instance.closeSync();
});

/** The relations after the chunks, as sorted lines. */
async function relationsOf(chunks: readonly Chunk[], isFlushed: boolean): Promise<Record<string, string[]>> {
  const dictionary = new Dictionary();
  const loaders = new Map<DatasetName, RowLoader>();
  for (const dataset of datasetNames) {
    loaders.set(dataset, await RowLoader.create(connection, 'memory', dataset, dictionary));
  }
  const decoders = Object.fromEntries(cubeDatasets.map((dataset) => [dataset, decoderOf(dataset)]));
  const ownership = new Ownership('tt', 1);
  for (const each of chunks) {
    const loader = loaders.get(each.dataset) as RowLoader;
    const decoder = decoders[each.dataset];
    if (decoder === undefined) throw new Error(`no decoder of ${each.dataset}`);
    loader.decode(encodeChunk(each), decoder, { ownership, partition: 0 });
    if (isFlushed || loader.isFull) await loader.flush();
  }
  for (const loader of loaders.values()) await loader.flush();
  await keepLastVersions(connection, dictionary);
  const lines = async (query: string) => {
    const reader = await connection.runAndReadAll(query);
    return reader
      .getRowsJson()
      .map((row) => row.join(' '))
      .sort();
  };
  const relations = {
    ratings: await lines('SELECT tconst, rating, votes FROM batch_ratings'),
    basics: await lines(
      'SELECT tconst, titleType, isAdult, startYear, runtimeMinutes, genres FROM batch_basics',
    ),
    principals: await lines('SELECT tconst, ordering, nconst FROM batch_principals'),
    akas: await lines('SELECT titleId, ordering, region FROM batch_akas'),
    crew: await lines("SELECT tconst, array_to_string(directors, ',') FROM batch_crew"),
    episodes: await lines('SELECT tconst, parentTconst, seasonNumber FROM batch_episodes'),
    titles: await lines(
      'SELECT tconst, primaryTitle, originalTitle FROM batch_title_names WHERE tconst IN (SELECT tconst FROM batch_ratings)',
    ),
  };
  for (const name of [
    'ratings',
    'basics',
    'principals',
    'akas',
    'crew',
    'episodes',
    'title_names',
    'names',
  ]) {
    await connection.run(`DROP TABLE batch_${name}`);
  }
  await connection.run('DROP TABLE words');
  return relations;
}

/** The same by a plain fold. Only rows of rated titles count. */
function foldOf(chunks: readonly Chunk[]): Record<string, string[]> {
  const { of } = chunks.reduce((rows, each) => {
    rows.apply(each);
    return rows;
  }, new Rows());
  const number = (id: unknown) => Number(String(id).slice(2));
  const rated = new Set([...of['title.ratings'].keys()]);
  const lines = (dataset: (typeof cubeDatasets)[number], columns: readonly string[]) =>
    [...of[dataset].values()]
      .filter(({ tconst, titleId }) => rated.has(String(tconst ?? titleId)))
      .map((row) =>
        columns
          .map((name) =>
            /^(tconst|titleId|nconst|parentTconst)$/.test(name) ? number(row[name]) : row[name],
          )
          .join(' '),
      )
      .sort();
  return {
    ratings: lines('title.ratings', ['tconst', 'averageRating', 'numVotes']),
    basics: lines('title.basics', [
      'tconst',
      'titleType',
      'isAdult',
      'startYear',
      'runtimeMinutes',
      'genres',
    ]),
    principals: lines('title.principals', ['tconst', 'ordering', 'nconst']),
    akas: lines('title.akas', ['titleId', 'ordering', 'region']),
    crew: [...of['title.crew'].values()]
      .filter(({ tconst }) => rated.has(String(tconst)))
      .map(({ tconst, directors }) => {
        const people = String(directors ?? '').match(/\bnm\d+\b/g) ?? [];
        return `${number(tconst)} ${people.map(number).join()}`;
      })
      .sort(),
    episodes: lines('title.episode', ['tconst', 'parentTconst', 'seasonNumber']),
    titles: lines('title.basics', ['tconst', 'primaryTitle', 'originalTitle']),
  };
}

test('the relations hold the rows of the plain fold, whenever the rows are flushed', {
  timeout: 600_000,
}, async () => {
  await fc.assert(
    fc.asyncProperty(fc.array(chunk, { maxLength: 12 }), fc.boolean(), async (chunks, isFlushed) => {
      expect(await relationsOf(chunks, isFlushed)).toEqual(foldOf(chunks));
    }),
    { numRuns: 60 },
  );
});

test('a replacement removes only earlier rows of its group, and none of its own message', async () => {
  const log: Chunk[] = [
    { dataset: 'title.ratings', records: [rating(1, 2), rating(49, 3), rating(50, 4)], deletes: [] },
    { dataset: 'title.ratings', records: [rating(2, 5)], deletes: [], replaces: [groupOf(1)] },
    { dataset: 'title.ratings', records: [rating(49, 6)], deletes: [] },
  ];
  expect((await relationsOf(log, false)).ratings).toEqual(['2 5 10', '49 6 10', '50 4 10']);
});

test('a replaced group of another partition refuses the whole message and leaves no rows', async () => {
  const dictionary = new Dictionary();
  const loader = await RowLoader.create(connection, 'memory', 'title.ratings', dictionary);
  const ownership = new Ownership('tt', 4);
  const partition = [0, 1, 2, 3].find((each) => {
    try {
      ownership.checkGroups(Int32Array.of(groupOf(1)), each, 0);
      return true;
    } catch {
      return false;
    }
  }) as number;
  const foreign = [1, 2, 3, 4].map((block) => groupOf(block * 10_000));
  const value = encodeChunk({
    dataset: 'title.ratings',
    records: [rating(1, 2)],
    deletes: [{ tconst: 'tt0000002' }],
    replaces: [groupOf(1), ...foreign],
  });
  const decode = () => loader.decode(value, decoderOf('title.ratings'), { ownership, partition });
  expect(decode).toThrow(RejectedMessage);
  expect(decode).toThrow(expect.objectContaining({ reason: 'wrong_partition', records: 2 }));
  await loader.flush();
  const counted = await connection.runAndReadAll(
    'SELECT (SELECT count(*) FROM rows_title_ratings), (SELECT count(*) FROM replaced_title_ratings)',
  );
  expect(counted.getRowsJson()).toEqual([['0', '0']]);
});
