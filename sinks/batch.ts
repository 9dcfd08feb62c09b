/**
 * The gold tables as a batch computation straight from the files, to hold against what the stream computed. It shares
 * no code with the streaming path and computes otherwise: no cubes, no deltas, no integers for ratings, but joins and
 * plain `avg` and `stddev_samp` over doubles.
 */
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import type { DuckDBConnection } from '@duckdb/node-api';
import { ReelflowError } from '../errors.ts';
import { type RowSource, withRows } from './batch-rows.ts';

/** What the rows of one dataset must fulfil; columns that are not named are text, which every row's text is. */
interface Rules {
  readonly required: boolean;
  /** Columns that gold is made of; a file without one of them is refused. */
  readonly used: readonly string[];
  readonly key: readonly string[];
  /** A condition per column; `macro(column)` must be true, not null. */
  readonly valid: Readonly<Record<string, string>>;
}

const rules = {
  'title.ratings': {
    required: true,
    used: ['tconst', 'averageRating', 'numVotes'],
    key: ['tconst'],
    valid: { tconst: 'is_title', averageRating: 'is_rating', numVotes: 'is_count' },
  },
  'title.basics': {
    required: true,
    used: ['tconst', 'startYear', 'runtimeMinutes', 'genres'],
    key: ['tconst'],
    valid: {
      tconst: 'is_title',
      isAdult: 'is_flag',
      startYear: 'is_int_or_null',
      endYear: 'is_int_or_null',
      runtimeMinutes: 'is_int_or_null',
    },
  },
  'title.principals': {
    required: false,
    used: ['tconst', 'ordering', 'nconst'],
    key: ['tconst', 'ordering'],
    valid: { tconst: 'is_title', ordering: 'is_count', nconst: 'is_name' },
  },
  'title.akas': {
    required: false,
    used: ['titleId', 'ordering', 'region'],
    key: ['titleId', 'ordering'],
    valid: { titleId: 'is_title', ordering: 'is_count', isOriginalTitle: 'is_flag_or_null' },
  },
  'name.basics': {
    required: false,
    used: ['nconst', 'primaryName'],
    key: ['nconst'],
    valid: { nconst: 'is_name', birthYear: 'is_int_or_null', deathYear: 'is_int_or_null' },
  },
} satisfies Record<string, Rules>;

const validityMacros = `
  CREATE OR REPLACE TEMP MACRO is_title(c) AS coalesce(regexp_full_match(c, 'tt([0-9]{7}|[1-9][0-9]{7,8})'), false);
  CREATE OR REPLACE TEMP MACRO is_name(c) AS coalesce(regexp_full_match(c, 'nm([0-9]{7}|[1-9][0-9]{7,8})'), false);
  CREATE OR REPLACE TEMP MACRO is_int(c) AS
    coalesce(regexp_full_match(c, '-?[0-9]{1,10}') AND try_cast(c AS INTEGER) > -2147483648, false);
  CREATE OR REPLACE TEMP MACRO is_int_or_null(c) AS c IS NULL OR is_int(c);
  CREATE OR REPLACE TEMP MACRO is_count(c) AS is_int(c) AND c NOT LIKE '-%';
  CREATE OR REPLACE TEMP MACRO is_rating(c) AS coalesce(regexp_full_match(c, '[1-9]([.][0-9])?|10([.]0)?'), false);
  CREATE OR REPLACE TEMP MACRO is_flag(c) AS coalesce(c IN ('0', '1'), false);
  CREATE OR REPLACE TEMP MACRO is_flag_or_null(c) AS c IS NULL OR is_flag(c)`;

/** A valid id as its number: one text, one number. */
const number = (id: string) => `substr(${id}, 3)::INTEGER AS ${id}`;

/** The measures of every table over the joined rating. */
const measures = {
  total_titles: 'count(*)',
  avg_rating: 'avg(rating)',
  total_votes: 'sum(votes)::BIGINT',
  rating_volatility: 'stddev_samp(rating)',
  max_rating: 'max(rating)',
  min_rating: 'min(rating)',
};
const select = (...names: (keyof typeof measures)[]) =>
  names.map((name) => `${measures[name]} AS ${name}`).join(', ');

/** A gold table: its columns with types in order, the key first, and the batch query in the contract's order. */
interface GoldTable {
  readonly key: readonly string[];
  readonly columns: Readonly<Record<string, 'BIGINT' | 'INTEGER' | 'DOUBLE' | 'VARCHAR'>>;
  readonly query: string;
}

const goldTables: Readonly<Record<string, GoldTable>> = {
  genre_analysis: {
    key: ['genres'],
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
    query: `
      SELECT genres, ${select('total_titles', 'avg_rating', 'total_votes')}, avg(startYear) AS avg_year,
        ${select('rating_volatility', 'max_rating', 'min_rating')}
      FROM batch_titles WHERE genres IS NOT NULL GROUP BY genres ORDER BY total_titles DESC, genres`,
  },
  decade_trends: {
    key: ['decade'],
    columns: {
      decade: 'INTEGER',
      total_titles: 'BIGINT',
      avg_rating: 'DOUBLE',
      total_votes: 'BIGINT',
      avg_runtime: 'DOUBLE',
      rating_volatility: 'DOUBLE',
    },
    query: `
      SELECT (floor(startYear / 10) * 10)::INTEGER AS decade, ${select('total_titles', 'avg_rating', 'total_votes')},
        avg(runtimeMinutes) AS avg_runtime, ${select('rating_volatility')}
      FROM batch_titles WHERE startYear IS NOT NULL GROUP BY decade ORDER BY decade`,
  },
  title_ratings_agg: {
    key: ['startYear', 'genres'],
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
    query: `
      SELECT startYear, genres,
        ${select('total_titles', 'avg_rating', 'total_votes', 'max_rating', 'min_rating', 'rating_volatility')}
      FROM batch_titles WHERE startYear IS NOT NULL GROUP BY startYear, genres
      ORDER BY startYear, total_titles DESC, genres NULLS LAST`,
  },
  contributor_analysis: {
    key: ['nconst'],
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
    query: `
      SELECT format('nm{:07d}', contributor) AS nconst, any_value(primaryName) AS primaryName, ${select('total_titles')},
        sum(credits)::BIGINT AS total_credits,
        ${select('avg_rating', 'total_votes', 'rating_volatility', 'max_rating', 'min_rating')}
      FROM (SELECT nconst AS contributor, tconst, count(*) AS credits FROM batch_principals GROUP BY ALL)
      JOIN batch_ratings USING (tconst) LEFT JOIN batch_names ON batch_names.nconst = contributor
      GROUP BY contributor ORDER BY total_votes DESC, nconst`,
  },
  region_analysis: {
    key: ['region'],
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
    query: `
      SELECT region, ${select('total_titles')}, sum(akas)::BIGINT AS total_akas,
        ${select('avg_rating', 'total_votes', 'rating_volatility', 'max_rating', 'min_rating')}
      FROM (SELECT region, titleId AS tconst, count(*) AS akas FROM batch_akas WHERE region IS NOT NULL GROUP BY ALL)
      JOIN batch_ratings USING (tconst)
      GROUP BY region ORDER BY total_titles DESC, region`,
  },
};

/**
 * Computes the five gold tables from a folder of IMDb files into tables of a schema, rows in the contract's order.
 * Rows that a producer would reject do not count; of several rows of one key the last in the file does. A missing
 * optional dataset is an empty one.
 *
 * @param schema is created; tables of the same names in it are replaced
 * @throws ReelflowError input: a required file or column is missing, or a file cannot be read
 */
export async function batchGold(
  connection: DuckDBConnection,
  dataDir: string,
  schema = 'batch',
): Promise<void> {
  await connection.run('SET preserve_insertion_order = true'); // row numbers are those of the file
  await connection.run(validityMacros);
  await load(connection, dataDir, 'title.ratings', {
    table: 'batch_ratings',
    columns: `${number('tconst')}, averageRating::DOUBLE AS rating, numVotes::BIGINT AS votes`,
  });
  await load(connection, dataDir, 'title.basics', {
    table: 'batch_basics',
    columns: `${number('tconst')}, startYear::INTEGER AS startYear, runtimeMinutes::INTEGER AS runtimeMinutes, genres`,
    only: 'WHERE tconst IN (SELECT tconst FROM batch_ratings)',
  });
  await load(connection, dataDir, 'title.principals', {
    table: 'batch_principals',
    columns: `${number('tconst')}, ordering::INTEGER AS ordering, ${number('nconst')}`,
    only: 'WHERE tconst IN (SELECT tconst FROM batch_ratings)',
  });
  await load(connection, dataDir, 'title.akas', {
    table: 'batch_akas',
    columns: `${number('titleId')}, ordering::INTEGER AS ordering, region`,
    only: 'WHERE titleId IN (SELECT tconst FROM batch_ratings)',
  });
  await load(connection, dataDir, 'name.basics', {
    table: 'batch_names',
    columns: `${number('nconst')}, primaryName`,
    only: 'WHERE nconst IN (SELECT nconst FROM batch_principals)',
  });
  await connection.run(`CREATE OR REPLACE TEMP VIEW batch_titles AS
    SELECT * FROM batch_basics JOIN batch_ratings USING (tconst)`);
  await connection.run(`CREATE SCHEMA IF NOT EXISTS "${schema}"`);
  for (const [name, { query }] of Object.entries(goldTables)) {
    await connection.run(`CREATE OR REPLACE TABLE "${schema}"."${name}" AS ${query}`);
  }
  await connection.run('DROP VIEW batch_titles');
  for (const table of ['batch_ratings', 'batch_basics', 'batch_principals', 'batch_akas', 'batch_names']) {
    await connection.run(`DROP TABLE ${table}`);
  }
}

/** A temporary table of the rows of a dataset. */
interface Loaded {
  readonly table: string;
  readonly columns: string;
  /**
   * Narrows by the first column of the key, so that it keeps or drops all rows of a key: the search for the last row
   * of each key need not see rows that gold does not need.
   */
  readonly only?: string;
}

/** Loads the valid rows of a dataset, the last of each key. */
async function load(
  connection: DuckDBConnection,
  dataDir: string,
  dataset: keyof typeof rules,
  loaded: Loaded,
): Promise<void> {
  await withRows(connection, dataDir, dataset, async (rows) => {
    requireColumns(dataDir, dataset, rows);
    await connection.run(readQuery(rules[dataset], rows, loaded.columns));
  });
  await connection.run(keepLastQuery(rules[dataset], loaded));
  await connection.run('DROP TABLE batch_rows');
}

function requireColumns(dataDir: string, dataset: keyof typeof rules, rows: RowSource | undefined): void {
  const { required, used }: Rules = rules[dataset];
  if (rows === undefined) {
    if (!required) return;
    throw new ReelflowError('input', `${dataset} is missing`, {
      detail: `${dataDir} has neither ${dataset}.tsv nor ${dataset}.tsv.gz.`,
      hint: 'Name the folder that holds the IMDb files.',
    });
  }
  const missing = used.filter((name) => !rows.columns.includes(name));
  if (missing.length > 0) {
    throw new ReelflowError('input', `${dataset} lacks the column ${missing.join(', ')}`, {
      detail: `Its header names ${rows.columns.join(', ')}.`,
      hint: 'Use the official files, or name the columns as they do.',
    });
  }
}

/** The valid rows; row ids follow the file, as the insertion order is preserved. */
function readQuery({ used, valid }: Rules, rows: RowSource | undefined, columns: string): string {
  const empty = `(SELECT ${used.map((name) => `NULL::VARCHAR AS ${name}`).join(', ')} WHERE false)`;
  const checks = Object.entries(valid)
    .filter(([name]) => rows?.columns.includes(name) ?? used.includes(name))
    .map(([name, macro]) => `${macro}(${name})`);
  return `CREATE OR REPLACE TEMP TABLE batch_rows AS
    SELECT ${columns} FROM ${rows?.relation ?? empty} WHERE ${checks.join(' AND ')}`;
}

const keepLastQuery = (
  { key }: Rules,
  { table, only = '' }: Loaded,
) => `CREATE OR REPLACE TEMP TABLE ${table} AS
  SELECT * EXCLUDE line FROM (SELECT *, rowid AS line FROM batch_rows ${only})
  QUALIFY row_number() OVER (PARTITION BY ${key.join(', ')} ORDER BY line DESC) = 1`;

/** Where a gold table is not what it should be. Values are texts, null is 'NULL'. */
export interface Difference {
  readonly table: string;
  readonly kind: 'file' | 'columns' | 'missing' | 'extra' | 'duplicate' | 'value' | 'order';
  /** The row, as `genres=Drama`; '' for the table as a whole. */
  readonly key: string;
  /** The column; '' for the row as a whole. */
  readonly column: string;
  readonly expected: string;
  readonly actual: string;
}

/**
 * Holds the Parquet files of a snapshot against the gold tables of a schema: files, columns with their types and
 * order, rows, values, order of rows. Everything must be equal but doubles, which may differ by
 * 1e-9 × max(1, |expected|): absolute for small values, relative for large ones.
 *
 * @param expectedSchema made by `batchGold`
 * @param actualDir holds `<table>.parquet`
 * @param perTable at most so many differences of each table are returned
 * @returns [] when there are none
 */
export async function compareGold(
  connection: DuckDBConnection,
  expectedSchema: string,
  actualDir: string,
  perTable = 10,
): Promise<Difference[]> {
  const differences: Difference[] = [];
  for (const [name, table] of Object.entries(goldTables)) {
    const found = await compareTable(connection, name, table, expectedSchema, actualDir, perTable);
    differences.push(...found.slice(0, perTable));
  }
  return differences;
}

async function compareTable(
  connection: DuckDBConnection,
  name: string,
  { key, columns }: GoldTable,
  expectedSchema: string,
  actualDir: string,
  limit: number,
): Promise<Difference[]> {
  const path = join(actualDir, `${name}.parquet`);
  const whole = { table: name, key: '', column: '' };
  if (!existsSync(path)) return [{ ...whole, kind: 'file', expected: `${name}.parquet`, actual: 'no file' }];
  const file = `read_parquet('${path.replaceAll("'", "''")}', file_row_number = true)`;
  const describe = async (from: string) => {
    const { rows } = await texts(
      connection,
      `SELECT column_name, column_type FROM (DESCRIBE SELECT * FROM ${from})`,
    );
    return rows.map((row) => row.join(' ')).filter((column) => column !== 'file_row_number BIGINT');
  };
  const wanted = Object.entries(columns).map((column) => column.join(' '));
  for (const [from, given] of [
    [file, await describe(file)],
    [`"${expectedSchema}".${name}`, await describe(`"${expectedSchema}".${name}`)],
  ] as const) {
    if (given.join() === wanted.join()) continue;
    if (from !== file) throw new Error(`the batch table ${name} has the columns ${given.join(', ')}`);
    return [{ ...whole, kind: 'columns', expected: wanted.join(', '), actual: given.join(', ') }];
  }

  const struct = `{${Object.keys(columns)
    .map((column) => `'${column}': "${column}"`)
    .join(', ')}}`;
  const keyText = (side: string) =>
    key
      .map((column) => `'${column}=' || coalesce(${side}."${column}"::VARCHAR, 'NULL')`)
      .join(` || ', ' || `);
  // One row per key and pair of rows with it; e and a are null where the other side has no such row.
  await connection.run(`CREATE OR REPLACE TEMP TABLE compared AS
    SELECT e.v AS e, a.v AS a, e.n AS e_row, a.n AS a_row
    FROM (SELECT ${struct} AS v, rowid AS n, ${key.map((column) => `"${column}"`).join(', ')}
      FROM "${expectedSchema}".${name}) e
    FULL JOIN (SELECT ${struct} AS v, file_row_number AS n, ${key.map((column) => `"${column}"`).join(', ')}
      FROM ${file}) a
    ON ${key.map((column) => `e."${column}" IS NOT DISTINCT FROM a."${column}"`).join(' AND ')}`);
  const found: Difference[] = [];
  const collect = async (kind: Difference['kind'], column: string, query: string) => {
    if (found.length >= limit) return;
    const { rows } = await texts(connection, `${query} LIMIT ${limit - found.length}`);
    for (const [rowKey = '', expected = 'NULL', actual = 'NULL'] of rows) {
      found.push({ table: name, kind, key: rowKey, column, expected, actual });
    }
  };
  await collect(
    'missing',
    '',
    `SELECT ${keyText('e')}, 'a row', 'none' FROM compared WHERE a_row IS NULL ORDER BY e_row`,
  );
  await collect(
    'extra',
    '',
    `SELECT ${keyText('a')}, 'no row', 'a row' FROM compared WHERE e_row IS NULL ORDER BY a_row`,
  );
  await collect(
    'duplicate',
    '',
    `SELECT ${keyText('e')}, 'one row', count(*) || ' rows' FROM compared WHERE e_row IS NOT NULL AND a_row IS NOT NULL
     GROUP BY e, e_row HAVING count(*) > 1 ORDER BY e_row`,
  );
  for (const [column, type] of Object.entries(columns)) {
    const [e, a] = [`e."${column}"`, `a."${column}"`];
    const same =
      type === 'DOUBLE'
        ? `(${e} IS NOT DISTINCT FROM ${a} OR coalesce(abs(${e} - ${a}) <= 1e-9 * greatest(1, abs(${e})), false))`
        : `${e} IS NOT DISTINCT FROM ${a}`;
    await collect(
      'value',
      column,
      `SELECT ${keyText('e')}, ${e}::VARCHAR, ${a}::VARCHAR FROM compared
       WHERE e_row IS NOT NULL AND a_row IS NOT NULL AND NOT ${same} ORDER BY e_row`,
    );
  }
  // Among the rows of both sides, the nth in the file must be the nth in the contract's order. The first one that is
  // not says it all.
  await collect(
    'order',
    '',
    `SELECT key, 'row ' || e_nth || ' of the rows compared', 'row ' || a_nth FROM (
       SELECT ${keyText('e')} AS key, row_number() OVER (ORDER BY e_row, a_row) AS e_nth,
         row_number() OVER (ORDER BY a_row) AS a_nth
       FROM compared WHERE e_row IS NOT NULL AND a_row IS NOT NULL)
     WHERE e_nth <> a_nth ORDER BY a_nth`,
  );
  await connection.run('DROP TABLE compared');
  return found;
}

/** Rows of a query whose columns are texts; a null is left out by destructuring with a default. */
async function texts(
  connection: DuckDBConnection,
  query: string,
): Promise<{ rows: (string | undefined)[][] }> {
  const reader = await connection.runAndReadAll(query);
  return {
    rows: reader.getRowsJson().map((row) => row.map((value) => (value === null ? undefined : String(value)))),
  };
}
