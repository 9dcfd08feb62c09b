/** What a gold file says of its table: columns and types from the file, meanings from the notes in its metadata. */
import type { DuckDBConnection } from '@duckdb/node-api';
import { parquetFile, sqlFile, sqlText } from '../../database/sql.ts';
import { type ColumnNote, notesKey } from '../../tables/column-notes.ts';

export interface ParquetTable {
  /** What a row is. */
  readonly about: string;
  readonly columns: readonly ParquetColumn[];
}

interface ParquetColumn {
  readonly name: string;
  /** As DuckDB's DESCRIBE writes it. */
  readonly type: string;
  /** Meaning and unit, '' if the file has no note. */
  readonly comment: string;
}

/** Reads what a file of gold says about itself, and none of its rows. @throws DuckDB's error, if it is not a Parquet file */
export async function readParquetTable(connection: DuckDBConnection, path: string): Promise<ParquetTable> {
  const described = await connection.runAndReadAll(`DESCRIBE SELECT * FROM ${parquetFile(path)}`);
  const found = await connection.runAndReadAll(
    `SELECT decode(value) FROM parquet_kv_metadata(${sqlFile(path)}) WHERE decode(key) = ${sqlText(notesKey)}`,
  );
  const notes = JSON.parse(String(found.getRows()[0]?.[0] ?? '{}')) as {
    readonly about?: string;
    readonly columns?: Readonly<Record<string, ColumnNote>>;
  };
  const commentOf = ({ about, unit }: ColumnNote) => (unit === undefined ? about : `${about} Unit: ${unit}.`);
  const columns = described.getRows().map(([name, type]) => {
    const note = notes.columns?.[String(name)];
    return { name: String(name), type: String(type), comment: note === undefined ? '' : commentOf(note) };
  });
  return { about: notes.about ?? '', columns };
}
