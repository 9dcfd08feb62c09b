/*
kind: cube
about: Alternative titles of each rated title, and their distinct regions.
reads:
  title.akas: [titleId, ordering, region]
  title.ratings: [tconst]
key: [tconst]
measures: [akas, regions]
onlyDuckdb: they serve title_features, which only DuckDB computes
*/
SELECT titleId AS tconst, sum(akas) AS akas, count(region) AS regions
FROM (SELECT titleId, region, count(*) AS akas FROM title_akas GROUP BY titleId, region) AS pairs
SEMI JOIN title_ratings ON titleId = tconst
GROUP BY titleId
