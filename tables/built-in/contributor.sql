/*
kind: cube
about: Rated titles and credits by person and rating. Several credits of a person on a title count as one title.
reads:
  title.principals: [tconst, ordering, nconst]
  title.ratings: [tconst, averageRating, numVotes]
key: [nconst, rating]
measures: [titles, credits, votes]
*/
SELECT nconst, averageRating AS rating,
  count(*) AS titles,
  sum(credits) AS credits,
  sum(numVotes) AS votes
FROM (SELECT tconst, nconst, count(*) AS credits FROM title_principals GROUP BY tconst, nconst) AS pairs
JOIN title_ratings ON pairs.tconst = title_ratings.tconst
GROUP BY nconst, averageRating
