/*
kind: table
about: Rated titles by the decade of their start year. Titles without a start year are left out.
reads: [title]
key: [decade]
measures: [total_titles, total_votes, s1, s2, runtime, titles_with_runtime]
columns:
  decade: INTEGER
  total_titles: BIGINT
  avg_rating: DOUBLE
  total_votes: BIGINT
  avg_runtime: DOUBLE
  rating_volatility: DOUBLE
order: decade
plots:
  - { title: Average rating by decade, kind: line, x: decade, y: any_value(avg_rating) }
  - { title: Titles by decade, kind: line, x: decade, y: sum(total_titles) }
*/
WITH integers AS (
  SELECT
    decade,
    CAST(sum(titles) AS BIGINT) AS total_titles,
    CAST(sum(votes) AS BIGINT) AS total_votes,
    CAST(sum(rating * titles) AS BIGINT) AS s1,
    CAST(sum(rating * rating * titles) AS BIGINT) AS s2,
    CAST(sum(runtimeSum) AS BIGINT) AS runtime,
    CAST(sum(runtimeTitles) AS BIGINT) AS titles_with_runtime
  FROM (
    SELECT CAST(floor(startYear / CAST(10 AS DOUBLE)) AS INTEGER) * 10 AS decade,
      rating, titles, votes, runtimeSum, runtimeTitles
    FROM title WHERE startYear >= -2147483640
  ) AS years
  GROUP BY decade
)
SELECT
  decade, total_titles,
  s1 / CAST(10 * total_titles AS DOUBLE) AS avg_rating,
  total_votes,
  runtime / CAST(nullif(titles_with_runtime, 0) AS DOUBLE) AS avg_runtime,
  CASE WHEN total_titles > 1 THEN
    sqrt(
      CAST(CAST(total_titles AS DECIMAL(19, 0)) * CAST(s2 AS DECIMAL(19, 0))
        - CAST(s1 AS DECIMAL(19, 0)) * CAST(s1 AS DECIMAL(19, 0)) AS DOUBLE)
        / CAST(total_titles * (total_titles - 1) AS DOUBLE)
    ) / CAST(10 AS DOUBLE)
  END AS rating_volatility
FROM integers
