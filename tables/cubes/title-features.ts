/**
 * The attributes of each rated title, for `title_features`. Four cubes share one array, each with the columns of one
 * dataset. So a change in one dataset needs no row of the others. Each contribution is a join in which a title without rows
 * contributes nothing. A title has one row in each cube, and its row count is 1. A changed value subtracts the old row and
 * adds the new one.
 */
import type { Cube } from './cube.ts';

const array = 'feature';
const onlyDuckdb = 'they serve title_features, which only DuckDB computes';

export const ratingFeatures: Cube = {
  name: 'feature_ratings',
  array,
  reads: { 'title.ratings': ['tconst', 'averageRating', 'numVotes'] },
  key: ['tconst', 'rating'],
  measures: ['ratings', 'votes'],
  contribution: `
    SELECT tconst, averageRating AS rating, 1 AS ratings, numVotes AS votes
    FROM title_ratings`,
  onlyDuckdb,
};

export const basicFeatures: Cube = {
  name: 'feature_basics',
  array,
  reads: {
    'title.basics': ['tconst', 'titleType', 'isAdult', 'startYear', 'runtimeMinutes', 'genres'],
    'title.ratings': ['tconst'],
  },
  key: ['tconst', 'titleType', 'isAdult', 'startYear', 'runtimeMinutes', 'genres'],
  measures: ['basics'],
  contribution: `
    SELECT tconst, titleType, isAdult, startYear, runtimeMinutes, genres, 1 AS basics
    FROM title_basics SEMI JOIN title_ratings USING (tconst)`,
  onlyDuckdb,
};

/** `people` counts each person once, whatever the number of credits. */
export const principalFeatures: Cube = {
  name: 'feature_principals',
  array,
  reads: { 'title.principals': ['tconst', 'ordering', 'nconst'], 'title.ratings': ['tconst'] },
  key: ['tconst'],
  measures: ['principals', 'people'],
  contribution: `
    SELECT tconst, sum(credits) AS principals, count(*) AS people
    FROM (SELECT tconst, nconst, count(*) AS credits FROM title_principals GROUP BY tconst, nconst) AS pairs
    SEMI JOIN title_ratings USING (tconst)
    GROUP BY tconst`,
  onlyDuckdb,
};

/** `akas` counts all alternative titles, `regions` their distinct regions. */
export const akaFeatures: Cube = {
  name: 'feature_akas',
  array,
  reads: { 'title.akas': ['titleId', 'ordering', 'region'], 'title.ratings': ['tconst'] },
  key: ['tconst'],
  measures: ['akas', 'regions'],
  contribution: `
    SELECT titleId AS tconst, sum(akas) AS akas, count(region) AS regions
    FROM (SELECT titleId, region, count(*) AS akas FROM title_akas GROUP BY titleId, region) AS pairs
    SEMI JOIN title_ratings ON titleId = tconst
    GROUP BY titleId`,
  onlyDuckdb,
};
