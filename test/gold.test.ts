/**
 * What people do with gold: look at it, go back in time, compare, keep, throw away. The real pipeline makes two snapshots,
 * the second of corrected files; tests that change something do it to a copy.
 */
import { join } from 'node:path';
import { DuckDBInstance } from '@duckdb/node-api';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { goldTables } from '../sinks/gold.ts';
import { columnNotes, noteOf, notesKey } from '../sinks/gold-columns.ts';
import { type Manifest, tableFile } from '../sinks/manifest.ts';
import { Place, smallDataset, textOf, writeDatasets } from './harness.ts';

let place: Place;
let second: Manifest;

beforeAll(async () => {
  place = new Place();
  const data = await smallDataset(join(place.folder, 'data'), 400, 11);
  await place.pipeline(data);
  const ratings = textOf(data, 'title.ratings').trimEnd().split('\n');
  const corrected = ratings.map((line, i) =>
    i === 1 ? line.replace(/\t[\d.]+\t\d+$/, '\t9.9\t7654321') : line,
  );
  const newer = writeDatasets(join(place.folder, 'newer'), {
    'title.basics': textOf(data, 'title.basics'),
    'title.ratings': `${corrected.join('\n')}\n`,
  });
  second = await place.pipeline(newer);
}, 240_000);

afterAll(() => place.close(false));

/** Rows of a query, as DuckDB writes values into JSON. */
async function rowsOf(sql: string): Promise<Record<string, unknown>[]> {
  const instance = await DuckDBInstance.create();
  const connection = await instance.connect();
  try {
    return (await connection.runAndReadAll(sql)).getRowObjectsJson();
  } finally {
    connection.closeSync();
    instance.closeSync();
  }
}

describe('a Parquet file of gold', () => {
  it.each(goldTables.map(({ name }) => name))(
    'says what its rows, columns and units are: %s',
    async (table) => {
      const file = tableFile(place.gold, second.id, table);
      const [metadata] = await rowsOf(
        `SELECT decode(value) AS notes FROM parquet_kv_metadata('${file}') WHERE decode(key) = '${notesKey}'`,
      );
      const { about, columns } = JSON.parse(String(metadata?.notes));
      expect(about).toBe(goldTables.find(({ name }) => name === table)?.about);
      const described = await rowsOf(`DESCRIBE SELECT * FROM '${file}'`);
      expect(Object.keys(columns)).toEqual(described.map(({ column_name }) => column_name));
      for (const [column, note] of Object.entries(columns)) expect(note).toEqual(columnNotes[column]);
      const isText = ({ column_type }: Record<string, unknown>) => column_type === 'VARCHAR';
      for (const column of described.filter((one) => !isText(one))) {
        expect(columns[String(column.column_name)], String(column.column_name)).toHaveProperty('unit');
      }
    },
  );

  it('cannot be written while a column is not explained', () => {
    expect(() => noteOf('nobody_knows')).toThrow(/nobody_knows has no note/);
  });
});
