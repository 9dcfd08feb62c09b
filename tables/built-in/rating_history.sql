/*
kind: table
about: Ratings and votes of a title from a day on, a row for each dump in which they changed.
reads: [history]
key: [tconst, day]
attributes: [tenths, numVotes]
measures: []
columns:
  tconst: VARCHAR
  day: DATE
  averageRating:
    type: DOUBLE
    about: Rating of the title from this day on; null if it has none from this day on.
    unit: stars, 1 to 10
  numVotes:
    type: BIGINT
    about: Votes on the title from this day on; null if it has no rating from this day on.
    unit: votes
order: tconst, day
plots:
  - { title: Changed titles by day, kind: line, x: CASE WHEN day > min(day) OVER () THEN day END, y: count(*) }
onlyDuckdb: the history needs every version of a rating, and Flink's tables the last one
*/
WITH integers AS (
  SELECT
    'tt' || CASE WHEN tconst < 10000000 THEN lpad(tconst::VARCHAR, 7, '0') ELSE tconst::VARCHAR END AS tconst,
    day,
    tenths,
    votes AS numVotes
  FROM history
)
SELECT tconst, day, tenths / 10.0::DOUBLE AS averageRating, numVotes
FROM integers
