/*
kind: table
about: Series by their rated episodes.
reads: [feature_episode, feature_ratings, title_names]
key: [parentTconst]
attributes: [primaryTitle, best_episode, worst_episode]
measures: [total_episodes, total_votes, s1, best_tenths, worst_tenths]
columns:
  parentTconst: VARCHAR
  primaryTitle: { type: VARCHAR, about: Name of the series; null if it has no row in title.basics. }
  total_episodes: BIGINT
  avg_rating: { type: DOUBLE, about: "Mean rating of the episodes, each with the same weight.", unit: "stars, 1 to 10" }
  total_votes: { type: BIGINT, about: Votes on the episodes., unit: votes }
  best_episode: VARCHAR
  best_rating: DOUBLE
  worst_episode: VARCHAR
  worst_rating: DOUBLE
order: total_votes DESC, parentTconst
plots:
  - { title: Votes by series, kind: bar, x: "concat_ws(' ', primaryTitle, parentTconst)", y: sum(total_votes) }
onlyDuckdb: the names of titles are a relation of the sink
*/
WITH integers AS (
  SELECT
    printf('tt%07d', parentTconst) AS parentTconst,
    primaryTitle,
    printf('tt%07d', -best.negative) AS best_episode,
    printf('tt%07d', -worst.negative) AS worst_episode,
    total_episodes,
    total_votes,
    s1,
    best.tenths AS best_tenths,
    worst.tenths AS worst_tenths
  FROM (
    -- One ranking: by rating, then votes, then the smaller id. The worst episode is its last.
    SELECT parentTconst, count(*) AS total_episodes, sum(votes)::BIGINT AS total_votes, sum(tenths)::BIGINT AS s1,
      max({ tenths: tenths, votes: votes, negative: -tconst }) AS best,
      min({ tenths: tenths, votes: votes, negative: -tconst }) AS worst
    FROM (
      SELECT parentTconst, tconst, rating::BIGINT AS tenths, votes
      FROM feature_episode_sums JOIN feature_ratings_sums USING (tconst)
    ) AS episodes
    GROUP BY parentTconst
  ) AS totals
  LEFT JOIN title_names ON tconst = parentTconst
)
SELECT
  parentTconst, primaryTitle, total_episodes,
  s1 / (10.0::DOUBLE * total_episodes) AS avg_rating,
  total_votes, best_episode,
  best_tenths / 10.0::DOUBLE AS best_rating,
  worst_episode,
  worst_tenths / 10.0::DOUBLE AS worst_rating
FROM integers
