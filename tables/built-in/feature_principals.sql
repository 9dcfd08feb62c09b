/*
kind: cube
about: Credits and distinct people of each rated title. A person counts once in people, whatever the number of credits.
reads:
  title.principals: [tconst, ordering, nconst]
  title.ratings: [tconst]
key: [tconst]
measures: [principals, people]
onlyDuckdb: they serve title_features, which only DuckDB computes
*/
SELECT tconst, sum(credits) AS principals, count(*) AS people
FROM (SELECT tconst, nconst, count(*) AS credits FROM title_principals GROUP BY tconst, nconst) AS pairs
SEMI JOIN title_ratings USING (tconst)
GROUP BY tconst
