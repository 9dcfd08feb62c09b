import type { Cube } from './cube.ts';

/** Rated titles and alternative titles by region and rating; rows without a region do not count. */
export const regionCube: Cube = {
  name: 'region',
  array: 'region',
  reads: {
    'title.akas': ['titleId', 'ordering', 'region'],
    'title.ratings': ['tconst', 'averageRating', 'numVotes'],
  },
  key: ['region', 'rating'],
  measures: ['titles', 'akas', 'votes'],
  contribution: `
    SELECT region, averageRating AS rating,
      count(*) AS titles,
      sum(akas) AS akas,
      sum(numVotes) AS votes
    FROM (
      SELECT titleId, region, count(*) AS akas FROM title_akas WHERE region IS NOT NULL GROUP BY titleId, region
    ) AS pairs
    JOIN title_ratings ON titleId = tconst
    GROUP BY region, averageRating`,
};
