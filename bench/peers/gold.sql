-- The five gold tables over the relations titles (rated, with their basics), credits, akas and names. DuckDB and Spark
-- run this text as it is.

-- genre_analysis
SELECT genres, count(*) AS total_titles, avg(rating) AS avg_rating, CAST(sum(votes) AS BIGINT) AS total_votes,
  avg(startYear) AS avg_year, stddev_samp(rating) AS rating_volatility, max(rating) AS max_rating, min(rating) AS min_rating
FROM titles WHERE genres IS NOT NULL GROUP BY genres ORDER BY total_titles DESC, genres;

-- decade_trends
SELECT CAST(floor(startYear / 10.0) * 10 AS INT) AS decade, count(*) AS total_titles, avg(rating) AS avg_rating,
  CAST(sum(votes) AS BIGINT) AS total_votes, avg(runtimeMinutes) AS avg_runtime, stddev_samp(rating) AS rating_volatility
FROM titles WHERE startYear IS NOT NULL GROUP BY 1 ORDER BY decade;

-- title_ratings_agg
SELECT startYear, genres, count(*) AS total_titles, avg(rating) AS avg_rating, CAST(sum(votes) AS BIGINT) AS total_votes,
  max(rating) AS max_rating, min(rating) AS min_rating, stddev_samp(rating) AS rating_volatility
FROM titles WHERE startYear IS NOT NULL GROUP BY startYear, genres ORDER BY startYear, total_titles DESC, genres NULLS LAST;

-- contributor_analysis
SELECT nconst, primaryName, total_titles, total_credits, avg_rating, total_votes, rating_volatility, max_rating, min_rating
FROM (
  SELECT nconst, count(*) AS total_titles, CAST(sum(credits) AS BIGINT) AS total_credits, avg(rating) AS avg_rating,
    CAST(sum(votes) AS BIGINT) AS total_votes, stddev_samp(rating) AS rating_volatility,
    max(rating) AS max_rating, min(rating) AS min_rating
  FROM (
    SELECT nconst, tconst, count(*) AS credits, any_value(rating) AS rating, any_value(votes) AS votes
    FROM credits JOIN ratings USING (tconst) GROUP BY nconst, tconst) AS once_a_title
  GROUP BY nconst) AS people
LEFT JOIN names USING (nconst) ORDER BY total_votes DESC, nconst;

-- region_analysis
SELECT region, count(*) AS total_titles, CAST(sum(akas) AS BIGINT) AS total_akas, avg(rating) AS avg_rating,
  CAST(sum(votes) AS BIGINT) AS total_votes, stddev_samp(rating) AS rating_volatility,
  max(rating) AS max_rating, min(rating) AS min_rating
FROM (
  SELECT region, titleId, count(*) AS akas, any_value(rating) AS rating, any_value(votes) AS votes
  FROM akas JOIN ratings ON tconst = titleId WHERE region IS NOT NULL GROUP BY region, titleId) AS once_a_title
GROUP BY region ORDER BY total_titles DESC, region;
