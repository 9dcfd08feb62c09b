/**
 * Makes the relations of the batch computation from all versions of all rows: of each key the last version, unless that is a
 * delete or a later message replaced its group of ids.
 */
import { type DuckDBConnection, LIST, listValue, VARCHAR } from '@duckdb/node-api';
import { builtIn } from '../../tables/built-in.ts';
import type { DatasetName } from '../../topics/catalog.ts';
import type { Dictionary } from '../../topics/dictionary.ts';
import { groupSize } from '../../topics/id-groups.ts';
import { type BatchRelation, lastOfEachKey, namedPeople, namedTitles } from './batch-gold.ts';
import {
  datasetsOfUnrated,
  isText,
  type MoreColumns,
  namesForUsers,
  ofRated,
  ofUnrated,
  unratedRelation,
} from './more-columns.ts';
import { keyColumnsOf, replacedTable, rowTable } from './row-loader.ts';

interface RelationStep {
  readonly relation: BatchRelation;
  readonly dataset: DatasetName;
  readonly columns: string;
  /** The id of the title whose row it is, where gold needs those of rated titles. */
  readonly ofTitles?: string;
  /** Of a relation of names: the rows that reelflow's tables need, by relations of earlier steps. */
  readonly names?: { readonly as: string; readonly only: string };
}

const word = (column: string) => `(SELECT value FROM words WHERE number = ${column}) AS ${column}`;

const steps: readonly RelationStep[] = [
  {
    relation: 'batch_ratings',
    dataset: 'title.ratings',
    columns: 'tconst, averageRating / 10.0::DOUBLE AS rating, numVotes::BIGINT AS votes',
  },
  {
    relation: 'batch_basics',
    dataset: 'title.basics',
    columns: `tconst, ${word('titleType')}, isAdult = 1 AS isAdult, startYear, runtimeMinutes, ${word('genres')}`,
    ofTitles: 'tconst',
  },
  {
    relation: 'batch_principals',
    dataset: 'title.principals',
    columns: 'tconst, ordering, nconst',
    ofTitles: 'tconst',
  },
  {
    relation: 'batch_akas',
    dataset: 'title.akas',
    columns: `titleId, ordering, ${word('region')}, ${word('language')}`,
    ofTitles: 'titleId',
  },
  {
    relation: 'batch_crew',
    dataset: 'title.crew',
    columns: 'tconst, directors, writers',
    ofTitles: 'tconst',
  },
  {
    relation: 'batch_episodes',
    dataset: 'title.episode',
    columns: 'tconst, parentTconst, seasonNumber',
    ofTitles: 'tconst',
  },
  {
    relation: 'batch_title_names',
    dataset: 'title.basics',
    columns: 'tconst, primaryTitle, originalTitle',
    names: { as: 'title_names', only: `WHERE tconst IN (${namedTitles})` },
  },
  {
    relation: 'batch_names',
    dataset: 'name.basics',
    columns: 'nconst, primaryName',
    names: { as: 'names', only: `WHERE nconst IN (${namedPeople})` },
  },
];

/**
 * Makes the relations that `computeGold` reads, and drops the tables of the loaders.
 * @param dictionary the texts behind dictionary numbers
 * @param more columns that the loaders have besides
 */
export async function keepLastVersions(
  connection: DuckDBConnection,
  dictionary: Dictionary,
  more: MoreColumns = new Map(),
  { cubes, tables } = builtIn,
): Promise<void> {
  const beyond = datasetsOfUnrated(cubes);
  const whole = namesForUsers(tables);
  await connection.run(
    `CREATE TEMP TABLE words AS SELECT (unnest(range(len(texts))))::INTEGER AS number, unnest(texts) AS value
     FROM (SELECT $texts AS texts)`,
    { texts: listValue(Array.from({ length: dictionary.size }, (_, number) => dictionary.textOf(number))) },
    { texts: LIST(VARCHAR) },
  );
  const make = async (relation: string, { dataset, columns }: RelationStep, only: string | undefined) => {
    const key = keyColumnsOf(dataset);
    const added = (more.get(dataset) ?? []).map((name) => (isText(dataset, name) ? word(name) : name));
    await connection.run(
      `CREATE OR REPLACE TEMP TABLE ${relation} AS SELECT ${[columns, ...added].join(', ')}
       FROM (${lastOfEachKey(rowTable(dataset), key, only)})
       LEFT JOIN (
         SELECT idGroup, max(rowsBefore)::BIGINT AS rowsReplaced FROM ${replacedTable(dataset)} GROUP BY idGroup
       ) ON idGroup = ${key[0]} // ${groupSize}
       WHERE deleted = 0 AND line >= coalesce(rowsReplaced, 0)`,
    );
  };
  for (const step of steps) {
    const { relation, dataset, ofTitles, names } = step;
    const ofNames = names && (whole.has(names.as) ? undefined : names.only);
    await make(relation, step, ofTitles === undefined ? ofNames : ofRated(ofTitles));
    if (ofTitles !== undefined && beyond.has(dataset))
      await make(unratedRelation(relation), step, ofUnrated(ofTitles));
  }
  for (const dataset of new Set(steps.map((step) => step.dataset))) {
    await connection.run(`DROP TABLE ${rowTable(dataset)}`);
    await connection.run(`DROP TABLE ${replacedTable(dataset)}`);
  }
}
