/** Compares the Parquet files of a snapshot with recomputed gold tables. */
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import type { DuckDBConnection } from '@duckdb/node-api';
import { parquetFile } from '../../database/sql.ts';
import { isOwnFault } from '../../database/storage-errors.ts';
import { messageOf } from '../../runtime/errors.ts';
import type { GoldTable } from '../../tables/gold-table.ts';
import { goldTables, isOfHistory } from '../../tables/gold-tables.ts';

/** A difference between a gold table and the recomputed one. Values are texts, null is 'NULL'. */
export interface Difference {
  readonly table: string;
  readonly kind: 'file' | 'columns' | 'missing' | 'extra' | 'duplicate' | 'value' | 'order';
  /** The row, such as `genres=Drama`; '' for the whole table. */
  readonly key: string;
  /** The column; '' for the whole row. */
  readonly column: string;
  readonly expected: string;
  readonly actual: string;
}

interface TableComparison {
  readonly table: string;
  /** Rows of the recomputed table. */
  readonly rows: number;
  readonly differences: number;
  readonly first: readonly Difference[];
}

/** As `compareTable` for all gold tables that a single dump determines. */
export async function compareTables(
  connection: DuckDBConnection,
  expectedSchema: string,
  actualDir: string,
  perTable = 10,
): Promise<TableComparison[]> {
  const comparisons: TableComparison[] = [];
  for (const table of goldTables.filter((one) => !isOfHistory(one))) {
    comparisons.push(await compareTable(connection, table, expectedSchema, actualDir, perTable));
  }
  return comparisons;
}

/**
 * Compares the Parquet file of a gold table with the recomputed table: the columns with their types and order, the rows,
 * their values and their order. All values must be equal, but doubles may differ by 1e-9 × max(1, |expected|): absolute for
 * small values, relative for large ones.
 *
 * @param expectedSchema made by `computeGold`
 * @param actualDir holds `<table>.parquet`
 * @param limit the largest number of differences to return
 */
export async function compareTable(
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
  const ofTable = (kind: Difference['kind'], wanted: string, actual: string): TableComparison => ({
    table: name,
    rows,
    differences: 1,
    first: [{ table: name, kind, key: '', column: '', expected: wanted, actual }],
  });
  const unreadable = (thrown: unknown): TableComparison => {
    if (isOwnFault(thrown)) throw thrown;
    return ofTable('file', `${name}.parquet`, `a file that cannot be read: ${messageOf(thrown)}`);
  };
  if (!existsSync(path)) return ofTable('file', `${name}.parquet`, 'no file');
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
  if (own.join() !== wanted.join()) {
    throw new Error(`the batch computation of ${name} has the columns ${own.join(', ')}`);
  }
  let given: string[];
  try {
    given = await describe(file);
  } catch (thrown) {
    return unreadable(thrown);
  }
  if (given.join() !== wanted.join()) return ofTable('columns', wanted.join(', '), given.join(', '));

  const struct = `{${Object.keys(columns)
    .map((column) => `'${column}': "${column}"`)
    .join(', ')}}`;
  /** @param side e, the recomputed table, or a, the file */
  const keyText = (side: 'e' | 'a') =>
    key
      .map((column) => `'${column}=' || coalesce(${side}."${column}"::VARCHAR, 'NULL')`)
      .join(` || ', ' || `);
  // One row per pair of rows with the same key; e or a is null if that side has no such row.
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
  // Among the rows that both sides have, the nth in the file must be the nth in the contract's order.
  await collect(
    'order',
    '',
    `SELECT key, 'row ' || e_nth, 'row ' || a_nth || ' of the rows that both have', a_nth FROM (
       SELECT ${keyText('e')} AS key, row_number() OVER (ORDER BY e_row, a_row) AS e_nth,
         row_number() OVER (ORDER BY a_row) AS a_nth
       FROM compared WHERE e_row IS NOT NULL AND a_row IS NOT NULL)
     WHERE e_nth <> a_nth`,
  );
  await connection.run('DROP TABLE compared');
  return { table: name, rows, differences, first };
}

/** Rows of a query as texts. Null is undefined, so a destructuring default can name it. */
async function texts(
  connection: DuckDBConnection,
  query: string,
): Promise<{ rows: (string | undefined)[][] }> {
  const reader = await connection.runAndReadAll(query);
  return {
    rows: reader.getRowsJson().map((row) => row.map((value) => (value === null ? undefined : String(value)))),
  };
}
