/*
kind: cube
about: The series and the season of each rated episode.
reads:
  title.episode: [tconst, parentTconst, seasonNumber]
  title.ratings: [tconst]
key: [tconst, parentTconst, seasonNumber]
measures: [episodes]
onlyDuckdb: it serves tables that only DuckDB computes
*/
SELECT tconst, parentTconst, seasonNumber, 1 AS episodes
FROM title_episode SEMI JOIN title_ratings USING (tconst)
