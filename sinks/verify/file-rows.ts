/**
 * The rows of an IMDb file for the batch computation, as text columns of a DuckDB relation, in file order.
 *
 * DuckDB's CSV reader is fast but not exact: it accepts carriage returns as line ends, forgives empty columns at the end of a
 * row, and checks UTF-8 only where it looks. So it reads only files whose bytes show that none of this matters, and whose rows
 * all have the right number of columns. Any other file is split here, row by row: slow and exact.
 */
import { isUtf8 } from 'node:buffer';
import type { DuckDBConnection } from '@duckdb/node-api';
import { sqlFile, sqlText } from '../../database/sql.ts';
import { ReelflowError } from '../../runtime/errors.ts';
import { type DatasetName, datasets } from '../../topics/catalog.ts';
import { isGzip } from './gzip-members.ts';
import { findFile, wholeLines } from './input-file.ts';

/** A relation that SQL can read. Its columns have the official names, or `unknown1` …. */
export interface FileRows {
  readonly relation: string;
  readonly columns: readonly string[];
}

/** Producers refuse longer lines, because no message could hold them. */
const lineBytesMax = 1_000_000;

/**
 * Calls `use` with the rows of a dataset, or with undefined if the folder has no file of it. If `use` fails on the fast
 * relation, it is called again with the exact one, so it must be repeatable.
 *
 * @throws ReelflowError input, if the file is empty or damaged, or if there are several
 */
export async function withRows(
  connection: DuckDBConnection,
  folder: string,
  dataset: DatasetName,
  use: (rows: FileRows | undefined) => Promise<void>,
): Promise<void> {
  const path = findFile(folder, dataset);
  if (path === undefined) return use(undefined);
  const { columns, quoted, plain } = await inspect(path, dataset);
  if (plain) {
    const relation = csvRelation(path, await isGzip(path), columns);
    if (await succeeds(use({ relation, columns }))) return;
  }
  const table = `rows_of_${dataset.replace('.', '_')}`;
  try {
    await splitRows(connection, path, table, columns, quoted);
    await use({ relation: table, columns });
  } finally {
    await connection.run(`DROP TABLE IF EXISTS ${table}`);
  }
}

const succeeds = (done: Promise<void>): Promise<boolean> =>
  done.then(
    () => true,
    () => false,
  );

function csvRelation(path: string, gzip: boolean, columns: readonly string[]): string {
  const types = columns.map((name) => `${sqlText(name)}: 'VARCHAR'`).join(', ');
  return `read_csv(${sqlFile(path)}, hive_partitioning = false, auto_detect = false, header = true, columns = {${types}}, delim = '\t',
    compression = '${gzip ? 'gzip' : 'none'}', quote = '', escape = '', comment = '', nullstr = '\\N', strict_mode = true,
    max_line_size = ${lineBytesMax})`;
}

interface Format {
  readonly columns: string[];
  /** The file quotes its column names, so it may quote any value. */
  readonly quoted: boolean;
  /** DuckDB reads the file exactly. */
  readonly plain: boolean;
}

const newline = 10;
const carriageReturn = 13;

/** Reads the header, and all other bytes of a file that DuckDB may read. */
async function inspect(path: string, dataset: DatasetName): Promise<Format> {
  let header: string | undefined;
  let plain = true;
  const onMore = () => {
    plain = false;
  };
  for await (const lines of wholeLines(path, onMore)) {
    header ??= lines.subarray(0, lines.indexOf(newline)).toString();
    plain &&= isUtf8(lines) && !lines.includes(carriageReturn) && !lines.includes('\t\n');
    if (!plain) break;
  }
  if (header === undefined) {
    throw new ReelflowError('input', 'A file is empty', {
      detail: `${path} has no header line.`,
      hint: 'Fetch or write the file again.',
    });
  }
  const quoted = /^\uFEFF?"|\t"/.test(header);
  return { columns: columnsOf(header, dataset), quoted, plain: plain && !quoted };
}

/** Official names, whatever the spelling. A name that occurs twice counts once. */
function columnsOf(header: string, dataset: DatasetName): string[] {
  const spelling = (name: string) => name.replace(/[\uFEFF"_\s-]/g, '').toLowerCase();
  const official = new Map(datasets[dataset].columns.map(({ name }) => [spelling(name), name]));
  const names = header.split('\t').map((name) => official.get(spelling(name)));
  return names.map((name, n) => (name !== undefined && names.indexOf(name) === n ? name : `unknown${n + 1}`));
}

/** @param quoted whether any value may have quotes around it */
async function splitRows(
  connection: DuckDBConnection,
  path: string,
  table: string,
  columns: readonly string[],
  quoted: boolean,
): Promise<void> {
  const definition = columns.map((name) => `"${name}" VARCHAR`).join(', ');
  await connection.run(`CREATE OR REPLACE TEMP TABLE ${table} (${definition})`);
  const appender = await connection.createAppender(table, 'main', 'temp');
  let isHeader = true;
  try {
    for await (const lines of wholeLines(path)) {
      for (let start = 0; start < lines.length; ) {
        const end = lines.indexOf(newline, start);
        let lineEnd = end;
        while (lineEnd > start && lines[lineEnd - 1] === carriageReturn) lineEnd--;
        const line = lines.subarray(start, lineEnd);
        start = end + 1;
        const fields = isUtf8(line) && line.length <= lineBytesMax ? line.toString().split('\t') : [];
        if (!isHeader && fields.length === columns.length) {
          for (const field of fields) {
            const value = quoted ? unquoted(field) : field;
            if (value === '\\N') appender.appendNull();
            else appender.appendVarchar(value);
          }
          appender.endRow();
        }
        isHeader = false;
      }
      appender.flushSync();
    }
  } finally {
    appender.closeSync();
  }
}

/** A value without the quotes around it. Quotes inside must be doubled, as CSV writers do. */
function unquoted(field: string): string {
  const inner = field.slice(1, -1);
  const isQuoted = field.length >= 2 && field.startsWith('"') && field.endsWith('"');
  return isQuoted && !inner.replaceAll('""', '').includes('"') ? inner.replaceAll('""', '"') : field;
}
