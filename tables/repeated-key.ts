/** Gold tables have one row for each key. */
import type { DuckDBConnection } from '@duckdb/node-api';

/** A key that several rows of a relation have, such as `genre=Drama occurs 2 times`; undefined if there is none. */
export async function repeatedKey(
  connection: DuckDBConnection,
  key: readonly string[],
  relation: string,
): Promise<string | undefined> {
  const keys = key.map((column) => `"${column}"`).join(', ');
  const found = await connection.runAndReadAll(
    `SELECT ${keys}, count(*) FROM ${relation} GROUP BY ${keys} HAVING count(*) > 1 LIMIT 1`,
  );
  const [row] = found.getRowsJson() as unknown[][];
  if (row === undefined) return undefined;
  return `${key.map((column, i) => `${column}=${row[i]}`).join(', ')} occurs ${row.at(-1)} times`;
}
