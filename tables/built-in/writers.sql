/*
kind: table
about: Writers of rated titles, as title.crew names them.
reads: [writer, names]
key: [nconst]
attributes: [primaryName]
rowsBy: nconst
measures: [total_titles, total_votes, s1, s2, max_tenths, min_tenths]
columns:
  nconst: VARCHAR
  primaryName: VARCHAR
  total_titles: BIGINT
  avg_rating: DOUBLE
  total_votes: BIGINT
  rating_volatility: DOUBLE
  max_rating: DOUBLE
  min_rating: DOUBLE
order: total_votes DESC, nconst
plots:
  - { title: Votes by writer, kind: bar, x: "concat_ws(' ', primaryName, nconst)", y: sum(total_votes) }
onlyDuckdb: the SQL that both engines share has no lists
*/
WITH integers AS (
  SELECT
    printf('nm%07d', totals.nconst) AS nconst,
    primaryName,
    total_titles,
    total_votes,
    s1,
    s2,
    max_tenths,
    min_tenths
  FROM (
    SELECT
      nconst,
      sum(titles)::BIGINT AS total_titles,
      sum(votes)::BIGINT AS total_votes,
      sum(rating * titles)::BIGINT AS s1,
      sum(rating * rating * titles)::BIGINT AS s2,
      max(rating)::BIGINT AS max_tenths,
      min(rating)::BIGINT AS min_tenths
    FROM writer
    GROUP BY nconst
  ) AS totals
  LEFT JOIN names ON totals.nconst = names.nconst
)
SELECT
  nconst, primaryName, total_titles,
  s1 / (10.0::DOUBLE * total_titles) AS avg_rating,
  total_votes,
  CASE WHEN total_titles > 1 THEN
    sqrt((total_titles::HUGEINT * s2 - s1::HUGEINT * s1)::DOUBLE / (total_titles * (total_titles - 1))::DOUBLE) / 10
  END AS rating_volatility,
  max_tenths / 10.0::DOUBLE AS max_rating,
  min_tenths / 10.0::DOUBLE AS min_rating
FROM integers
