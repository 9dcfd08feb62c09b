/**
 * DuckDB as a device: database files attached to one instance per process, columns of numbers in and out without a
 * JavaScript value per cell.
 */
import { rmSync } from 'node:fs';
import { DOUBLE, type DuckDBConnection, DuckDBDataChunk, DuckDBInstance, INTEGER } from '@duckdb/node-api';
import { nullInt } from '../topics/row-plan.ts';

const vectorRows = 2048;

export interface DatabaseOptions {
  /** For all shards of this process together, as DuckDB writes sizes, for example `1GB`. */
  readonly memoryLimit: string;
  readonly threads: number;
  /** Where DuckDB may write data that does not fit into memory. */
  readonly spillFolder: string;
}

export async function openInstance(options: DatabaseOptions): Promise<DuckDBInstance> {
  return DuckDBInstance.create(':memory:', {
    memory_limit: options.memoryLimit,
    threads: String(options.threads),
    temp_directory: options.spillFolder,
    preserve_insertion_order: 'false',
  });
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

interface NumberVector {
  items: NumberColumn;
  validity: { data: BigUint64Array | null };
  flush(): void;
}

/**
 * Appends rows to a table of INTEGER and DOUBLE columns.
 * @param columns in the table's order, each at least `length` long
 * @param nullable in which int columns `nullInt` means NULL
 */
export function appendNumbers(
  connection: AppenderSource,
  table: { catalog: string; name: string },
  columns: readonly NumberColumn[],
  length: number,
  nullable: readonly boolean[],
): Promise<void> {
  return withAppender(connection, table, (append) => {
    const types = columns.map((column) => (column instanceof Int32Array ? INTEGER : DOUBLE));
    let chunk = DuckDBDataChunk.create(types, Math.min(vectorRows, length));
    const validity = new Uint32Array(vectorRows / 32);
    const validityWords = new BigUint64Array(validity.buffer);
    for (let from = 0; from < length; from += vectorRows) {
      const rows = Math.min(vectorRows, length - from);
      if (rows !== chunk.rowCount) chunk = DuckDBDataChunk.create(types, rows);
      columns.forEach((column, c) => {
        const vector = chunk.getColumnVector(c) as unknown as NumberVector;
        const slice = column.subarray(from, from + rows);
        vector.items = slice;
        if (nullable[c] === true) {
          validity.fill(0xffffffff);
          for (let row = 0; row < rows; row++) {
            if (slice[row] === nullInt) {
              validity[row >>> 5] = (validity[row >>> 5] as number) & ~(1 << (row & 31));
            }
          }
          vector.validity.data = validityWords.subarray(0, Math.ceil(rows / 64));
        }
        vector.flush();
      });
      append(chunk);
    }
  });
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
export interface NumberColumns {
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
