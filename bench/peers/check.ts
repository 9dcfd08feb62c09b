/** Holds what a peer wrote against the batch computation that reelflow's own gold is held against. */
import { existsSync, mkdirSync, rmSync, statSync } from 'node:fs';
import { join } from 'node:path';
import type { DuckDBConnection } from '@duckdb/node-api';
import { compareTables } from '../../sinks/verify/compare.ts';
import { goldTables } from '../../tables/gold-tables.ts';
import { orderOfFive } from '../workload.ts';

/** Names of the tables that peers compute, and what they consist of. */
export const comparedTables = goldTables.filter(({ name }) => name in orderOfFive);

/**
 * @param schema tables made by `batchGold`
 * @param out the peer's results
 * @returns a line about what differs, or that nothing does
 */
export async function checkResults(db: DuckDBConnection, schema: string, out: string): Promise<string> {
  const checked = join(out, 'checked');
  rmSync(checked, { recursive: true, force: true });
  mkdirSync(checked);
  for (const { name: table, columns } of comparedTables) {
    const results = resultsOf(join(out, table), columns);
    if (results === undefined) continue;
    const cast = Object.entries(columns).map(
      ([name, type]) => `CAST(${valueIn(name, type)} AS ${type}) AS "${name}"`,
    );
    await db.run(
      `COPY (SELECT ${cast.join(', ')} FROM ${results} ORDER BY ${orderOfFive[table]}) TO '${join(checked, `${table}.parquet`)}'`,
    );
  }
  const compared = (await compareTables(db, schema, checked)).filter(({ table }) => table in orderOfFive);
  const different = compared.filter(({ differences }) => differences > 0);
  if (different.length === 0) return `equal, ${compared.length} tables`;
  return different
    .map(({ table, differences, first: [first] }) => {
      const example = `${first?.key} ${first?.column}: ${first?.expected} expected, ${first?.actual} given`;
      return `${table}: ${differences} differences, ${example}`;
    })
    .join('; ');
}

/** A key of a topic cannot be null: what is keyed by texts has '\\N' for it, as the files have. */
function valueIn(name: string, type: string): string {
  return type === 'VARCHAR' ? `nullif("${name}", '\\N')` : `"${name}"`;
}

function resultsOf(path: string, columns: Readonly<Record<string, string>>): string | undefined {
  const parquet = `${path}.parquet`;
  if (existsSync(parquet)) {
    return `read_parquet('${statSync(parquet).isDirectory() ? `${parquet}/*.parquet` : parquet}')`;
  }
  if (!existsSync(`${path}.json`)) return undefined;
  const types = Object.entries(columns).map(([name, type]) => `"${name}": '${type}'`);
  return `read_json('${path}.json', format = 'newline_delimited', columns = {${types.join(', ')}})`;
}
