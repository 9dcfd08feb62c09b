/**
 * The gold tables as a batch computation over the files, to compare with those of the stream. The rules of a valid row are
 * declared here a second time, in SQL, independently of the producers.
 */
import { existsSync } from 'node:fs';
import type { DuckDBConnection } from '@duckdb/node-api';
import { ReelflowError } from '../../runtime/errors.ts';
import { builtIn } from '../../tables/built-in.ts';
import type { GoldTable } from '../../tables/gold-table.ts';
import { readsTitleNames } from '../../tables/gold-tables.ts';
import type { DatasetName } from '../../topics/catalog.ts';
import { computeGold, lastOfEachKey, namedPeople, namedTitles } from './batch-gold.ts';
import { type FileRows, withRows } from './file-rows.ts';
import {
  datasetsOfUnrated,
  isText,
  moreColumnsOf,
  namesForUsers,
  ofRated,
  ofUnrated,
  unratedRelation,
} from './more-columns.ts';

/** The rules of a dataset. Columns without a rule are text, which accepts everything. */
interface DatasetRules {
  readonly required: boolean;
  /** Columns that gold needs. A file without one of them is refused. */
  readonly used: readonly string[];
  readonly key: readonly string[];
  /** By column, the macro that must be true. */
  readonly valid: Readonly<Record<string, string>>;
  /** Text columns with a fixed vocabulary, in which `NaN` and the like mean a missing value. */
  readonly coded?: readonly string[];
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
    used: [
      ...['tconst', 'titleType', 'primaryTitle', 'originalTitle', 'isAdult', 'startYear', 'runtimeMinutes'],
      'genres',
    ],
    key: ['tconst'],
    valid: {
      tconst: 'is_title',
      isAdult: 'is_flag',
      startYear: 'is_int_or_null',
      endYear: 'is_int_or_null',
      runtimeMinutes: 'is_int_or_null',
    },
    coded: ['titleType', 'genres'],
  },
  'title.principals': {
    required: false,
    used: ['tconst', 'ordering', 'nconst'],
    key: ['tconst', 'ordering'],
    valid: { tconst: 'is_title', ordering: 'is_count', nconst: 'is_name' },
    coded: ['category'],
  },
  'title.akas': {
    required: false,
    used: ['titleId', 'ordering', 'region', 'language'],
    key: ['titleId', 'ordering'],
    valid: { titleId: 'is_title', ordering: 'is_count', isOriginalTitle: 'is_flag_or_null' },
    coded: ['region', 'types', 'attributes'],
  },
  'title.crew': {
    required: false,
    used: ['tconst', 'directors', 'writers'],
    key: ['tconst'],
    valid: { tconst: 'is_title' },
  },
  'title.episode': {
    required: false,
    used: ['tconst', 'parentTconst', 'seasonNumber'],
    key: ['tconst'],
    valid: {
      tconst: 'is_title',
      parentTconst: 'is_title',
      seasonNumber: 'is_int_or_null',
      episodeNumber: 'is_int_or_null',
    },
  },
  'name.basics': {
    required: false,
    used: ['nconst', 'primaryName'],
    key: ['nconst'],
    valid: { nconst: 'is_name', birthYear: 'is_int_or_null', deathYear: 'is_int_or_null' },
  },
} satisfies Record<string, DatasetRules>;

// Other programs write the same value differently. `official_…` gives the official form, or the text itself.
const officialMacros = `
  CREATE OR REPLACE TEMP MACRO official_text(c) AS nullif(
    CASE WHEN starts_with(c, '"') AND regexp_full_match(c, '"([^"]|"")*""([^"]|"")*"') THEN replace(substr(c, 2, length(c) - 2), '""', '"')
      ELSE c END, '');
  CREATE OR REPLACE TEMP MACRO official_code(c) AS
    CASE WHEN NOT regexp_full_match(official_text(c), 'NaN|nan|None|NULL|null|<NA>') THEN official_text(c) END;
  CREATE OR REPLACE TEMP MACRO official_id(c) AS c;
  CREATE OR REPLACE TEMP MACRO official_whole(c) AS
    CASE WHEN contains(c, '.') THEN regexp_replace(c, '^(-?[0-9]+)[.]0+$', '\\1') ELSE c END;
  CREATE OR REPLACE TEMP MACRO official_flag(c) AS
    CASE WHEN c IN ('True', 'TRUE', 'true', 't') THEN '1' WHEN c IN ('False', 'FALSE', 'false', 'f') THEN '0' ELSE official_whole(c) END;
  CREATE OR REPLACE TEMP MACRO official_flag_or_null(c) AS official_flag(official_code(c));
  CREATE OR REPLACE TEMP MACRO official_whole_or_null(c) AS official_whole(official_code(c));
  CREATE OR REPLACE TEMP MACRO official_rating(c) AS
    CASE WHEN ends_with(c, '0') THEN regexp_replace(c, '^([0-9]+[.][0-9])0+$', '\\1') ELSE c END`;

/** By rule, the macro that gives the official form of a value. */
const officialForms: Readonly<Record<string, string>> = {
  is_title: 'official_id',
  is_name: 'official_id',
  is_count: 'official_whole',
  is_flag: 'official_flag',
  is_int_or_null: 'official_whole_or_null',
  is_flag_or_null: 'official_flag_or_null',
  is_rating: 'official_rating',
};

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

/** A valid id as its number. Each number has one text. */
const number = (id: string) => `substr(${id}, 3)::INTEGER AS ${id}`;

/** The people in a list, as numbers. What is not an id does not count. */
const people = (list: string) => `list_transform(
  list_filter(string_split(${list}, ','), lambda person: is_name(person)),
  lambda person: substr(person, 3)::INTEGER) AS ${list}`;

/**
 * Computes the gold tables from a folder of IMDb files, with the rows in the contract's order. Rows that producers reject do
 * not count. Of several rows with the same key, the last one in the file counts. A missing optional dataset counts as empty.
 *
 * @param schema is created if it does not exist; existing tables are replaced
 * @param loadHistory makes `historyRelations` once the files are loaded. Without it the tables over them are left out
 * @throws ReelflowError input, if a required file or column is missing, or if a file cannot be read
 */
export async function batchGold(
  connection: DuckDBConnection,
  dataDir: string,
  schema = 'batch',
  declarations = builtIn,
  loadHistory?: () => Promise<void>,
): Promise<void> {
  // Row numbers must follow the file.
  await connection.run('SET preserve_insertion_order = true');
  await connection.run(officialMacros);
  await connection.run(validityMacros);
  const more = moreColumnsOf(declarations.cubes);
  const beyond = datasetsOfUnrated(declarations.cubes);
  const loadRated = async (dataset: keyof typeof rules, { id, ...of }: FileRelation & { id: string }) => {
    await load(connection, dataDir, dataset, { ...of, only: ofRated(id), more: more.get(dataset) });
    if (!beyond.has(dataset)) return;
    const table = unratedRelation(of.table);
    await load(connection, dataDir, dataset, { ...of, table, only: ofUnrated(id), more: more.get(dataset) });
  };
  await load(connection, dataDir, 'title.ratings', {
    table: 'batch_ratings',
    columns: `${number('tconst')}, averageRating::DOUBLE AS rating, numVotes::BIGINT AS votes`,
  });
  await loadRated('title.basics', {
    table: 'batch_basics',
    columns: `${number('tconst')}, titleType, isAdult = '1' AS isAdult, startYear::INTEGER AS startYear,
      runtimeMinutes::INTEGER AS runtimeMinutes, genres`,
    id: 'tconst',
  });
  await loadRated('title.principals', {
    table: 'batch_principals',
    columns: `${number('tconst')}, ordering::INTEGER AS ordering, ${number('nconst')}`,
    id: 'tconst',
  });
  await loadRated('title.akas', {
    table: 'batch_akas',
    columns: `${number('titleId')}, ordering::INTEGER AS ordering, region, language`,
    id: 'titleId',
  });
  await loadRated('title.crew', {
    table: 'batch_crew',
    columns: `${number('tconst')}, ${people('directors')}, ${people('writers')}`,
    id: 'tconst',
  });
  await loadRated('title.episode', {
    table: 'batch_episodes',
    columns: `${number('tconst')}, ${number('parentTconst')}, seasonNumber::INTEGER AS seasonNumber`,
    id: 'tconst',
  });
  await loadTitleNames(connection, dataDir, declarations.tables);
  await load(connection, dataDir, 'name.basics', {
    table: 'batch_names',
    columns: `${number('nconst')}, primaryName`,
    ...(!namesForUsers(declarations.tables).has('names') && { only: `WHERE nconst IN (${namedPeople})` }),
  });
  await loadHistory?.();
  await computeGold(connection, schema, declarations, loadHistory !== undefined);
}

/** The series of a rated episode need not be rated, so the file is read once more; without such tables it is not. */
async function loadTitleNames(
  connection: DuckDBConnection,
  dataDir: string,
  tables: readonly GoldTable[],
): Promise<void> {
  if (!tables.some(readsTitleNames)) {
    await connection.run(
      'CREATE OR REPLACE TEMP TABLE batch_title_names (tconst INTEGER, primaryTitle VARCHAR, originalTitle VARCHAR)',
    );
    return;
  }
  await load(connection, dataDir, 'title.basics', {
    table: 'batch_title_names',
    columns: `${number('tconst')}, primaryTitle, originalTitle`,
    ...(!namesForUsers(tables).has('title_names') && { only: `WHERE tconst IN (${namedTitles})` }),
  });
}

/** A relation of the batch computation, and the rows of a dataset that fill it. */
interface FileRelation {
  readonly table: string;
  readonly columns: string;
  /** The rows that gold needs, by relations that were loaded before. */
  readonly only?: string;
  /** Columns that cubes of users read besides. */
  readonly more?: readonly string[] | undefined;
}

/** Loads the last valid row of each key. */
async function load(
  connection: DuckDBConnection,
  dataDir: string,
  dataset: keyof typeof rules,
  { table, columns, only, more = [] }: FileRelation,
): Promise<void> {
  await withRows(connection, dataDir, dataset, async (rows) => {
    const { used, ...of }: DatasetRules = rules[dataset];
    const all = { ...of, used: [...used, ...more] };
    requireColumns(dataDir, dataset, all, rows);
    const selected = [columns, ...more.map((column) => typed(dataset, column, all.valid[column]))];
    await connection.run(readQuery(all, rows, selected.join(', ')));
  });
  const last = lastOfEachKey('batch_rows', rules[dataset].key, only);
  await connection.run(`CREATE OR REPLACE TEMP TABLE ${table} AS SELECT * EXCLUDE line FROM (${last})`);
  await connection.run('DROP TABLE batch_rows');
}

/** A column as contributions read it: an id as its number, a flag as 0 or 1. */
function typed(dataset: DatasetName, column: string, rule: string | undefined): string {
  if (rule === 'is_title' || rule === 'is_name') return number(column);
  return isText(dataset, column) ? column : `${column}::INTEGER AS ${column}`;
}

function requireColumns(
  dataDir: string,
  dataset: keyof typeof rules,
  { required, used }: DatasetRules,
  rows: FileRows | undefined,
): void {
  if (rows === undefined) {
    if (!required) return;
    throw new ReelflowError('input', `${dataset} is missing`, {
      detail: existsSync(dataDir)
        ? `${dataDir} has neither ${dataset}.tsv nor ${dataset}.tsv.gz.`
        : `${dataDir} does not exist.`,
      hint: 'Pass the folder that holds the IMDb files.',
    });
  }
  const missing = used.filter((name) => !rows.columns.includes(name));
  if (missing.length > 0) {
    throw new ReelflowError(
      'input',
      `${dataset} lacks the column${missing.length > 1 ? 's' : ''} ${missing.join(', ')}`,
      {
        detail: `Its header names ${rows.columns.join(', ')}.`,
        hint: 'Use the official files, or their column names.',
      },
    );
  }
}

/** The valid rows, in file order. */
function readQuery(
  { used, valid, coded = [] }: DatasetRules,
  rows: FileRows | undefined,
  columns: string,
): string {
  const empty = `(SELECT ${used.map((name) => `NULL::VARCHAR AS ${name}`).join(', ')} WHERE false)`;
  const checks = Object.entries(valid)
    .filter(([name]) => rows?.columns.includes(name) ?? used.includes(name))
    .map(([name, macro]) => `${macro}(${name})`);
  const official = (rows?.columns ?? used).map((name) => {
    const form =
      officialForms[valid[name] ?? ''] ?? (coded.includes(name) ? 'official_code' : 'official_text');
    return `${form}("${name}") AS "${name}"`;
  });
  return `CREATE OR REPLACE TEMP TABLE batch_rows AS
    WITH official AS (SELECT ${official.join(', ')} FROM ${rows?.relation ?? empty})
    SELECT ${columns} FROM official WHERE ${checks.join(' AND ')}`;
}
