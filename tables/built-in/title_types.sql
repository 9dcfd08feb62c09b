/*
kind: table
about: Rated titles by type. Titles without a type are left out.
reads: [feature_ratings, feature_basics]
key: [titleType]
measures: [total_titles, total_votes, s1, s2, max_tenths, min_tenths]
columns:
  titleType: { type: VARCHAR, about: "Type of the titles, such as movie or tvEpisode." }
  total_titles: BIGINT
  avg_rating: DOUBLE
  total_votes: BIGINT
  rating_volatility: DOUBLE
  max_rating: DOUBLE
  min_rating: DOUBLE
order: total_titles DESC, titleType
plots:
  - { title: Titles by type, kind: bar, x: titleType, y: sum(total_titles) }
onlyDuckdb: the attributes of titles are cubes of DuckDB alone
*/
WITH integers AS (
  SELECT
    titleType,
    count(*) AS total_titles,
    CAST(sum(votes) AS BIGINT) AS total_votes,
    CAST(sum(rating) AS BIGINT) AS s1,
    CAST(sum(rating * rating) AS BIGINT) AS s2,
    CAST(max(rating) AS BIGINT) AS max_tenths,
    CAST(min(rating) AS BIGINT) AS min_tenths
  FROM feature_ratings JOIN feature_basics ON feature_ratings.tconst = feature_basics.tconst
  WHERE titleType IS NOT NULL
  GROUP BY titleType
)
SELECT
  titleType, total_titles,
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
