/** Computes declared tables from IMDb files, without a broker, to show what rows they would have. */
import type { DuckDBConnection } from '@duckdb/node-api';
import { confine, countOf, withDatabase } from '../../database/duckdb.ts';
import { type Declarations, hasUserDeclarations } from '../../tables/built-in.ts';
import { columnNotes } from '../../tables/column-notes.ts';
import type { GoldTable } from '../../tables/gold-table.ts';
import { cellOf, type TableView } from '../gold/gold-reader.ts';
import { batchGold } from './file-gold.ts';

/** The first rows of each table. @throws ReelflowError input, for files that cannot be read */
export async function tryOut(
  folder: string,
  declarations: Declarations,
  rowsMax: number,
): Promise<TableView[]> {
  return withDatabase(async (connection) => {
    if (hasUserDeclarations(declarations)) await confine(connection, [folder], 'open');
    await batchGold(connection, folder, 'tried', declarations);
    const views: TableView[] = [];
    for (const table of declarations.tables) views.push(await viewOf(connection, table, rowsMax));
    return views;
  });
}

async function viewOf(connection: DuckDBConnection, table: GoldTable, rowsMax: number): Promise<TableView> {
  const { name, about, columns, notes } = table;
  const reader = await connection.runAndReadAll(`FROM tried.${name} LIMIT ${rowsMax}`);
  return {
    snapshot: 'tried',
    table: name,
    about,
    columns: Object.entries(columns).map(([column, type]) => ({
      name: column,
      type,
      ...(notes?.[column] ?? columnNotes[column] ?? { about: '' }),
    })),
    rowsTotal: await countOf(connection, `tried.${name}`),
    rows: reader.getRowsJS().map((row) => row.map((value) => cellOf(value))),
  };
}
