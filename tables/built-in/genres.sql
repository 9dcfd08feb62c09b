/*
kind: table
about: Rated titles by single genre. A title counts in each of its genres; titles without genres are left out.
reads: [title]
key: [genre]
measures: [total_titles, total_votes, s1, s2, max_tenths, min_tenths]
columns:
  genre: VARCHAR
  total_titles: BIGINT
  avg_rating: DOUBLE
  total_votes: BIGINT
  rating_volatility: DOUBLE
  max_rating: DOUBLE
  min_rating: DOUBLE
order: total_titles DESC, genre
plots:
  - { title: Titles by genre, kind: bar, x: genre, y: sum(total_titles) }
onlyDuckdb: the SQL that both engines share has no lists
*/
WITH integers AS (
  SELECT
    genre,
    CAST(sum(titles) AS BIGINT) AS total_titles,
    CAST(sum(votes) AS BIGINT) AS total_votes,
    CAST(sum(rating * titles) AS BIGINT) AS s1,
    CAST(sum(rating * rating * titles) AS BIGINT) AS s2,
    CAST(max(rating) AS BIGINT) AS max_tenths,
    CAST(min(rating) AS BIGINT) AS min_tenths
  FROM (
    SELECT unnest(list_distinct(string_split(genres, ','))) AS genre, rating, titles, votes FROM title
  ) AS each
  WHERE genre <> ''
  GROUP BY genre
)
SELECT
  genre, total_titles,
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
