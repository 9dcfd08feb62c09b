/**
 * The gold tables as one batch computation over rows of any source: the oracle for the stream. It has no cubes and no deltas,
 * only joins and plain `avg` and `stddev_samp` over doubles. It takes column lists from the declarations, never SQL.
 */
import type { DuckDBConnection } from '@duckdb/node-api';
import { builtIn } from '../../tables/built-in.ts';
import { isOfHistory } from '../../tables/gold-tables.ts';
import { genreColumns, standardised } from '../../tables/training-features.ts';
import { historyQueries, historyRelations } from './batch-history.ts';
import { computeDeclared, exactTable } from './declared-gold.ts';

/** Measures over the joined rating. */
const measures = {
  total_titles: 'count(*)',
  avg_rating: 'avg(rating)',
  total_votes: 'sum(votes)::BIGINT',
  rating_volatility: 'stddev_samp(rating)',
  max_rating: 'max(rating)',
  min_rating: 'min(rating)',
};
const select = (...names: (keyof typeof measures)[]) =>
  names.map((name) => `${measures[name]} AS ${name}`).join(', ');

/** Sums of the rating in tenths. They are exact, so the content hash can use them. */
const tenths = 'round(rating * 10)::BIGINT';
const exact = `sum(${tenths})::BIGINT AS s1, sum(${tenths} * ${tenths})::BIGINT AS s2,
        max(${tenths}) AS max_tenths, min(${tenths}) AS min_tenths`;

/** A person counts once for a title, however often the title names them. */
function crewQuery(column: string): string {
  return `
      SELECT format('nm{:07d}', person) AS nconst, any_value(primaryName) AS primaryName,
        ${select('total_titles', 'avg_rating', 'total_votes', 'rating_volatility', 'max_rating', 'min_rating')}, ${exact}
      FROM (SELECT DISTINCT tconst, unnest(${column}) AS person FROM batch_crew)
      JOIN batch_ratings USING (tconst) LEFT JOIN batch_names ON batch_names.nconst = person
      GROUP BY person ORDER BY total_votes DESC, nconst`;
}

const allRatings = `SELECT avg(rating) AS mean, sum(${tenths})::BIGINT AS all_tenths, count(*) AS all_titles
        FROM batch_ratings`;

/** The best episode comes first by rating, votes and id; the worst comes last. */
function episodesQuery(group: string, order: string): string {
  const ranked = `array_agg({id: tconst, rating: rating} ORDER BY rating DESC, votes DESC, tconst)`;
  return `
      SELECT * REPLACE (format('tt{:07d}', parentTconst) AS parentTconst), format('tt{:07d}', ranked[1].id) AS best_episode,
        ranked[1].rating AS best_rating, format('tt{:07d}', ranked[-1].id) AS worst_episode,
        ranked[-1].rating AS worst_rating, round(best_rating * 10)::BIGINT AS best_tenths,
        round(worst_rating * 10)::BIGINT AS worst_tenths
      FROM (SELECT ${group}, any_value(primaryTitle) AS primaryTitle, count(*) AS total_episodes,
          ${select('avg_rating', 'total_votes')}, ${exact}, ${ranked} AS ranked
        FROM batch_episodes JOIN batch_ratings USING (tconst)
        LEFT JOIN (SELECT tconst AS parentTconst, primaryTitle FROM batch_title_names) USING (parentTconst)
        GROUP BY ${group})
      ORDER BY ${order}`;
}

/** By gold table of the last versions: a query for its columns and the exact sums behind the doubles, with the rows in the contract's order. */
const queries: Readonly<Record<string, string>> = {
  genre_analysis: `
      SELECT genres, ${select('total_titles', 'avg_rating', 'total_votes')}, avg(startYear) AS avg_year,
        ${select('rating_volatility', 'max_rating', 'min_rating')},
        ${exact}, coalesce(sum(startYear), 0)::BIGINT AS years, count(startYear) AS titles_with_year
      FROM batch_titles WHERE genres IS NOT NULL GROUP BY genres ORDER BY total_titles DESC, genres`,
  decade_trends: `
      SELECT (floor(startYear / 10) * 10)::INTEGER AS decade, ${select('total_titles', 'avg_rating', 'total_votes')},
        avg(runtimeMinutes) AS avg_runtime, ${select('rating_volatility')},
        ${exact}, coalesce(sum(runtimeMinutes), 0)::BIGINT AS runtime, count(runtimeMinutes) AS titles_with_runtime
      FROM batch_titles WHERE startYear >= -2147483640 GROUP BY decade ORDER BY decade`,
  title_ratings_agg: `
      SELECT startYear, genres,
        ${select('total_titles', 'avg_rating', 'total_votes', 'max_rating', 'min_rating', 'rating_volatility')},
        ${exact}
      FROM batch_titles WHERE startYear IS NOT NULL GROUP BY startYear, genres
      ORDER BY startYear, total_titles DESC, genres NULLS LAST`,
  contributor_analysis: `
      SELECT format('nm{:07d}', contributor) AS nconst, any_value(primaryName) AS primaryName, ${select('total_titles')},
        sum(credits)::BIGINT AS total_credits,
        ${select('avg_rating', 'total_votes', 'rating_volatility', 'max_rating', 'min_rating')}, ${exact}
      FROM (SELECT nconst AS contributor, tconst, count(*) AS credits FROM batch_principals GROUP BY ALL)
      JOIN batch_ratings USING (tconst) LEFT JOIN batch_names ON batch_names.nconst = contributor
      GROUP BY contributor ORDER BY total_votes DESC, nconst`,
  region_analysis: `
      SELECT region, ${select('total_titles')}, sum(akas)::BIGINT AS total_akas,
        ${select('avg_rating', 'total_votes', 'rating_volatility', 'max_rating', 'min_rating')}, ${exact}
      FROM (SELECT region, titleId AS tconst, count(*) AS akas FROM batch_akas WHERE region IS NOT NULL GROUP BY ALL)
      JOIN batch_ratings USING (tconst)
      GROUP BY region ORDER BY total_titles DESC, region`,
  genres: `
      SELECT genre, ${select('total_titles', 'avg_rating', 'total_votes', 'rating_volatility', 'max_rating', 'min_rating')},
        ${exact}
      FROM (SELECT DISTINCT tconst, regexp_split_to_table(genres, ',') AS genre, rating, votes FROM batch_titles)
      WHERE length(genre) > 0 GROUP BY genre ORDER BY total_titles DESC, genre`,
  title_types: `
      SELECT titleType, ${select('total_titles', 'avg_rating', 'total_votes', 'rating_volatility', 'max_rating', 'min_rating')},
        ${exact}
      FROM batch_titles WHERE titleType IS NOT NULL GROUP BY titleType ORDER BY total_titles DESC, titleType`,
  languages: `
      SELECT language, ${select('total_titles')}, sum(akas)::BIGINT AS total_akas,
        ${select('avg_rating', 'total_votes', 'rating_volatility', 'max_rating', 'min_rating')}, ${exact}
      FROM (SELECT language, titleId AS tconst, count(*) AS akas FROM batch_akas WHERE language IS NOT NULL GROUP BY ALL)
      JOIN batch_ratings USING (tconst)
      GROUP BY language ORDER BY total_titles DESC, language`,
  titles: `
      SELECT format('tt{:07d}', tconst) AS tconst, primaryTitle, originalTitle, titleType, startYear, runtimeMinutes,
        CASE WHEN genres <> '' THEN regexp_split_to_array(genres, ',') END AS genres, genres AS genres_text,
        rating AS averageRating, votes AS numVotes,
        votes / (votes + 25000) * rating + 25000 / (votes + 25000) * mean AS weighted_rating,
        ${tenths} AS tenths, all_tenths, all_titles
      FROM batch_titles LEFT JOIN batch_title_names USING (tconst), (${allRatings}) ORDER BY tconst`,
  top_titles: `
      SELECT titleType, rank, format('tt{:07d}', id) AS tconst, primaryTitle, startYear,
        rating AS averageRating, votes AS numVotes, weighted AS weighted_rating,
        ${tenths} AS tenths, all_tenths, all_titles
      FROM (SELECT *, count(*) OVER (PARTITION BY titleType ORDER BY weighted DESC, id)::INTEGER AS rank
        FROM (SELECT *, tconst AS id, (25000 * all_tenths::HUGEINT + all_titles::HUGEINT * votes * ${tenths})::DOUBLE
            / ((votes + 25000::HUGEINT) * all_titles * 10)::DOUBLE AS weighted
          FROM batch_titles, (${allRatings}) WHERE titleType IS NOT NULL))
      LEFT JOIN batch_title_names USING (tconst)
      WHERE rank <= 250 ORDER BY titleType, rank`,
  series: episodesQuery('parentTconst', 'total_votes DESC, parentTconst'),
  seasons: episodesQuery('parentTconst, seasonNumber', 'parentTconst, seasonNumber NULLS LAST'),
  directors: crewQuery('directors'),
  writers: crewQuery('writers'),
  title_features: `
      WITH titles AS (
        SELECT format('tt{:07d}', tconst) AS tconst, primaryTitle, titleType, startYear, runtimeMinutes, isAdult, genres AS genres_text,
          CASE WHEN genres <> '' THEN regexp_split_to_array(genres, ',') END AS genres, rating AS averageRating,
          votes AS numVotes, coalesce(principals, 0) AS principals, coalesce(people, 0) AS people,
          coalesce(akas, 0) AS akas, coalesce(regions, 0) AS regions,
          ${tenths} AS tenths
        FROM batch_ratings LEFT JOIN batch_basics USING (tconst) LEFT JOIN batch_title_names USING (tconst)
        LEFT JOIN (SELECT tconst, count(*) AS principals, count(DISTINCT nconst) AS people
          FROM batch_principals GROUP BY ALL) USING (tconst)
        LEFT JOIN (SELECT titleId AS tconst, count(*) AS akas, count(DISTINCT region) AS regions
          FROM batch_akas GROUP BY ALL) USING (tconst))
      SELECT *, CASE WHEN numVotes > 0 THEN log10(numVotes) ELSE 0 END AS numVotes_log10,
        ${standardised
          .map(
            (name) => `
        CASE WHEN ${name} IS NULL OR coalesce(stddev_samp(${name}) OVER (), 0) = 0 THEN 0
          ELSE (${name} - avg(${name}) OVER ()) / stddev_samp(${name}) OVER () END AS ${name}_standardised,
        ${name} IS NULL AS ${name}_missing,`,
          )
          .join('')}
        genres IS NULL AS genres_missing,
        ${[...genreColumns].map(([column, genre]) => `concat(',', genres_text, ',') LIKE '%,${genre},%' AS ${column}`).join(', ')},
        genres IS NOT NULL AND len(list_filter(genres, lambda genre:
          genre NOT IN (${[...genreColumns.values()].map((genre) => `'${genre}'`).join(', ')}))) > 0 AS genre_other,
        ['train', 'validation', 'test'][1 + (bucket >= 80)::INTEGER + (bucket >= 90)::INTEGER] AS split
      FROM (SELECT *,
        list_reduce(list_transform(string_split(md5(tconst)[1:8], ''), lambda digit: strpos('123456789abcdef', digit)),
          lambda number, digit: (number * 16 + digit) % 100) AS bucket FROM titles)
      ORDER BY tconst`,
};

/** The relations that the tables are computed from: valid rows, one per key. An id is the number in its digits. */
const batchRelations = {
  batch_ratings: ['tconst INTEGER', 'rating DOUBLE', 'votes BIGINT'],
  batch_basics: [
    'tconst INTEGER',
    'titleType VARCHAR',
    'isAdult BOOLEAN',
    'startYear INTEGER',
    'runtimeMinutes INTEGER',
    'genres VARCHAR',
  ],
  batch_principals: ['tconst INTEGER', 'ordering INTEGER', 'nconst INTEGER'],
  batch_akas: ['titleId INTEGER', 'ordering INTEGER', 'region VARCHAR', 'language VARCHAR'],
  batch_crew: ['tconst INTEGER', 'directors INTEGER[]', 'writers INTEGER[]'],
  batch_episodes: ['tconst INTEGER', 'parentTconst INTEGER', 'seasonNumber INTEGER'],
  batch_title_names: ['tconst INTEGER', 'primaryTitle VARCHAR', 'originalTitle VARCHAR'],
  batch_names: ['nconst INTEGER', 'primaryName VARCHAR'],
} as const;

export type BatchRelation = keyof typeof batchRelations;

/** The titles and the people whose names some table may show, once the other relations exist. */
export const namedTitles =
  'SELECT tconst FROM batch_ratings UNION ALL SELECT parentTconst FROM batch_episodes';
export const namedPeople = `SELECT nconst FROM batch_principals
  UNION ALL SELECT unnest(directors) FROM batch_crew UNION ALL SELECT unnest(writers) FROM batch_crew`;

/**
 * Computes the gold tables and their `exactTable`s from `batchRelations`, with the rows in the contract's order, then drops
 * the relations. Needs `preserve_insertion_order`.
 * @param schema is created if it does not exist; existing tables are replaced
 * @param withHistory whether `historyRelations` exist, and the tables over them are wanted
 */
export async function computeGold(
  connection: DuckDBConnection,
  schema: string,
  { cubes, tables } = builtIn,
  withHistory = false,
): Promise<void> {
  await connection.run(`CREATE OR REPLACE TEMP VIEW batch_titles AS
    SELECT * FROM batch_basics JOIN batch_ratings USING (tconst)`);
  await connection.run(`CREATE SCHEMA IF NOT EXISTS "${schema}"`);
  const computed = tables.filter((table) => withHistory || !isOfHistory(table));
  const own = computed.filter(({ file }) => file !== undefined);
  if (own.length > 0) await computeDeclared(connection, schema, cubes, own);
  for (const { name, columns, file } of computed) {
    if (file !== undefined) continue;
    const query = queries[name] ?? historyQueries[name];
    if (query === undefined) throw new RangeError(`the oracle has no query for the gold table ${name}`);
    const exact = `"${schema}"."${exactTable(name)}"`;
    const wanted = Object.keys(columns).map((column) => `"${column}"`);
    await connection.run(`CREATE OR REPLACE TABLE ${exact} AS ${query}`);
    await connection.run(
      `CREATE OR REPLACE TABLE "${schema}"."${name}" AS SELECT ${wanted.join(', ')} FROM ${exact}`,
    );
  }
  await connection.run('DROP VIEW batch_titles');
  for (const relation of [...Object.keys(batchRelations), ...(withHistory ? historyRelations : [])]) {
    await connection.run(`DROP TABLE ${relation}`);
  }
}

/**
 * SELECT of the row of each key that was inserted last, and its number as `line`.
 * @param only a WHERE clause that drops keys that gold does not need
 */
export const lastOfEachKey = (from: string, key: readonly string[], only = '') => `
  SELECT * FROM (SELECT *, rowid AS line FROM ${from} ${only})
  QUALIFY row_number() OVER (PARTITION BY ${key.join(', ')} ORDER BY line DESC) = 1`;
