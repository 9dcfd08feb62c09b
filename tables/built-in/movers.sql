/*
kind: table
about: The 100 titles that gained most votes, and the 100 whose rating changed most, within the last 7 and 30 days of dumps.
reads: [history, history_span, feature_basics, title_names, dictionary]
key: [days, ranking, place]
attributes: [tconst, primaryTitle, titleType, startYear, change_tenths]
measures: [tenths, numVotes, votes_gained]
columns:
  days: { type: INTEGER, about: "Length of the window before the newest dump: 7 or 30.", unit: days }
  ranking:
    type: VARCHAR
    about: "votes: by votes gained. rating: by the size of the change, for titles with 100 votes before and after it."
  place: { type: INTEGER, about: Place in the ranking; 1 moved most., unit: rank }
  tconst: VARCHAR
  primaryTitle: VARCHAR
  titleType: VARCHAR
  startYear: INTEGER
  averageRating: DOUBLE
  rating_change: { type: DOUBLE, about: Rating less the one before the window; null for a newly rated title., unit: stars }
  numVotes: BIGINT
  votes_gained: { type: BIGINT, about: Votes less those before the window., unit: votes }
order: days, ranking DESC, place
plots:
  - title: Votes gained in 7 days
    kind: bar
    x: CASE WHEN days = 7 AND ranking = 'votes' THEN concat_ws(' ', primaryTitle, tconst) END
    y: max(votes_gained)
  - title: Ratings that rose in 30 days
    kind: bar
    x: CASE WHEN days = 30 AND ranking = 'rating' AND rating_change > 0 THEN concat_ws(' ', primaryTitle, tconst) END
    y: max(rating_change)
onlyDuckdb: the history needs every version of a rating, and Flink's tables the last one
*/
WITH integers AS (
  SELECT
    days,
    ranking,
    place,
    'tt' || CASE WHEN ranked.tconst < 10000000 THEN lpad(ranked.tconst::VARCHAR, 7, '0')
      ELSE ranked.tconst::VARCHAR END AS tconst,
    primaryTitle,
    value AS titleType,
    startYear,
    change_tenths,
    tenths,
    numVotes,
    votes_gained
  FROM (
    SELECT
      *,
      row_number() OVER (
        PARTITION BY days, ranking
        ORDER BY CASE WHEN ranking = 'votes' THEN votes_gained ELSE abs(change_tenths) END DESC, tconst
      )::INTEGER AS place
    FROM (
      SELECT
        days,
        tconst,
        now.tenths AS tenths,
        now.votes AS numVotes,
        now.votes - coalesce(before.votes, 0) AS votes_gained,
        now.tenths - before.tenths AS change_tenths,
        least(now.votes, before.votes) AS votes_at_least
      FROM (
        SELECT
          days,
          tconst,
          arg_max({ tenths: tenths, votes: votes }, day) AS now,
          arg_max({ tenths: tenths, votes: votes }, day) FILTER (day <= greatest(newest - days, beginning)) AS before
        FROM history
        CROSS JOIN history_span
        CROSS JOIN (SELECT unnest([7, 30]) AS days) AS spans
        -- Of nearly all titles nothing changed within the longest window.
        WHERE tconst IN (
          SELECT tconst FROM history CROSS JOIN history_span WHERE day > greatest(newest - 30, beginning)
        )
        GROUP BY days, tconst
      ) AS titles
      WHERE now.tenths IS NOT NULL
    ) AS moved
    CROSS JOIN (SELECT unnest(['votes', 'rating']) AS ranking) AS rankings
    WHERE CASE WHEN ranking = 'votes' THEN votes_gained > 0 ELSE change_tenths <> 0 AND votes_at_least >= 100 END
  ) AS ranked
  LEFT JOIN feature_basics_sums AS basics ON basics.tconst = ranked.tconst
  LEFT JOIN title_names ON title_names.tconst = ranked.tconst
  LEFT JOIN dictionary ON number = titleType
  WHERE place <= 100
)
SELECT
  days, ranking, place, tconst, primaryTitle, titleType, startYear,
  tenths / 10.0::DOUBLE AS averageRating,
  change_tenths / 10.0::DOUBLE AS rating_change,
  numVotes, votes_gained
FROM integers
