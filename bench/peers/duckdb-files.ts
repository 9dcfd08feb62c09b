/** DuckDB in a process of its own, over the files of a folder: what both of its programs need. */
import { join } from 'node:path';
import { DuckDBInstance } from '@duckdb/node-api';
import { type DatasetName, datasets } from '../../topics/catalog.ts';

/** The arguments: folder of the files, folder for the results. */
export const [data = '', out = ''] = process.argv.slice(2);

const instance = await DuckDBInstance.create(':memory:', { threads: '2', memory_limit: '8GB' });
export const db = await instance.connect();
process.stdout.write('ready\n');

/** A relation with the columns of a file as texts. */
export function file(dataset: DatasetName): string {
  const columns = datasets[dataset].columns.map(({ name }) => `'${name}': 'VARCHAR'`).join(', ');
  return `read_csv('${join(data, `${dataset}.tsv`)}', auto_detect = false, header = true, columns = {${columns}},
    delim = '\t', quote = '', escape = '', nullstr = '\\N')`;
}

/** Writes the rows of a query or a table as a result. */
export async function writeResult(table: string, rows: string): Promise<void> {
  await db.run(`COPY ${rows} TO '${join(out, `${table}.parquet`)}' (FORMAT parquet)`);
}
