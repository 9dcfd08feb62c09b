/*
kind: table
about: Rated titles, with their attributes and columns prepared for training.
reads: [feature_ratings, feature_basics, feature_principals, feature_akas, title_names, dictionary]
key: [tconst]
attributes: [primaryTitle, titleType, startYear, runtimeMinutes, isAdult, genres_text]
measures: [tenths, numVotes, principals, people, akas, regions]
columns:
  tconst: VARCHAR
  primaryTitle: VARCHAR
  titleType: VARCHAR
  startYear: INTEGER
  runtimeMinutes: INTEGER
  isAdult: BOOLEAN
  genres: VARCHAR[]
  averageRating: DOUBLE
  numVotes: BIGINT
  principals: BIGINT
  people: BIGINT
  akas: BIGINT
  regions: BIGINT
  numVotes_log10: DOUBLE
  startYear_standardised: DOUBLE
  startYear_missing: BOOLEAN
  runtimeMinutes_standardised: DOUBLE
  runtimeMinutes_missing: BOOLEAN
  genres_missing: BOOLEAN
  genre_action: BOOLEAN
  genre_adult: BOOLEAN
  genre_adventure: BOOLEAN
  genre_animation: BOOLEAN
  genre_biography: BOOLEAN
  genre_comedy: BOOLEAN
  genre_crime: BOOLEAN
  genre_documentary: BOOLEAN
  genre_drama: BOOLEAN
  genre_family: BOOLEAN
  genre_fantasy: BOOLEAN
  genre_film_noir: BOOLEAN
  genre_game_show: BOOLEAN
  genre_history: BOOLEAN
  genre_horror: BOOLEAN
  genre_music: BOOLEAN
  genre_musical: BOOLEAN
  genre_mystery: BOOLEAN
  genre_news: BOOLEAN
  genre_reality_tv: BOOLEAN
  genre_romance: BOOLEAN
  genre_sci_fi: BOOLEAN
  genre_short: BOOLEAN
  genre_sport: BOOLEAN
  genre_talk_show: BOOLEAN
  genre_thriller: BOOLEAN
  genre_war: BOOLEAN
  genre_western: BOOLEAN
  genre_other: BOOLEAN
  split: VARCHAR
rowsBy: tconst
standardised: [startYear, runtimeMinutes]
order: tconst
plots:
  - { title: Average rating by type, kind: bar, x: titleType, y: avg(averageRating) }
  - { title: Titles by rating, kind: line, x: averageRating, y: count(*) }
onlyDuckdb: the SQL that both engines share has no lists, hashes and logarithms
*/
WITH integers AS (
  SELECT
    'tt' ||
      CASE WHEN totals.tconst < 10000000 THEN lpad(CAST(totals.tconst AS STRING), 7, '0')
      ELSE CAST(totals.tconst AS STRING) END AS tconst,
    primaryTitle,
    titleTypes.value AS titleType,
    startYear,
    runtimeMinutes,
    isAdult,
    genreTexts.value AS genres_text,
    tenths,
    numVotes,
    principals,
    people,
    akas,
    regions
  FROM (
    SELECT tconst, titleType, startYear, runtimeMinutes, isAdult = 1 AS isAdult, genres, rating::BIGINT AS tenths,
      votes AS numVotes, coalesce(principals, 0) AS principals, coalesce(people, 0) AS people,
      coalesce(akas, 0) AS akas, coalesce(regions, 0) AS regions
    FROM feature_ratings_sums
    LEFT JOIN feature_basics_sums USING (tconst)
    LEFT JOIN feature_principals_sums USING (tconst)
    LEFT JOIN feature_akas_sums USING (tconst)
  ) AS totals
  LEFT JOIN title_names ON title_names.tconst = totals.tconst
  LEFT JOIN dictionary AS titleTypes ON titleTypes.number = titleType
  LEFT JOIN dictionary AS genreTexts ON genreTexts.number = genres
)
SELECT
  tconst, primaryTitle, titleType, startYear, runtimeMinutes, isAdult, genres,
  tenths / 10.0::DOUBLE AS averageRating,
  numVotes, principals, people, akas, regions,
  log10(greatest(numVotes, 1)) AS numVotes_log10,
  coalesce((startYear - (SELECT mean FROM scales WHERE name = 'startYear'))
    / nullif((SELECT deviation FROM scales WHERE name = 'startYear'), 0), 0) AS startYear_standardised,
  startYear IS NULL AS startYear_missing,
  coalesce((runtimeMinutes - (SELECT mean FROM scales WHERE name = 'runtimeMinutes'))
    / nullif((SELECT deviation FROM scales WHERE name = 'runtimeMinutes'), 0), 0) AS runtimeMinutes_standardised,
  runtimeMinutes IS NULL AS runtimeMinutes_missing,
  genres_missing, genre_action, genre_adult, genre_adventure, genre_animation, genre_biography,
  genre_comedy, genre_crime, genre_documentary, genre_drama, genre_family, genre_fantasy, genre_film_noir,
  genre_game_show, genre_history, genre_horror, genre_music, genre_musical, genre_mystery, genre_news,
  genre_reality_tv, genre_romance, genre_sci_fi, genre_short, genre_sport, genre_talk_show,
  genre_thriller, genre_war, genre_western, genre_other,
  CASE WHEN ('0x' || md5(tconst)[:8])::UBIGINT % 100 < 80 THEN 'train'
    WHEN ('0x' || md5(tconst)[:8])::UBIGINT % 100 < 90 THEN 'validation'
    ELSE 'test' END AS split
FROM integers
JOIN (
  SELECT
    genres_text AS text,
    string_split(nullif(genres_text, ''), ',') AS genres,
    genres IS NULL AS genres_missing,
    coalesce(list_contains(genres, 'Action'), false) AS genre_action,
    coalesce(list_contains(genres, 'Adult'), false) AS genre_adult,
    coalesce(list_contains(genres, 'Adventure'), false) AS genre_adventure,
    coalesce(list_contains(genres, 'Animation'), false) AS genre_animation,
    coalesce(list_contains(genres, 'Biography'), false) AS genre_biography,
    coalesce(list_contains(genres, 'Comedy'), false) AS genre_comedy,
    coalesce(list_contains(genres, 'Crime'), false) AS genre_crime,
    coalesce(list_contains(genres, 'Documentary'), false) AS genre_documentary,
    coalesce(list_contains(genres, 'Drama'), false) AS genre_drama,
    coalesce(list_contains(genres, 'Family'), false) AS genre_family,
    coalesce(list_contains(genres, 'Fantasy'), false) AS genre_fantasy,
    coalesce(list_contains(genres, 'Film-Noir'), false) AS genre_film_noir,
    coalesce(list_contains(genres, 'Game-Show'), false) AS genre_game_show,
    coalesce(list_contains(genres, 'History'), false) AS genre_history,
    coalesce(list_contains(genres, 'Horror'), false) AS genre_horror,
    coalesce(list_contains(genres, 'Music'), false) AS genre_music,
    coalesce(list_contains(genres, 'Musical'), false) AS genre_musical,
    coalesce(list_contains(genres, 'Mystery'), false) AS genre_mystery,
    coalesce(list_contains(genres, 'News'), false) AS genre_news,
    coalesce(list_contains(genres, 'Reality-TV'), false) AS genre_reality_tv,
    coalesce(list_contains(genres, 'Romance'), false) AS genre_romance,
    coalesce(list_contains(genres, 'Sci-Fi'), false) AS genre_sci_fi,
    coalesce(list_contains(genres, 'Short'), false) AS genre_short,
    coalesce(list_contains(genres, 'Sport'), false) AS genre_sport,
    coalesce(list_contains(genres, 'Talk-Show'), false) AS genre_talk_show,
    coalesce(list_contains(genres, 'Thriller'), false) AS genre_thriller,
    coalesce(list_contains(genres, 'War'), false) AS genre_war,
    coalesce(list_contains(genres, 'Western'), false) AS genre_western,
    coalesce(NOT list_has_all([
      'Action', 'Adult', 'Adventure', 'Animation', 'Biography', 'Comedy', 'Crime', 'Documentary',
      'Drama', 'Family', 'Fantasy', 'Film-Noir', 'Game-Show', 'History', 'Horror', 'Music', 'Musical',
      'Mystery', 'News', 'Reality-TV', 'Romance', 'Sci-Fi', 'Short', 'Sport', 'Talk-Show', 'Thriller',
      'War', 'Western'
    ], genres), false) AS genre_other
  FROM (SELECT DISTINCT genres_text FROM integers)
) AS genre_flags ON genres_text IS NOT DISTINCT FROM text
