/**
 * The gold tables. The sink computes them from the merged cubes.
 *
 * With a = rating × 10: avg_rating = Σa / 10n, and the sample standard deviation is √((n·Σa² − (Σa)²) / (n·(n − 1))) / 10,
 * which needs no difference of rounded numbers.
 */
import { declaredTables, type GoldTable } from './gold-table.ts';
import { genreColumns, splitShares, standardised } from './training-features.ts';

const sum = (measure: string, as: string) => `CAST(sum(${measure}) AS BIGINT) AS ${as}`;
const moments = `${sum('rating * titles', 's1')}, ${sum('rating * rating * titles', 's2')}`;
const extremes = 'CAST(max(rating) AS BIGINT) AS max_tenths, CAST(min(rating) AS BIGINT) AS min_tenths';
const counts = `${sum('titles', 'total_titles')}, ${sum('votes', 'total_votes')}`;

const double = (integer: string) => `CAST(${integer} AS DOUBLE)`;
/** Two of its products have 38 digits at most, which both engines hold exactly. */
const exact = (integer: string) => `CAST(${integer} AS DECIMAL(19, 0))`;
const variance = `${double(
  `${exact('total_titles')} * ${exact('s2')} - ${exact('s1')} * ${exact('s1')}`,
)} / ${double('total_titles * (total_titles - 1)')}`;

/** SQL that writes an id as text, like `idText` of the catalog. */
const idText = (prefix: string, number: string) => `'${prefix}' ||
  CASE WHEN ${number} < 10000000 THEN lpad(CAST(${number} AS STRING), 7, '0') ELSE CAST(${number} AS STRING) END`;

const average = `s1 / ${double('10 * total_titles')} AS avg_rating`;
const volatility = `CASE WHEN total_titles > 1 THEN sqrt(${variance}) / ${double('10')} END AS rating_volatility`;
const maximum = `max_tenths / ${double('10')} AS max_rating`;
const minimum = `min_tenths / ${double('10')} AS min_rating`;

/** The lowest decade that is an INTEGER. Years before it have no decade. */
const decadeMin = -2147483640;
/** The value of a column of a title: at most one of the title's rows has it. */
const known = (column: string) => `max(${column}) AS ${column}`;
const bucket = `('0x' || md5(tconst)[:8])::UBIGINT % 100`;
const genreList = `string_split(nullif(genres_text, ''), ',')`;

/** The standardised column, and whether the value is missing. */
const prepared = (column: string) => `
  coalesce((${column} - (SELECT mean FROM scales WHERE name = '${column}'))
    / nullif((SELECT deviation FROM scales WHERE name = '${column}'), 0), 0) AS ${column}_standardised,
  ${column} IS NULL AS ${column}_missing`;

export const goldTables: readonly GoldTable[] = declaredTables([
  {
    name: 'genre_analysis',
    about: 'Rated titles by their genres string.',
    plots: [
      { title: 'Titles by genres', kind: 'bar', x: 'genres', y: 'sum(total_titles)' },
      {
        title: 'Titles by single genre',
        kind: 'bar',
        x: "unnest(string_split(genres, ','))",
        y: 'sum(total_titles)',
      },
    ],
    integers: `
      SELECT genres, ${counts}, ${moments}, ${extremes},
        ${sum('coalesce(startYear, 0) * titles', 'years')},
        ${sum('CASE WHEN startYear IS NULL THEN 0 ELSE titles END', 'titles_with_year')}
      FROM title WHERE genres IS NOT NULL GROUP BY genres`,
    key: ['genres'],
    measures: [
      'total_titles',
      'total_votes',
      's1',
      's2',
      'max_tenths',
      'min_tenths',
      'years',
      'titles_with_year',
    ],
    columns: {
      genres: 'VARCHAR',
      total_titles: 'BIGINT',
      avg_rating: 'DOUBLE',
      total_votes: 'BIGINT',
      avg_year: 'DOUBLE',
      rating_volatility: 'DOUBLE',
      max_rating: 'DOUBLE',
      min_rating: 'DOUBLE',
    },
    select: `genres, total_titles, ${average}, total_votes,
      years / ${double('nullif(titles_with_year, 0)')} AS avg_year, ${volatility}, ${maximum}, ${minimum}`,
    order: 'total_titles DESC, genres',
  },
  {
    name: 'decade_trends',
    about: 'Rated titles by the decade of their start year.',
    plots: [
      { title: 'Average rating by decade', kind: 'line', x: 'decade', y: 'any_value(avg_rating)' },
      { title: 'Titles by decade', kind: 'line', x: 'decade', y: 'sum(total_titles)' },
    ],
    integers: `
      SELECT decade, ${counts}, ${moments}, ${sum('runtimeSum', 'runtime')},
        ${sum('runtimeTitles', 'titles_with_runtime')}
      FROM (
        SELECT CAST(floor(startYear / ${double('10')}) AS INTEGER) * 10 AS decade,
          rating, titles, votes, runtimeSum, runtimeTitles
        FROM title WHERE startYear >= ${decadeMin}
      ) AS years
      GROUP BY decade`,
    key: ['decade'],
    measures: ['total_titles', 'total_votes', 's1', 's2', 'runtime', 'titles_with_runtime'],
    columns: {
      decade: 'INTEGER',
      total_titles: 'BIGINT',
      avg_rating: 'DOUBLE',
      total_votes: 'BIGINT',
      avg_runtime: 'DOUBLE',
      rating_volatility: 'DOUBLE',
    },
    select: `decade, total_titles, ${average}, total_votes,
      runtime / ${double('nullif(titles_with_runtime, 0)')} AS avg_runtime, ${volatility}`,
    order: 'decade',
  },
  {
    name: 'title_ratings_agg',
    about: 'Rated titles by start year and genres.',
    plots: [{ title: 'Titles by year', kind: 'line', x: 'startYear', y: 'sum(total_titles)' }],
    integers: `
      SELECT startYear, genres, ${counts}, ${moments}, ${extremes}
      FROM title WHERE startYear IS NOT NULL GROUP BY startYear, genres`,
    key: ['startYear', 'genres'],
    measures: ['total_titles', 'total_votes', 's1', 's2', 'max_tenths', 'min_tenths'],
    columns: {
      startYear: 'INTEGER',
      genres: 'VARCHAR',
      total_titles: 'BIGINT',
      avg_rating: 'DOUBLE',
      total_votes: 'BIGINT',
      max_rating: 'DOUBLE',
      min_rating: 'DOUBLE',
      rating_volatility: 'DOUBLE',
    },
    select: `startYear, genres, total_titles, ${average}, total_votes, ${maximum}, ${minimum}, ${volatility}`,
    order: 'startYear, total_titles DESC, genres NULLS LAST',
  },
  {
    name: 'contributor_analysis',
    about: 'People by the rated titles that they are credited on.',
    plots: [
      {
        title: 'Votes by contributor',
        kind: 'bar',
        x: "concat_ws(' ', primaryName, nconst)",
        y: 'sum(total_votes)',
      },
    ],
    integers: `
      SELECT ${idText('nm', 'totals.nconst')} AS nconst, primaryName, total_titles, total_votes, total_credits,
        s1, s2, max_tenths, min_tenths
      FROM (
        SELECT nconst, ${counts}, ${sum('credits', 'total_credits')}, ${moments}, ${extremes}
        FROM contributor GROUP BY nconst
      ) AS totals
      LEFT JOIN names ON totals.nconst = names.nconst`,
    key: ['nconst'],
    attributes: ['primaryName'],
    measures: ['total_titles', 'total_credits', 'total_votes', 's1', 's2', 'max_tenths', 'min_tenths'],
    columns: {
      nconst: 'VARCHAR',
      primaryName: 'VARCHAR',
      total_titles: 'BIGINT',
      total_credits: 'BIGINT',
      avg_rating: 'DOUBLE',
      total_votes: 'BIGINT',
      rating_volatility: 'DOUBLE',
      max_rating: 'DOUBLE',
      min_rating: 'DOUBLE',
    },
    select: `nconst, primaryName, total_titles, total_credits, ${average}, total_votes, ${volatility}, ${maximum}, ${minimum}`,
    order: 'total_votes DESC, nconst',
  },
  {
    name: 'region_analysis',
    about: 'Rated titles by the regions for which they have alternative titles.',
    plots: [{ title: 'Titles by region', kind: 'bar', x: 'region', y: 'sum(total_titles)' }],
    integers: `
      SELECT region, ${counts}, ${sum('akas', 'total_akas')}, ${moments}, ${extremes}
      FROM region GROUP BY region`,
    key: ['region'],
    measures: ['total_titles', 'total_akas', 'total_votes', 's1', 's2', 'max_tenths', 'min_tenths'],
    columns: {
      region: 'VARCHAR',
      total_titles: 'BIGINT',
      total_akas: 'BIGINT',
      avg_rating: 'DOUBLE',
      total_votes: 'BIGINT',
      rating_volatility: 'DOUBLE',
      max_rating: 'DOUBLE',
      min_rating: 'DOUBLE',
    },
    select: `region, total_titles, total_akas, ${average}, total_votes, ${volatility}, ${maximum}, ${minimum}`,
    order: 'total_titles DESC, region',
  },
  {
    name: 'title_features',
    about: 'Rated titles, with their attributes and columns prepared for training.',
    plots: [
      { title: 'Average rating by type', kind: 'bar', x: 'titleType', y: 'avg(averageRating)' },
      { title: 'Titles by rating', kind: 'line', x: 'averageRating', y: 'count(*)' },
    ],
    integers: `
      SELECT ${idText('tt', 'totals.tconst')} AS tconst, titleTypes.value AS titleType, startYear, runtimeMinutes,
        isAdult, genreTexts.value AS genres_text, tenths, numVotes, principals, people, akas, regions
      FROM (
        SELECT tconst, ${known('titleType')}, ${known('startYear')}, ${known('runtimeMinutes')},
          max(isAdult) = 1 AS isAdult, ${known('genres')}, max(rating)::BIGINT AS tenths,
          sum(votes)::BIGINT AS numVotes, sum(principals)::BIGINT AS principals, sum(people)::BIGINT AS people,
          sum(akas)::BIGINT AS akas, sum(regions)::BIGINT AS regions
        FROM feature_sums GROUP BY tconst
      ) AS totals
      LEFT JOIN dictionary AS titleTypes ON titleTypes.number = titleType
      LEFT JOIN dictionary AS genreTexts ON genreTexts.number = genres`,
    key: ['tconst'],
    attributes: ['titleType', 'startYear', 'runtimeMinutes', 'isAdult', 'genres_text'],
    measures: ['tenths', 'numVotes', 'principals', 'people', 'akas', 'regions'],
    columns: {
      tconst: 'VARCHAR',
      titleType: 'VARCHAR',
      startYear: 'INTEGER',
      runtimeMinutes: 'INTEGER',
      isAdult: 'BOOLEAN',
      genres: 'VARCHAR[]',
      averageRating: 'DOUBLE',
      numVotes: 'BIGINT',
      principals: 'BIGINT',
      people: 'BIGINT',
      akas: 'BIGINT',
      regions: 'BIGINT',
      numVotes_log10: 'DOUBLE',
      startYear_standardised: 'DOUBLE',
      startYear_missing: 'BOOLEAN',
      runtimeMinutes_standardised: 'DOUBLE',
      runtimeMinutes_missing: 'BOOLEAN',
      genres_missing: 'BOOLEAN',
      ...Object.fromEntries([...genreColumns.keys()].map((column) => [column, 'BOOLEAN' as const])),
      genre_other: 'BOOLEAN',
      split: 'VARCHAR',
    },
    select: `tconst, titleType, startYear, runtimeMinutes, isAdult, genres,
      tenths / 10.0::DOUBLE AS averageRating, numVotes, principals, people, akas, regions,
      log10(greatest(numVotes, 1)) AS numVotes_log10, ${standardised.map(prepared).join(', ')},
      genres_missing, ${[...genreColumns.keys()].join(', ')}, genre_other,
      CASE WHEN ${bucket} < ${splitShares.train} THEN 'train'
        WHEN ${bucket} < ${splitShares.train + splitShares.validation} THEN 'validation' ELSE 'test' END AS split`,
    beside: `
      JOIN (
        SELECT genres_text AS text, ${genreList} AS genres, genres IS NULL AS genres_missing,
          ${[...genreColumns].map(([column, genre]) => `coalesce(list_contains(genres, '${genre}'), false) AS ${column}`).join(', ')},
          coalesce(NOT list_has_all([${[...genreColumns.values()].map((genre) => `'${genre}'`).join(', ')}], genres), false)
            AS genre_other
        FROM (SELECT DISTINCT genres_text FROM integers)
      ) AS genre_flags ON genres_text IS NOT DISTINCT FROM text`,
    standardised,
    order: 'tconst',
    onlyDuckdb: 'the SQL that both engines share has no lists, hashes and logarithms',
  },
]);
