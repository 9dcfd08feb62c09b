/** Values, names and paths inside SQL text. */
import { resolve } from 'node:path';
import { ReelflowError } from '../runtime/errors.ts';

/** A text as a SQL literal, with its quotes. */
export const sqlText = (text: string) => `'${text.replaceAll("'", "''")}'`;

/** A file that a statement writes. The path is absolute, because DuckDB interprets `~` and `scheme:` at its beginning. */
export const sqlPath = (path: string) => sqlText(resolve(path));

/**
 * A database file that DuckDB opens or attaches.
 * @throws ReelflowError usage, for a path with `?`: DuckDB inserts `.wal` before it to name the log of the file
 */
export function databasePath(path: string): string {
  const file = resolve(path);
  if (!file.includes('?')) return file;
  throw new ReelflowError('usage', 'DuckDB cannot keep a database under this path', {
    detail: `${file} contains a question mark.`,
    hint: 'Use another folder.',
  });
}

/**
 * A file that a statement reads, exactly this one: DuckDB's readers take paths for patterns, where `*`, `?` and `[` match other
 * files, and where a backslash separates folders.
 * @throws ReelflowError usage, for the one kind of path that no pattern describes
 */
export function sqlFile(path: string): string {
  const file = resolve(path);
  if (!/[*?[]/.test(file)) return sqlText(file);
  if (file.includes('\\')) {
    throw new ReelflowError('usage', 'DuckDB cannot read files under this path', {
      detail: `${file} has a backslash beside one of * ? [.`,
      hint: 'Use another folder.',
    });
  }
  return sqlText(file.replace(/[*?[]/g, '[$&]'));
}

/** A Parquet file behind FROM, with exactly the columns of the file: `k=v` in its path would add or replace one. */
export const parquetFile = (path: string, options = '') =>
  `read_parquet(${sqlFile(path)}, hive_partitioning = false${options === '' ? '' : `, ${options}`})`;
