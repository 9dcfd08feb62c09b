/**
 * `gold.duckdb`: a database with a view of every gold table of one snapshot, and a table `snapshot` with its id. Any DuckDB
 * opens it. Each publication replaces the file by rename. So a reader that opens it gets the newest snapshot, whole, and a
 * reader that has it open keeps its snapshot.
 *
 * Views contain the absolute path of the folder, because DuckDB resolves relative ones against the reader's working directory.
 * A reader for which the folder has another path sets it with `SET VARIABLE gold = '/there'`.
 */
import { join } from 'node:path';
import { withDatabase } from '../../database/duckdb.ts';
import { sqlFile, sqlPath, sqlText } from '../../database/sql.ts';
import { withTemporaryFolder } from '../../runtime/files.ts';
import { noteOf } from '../../tables/column-notes.ts';
import type { GoldTable } from '../../tables/gold-table.ts';
import { goldTables } from '../../tables/gold-tables.ts';
import type { Manifest } from './manifest.ts';
import { replaceDatabase } from './replace-database.ts';

export const catalogueFile = (gold: string) => join(gold, 'gold.duckdb');

/** Replaces the catalogue by one of this snapshot, whose files exist already. */
export async function writeCatalogue(
  gold: string,
  { id, created, tables }: Manifest,
  declared: readonly GoldTable[] = goldTables,
): Promise<void> {
  // As one text, because each of more than a hundred statements would be a commit.
  const statements = [
    'BEGIN',
    `CREATE TABLE snapshot AS SELECT '${id}' AS id, TIMESTAMPTZ '${created}' AS created`,
  ];
  for (const { name, about, notes, columns } of declared.filter((table) => table.name in tables)) {
    const file = `coalesce(getvariable('gold'), ${sqlFile(gold)}) || '/snapshots/${id}/${name}.parquet'`;
    statements.push(
      `CREATE VIEW ${name} AS SELECT * FROM read_parquet(${file}, hive_partitioning = false)`,
      `COMMENT ON VIEW ${name} IS ${sqlText(about)}`,
    );
    for (const column of Object.keys(columns)) {
      const { about: meaning, unit } = noteOf(column, notes);
      const note = unit === undefined ? meaning : `${meaning} Unit: ${unit}.`;
      statements.push(`COMMENT ON COLUMN ${name}."${column}" IS ${sqlText(note)}`);
    }
  }
  await withTemporaryFolder('catalogue', async (workshop) => {
    const built = join(workshop, 'gold.duckdb');
    await withDatabase(
      async (connection) => {
        // The oldest format with such views: every DuckDB from 1.1 on reads it.
        await connection.run(`ATTACH ${sqlPath(built)} AS catalogue (STORAGE_VERSION 'v1.0.0')`);
        await connection.run('USE catalogue');
        await connection.run([...statements, 'COMMIT'].join(';\n'));
        await connection.run('USE memory');
        await connection.run('DETACH catalogue');
      },
      ':memory:',
      { threads: '1' },
    );
    replaceDatabase(catalogueFile(gold), built);
  });
}
