/** Tables of texts by id in the sink's store: the names of people and those of titles. */
import type { DuckDBConnection } from '@duckdb/node-api';
import { appendColumns, countOf, type TextColumn } from '../database/duckdb.ts';
import type { DatasetName } from '../topics/catalog.ts';

export interface TextTable {
  readonly dataset: DatasetName;
  readonly table: string;
  /** The id, in the dataset and in the table. */
  readonly id: string;
  /**
   * Text columns of the dataset. Each is a column of the table, the first one as it is. Another one nearly always equals the
   * first: it is null if it does, `-` if it is null, otherwise `=` and the text.
   */
  readonly texts: readonly string[];
}

export const namesOfPeople: TextTable = {
  dataset: 'name.basics',
  table: 'names',
  id: 'nconst',
  texts: ['primaryName'],
};

export const namesOfTitles: TextTable = {
  dataset: 'title.basics',
  table: 'title_texts',
  id: 'tconst',
  texts: ['primaryTitle', 'originalTitle'],
};

/** Creates a table unless it exists. */
export const createTexts = ({ table, id, texts }: TextTable) =>
  `CREATE TABLE IF NOT EXISTS ${table} (${id} INTEGER, ${texts.map((text) => `${text} VARCHAR`).join(', ')})`;

/** A SELECT of the texts as the dataset has them. */
export function selectTexts({ table, id, texts: [first, ...others] }: TextTable): string {
  const columns = others.map(
    (text) => `CASE WHEN ${text} IS NULL THEN ${first} WHEN ${text} <> '-' THEN ${text}[2:] END AS ${text}`,
  );
  return `SELECT ${[id, first, ...columns].join(', ')} FROM ${table}`;
}

/** A text after the first is null, or begins here. */
export const noText = '-'.charCodeAt(0);
export const beginsText = '='.charCodeAt(0);

/** Rows to write, in the order of arrival. */
export interface TextRows {
  readonly length: number;
  readonly ids: Int32Array;
  /** Of each text column, in the form of the table. */
  readonly texts: readonly TextColumn[];
  /** Whether the store may already hold some of them. */
  readonly mayExist: boolean;
  /** Whether an id may occur more than once; the last row counts. */
  readonly mayRepeat: boolean;
  /** Ids to delete after the upserts. */
  readonly deletes: readonly number[];
  /** Ids of replaced groups that no longer occur. No upsert has one of them. */
  readonly removed: readonly number[];
}

export interface WrittenTexts {
  /** Rows that the records changed. */
  readonly changed: number;
  /** Rows that replacements removed. */
  readonly removed: number;
}

/** Receives a SELECT or VALUES of the ids that change. */
type OnChange = (ids: string) => Promise<void>;

/** Upserts and deletes rows. */
export async function writeTexts(
  connection: DuckDBConnection,
  { table, id, texts }: TextTable,
  { length, ids: staged, texts: columns, mayExist, mayRepeat, deletes, removed }: TextRows,
  onChange: OnChange,
): Promise<WrittenTexts> {
  let changed = 0;
  const all = [id, ...texts].join(', ');
  if (length > 0) {
    await connection.run(`CREATE OR REPLACE TEMP TABLE staged_texts AS SELECT ${all} FROM ${table} LIMIT 0`);
    const nullable = [false, ...texts.map(() => true)];
    await appendColumns(
      connection,
      { catalog: 'temp', name: 'staged_texts' },
      [staged, ...columns],
      length,
      nullable,
    );
  }
  if (length > 0 && !mayExist) {
    await connection.run(`INSERT INTO ${table} FROM staged_texts`);
    await onChange(`SELECT ${id} FROM staged_texts`);
    changed += length;
  } else if (length > 0) {
    // Rows of a table have their numbers in the order of arrival.
    const last = `QUALIFY row_number() OVER (PARTITION BY ${id} ORDER BY rowid DESC) = 1`;
    const differs = texts.map((name) => `latest.${name} IS DISTINCT FROM stored.${name}`);
    await connection.run(
      `CREATE OR REPLACE TEMP TABLE latest_texts AS
      SELECT latest.*, stored.rowid AS storedRow
      FROM (SELECT ${all} FROM staged_texts ${mayRepeat ? last : ''}) AS latest
      LEFT JOIN ${table} AS stored USING (${id})
      WHERE stored.rowid IS NULL OR ${differs.join(' OR ')}`,
    );
    await connection.run(`DELETE FROM ${table} WHERE rowid IN (SELECT storedRow FROM latest_texts)`);
    await connection.run(`INSERT INTO ${table} SELECT ${all} FROM latest_texts`);
    await onChange(`SELECT ${id} FROM latest_texts`);
    changed += await countOf(connection, 'latest_texts');
  }
  for (const ids of [deletes, removed]) {
    if (ids.length > 0) await onChange(`VALUES ${ids.map((one) => `(${one})`).join(', ')}`);
  }
  const deleteRows = async (ids: readonly number[]) => {
    if (ids.length === 0) return 0;
    return (await connection.run(`DELETE FROM ${table} WHERE ${id} IN (${ids.join(', ')})`)).rowsChanged;
  };
  changed += await deleteRows(deletes);
  return { changed, removed: await deleteRows(removed) };
}
