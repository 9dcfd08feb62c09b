/*
kind: table
about: People by the rated titles that they are credited on.
reads: [contributor, names]
key: [nconst]
attributes: [primaryName]
rowsBy: nconst
measures: [total_titles, total_credits, total_votes, s1, s2, max_tenths, min_tenths]
columns:
  nconst: VARCHAR
  primaryName: VARCHAR
  total_titles: BIGINT
  total_credits: BIGINT
  avg_rating: DOUBLE
  total_votes: BIGINT
  rating_volatility: DOUBLE
  max_rating: DOUBLE
  min_rating: DOUBLE
order: total_votes DESC, nconst
plots:
  - { title: Votes by contributor, kind: bar, x: "concat_ws(' ', primaryName, nconst)", y: sum(total_votes) }
*/
WITH integers AS (
  SELECT
    'nm' ||
      CASE WHEN totals.nconst < 10000000 THEN lpad(CAST(totals.nconst AS STRING), 7, '0')
      ELSE CAST(totals.nconst AS STRING) END AS nconst,
    primaryName,
    total_titles,
    total_votes,
    total_credits,
    s1,
    s2,
    max_tenths,
    min_tenths
  FROM (
    SELECT
      nconst,
      CAST(sum(titles) AS BIGINT) AS total_titles,
      CAST(sum(votes) AS BIGINT) AS total_votes,
      CAST(sum(credits) AS BIGINT) AS total_credits,
      CAST(sum(rating * titles) AS BIGINT) AS s1,
      CAST(sum(rating * rating * titles) AS BIGINT) AS s2,
      CAST(max(rating) AS BIGINT) AS max_tenths,
      CAST(min(rating) AS BIGINT) AS min_tenths
    FROM contributor
    GROUP BY nconst
  ) AS totals
  LEFT JOIN names ON totals.nconst = names.nconst
)
SELECT
  nconst, primaryName, total_titles, total_credits,
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
