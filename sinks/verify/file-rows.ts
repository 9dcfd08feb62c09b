/**
 * Rows of an IMDb file for the batch computation, as text columns of a DuckDB relation, in file order.
 *
 * DuckDB's CSV reader is fast and almost exact: it takes carriage returns for line ends, forgives empty columns at
 * the end of a row, and checks UTF-8 only where it looks. So a file goes through it only when a look at its bytes
 * says that none of this matters, and when every row has the right number of columns. Any other file is
 * split here, row by row: slow and exact.
 */
import { isUtf8 } from 'node:buffer';
import { existsSync } from 'node:fs';
import { open } from 'node:fs/promises';
import { join } from 'node:path';
import type { DuckDBConnection } from '@duckdb/node-api';
import { sqlFile, sqlText } from '../../database/sql.ts';
import { messageOf, ReelflowError } from '../../runtime/errors.ts';
import { bytesOf, isGzip, type ReadableFile } from '../../runtime/file-bytes.ts';
import { type DatasetName, datasets } from '../../topics/catalog.ts';

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
  dataset: DatasetName,
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
  const { columns, quoted, plain } = await look(path, dataset);
  if (plain && (await succeeds(use({ relation: csvRelation(path, columns), columns })))) return;
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

function csvRelation(path: string, columns: readonly string[]): string {
  const types = columns.map((name) => `${sqlText(name)}: 'VARCHAR'`).join(', ');
  return `read_csv(${sqlFile(path)}, hive_partitioning = false, auto_detect = false, header = true, columns = {${types}}, delim = '\t',
    quote = '', escape = '', comment = '', nullstr = '\\N', strict_mode = true, max_line_size = ${lineBytesMax})`;
}

interface Look {
  readonly columns: string[];
  /** The file quotes its names, so any value may be quoted. */
  readonly quoted: boolean;
  readonly plain: boolean;
}

const newline = 10;
const carriageReturn = 13;

/** Reads the file once: its header, and whether DuckDB may be trusted with it. */
async function look(path: string, dataset: DatasetName): Promise<Look> {
  let header: string | undefined;
  let plain = (await inspect(path)).gzip === path.endsWith('.gz');
  const padding = () => {
    plain = false;
  };
  for await (const lines of wholeLines(path, { padding })) {
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

/** Official names, whatever the spelling; a name that occurs twice counts once. */
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
  let header = true;
  for await (const lines of wholeLines(path)) {
    for (let start = 0; start < lines.length; ) {
      const end = lines.indexOf(newline, start);
      let lineEnd = end;
      while (lineEnd > start && lines[lineEnd - 1] === carriageReturn) lineEnd--;
      const line = lines.subarray(start, lineEnd);
      start = end + 1;
      const fields = isUtf8(line) && line.length <= lineBytesMax ? line.toString().split('\t') : [];
      if (!header && fields.length === columns.length) {
        for (const field of fields) {
          const bare = quoted && /^".*"$/.test(field) ? field.slice(1, -1).replaceAll('""', '"') : field;
          if (bare === '\\N') appender.appendNull();
          else appender.appendVarchar(bare);
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
async function* wholeLines(path: string, on: { padding?: () => void } = {}): AsyncGenerator<Buffer> {
  let rest: Buffer[] = [];
  try {
    for await (const shared of bytesOf(await inspect(path), on)) {
      const piece = Buffer.from(shared);
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

/** Size, and whether the content is gzip, whatever the name says. */
async function inspect(path: string): Promise<ReadableFile> {
  const file = await open(path);
  try {
    const start = Buffer.alloc(2);
    await file.read(start, 0, 2, 0);
    return { path, gzip: isGzip(start), size: (await file.stat()).size };
  } finally {
    await file.close();
  }
}
