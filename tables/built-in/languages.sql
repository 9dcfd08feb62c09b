/*
kind: table
about: Rated titles by the languages of their alternative titles. Alternative titles without a language do not count.
reads: [language]
key: [language]
measures: [total_titles, total_akas, total_votes, s1, s2, max_tenths, min_tenths]
columns:
  language: VARCHAR
  total_titles: BIGINT
  total_akas: { type: BIGINT, about: Alternative titles of rated titles in the language., unit: alternative titles }
  avg_rating: DOUBLE
  total_votes: BIGINT
  rating_volatility: DOUBLE
  max_rating: DOUBLE
  min_rating: DOUBLE
order: total_titles DESC, language
plots:
  - { title: Titles by language, kind: bar, x: language, y: sum(total_titles) }
*/
WITH integers AS (
  SELECT
    language,
    CAST(sum(titles) AS BIGINT) AS total_titles,
    CAST(sum(votes) AS BIGINT) AS total_votes,
    CAST(sum(akas) AS BIGINT) AS total_akas,
    CAST(sum(rating * titles) AS BIGINT) AS s1,
    CAST(sum(rating * rating * titles) AS BIGINT) AS s2,
    CAST(max(rating) AS BIGINT) AS max_tenths,
    CAST(min(rating) AS BIGINT) AS min_tenths
  FROM language
  GROUP BY language
)
SELECT
  language, total_titles, total_akas,
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
