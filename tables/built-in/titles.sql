/*
kind: table
about: Rated titles with their names. A rating of few votes counts less in weighted_rating.
reads: [feature_ratings, feature_basics, title_names, dictionary]
key: [tconst]
attributes: [primaryTitle, originalTitle, titleType, startYear, runtimeMinutes, genres_text]
measures: [tenths, numVotes, all_tenths, all_titles]
columns:
  tconst: VARCHAR
  primaryTitle: VARCHAR
  originalTitle: VARCHAR
  titleType: VARCHAR
  startYear: INTEGER
  runtimeMinutes: INTEGER
  genres: { type: "VARCHAR[]", about: One to three genres; null if there are none. }
  averageRating: DOUBLE
  numVotes: BIGINT
  weighted_rating: DOUBLE
constants:
  m: "25000"
  C: any_value(all_tenths) / (10.0::DOUBLE * any_value(all_titles))
order: tconst
plots:
  - title: Highest weighted ratings
    kind: bar
    x: concat_ws(' ', primaryTitle, tconst)
    y: max(weighted_rating)
  - { title: Titles by weighted rating, kind: line, x: "round(weighted_rating, 1)", y: count(*) }
onlyDuckdb: the names of titles are a relation of the sink
*/
WITH integers AS (
  SELECT
    printf('tt%07d', tconst) AS tconst,
    primaryTitle,
    originalTitle,
    titleTypes.value AS titleType,
    startYear,
    runtimeMinutes,
    genreTexts.value AS genres_text,
    rating::BIGINT AS tenths,
    votes AS numVotes,
    all_tenths,
    all_titles
  FROM feature_ratings_sums
  JOIN feature_basics_sums USING (tconst)
  LEFT JOIN title_names USING (tconst)
  LEFT JOIN dictionary AS titleTypes ON titleTypes.number = titleType
  LEFT JOIN dictionary AS genreTexts ON genreTexts.number = genres
  CROSS JOIN (
    SELECT sum(rating)::BIGINT AS all_tenths, count(*) AS all_titles FROM feature_ratings_sums
  ) AS all_ratings
)
SELECT
  tconst, primaryTitle, originalTitle, titleType, startYear, runtimeMinutes, genres,
  tenths / 10.0::DOUBLE AS averageRating,
  numVotes,
  (numVotes::HUGEINT * tenths * all_titles + 25000::HUGEINT * all_tenths)::DOUBLE
    / (10::HUGEINT * all_titles * (numVotes + 25000))::DOUBLE AS weighted_rating
FROM integers
JOIN (
  SELECT genres_text AS text, string_split(nullif(genres_text, ''), ',') AS genres
  FROM (SELECT DISTINCT genres_text FROM integers)
) AS genre_lists ON genres_text IS NOT DISTINCT FROM text
