/*
kind: table
about: The 250 titles of each type with the highest weighted_rating; of equal ones the smaller id comes first.
reads: [feature_ratings, feature_basics, title_names, dictionary]
key: [titleType, rank]
attributes: [tconst, primaryTitle, startYear]
measures: [tenths, numVotes, all_tenths, all_titles]
columns:
  titleType: { type: VARCHAR, about: "Type of the title, such as movie or tvEpisode." }
  rank: INTEGER
  tconst: VARCHAR
  primaryTitle: VARCHAR
  startYear: INTEGER
  averageRating: DOUBLE
  numVotes: BIGINT
  weighted_rating: DOUBLE
constants:
  m: "25000"
  C: any_value(all_tenths) / (10.0::DOUBLE * any_value(all_titles))
order: titleType, rank
plots:
  - title: Highest weighted ratings of movies
    kind: bar
    x: CASE WHEN titleType = 'movie' THEN concat_ws(' ', primaryTitle, tconst) END
    y: max(weighted_rating)
  - title: Highest weighted ratings of series
    kind: bar
    x: CASE WHEN titleType = 'tvSeries' THEN concat_ws(' ', primaryTitle, tconst) END
    y: max(weighted_rating)
onlyDuckdb: the SQL that both engines share has no windows
*/
WITH integers AS (
  SELECT
    value AS titleType,
    rank,
    printf('tt%07d', ranked.tconst) AS tconst,
    primaryTitle,
    startYear,
    tenths,
    numVotes,
    all_tenths,
    all_titles
  FROM (
    SELECT *, row_number() OVER (
      PARTITION BY titleType
      ORDER BY (numVotes::HUGEINT * tenths * all_titles + 25000::HUGEINT * all_tenths)::DOUBLE
        / (10::HUGEINT * all_titles * (numVotes + 25000))::DOUBLE DESC, tconst
    )::INTEGER AS rank
    FROM (
      SELECT tconst, titleType, startYear, rating::BIGINT AS tenths, votes AS numVotes, all_tenths, all_titles
      FROM feature_ratings_sums
      JOIN feature_basics_sums USING (tconst)
      CROSS JOIN (
        SELECT sum(rating)::BIGINT AS all_tenths, count(*) AS all_titles FROM feature_ratings_sums
      ) AS all_ratings
      WHERE titleType IS NOT NULL
    ) AS rated
    QUALIFY rank <= 250
  ) AS ranked
  LEFT JOIN title_names ON title_names.tconst = ranked.tconst
  LEFT JOIN dictionary ON number = titleType
)
SELECT
  titleType, rank, tconst, primaryTitle, startYear,
  tenths / 10.0::DOUBLE AS averageRating,
  numVotes,
  (numVotes::HUGEINT * tenths * all_titles + 25000::HUGEINT * all_tenths)::DOUBLE
    / (10::HUGEINT * all_titles * (numVotes + 25000))::DOUBLE AS weighted_rating
FROM integers
