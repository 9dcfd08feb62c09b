/*
kind: cube
about: Rated titles and alternative titles by region and rating; rows without a region do not count.
reads:
  title.akas: [titleId, ordering, region]
  title.ratings: [tconst, averageRating, numVotes]
key: [region, rating]
texts: [region]
measures: [titles, akas, votes]
*/
SELECT region, averageRating AS rating,
  count(*) AS titles,
  sum(akas) AS akas,
  sum(numVotes) AS votes
FROM (
  SELECT titleId, region, count(*) AS akas FROM title_akas WHERE region IS NOT NULL GROUP BY titleId, region
) AS pairs
JOIN title_ratings ON titleId = tconst
GROUP BY region, averageRating
