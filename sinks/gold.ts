/**
 * The five gold tables, computed from the merged cubes. Each has an integer form, from which its content hash is
 * taken, and a final form whose doubles are computed from these integers at the very end: so every figure is the same
 * whatever the order, the batches and the shards were.
 *
 * With a the rating × 10: avg_rating = Σa / 10n, and the sample standard deviation is
 * √((n·Σa² − (Σa)²) / (n·(n − 1))) / 10, which needs no difference of rounded numbers.
 */

/** A figure of a gold table that is worth a picture. */
export interface Plot {
  readonly title: string;
  /** `bar`: the highest first, some of them; `line`: all of them, in the order of x. */
  readonly kind: 'bar' | 'line';
  /** SQL over the final form's columns: what a bar is about, or the number on the axis. */
  readonly x: string;
  /** SQL that aggregates the rows of one x. */
  readonly y: string;
}

export interface GoldTable {
  readonly name: string;
  /** What a row is, for people who meet the file alone. */
  readonly about: string;
  /** The first one is what a terminal shows. */
  readonly plots: readonly Plot[];
  /** SELECT over the relations `title`, `contributor`, `region` and `names`: key and integer measures. */
  readonly integers: string;
  readonly key: readonly string[];
  /** Texts that depend on the key. */
  readonly attributes?: readonly string[];
  readonly measures: readonly string[];
  /** Columns of the final form, from the integer form. */
  readonly columns: string;
  readonly order: string;
}

const moments = 'sum(rating * titles)::BIGINT AS s1, sum(rating * rating * titles)::BIGINT AS s2';
const extremes = 'max(rating)::BIGINT AS max_tenths, min(rating)::BIGINT AS min_tenths';
const counts = 'sum(titles)::BIGINT AS total_titles, sum(votes)::BIGINT AS total_votes';

const average = 's1 / (10.0::DOUBLE * total_titles) AS avg_rating';
const volatility = `CASE WHEN total_titles > 1 THEN
  sqrt((total_titles::HUGEINT * s2 - s1::HUGEINT * s1)::DOUBLE / (total_titles::DOUBLE * (total_titles - 1))) / 10
  END AS rating_volatility`;
const maximum = 'max_tenths / 10.0::DOUBLE AS max_rating';
const minimum = 'min_tenths / 10.0::DOUBLE AS min_rating';

export const goldTables: readonly GoldTable[] = [
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
        coalesce(sum(startYear * titles), 0)::BIGINT AS years,
        coalesce(sum(titles) FILTER (startYear IS NOT NULL), 0)::BIGINT AS titles_with_year
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
    columns: `genres, total_titles, ${average}, total_votes,
      years / nullif(titles_with_year, 0)::DOUBLE AS avg_year, ${volatility}, ${maximum}, ${minimum}`,
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
      SELECT (floor(startYear / 10.0) * 10)::INTEGER AS decade, ${counts}, ${moments},
        sum(runtimeSum)::BIGINT AS runtime, sum(runtimeTitles)::BIGINT AS titles_with_runtime
      FROM title WHERE startYear IS NOT NULL GROUP BY decade`,
    key: ['decade'],
    measures: ['total_titles', 'total_votes', 's1', 's2', 'runtime', 'titles_with_runtime'],
    columns: `decade, total_titles, ${average}, total_votes,
      runtime / nullif(titles_with_runtime, 0)::DOUBLE AS avg_runtime, ${volatility}`,
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
    columns: `startYear, genres, total_titles, ${average}, total_votes, ${maximum}, ${minimum}, ${volatility}`,
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
      SELECT 'nm' || lpad(nconst::VARCHAR, greatest(7, length(nconst::VARCHAR))::INTEGER, '0') AS nconst,
        any_value(primaryName) AS primaryName,
        ${counts}, sum(credits)::BIGINT AS total_credits, ${moments}, ${extremes}
      FROM contributor LEFT JOIN names USING (nconst) GROUP BY nconst`,
    key: ['nconst'],
    attributes: ['primaryName'],
    measures: ['total_titles', 'total_credits', 'total_votes', 's1', 's2', 'max_tenths', 'min_tenths'],
    columns: `nconst, primaryName, total_titles, total_credits, ${average}, total_votes, ${volatility}, ${maximum}, ${minimum}`,
    order: 'total_votes DESC, nconst',
  },
  {
    name: 'region_analysis',
    about: 'Rated titles by the regions for which they have alternative titles.',
    plots: [{ title: 'Titles by region', kind: 'bar', x: 'region', y: 'sum(total_titles)' }],
    integers: `
      SELECT region, ${counts}, sum(akas)::BIGINT AS total_akas, ${moments}, ${extremes}
      FROM region GROUP BY region`,
    key: ['region'],
    measures: ['total_titles', 'total_akas', 'total_votes', 's1', 's2', 'max_tenths', 'min_tenths'],
    columns: `region, total_titles, total_akas, ${average}, total_votes, ${volatility}, ${maximum}, ${minimum}`,
    order: 'total_titles DESC, region',
  },
];

/**
 * A SELECT of one text column `block`: the lines of a table's integer form in the canonical order of its keys, some
 * thousand lines a block. SHA-256 over the blocks, one after the other, is the content hash.
 * @param relation holds the integer form
 */
export function canonicalText({ key, attributes = [], measures }: GoldTable, relation: string): string {
  // Null differs from every text, also from an empty one; tab and newline cannot occur in numbers.
  const fields = [
    ...[...key, ...attributes].map(
      (name) => `coalesce('=' || replace(replace(${name}::VARCHAR, '\\', '\\\\'), chr(10), '\\n'), '-')`,
    ),
    ...measures.map((name) => `${name}::VARCHAR`),
  ];
  return `
    SELECT string_agg(line, chr(10) ORDER BY number) || chr(10) AS block
    FROM (
      SELECT concat_ws(chr(9), ${fields.join(', ')}) AS line,
        row_number() OVER (ORDER BY ${key.map((name) => `${name} NULLS FIRST`).join(', ')}) AS number
      FROM ${relation}
    )
    GROUP BY number // 4096 ORDER BY min(number)`;
}
