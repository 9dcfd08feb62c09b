/*
kind: table
about: Rated titles by start year and genres. Titles without a start year are left out; those without genres are a group of each year.
reads: [title]
key: [startYear, genres]
measures: [total_titles, total_votes, s1, s2, max_tenths, min_tenths]
columns:
  startYear: INTEGER
  genres: VARCHAR
  total_titles: BIGINT
  avg_rating: DOUBLE
  total_votes: BIGINT
  max_rating: DOUBLE
  min_rating: DOUBLE
  rating_volatility: DOUBLE
order: startYear, total_titles DESC, genres NULLS LAST
plots:
  - { title: Titles by year, kind: line, x: startYear, y: sum(total_titles) }
*/
WITH integers AS (
  SELECT
    startYear,
    genres,
    CAST(sum(titles) AS BIGINT) AS total_titles,
    CAST(sum(votes) AS BIGINT) AS total_votes,
    CAST(sum(rating * titles) AS BIGINT) AS s1,
    CAST(sum(rating * rating * titles) AS BIGINT) AS s2,
    CAST(max(rating) AS BIGINT) AS max_tenths,
    CAST(min(rating) AS BIGINT) AS min_tenths
  FROM title
  WHERE startYear IS NOT NULL
  GROUP BY startYear, genres
)
SELECT
  startYear, genres, total_titles,
  s1 / CAST(10 * total_titles AS DOUBLE) AS avg_rating,
  total_votes,
  max_tenths / CAST(10 AS DOUBLE) AS max_rating,
  min_tenths / CAST(10 AS DOUBLE) AS min_rating,
  CASE WHEN total_titles > 1 THEN
    sqrt(
      CAST(CAST(total_titles AS DECIMAL(19, 0)) * CAST(s2 AS DECIMAL(19, 0))
        - CAST(s1 AS DECIMAL(19, 0)) * CAST(s1 AS DECIMAL(19, 0)) AS DOUBLE)
        / CAST(total_titles * (total_titles - 1) AS DOUBLE)
    ) / CAST(10 AS DOUBLE)
  END AS rating_volatility
FROM integers
