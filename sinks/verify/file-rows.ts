/**
 * Rows of an IMDb file for the batch computation, as text columns of a DuckDB relation, in file order.
 *
 * DuckDB's CSV reader is fast and almost exact: it takes carriage returns for line ends, forgives empty columns at
 * the end of a row, and checks UTF-8 only where it looks. So a file goes through it only when a look at its bytes
 * says that none of this matters, and when every row has the right number of columns. Any other file is
 * split here, row by row: slow and exact.
 */
import { isUtf8 } from 'node:buffer';
import { createReadStream, existsSync } from 'node:fs';
import { join } from 'node:path';
import { pipeline } from 'node:stream';
import { createGunzip } from 'node:zlib';
import type { DuckDBConnection } from '@duckdb/node-api';
import { sqlFile, sqlText } from '../../database/sql.ts';
import { messageOf, ReelflowError } from '../../runtime/errors.ts';

/** A file as something that can stand behind FROM; its columns have the official names, or `unknown1` …. */
export interface RowSource {
  readonly relation: string;
  readonly columns: readonly string[];
}

/** No producer takes a longer line, as no message could hold it. */
const lineBytesMax = 1_000_000;

/**
 * Calls `use` with the rows of a dataset, or with undefined when the folder has no such file. It is called a second
 * time with an exact source if it failed on a fast one, so it must be repeatable.
 *
 * @param dataset the name of the file without `.tsv` or `.tsv.gz`
 * @throws ReelflowError input, for a file that is empty, damaged or there twice
 */
export async function withRows(
  connection: DuckDBConnection,
  dataDir: string,
  dataset: string,
  use: (source: RowSource | undefined) => Promise<void>,
): Promise<void> {
  const found = [`${dataset}.tsv`, `${dataset}.tsv.gz`].filter((name) => existsSync(join(dataDir, name)));
  if (found.length > 1) {
    throw new ReelflowError('input', `${dataset} is there twice`, {
      detail: `${dataDir} has ${found.join(' and ')}.`,
      hint: 'Remove one of them.',
    });
  }
  const [file] = found;
  if (file === undefined) return use(undefined);
  const path = join(dataDir, file);
  const { columns, crlf, plain } = await look(path);
  if (plain && (await succeeds(use({ relation: csvRelation(path, columns), columns })))) return;
  const table = `rows_of_${dataset.replace('.', '_')}`;
  try {
    await splitRows(connection, path, table, columns, crlf);
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

function csvRelation(path: string, columns: readonly string[]): string {
  const types = columns.map((name) => `${sqlText(name)}: 'VARCHAR'`).join(', ');
  return `read_csv(${sqlFile(path)}, hive_partitioning = false, auto_detect = false, header = true, columns = {${types}}, delim = '\t',
    quote = '', escape = '', comment = '', nullstr = '\\N', strict_mode = true, max_line_size = ${lineBytesMax})`;
}

const newline = 10;
const carriageReturn = 13;

/** Reads the file once: its header, and whether DuckDB may be trusted with it. */
async function look(path: string): Promise<{ columns: string[]; crlf: boolean; plain: boolean }> {
  let header: string | undefined;
  let plain = true;
  for await (const lines of wholeLines(path)) {
    header ??= lines.subarray(0, lines.indexOf(newline)).toString();
    plain = isUtf8(lines) && !lines.includes(carriageReturn) && !lines.includes('\t\n');
    if (!plain) break;
  }
  if (header === undefined) {
    throw new ReelflowError('input', 'A file is empty', {
      detail: `${path} has no header line.`,
      hint: 'Fetch or write the file again.',
    });
  }
  return { columns: columnsOf(header), crlf: header.endsWith('\r'), plain };
}

/** camelCase names, whatever the spelling; a name that is there twice counts once. */
function columnsOf(header: string): string[] {
  const names = header
    .replace(/^\uFEFF/, '')
    .split('\t')
    .map((name) => name.trim().replace(/_([a-z])/g, (_, letter: string) => letter.toUpperCase()));
  return names.map((name, n) => (/^\w+$/.test(name) && names.indexOf(name) === n ? name : `unknown${n + 1}`));
}

/** @param crlf whether the header ends with CR LF: then rows may, too */
async function splitRows(
  connection: DuckDBConnection,
  path: string,
  table: string,
  columns: readonly string[],
  crlf: boolean,
): Promise<void> {
  const definition = columns.map((name) => `"${name}" VARCHAR`).join(', ');
  await connection.run(`CREATE OR REPLACE TEMP TABLE ${table} (${definition})`);
  const appender = await connection.createAppender(table, 'main', 'temp');
  let header = true;
  for await (const lines of wholeLines(path)) {
    for (let start = 0; start < lines.length; ) {
      const end = lines.indexOf(newline, start);
      const line = lines.subarray(start, crlf && lines[end - 1] === carriageReturn ? end - 1 : end);
      start = end + 1;
      const fields = isUtf8(line) && line.length <= lineBytesMax ? line.toString().split('\t') : [];
      if (!header && fields.length === columns.length) {
        for (const field of fields) {
          if (field === '\\N') appender.appendNull();
          else appender.appendVarchar(field);
        }
        appender.endRow();
      }
      header = false;
    }
    appender.flushSync();
  }
  appender.closeSync();
}

/** The bytes of a file in pieces that end with a newline; the last one gets its newline if it lacks it. */
async function* wholeLines(path: string): AsyncGenerator<Buffer> {
  let rest: Buffer[] = [];
  try {
    for await (const piece of bytesOf(path)) {
      const end = piece.lastIndexOf(newline) + 1;
      if (end > 0) {
        yield Buffer.concat([...rest, piece.subarray(0, end)]);
        rest = [];
      }
      if (end < piece.length) rest.push(piece.subarray(end));
    }
  } catch (cause) {
    throw new ReelflowError('input', 'A file could not be read', {
      detail: `${path}: ${messageOf(cause)}`,
      hint: 'Fetch or write the file again.',
      cause,
    });
  }
  if (rest.length > 0) yield Buffer.concat([...rest, Buffer.from('\n')]);
}

async function* bytesOf(path: string): AsyncGenerator<Buffer> {
  const file = createReadStream(path, { highWaterMark: 1 << 20 });
  // The pipeline destroys both streams when either fails or the reader stops early; errors reach the reader.
  const bytes = path.endsWith('.gz') ? pipeline(file, createGunzip({ chunkSize: 1 << 20 }), () => {}) : file;
  yield* bytes as AsyncIterable<Buffer>;
}
