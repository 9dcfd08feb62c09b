/*
kind: table
about: What changed within a week or a month of dumps, by single genre. A title with several genres counts for each.
reads: [history, history_span, feature_basics, dictionary]
key: [period, window_start, genre]
measures: [titles_new, titles_gone, titles_changed, votes_gained, change_tenths]
columns:
  period: { type: VARCHAR, about: "Length of the window: week or month." }
  window_start: { type: DATE, about: "First day of the window; a week starts on Monday." }
  genre:
    type: VARCHAR
    about: Genre of the titles in this snapshot; null for titles without genres, and for those that have no rating any more.
  titles_new: { type: BIGINT, about: Titles with a rating after the window and none before it., unit: titles }
  titles_gone: { type: BIGINT, about: Titles with a rating before the window and none after it., unit: titles }
  titles_changed:
    type: BIGINT
    about: Titles with a rating before and after the window whose rating or votes changed within it.
    unit: titles
  votes_gained: { type: BIGINT, about: Votes after the window less those before it., unit: votes }
  avg_change: { type: DOUBLE, about: Mean change of the rating of titles_changed; null without any., unit: stars }
order: period, window_start, genre NULLS LAST
plots:
  - title: Votes gained by week
    kind: line
    x: CASE WHEN period = 'week' THEN window_start END
    y: sum(votes_gained)
  - title: Newly rated titles by genre
    kind: bar
    x: CASE WHEN period = 'month' THEN genre END
    y: sum(titles_new)
onlyDuckdb: the history needs every version of a rating, and Flink's tables the last one
*/
WITH integers AS (
  SELECT
    period,
    window_start,
    genre,
    count(*) FILTER (before.tenths IS NULL) AS titles_new,
    count(*) FILTER (after.tenths IS NULL) AS titles_gone,
    count(*) FILTER (before.tenths IS NOT NULL AND after.tenths IS NOT NULL) AS titles_changed,
    sum(coalesce(after.votes, 0) - coalesce(before.votes, 0))::BIGINT AS votes_gained,
    coalesce(sum(after.tenths - before.tenths), 0)::BIGINT AS change_tenths
  FROM (
    SELECT
      tconst,
      period,
      date_trunc(period, day)::DATE AS window_start,
      arg_min(earlier, day) AS before,
      arg_max({ tenths: tenths, votes: votes }, day) AS after
    FROM (
      SELECT *, { tenths: lag(tenths) OVER title, votes: lag(votes) OVER title } AS earlier
      FROM history
      WINDOW title AS (PARTITION BY tconst ORDER BY day)
    ) AS changes
    CROSS JOIN history_span
    CROSS JOIN (SELECT unnest(['week', 'month']) AS period) AS periods
    -- What the history begins with is no change.
    WHERE day > beginning
    GROUP BY tconst, period, window_start
  ) AS titles
  LEFT JOIN (
    SELECT tconst, unnest(list_distinct(string_split(value, ','))) AS genre
    FROM feature_basics_sums
    JOIN dictionary ON number = genres
    WHERE value <> ''
  ) AS title_genres ON title_genres.tconst = titles.tconst
  WHERE before.tenths IS NOT NULL OR after.tenths IS NOT NULL
  GROUP BY period, window_start, genre
)
SELECT
  period, window_start, genre, titles_new, titles_gone, titles_changed, votes_gained,
  change_tenths / nullif(10.0::DOUBLE * titles_changed, 0) AS avg_change
FROM integers
