/*
kind: table
about: Rated titles by the regions for which they have alternative titles. Alternative titles without a region do not count.
reads: [region]
key: [region]
measures: [total_titles, total_akas, total_votes, s1, s2, max_tenths, min_tenths]
columns:
  region: VARCHAR
  total_titles: BIGINT
  total_akas: BIGINT
  avg_rating: DOUBLE
  total_votes: BIGINT
  rating_volatility: DOUBLE
  max_rating: DOUBLE
  min_rating: DOUBLE
order: total_titles DESC, region
plots:
  - { title: Titles by region, kind: bar, x: region, y: sum(total_titles) }
*/
WITH integers AS (
  SELECT
    region,
    CAST(sum(titles) AS BIGINT) AS total_titles,
    CAST(sum(votes) AS BIGINT) AS total_votes,
    CAST(sum(akas) AS BIGINT) AS total_akas,
    CAST(sum(rating * titles) AS BIGINT) AS s1,
    CAST(sum(rating * rating * titles) AS BIGINT) AS s2,
    CAST(max(rating) AS BIGINT) AS max_tenths,
    CAST(min(rating) AS BIGINT) AS min_tenths
  FROM region
  GROUP BY region
)
SELECT
  region, total_titles, total_akas,
  s1 / CAST(10 * total_titles AS DOUBLE) AS avg_rating,
  total_votes,
  CASE WHEN total_titles > 1 THEN
    sqrt(
      CAST(CAST(total_titles AS DECIMAL(19, 0)) * CAST(s2 AS DECIMAL(19, 0))
        - CAST(s1 AS DECIMAL(19, 0)) * CAST(s1 AS DECIMAL(19, 0)) AS DOUBLE)
        / CAST(total_titles * (total_titles - 1) AS DOUBLE)
    ) / CAST(10 AS DOUBLE)
  END AS rating_volatility,
  max_tenths / CAST(10 AS DOUBLE) AS max_rating,
  min_tenths / CAST(10 AS DOUBLE) AS min_rating
FROM integers
