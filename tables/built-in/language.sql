/*
kind: cube
about: Rated titles and alternative titles by language and rating; rows without a language do not count.
reads:
  title.akas: [titleId, ordering, language]
  title.ratings: [tconst, averageRating, numVotes]
key: [language, rating]
texts: [language]
measures: [titles, akas, votes]
*/
SELECT language, averageRating AS rating,
  count(*) AS titles,
  sum(akas) AS akas,
  sum(numVotes) AS votes
FROM (
  SELECT titleId, language, count(*) AS akas FROM title_akas WHERE language IS NOT NULL GROUP BY titleId, language
) AS pairs
JOIN title_ratings ON titleId = tconst
GROUP BY language, averageRating
