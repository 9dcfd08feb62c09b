/*
kind: cube
about: Rated titles by writer and rating. A writer whom a title names twice counts once.
reads:
  title.crew: [tconst, writers]
  title.ratings: [tconst, averageRating, numVotes]
key: [nconst, rating]
measures: [titles, votes]
onlyDuckdb: the SQL that both engines share has no lists
*/
SELECT nconst, averageRating AS rating,
  count(*) AS titles,
  sum(numVotes) AS votes
FROM (SELECT DISTINCT tconst, unnest(writers) AS nconst FROM title_crew) AS pairs
JOIN title_ratings ON pairs.tconst = title_ratings.tconst
GROUP BY nconst, averageRating
