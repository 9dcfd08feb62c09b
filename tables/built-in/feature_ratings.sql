/*
kind: cube
about: The rating of each rated title.
reads:
  title.ratings: [tconst, averageRating, numVotes]
key: [tconst, rating]
measures: [ratings, votes]
onlyDuckdb: they serve title_features, which only DuckDB computes
*/
SELECT tconst, averageRating AS rating, 1 AS ratings, numVotes AS votes
FROM title_ratings
