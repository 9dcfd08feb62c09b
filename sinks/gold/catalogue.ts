/**
 * `gold.duckdb`: a database with a view for every gold table of one snapshot, and a table `snapshot` that says which. Any
 * DuckDB opens it. Each publishing replaces the file by rename: who opens it gets the newest snapshot, whole, and who has it
 * open keeps the snapshot that it began with.
 *
 * Views hold the folder's full path, because DuckDB takes relative ones from the reader's working directory; where the
 * folder has another path for the reader, `SET VARIABLE gold = '/there'` says so.
 */
import { renameSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { DuckDBInstance } from '@duckdb/node-api';
import { sqlFile, sqlPath, sqlText } from '../../database/sql.ts';
import { syncPath } from '../../runtime/files.ts';
import { noteOf } from '../../tables/column-notes.ts';
import { goldTables } from '../../tables/gold-tables.ts';
import type { Manifest } from './manifest.ts';

export const catalogueFile = (gold: string) => join(gold, 'gold.duckdb');

/** Replaces the catalogue by one of this snapshot, whose files are in place. */
export async function writeCatalogue(gold: string, { id, created, tables }: Manifest): Promise<void> {
  const path = catalogueFile(gold);
  const building = join(gold, '.gold.duckdb');
  rmSync(building, { force: true });
  const instance = await DuckDBInstance.create(':memory:');
  try {
    const connection = await instance.connect();
    // The oldest format that has views like these: any DuckDB from 1.1 on reads it.
    await connection.run(`ATTACH ${sqlPath(building)} AS catalogue (STORAGE_VERSION 'v1.0.0')`);
    await connection.run('USE catalogue');
    await connection.run(
      `CREATE TABLE snapshot AS SELECT '${id}' AS id, TIMESTAMPTZ '${created}' AS created`,
    );
    for (const { name, about } of goldTables.filter((table) => table.name in tables)) {
      const file = `coalesce(getvariable('gold'), ${sqlFile(gold)}) || '/snapshots/${id}/${name}.parquet'`;
      await connection.run(
        `CREATE VIEW ${name} AS SELECT * FROM read_parquet(${file}, hive_partitioning = false)`,
      );
      await connection.run(`COMMENT ON VIEW ${name} IS ${sqlText(about)}`);
      const described = await connection.runAndReadAll(`DESCRIBE ${name}`);
      for (const [column] of described.getRows()) {
        const { about: meaning, unit } = noteOf(String(column));
        const note = unit === undefined ? meaning : `${meaning} Unit: ${unit}.`;
        await connection.run(`COMMENT ON COLUMN ${name}."${column}" IS ${sqlText(note)}`);
      }
    }
    await connection.run('USE memory');
    await connection.run('DETACH catalogue');
    connection.closeSync();
  } catch (thrown) {
    // On a full disk the next attempt needs its room.
    rmSync(building, { force: true });
    throw thrown;
  } finally {
    instance.closeSync();
  }
  syncPath(building);
  // What somebody wrote into the old one does not belong to the new one.
  rmSync(`${path}.wal`, { force: true });
  renameSync(building, path);
}
