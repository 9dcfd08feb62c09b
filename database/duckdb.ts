/**
 * DuckDB as a device: database files attached to one instance per process, columns of numbers in and out without a
 * JavaScript value per cell.
 */
import { isUtf8 } from 'node:buffer';
import { rmSync } from 'node:fs';
import { resolve } from 'node:path';
import {
  DOUBLE,
  type DuckDBConnection,
  DuckDBDataChunk,
  DuckDBInstance,
  INTEGER,
  LIST,
  VARCHAR,
} from '@duckdb/node-api';
import duckdb, { type Vector } from '@duckdb/node-bindings';
import { IdSet } from '../topics/id-set.ts';
import { nullInt } from '../topics/row-plan.ts';
import { sqlFile, sqlText } from './sql.ts';

const vectorRows = 2048;

interface DatabaseOptions {
  /** For all shards of this process together, as DuckDB writes sizes, for example `1GB`. */
  readonly memoryLimit: string;
  readonly threads: number;
  /** Where DuckDB may write data that does not fit into memory. */
  readonly spillFolder: string;
}

/** Opens a database, by default one in memory, for as long as `work` takes. */
export async function withDatabase<T>(
  work: (connection: DuckDBConnection) => Promise<T>,
  path = ':memory:',
  settings: Record<string, string> = {},
): Promise<T> {
  const instance = await DuckDBInstance.create(path, settings);
  const connection = await instance.connect();
  try {
    return await work(connection);
  } finally {
    connection.closeSync();
    instance.closeSync();
  }
}

/** A DuckDB in memory, to which databases are attached. Queries without ORDER BY keep no order. */
export async function openInstance(options: DatabaseOptions): Promise<DuckDBInstance> {
  return DuckDBInstance.create(':memory:', {
    memory_limit: options.memoryLimit,
    threads: String(options.threads),
    temp_directory: options.spillFolder,
    preserve_insertion_order: 'false',
  });
}

/**
 * Closes an instance that runs SQL of users to everything but files in these folders: other files, the network, extensions. This
 * cannot be undone while the instance lives. With `locked` settings this program itself can change none any more.
 */
export async function confine(
  connection: DuckDBConnection,
  folders: readonly string[],
  settings: 'locked' | 'open',
): Promise<void> {
  // As a path that is written, and as a pattern that is read.
  const list = new Set(folders.flatMap((folder) => [sqlText(resolve(folder)), sqlFile(folder)]));
  await connection.run(`SET allowed_directories = [${[...list].join(', ')}]`);
  await connection.run('SET enable_external_access = false');
  if (settings === 'locked') await connection.run('SET lock_configuration = true');
}

/** Between two interrupts: each ends only the statement that runs at that moment. */
const interruptEveryMs = 100;

/** Interrupts every statement of a connection from `graceMs` after the abort of `signal` on. @returns ends it */
export function interruptOn(
  signal: AbortSignal,
  connection: Pick<DuckDBConnection, 'interrupt'>,
  graceMs = 0,
): () => void {
  let timer: NodeJS.Timeout | undefined;
  const interrupt = () => {
    connection.interrupt();
    timer = setTimeout(interrupt, interruptEveryMs);
  };
  const begin = () => {
    timer = setTimeout(interrupt, graceMs);
  };
  if (signal.aborted) begin();
  else signal.addEventListener('abort', begin, { once: true });
  return () => {
    signal.removeEventListener('abort', begin);
    clearTimeout(timer);
  };
}

/** The rows of a query, as DuckDB's JavaScript values. */
export async function rowsOf(connection: DuckDBConnection, sql: string): Promise<unknown[][]> {
  return (await connection.runAndReadAll(sql)).getRows();
}

/** @param from what follows FROM, also with a WHERE */
export async function countOf(connection: DuckDBConnection, from: string): Promise<number> {
  const [[count] = []] = await rowsOf(connection, `SELECT count(*) FROM ${from}`);
  return Number(count);
}

/** Memory that an instance uses, in bytes. */
export async function memoryBytesOf(instance: DuckDBInstance): Promise<number> {
  const connection = await instance.connect();
  try {
    const reader = await connection.runAndReadAll(
      'SELECT sum(memory_usage_bytes)::DOUBLE FROM duckdb_memory()',
    );
    return Number(reader.value(0, 0));
  } finally {
    connection.closeSync();
  }
}

/** Removes a database that no process uses, with its log. */
export function removeDatabase(path: string): void {
  rmSync(path, { force: true });
  rmSync(`${path}.wal`, { force: true });
}

type NumberColumn = Int32Array | Float64Array;

/** A column of lists of integers: the place of each list in `items`, where its length comes before its items. */
interface ListColumn {
  readonly places: Int32Array;
  readonly items: Int32Array;
}

/** A column of UTF-8 texts: `starts` and `ends` in `bytes`; a negative end is NULL. */
export interface TextColumn {
  readonly bytes: Uint8Array;
  readonly starts: Int32Array;
  readonly ends: Int32Array;
}

export type AppendedColumn = NumberColumn | ListColumn | TextColumn;

const isList = (column: AppendedColumn): column is ListColumn => 'places' in column;
const isText = (column: AppendedColumn): column is TextColumn => 'ends' in column;

function typeOf(column: AppendedColumn) {
  if (isList(column)) return LIST(INTEGER);
  if (isText(column)) return VARCHAR;
  return column instanceof Int32Array ? INTEGER : DOUBLE;
}

interface NumberVector {
  items: NumberColumn;
  validity: { data: BigUint64Array | null; flush(vector: Vector): void };
  readonly vector: Vector;
  flush(): void;
}

/** Offset and length of each list, as 64-bit integers of which only the lower halves are used. */
const listEntries = new Uint32Array(vectorRows * 4);

/** Writes lists into a vector, all but which of them are null. */
function fillLists({ vector }: NumberVector, places: Int32Array, items: Int32Array): void {
  let total = 0;
  for (let row = 0; row < places.length; row++) {
    const place = places[row] as number;
    const length = place === nullInt ? 0 : (items[place] as number);
    listEntries[row * 4] = total;
    listEntries[row * 4 + 2] = length;
    total += length;
  }
  const all = new Int32Array(total);
  for (let row = 0; row < places.length; row++) {
    const place = places[row] as number;
    const length = listEntries[row * 4 + 2] as number;
    const to = listEntries[row * 4] as number;
    for (let i = 0; i < length; i++) all[to + i] = items[place + 1 + i] as number;
  }
  duckdb.list_vector_reserve(vector, total);
  duckdb.list_vector_set_size(vector, total);
  duckdb.copy_data_to_vector(duckdb.list_vector_get_child(vector), 0, all.buffer, 0, all.byteLength);
  duckdb.copy_data_to_vector(vector, 0, listEntries.buffer, 0, places.length * 16);
}

/**
 * Appends rows to a table of INTEGER, DOUBLE, INTEGER[] and VARCHAR columns.
 * @param columns in the table's order, each at least `length` long
 * @param nullable in which columns of integers or lists `nullInt` means NULL, and of texts a negative end
 */
export function appendColumns(
  connection: AppenderSource,
  table: { catalog: string; name: string },
  columns: readonly AppendedColumn[],
  length: number,
  nullable: readonly boolean[],
): Promise<void> {
  return withAppender(connection, table, (append) => {
    const types = columns.map(typeOf);
    let chunk = DuckDBDataChunk.create(types, Math.min(vectorRows, length));
    const validity = new Uint32Array(vectorRows / 32);
    const validityWords = new BigUint64Array(validity.buffer);
    for (let from = 0; from < length; from += vectorRows) {
      const rows = Math.min(vectorRows, length - from);
      if (rows !== chunk.rowCount) chunk = DuckDBDataChunk.create(types, rows);
      columns.forEach((column, c) => {
        const vector = chunk.getColumnVector(c) as unknown as NumberVector;
        const numbers = isList(column) ? column.places : isText(column) ? column.ends : column;
        const slice = numbers.subarray(from, from + rows);
        if (isList(column)) fillLists(vector, slice as Int32Array, column.items);
        else if (isText(column)) fillTexts(vector, column, from, rows);
        else vector.items = slice;
        if (nullable[c] === true) {
          const isNull = isText(column)
            ? (row: number) => (slice[row] as number) < 0
            : (row: number) => slice[row] === nullInt;
          validity.fill(0xffffffff);
          for (let row = 0; row < rows; row++) {
            if (isNull(row)) {
              validity[row >>> 5] = (validity[row >>> 5] as number) & ~(1 << (row & 31));
            }
          }
          vector.validity.data = validityWords.subarray(0, Math.ceil(rows / 64));
        }
        // The flush of lists and texts makes a JavaScript value of each item.
        if (isList(column) || isText(column)) vector.validity.flush(vector.vector);
        else vector.flush();
      });
      append(chunk);
    }
  });
}

/** Bytes that are not UTF-8 become U+FFFD. */
const utf8Of = (bytes: Uint8Array) => Buffer.from(Buffer.from(bytes).toString());

function fillTexts(
  { vector }: NumberVector,
  { bytes, starts, ends }: TextColumn,
  from: number,
  rows: number,
): void {
  for (let row = 0; row < rows; row++) {
    const end = ends[from + row] as number;
    if (end < 0) continue;
    const text = bytes.subarray(starts[from + row], end);
    duckdb.vector_assign_string_element_len(vector, row, isUtf8(text) ? text : utf8Of(text));
  }
}

type AppenderSource = Pick<DuckDBConnection, 'createAppender'>;

async function withAppender(
  connection: AppenderSource,
  table: { catalog: string; name: string },
  fill: (append: (chunk: DuckDBDataChunk) => void) => void,
): Promise<void> {
  const appender = await connection.createAppender(table.name, 'main', table.catalog);
  try {
    fill((chunk) => appender.appendDataChunk(chunk));
    appender.flushSync();
  } catch (thrown) {
    try {
      appender.closeSync();
    } catch {
      // Closing flushes again, in a transaction that is aborted: only the first error names the cause.
    }
    throw thrown;
  }
  appender.closeSync();
}

/** A result as columns: int columns with `nullInt` for NULL, DOUBLE columns as numbers. */
interface NumberColumns {
  readonly columns: (Int32Array | Float64Array)[];
  readonly length: number;
}

/** Runs a query whose columns are INTEGER or DOUBLE. */
export async function readNumbers(connection: DuckDBConnection, sql: string): Promise<NumberColumns> {
  const result = await connection.stream(sql);
  const isDouble = result.columnTypes().map((type) => String(type) === 'DOUBLE');
  const columns = isDouble.map((double) => (double ? new Float64Array(4096) : new Int32Array(4096)));
  let length = 0;
  for (;;) {
    const chunk = await result.fetchChunk();
    if (chunk === null || chunk.rowCount === 0) return { columns, length };
    const rows = chunk.rowCount;
    columns.forEach((column, c) => {
      const vector = chunk.getColumnVector(c) as unknown as NumberVector & {
        getItem(i: number): number | null;
      };
      let into = column;
      if (into.length < length + rows) {
        into = new (column.constructor as Int32ArrayConstructor)(Math.max(length + rows, column.length * 2));
        into.set(column);
        columns[c] = into;
      }
      into.set(vector.items, length);
      if (vector.validity.data !== null && isDouble[c] === false) {
        for (let row = 0; row < rows; row++) if (vector.getItem(row) === null) into[length + row] = nullInt;
      }
    });
    length += rows;
  }
}

/** The ids in the only column of a query. */
export async function readIds(connection: DuckDBConnection, sql: string, ids = new IdSet()): Promise<IdSet> {
  const { columns, length } = await readNumbers(connection, sql);
  const [column] = columns as [Int32Array];
  for (let row = 0; row < length; row++) ids.add(column[row] as number);
  return ids;
}
