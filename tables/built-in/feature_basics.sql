/*
kind: cube
about: The row in title.basics of each rated title.
reads:
  title.basics: [tconst, titleType, isAdult, startYear, runtimeMinutes, genres]
  title.ratings: [tconst]
key: [tconst, titleType, isAdult, startYear, runtimeMinutes, genres]
texts: [titleType, genres]
measures: [basics]
onlyDuckdb: they serve title_features, which only DuckDB computes
*/
SELECT tconst, titleType, isAdult, startYear, runtimeMinutes, genres, 1 AS basics
FROM title_basics SEMI JOIN title_ratings USING (tconst)
