import type { Cube } from './cube.ts';

/** Titles by year, genres and rating. Serves genre_analysis, decade_trends and title_ratings_agg. */
export const titleCube: Cube = {
  name: 'title',
  array: 'title',
  reads: {
    'title.basics': ['tconst', 'startYear', 'runtimeMinutes', 'genres'],
    'title.ratings': ['tconst', 'averageRating', 'numVotes'],
  },
  key: ['startYear', 'genres', 'rating'],
  measures: ['titles', 'votes', 'runtimeSum', 'runtimeTitles'],
  contribution: `
    SELECT startYear, genres, averageRating AS rating,
      count(*) AS titles,
      sum(numVotes) AS votes,
      sum(coalesce(runtimeMinutes, 0)) AS runtimeSum,
      count(runtimeMinutes) AS runtimeTitles
    FROM title_basics JOIN title_ratings ON title_basics.tconst = title_ratings.tconst
    GROUP BY startYear, genres, averageRating`,
};
