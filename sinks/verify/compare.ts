/** Holds the Parquet files of a snapshot against gold tables that were computed anew. */
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import type { DuckDBConnection } from '@duckdb/node-api';
import { parquetFile } from '../../database/sql.ts';
import { storageFaultOf } from '../../database/storage-errors.ts';
import { messageOf } from '../../runtime/errors.ts';
import type { GoldTable } from '../../tables/gold-table.ts';
import { goldTables } from '../../tables/gold-tables.ts';

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

/** What `compareTables` found in one table. */
export interface TableComparison {
  readonly table: string;
  /** Rows of the expected table. */
  readonly rows: number;
  /** How many differences there are. */
  readonly differences: number;
  /** The first of them. */
  readonly first: readonly Difference[];
}

/**
 * Holds the Parquet files of a snapshot against the gold tables of a schema: files, columns with their types and
 * order, rows, values, order of rows. Everything must be equal but doubles, which may differ by
 * 1e-9 × max(1, |expected|): absolute for small values, relative for large ones.
 *
 * @param expectedSchema made by `computeGold`
 * @param actualDir holds `<table>.parquet`
 * @param perTable at most so many differences of each table are returned
 */
export async function compareTables(
  connection: DuckDBConnection,
  expectedSchema: string,
  actualDir: string,
  perTable = 10,
): Promise<TableComparison[]> {
  const comparisons: TableComparison[] = [];
  for (const table of goldTables) {
    comparisons.push(await compareTable(connection, table, expectedSchema, actualDir, perTable));
  }
  return comparisons;
}

/** As `compareTables`. @returns the first differences of each table, [] when there are none */
export async function compareGold(
  connection: DuckDBConnection,
  expectedSchema: string,
  actualDir: string,
  perTable = 10,
): Promise<Difference[]> {
  const comparisons = await compareTables(connection, expectedSchema, actualDir, perTable);
  return comparisons.flatMap(({ first }) => first);
}

async function compareTable(
  connection: DuckDBConnection,
  { name, key, columns }: GoldTable,
  expectedSchema: string,
  actualDir: string,
  limit: number,
): Promise<TableComparison> {
  const path = join(actualDir, `${name}.parquet`);
  const expected = `"${expectedSchema}".${name}`;
  const { rows: counted } = await texts(connection, `SELECT count(*) FROM ${expected}`);
  const rows = Number(counted[0]?.[0]);
  const asWhole = (kind: Difference['kind'], wanted: string, actual: string): TableComparison => ({
    table: name,
    rows,
    differences: 1,
    first: [{ table: name, kind, key: '', column: '', expected: wanted, actual }],
  });
  const unreadable = (thrown: unknown): TableComparison => {
    const fault = storageFaultOf(thrown);
    // Our own memory, disk and end say nothing of the file.
    if (fault === 'interrupted' || fault === 'diskFull' || fault === 'outOfMemory') throw thrown;
    return asWhole('file', `${name}.parquet`, `a file that cannot be read: ${messageOf(thrown)}`);
  };
  if (!existsSync(path)) return asWhole('file', `${name}.parquet`, 'no file');
  const file = parquetFile(path, 'file_row_number = true');
  const describe = async (from: string) => {
    const { rows } = await texts(
      connection,
      `SELECT column_name, column_type FROM (DESCRIBE SELECT * FROM ${from})`,
    );
    return rows.map((row) => row.join(' ')).filter((column) => column !== 'file_row_number BIGINT');
  };
  const wanted = Object.entries(columns).map((column) => column.join(' '));
  const own = await describe(expected);
  if (own.join() !== wanted.join())
    throw new Error(`the batch table ${name} has the columns ${own.join(', ')}`);
  let given: string[];
  try {
    given = await describe(file);
  } catch (thrown) {
    return unreadable(thrown);
  }
  if (given.join() !== wanted.join()) return asWhole('columns', wanted.join(', '), given.join(', '));

  const struct = `{${Object.keys(columns)
    .map((column) => `'${column}': "${column}"`)
    .join(', ')}}`;
  const keyText = (side: string) =>
    key
      .map((column) => `'${column}=' || coalesce(${side}."${column}"::VARCHAR, 'NULL')`)
      .join(` || ', ' || `);
  // One row per key and pair of rows with it; e and a are null where the other side has no such row.
  const keys = key.map((column) => `"${column}"`).join(', ');
  const compare = `CREATE OR REPLACE TEMP TABLE compared AS
    SELECT e.v AS e, a.v AS a, e.n AS e_row, a.n AS a_row
    FROM (SELECT ${struct} AS v, rowid AS n, ${keys} FROM ${expected}) e
    FULL JOIN (SELECT ${struct} AS v, file_row_number AS n, ${keys} FROM ${file}) a
    ON ${key.map((column) => `e."${column}" IS NOT DISTINCT FROM a."${column}"`).join(' AND ')}`;
  try {
    await connection.run(compare);
  } catch (thrown) {
    return unreadable(thrown);
  }
  const first: Difference[] = [];
  let differences = 0;
  const collect = async (kind: Difference['kind'], column: string, query: string) => {
    const found = await texts(
      connection,
      `SELECT row_key, wanted, given, count(*) OVER () FROM (${query}) AS found(row_key, wanted, given, place)
       ORDER BY place LIMIT ${limit}`,
    );
    differences += Number(found.rows[0]?.[3] ?? 0);
    for (const [rowKey = '', wantedText = 'NULL', actual = 'NULL'] of found.rows) {
      if (first.length === limit) return;
      first.push({ table: name, kind, key: rowKey, column, expected: wantedText, actual });
    }
  };
  await collect(
    'missing',
    '',
    `SELECT ${keyText('e')}, 'a row', 'none', e_row FROM compared WHERE a_row IS NULL`,
  );
  await collect(
    'extra',
    '',
    `SELECT ${keyText('a')}, 'no row', 'a row', a_row FROM compared WHERE e_row IS NULL`,
  );
  await collect(
    'duplicate',
    '',
    `SELECT ${keyText('e')}, 'one row', count(*) || ' rows', e_row FROM compared
     WHERE e_row IS NOT NULL AND a_row IS NOT NULL GROUP BY e, e_row HAVING count(*) > 1`,
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
      `SELECT ${keyText('e')}, ${e}::VARCHAR, ${a}::VARCHAR, e_row FROM compared
       WHERE e_row IS NOT NULL AND a_row IS NOT NULL AND NOT ${same}`,
    );
  }
  // Among the rows of both sides, the nth in the file must be the nth in the contract's order.
  await collect(
    'order',
    '',
    `SELECT key, 'row ' || e_nth || ' of the rows compared', 'row ' || a_nth, a_nth FROM (
       SELECT ${keyText('e')} AS key, row_number() OVER (ORDER BY e_row, a_row) AS e_nth,
         row_number() OVER (ORDER BY a_row) AS a_nth
       FROM compared WHERE e_row IS NOT NULL AND a_row IS NOT NULL)
     WHERE e_nth <> a_nth`,
  );
  await connection.run('DROP TABLE compared');
  return { table: name, rows, differences, first };
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
