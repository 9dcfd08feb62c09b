/** Paths in SQL mean the file that they name. */
import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { withDatabase } from '../../database/duckdb.ts';
import { databasePath, parquetFile, sqlFile, sqlPath, sqlText } from '../../database/sql.ts';
import { temporaryFolder } from '../support/temporary-folder.ts';

const odd = ['a*b', 'a?b', 'a[X]b', 'a**b', 'a{X,Y}b', 'a\\b', "it's", 'n=1', 'env=prod', ' ~', 'a%b;c'];

// Method: beside each file lies another one that its path matches as a pattern, and the names of folders set columns.
test('a file is read under any path, only that file, and with its own columns', async () => {
  const folder = temporaryFolder();
  await withDatabase(async (connection) => {
    for (const name of [...odd, 'aXb']) {
      mkdirSync(join(folder, name));
      const path = join(folder, name, 'x.parquet');
      await connection.run(`COPY (SELECT ${sqlText(name)} AS n) TO ${sqlPath(path)} (FORMAT parquet)`);
    }
    for (const name of odd) {
      const read = await connection.runAndReadAll(`FROM ${parquetFile(join(folder, name, 'x.parquet'))}`);
      expect([name, read.columnNames(), read.getRows()]).toEqual([name, ['n'], [[name]]]);
    }
  });
});

test('a path that DuckDB cannot describe is refused', () => {
  expect(() => sqlFile('/a\\*b')).toThrow(expect.objectContaining({ kind: 'usage' }));
});

test('a database under a path whose log DuckDB would misplace is refused', () => {
  expect(() => databasePath('/a?b/x.duckdb')).toThrow(expect.objectContaining({ kind: 'usage' }));
  expect(databasePath('/a*b/k=v/x.duckdb')).toBe('/a*b/k=v/x.duckdb');
});
