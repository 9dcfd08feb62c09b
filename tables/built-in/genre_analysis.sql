/*
kind: table
about: Rated titles by their genres string. Titles without genres are left out.
reads: [title]
key: [genres]
measures: [total_titles, total_votes, s1, s2, max_tenths, min_tenths, years, titles_with_year]
columns:
  genres: { type: VARCHAR, about: "One to three genres, joined by commas as IMDb writes them." }
  total_titles: BIGINT
  avg_rating: DOUBLE
  total_votes: BIGINT
  avg_year: DOUBLE
  rating_volatility: DOUBLE
  max_rating: DOUBLE
  min_rating: DOUBLE
order: total_titles DESC, genres
plots:
  - { title: Titles by genres, kind: bar, x: genres, y: sum(total_titles) }
  - { title: Titles by single genre, kind: bar, x: "unnest(string_split(genres, ','))", y: sum(total_titles) }
*/
WITH integers AS (
  SELECT
    genres,
    CAST(sum(titles) AS BIGINT) AS total_titles,
    CAST(sum(votes) AS BIGINT) AS total_votes,
    CAST(sum(rating * titles) AS BIGINT) AS s1,
    CAST(sum(rating * rating * titles) AS BIGINT) AS s2,
    CAST(max(rating) AS BIGINT) AS max_tenths,
    CAST(min(rating) AS BIGINT) AS min_tenths,
    CAST(sum(coalesce(startYear, 0) * titles) AS BIGINT) AS years,
    CAST(sum(CASE WHEN startYear IS NULL THEN 0 ELSE titles END) AS BIGINT) AS titles_with_year
  FROM title
  WHERE genres IS NOT NULL
  GROUP BY genres
)
SELECT
  genres, total_titles,
  s1 / CAST(10 * total_titles AS DOUBLE) AS avg_rating,
  total_votes,
  years / CAST(nullif(titles_with_year, 0) AS DOUBLE) AS avg_year,
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
