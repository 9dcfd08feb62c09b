/*
kind: cube
about: Titles by year, genres and rating.
reads:
  title.basics: [tconst, startYear, runtimeMinutes, genres]
  title.ratings: [tconst, averageRating, numVotes]
key: [startYear, genres, rating]
texts: [genres]
measures: [titles, votes, runtimeSum, runtimeTitles]
*/
SELECT startYear, genres, averageRating AS rating,
  count(*) AS titles,
  sum(numVotes) AS votes,
  sum(coalesce(runtimeMinutes, 0)) AS runtimeSum,
  count(runtimeMinutes) AS runtimeTitles
FROM title_basics JOIN title_ratings ON title_basics.tconst = title_ratings.tconst
GROUP BY startYear, genres, averageRating
