/**
 * A user's folder of declarations: a cube over two datasets and its table, two cubes that count unrated titles and their tables,
 * and tables with names of people and titles.
 */
import type { GoldTable } from '../../tables/gold-table.ts';

export const categories = `/*
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

const categoryAnalysis = `/*
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
plots:
  - { title: Titles by category, kind: bar, x: category, y: sum(total_titles) }
*/
SELECT category, CAST(sum(titles) AS BIGINT) AS total_titles, CAST(sum(credits) AS BIGINT) AS total_credits
FROM categories GROUP BY category
`;

const types = `/*
kind: cube
about: Titles by type, rated or not.
reads:
  title.basics: [tconst, titleType, runtimeMinutes]
gate: title.basics
key: [titleType]
texts: [titleType]
measures: [titles, minutes]
*/
SELECT titleType, count(*) AS titles, sum(runtimeMinutes) AS minutes FROM title_basics
GROUP BY titleType; -- Without a runtime, minutes is 0.
`;

const typeCounts = `/*
kind: table
about: Titles by type, rated or not.
reads: [types]
key: [titleType]
measures: [total_titles, total_minutes]
columns: { titleType: VARCHAR, total_titles: BIGINT, total_minutes: { type: BIGINT, about: Their runtime., unit: minutes } }
order: titleType
*/
SELECT titleType, CAST(sum(titles) AS BIGINT) AS total_titles, CAST(sum(minutes) AS BIGINT) AS total_minutes
FROM types GROUP BY titleType -- the end
`;

const credited = `/*
kind: cube
about: Credits of people, on titles rated or not.
reads:
  title.principals: [tconst, ordering, nconst]
gate: title.principals
key: [nconst]
measures: [credits]
*/
SELECT nconst, count(*) AS credits FROM title_principals GROUP BY nconst
`;

const creditedPeople = `/*
kind: table
about: Credits of people with their names.
reads: [credited, names]
key: [nconst]
attributes: [primaryName]
measures: [total_credits]
columns:
  nconst: VARCHAR
  primaryName: VARCHAR
  total_credits: { type: BIGINT, about: Credits of this person., unit: credits }
order: nconst
onlyDuckdb: the names of people are a relation of the sink
*/
SELECT printf('nm%07d', credited.nconst) AS nconst, min(primaryName) AS primaryName, CAST(sum(credits) AS BIGINT) AS total_credits
FROM credited LEFT JOIN names ON names.nconst = credited.nconst
GROUP BY credited.nconst
`;

const votedTitles = `/*
kind: table
about: Titles with their names, rated or not.
reads: [feature_ratings, title_names]
key: [tconst]
attributes: [primaryTitle]
measures: [numVotes]
columns: { tconst: VARCHAR, primaryTitle: VARCHAR, numVotes: BIGINT }
order: tconst
onlyDuckdb: the names of titles are a relation of the sink
*/
SELECT printf('tt%07d', title) AS tconst, min(primaryTitle) AS primaryTitle, CAST(coalesce(sum(votes), 0) AS BIGINT) AS numVotes
FROM (SELECT tconst AS title, primaryTitle, votes FROM feature_ratings FULL JOIN title_names USING (tconst)) AS named
GROUP BY title
`;

/** The files of the folder by name. */
export const userFolder: Readonly<Record<string, string>> = {
  'categories.sql': categories,
  'category_analysis.sql': categoryAnalysis,
  'types.sql': types,
  'type_counts.sql': typeCounts,
  'credited.sql': credited,
  'credited_people.sql': creditedPeople,
  'voted_titles.sql': votedTitles,
};

/** A user's table with one column `n`, for tests without files. */
export const ofUser = (name: string, integers: string): GoldTable => ({
  name,
  file: `/tables/${name}.sql`,
  about: name,
  reads: ['title'],
  plots: [],
  integers,
  key: ['n'],
  measures: [],
  columns: { n: 'BIGINT' },
  notes: { n: { about: 'A number.' } },
  select: 'n',
  order: 'n',
  onlyDuckdb: 'it is for a test',
});
