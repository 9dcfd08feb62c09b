/**
 * Writes IMDb-shaped files of any size. A row is a pure function of the seed, the number of titles and its row number.
 * So files are the same byte for byte each time, the random order needs no earlier rows, and memory does not grow with
 * the files.
 *
 * The statistics are those of the full dumps of early 2026: shares of nulls, rows per title, distinct genres
 * strings and people, and the distributions of ratings and votes.
 */
import { once } from 'node:events';
import { createWriteStream } from 'node:fs';
import { readdir, rename, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { pipeline, type Writable } from 'node:stream';
import { finished } from 'node:stream/promises';
import { createGzip } from 'node:zlib';
import { messageOf, ReelflowError, systemCodeOf } from '../../runtime/errors.ts';
import { makeFolder } from '../../runtime/files.ts';
import { type DatasetName, datasetNames, datasets as layouts } from '../../topics/catalog.ts';
import { headerLineOf } from '../file-layout.ts';
import { permutation } from './chance.ts';
import { syntheticTables, type Table } from './rows.ts';

/** `id`: sorted by id as strings, as IMDb does; `random`: a seeded shuffle of the same rows. */
export type RowOrder = 'id' | 'random';

interface GenerateOptions {
  /** Rows of title.basics; the other datasets follow in proportion. */
  readonly titles: number;
  /** A folder that is empty or does not exist. */
  readonly out: string;
  /** Any integer; the low 32 bits count. */
  readonly seed?: number;
  readonly gzip?: boolean;
  readonly order?: RowOrder;
  /** Default: all seven. */
  readonly datasets?: readonly DatasetName[];
  /** Called after every megabyte or so. */
  readonly onProgress?: (progress: { dataset: DatasetName; rows: number; rowsTotal: number }) => void;
}

/** One written file: data rows (no header) and bytes on disk. */
interface GeneratedFile {
  readonly dataset: DatasetName;
  readonly file: string;
  readonly rows: number;
  readonly bytes: number;
}

/**
 * Writes the datasets, one file each, named as IMDb names them. A file gets its final name when it is complete.
 * @returns one entry per dataset, in the order of writing
 * @throws ReelflowError usage (number of titles), input (folder not empty), diskFull
 */
export async function generate(options: GenerateOptions): Promise<GeneratedFile[]> {
  const { titles, out, seed = 1, gzip = false, order = 'id', datasets = datasetNames } = options;
  const tables = syntheticTables(titles, seed);
  await requireEmpty(out);
  const files: GeneratedFile[] = [];
  for (const dataset of datasets) {
    const table = tables[dataset];
    const file = `${dataset}.tsv${gzip ? '.gz' : ''}`;
    const header = `${headerLineOf(layouts[dataset])}\n`;
    const rowAt = order === 'random' ? permutation(table.rows, seed) : (n: number) => n;
    const report = (rows: number) => options.onProgress?.({ dataset, rows, rowsTotal: table.rows });
    const bytes = await writeWhole(join(out, file), gzip, (sink) =>
      writeRows(sink, header, table, rowAt, report),
    );
    files.push({ dataset, file, rows: table.rows, bytes });
  }
  return files;
}

const bufferBytes = 1 << 20;
/** Longest row. */
const rowBytesMax = 4096;

/** Fills one buffer while the stream writes the other. */
async function writeRows(
  sink: Writable,
  header: string,
  { rows, write }: Table,
  rowAt: (n: number) => number,
  report: (rows: number) => void,
): Promise<void> {
  let buffer: Uint8Array = new Uint8Array(bufferBytes);
  let spare: Uint8Array = new Uint8Array(bufferBytes);
  let writing: Promise<void> = Promise.resolve();
  let at = new TextEncoder().encodeInto(header, buffer).written;
  for (let n = 0; n < rows; ) {
    for (const full = bufferBytes - rowBytesMax; n < rows && at < full; n++) at = write(buffer, at, rowAt(n));
    await writing;
    writing = drained(sink, buffer.subarray(0, at));
    [buffer, spare] = [spare, buffer];
    at = 0;
    report(n);
  }
  await writing;
  if (at > 0) await drained(sink, buffer.subarray(0, at));
}

/** Resolves when the stream no longer needs the memory. */
function drained(sink: Writable, bytes: Uint8Array): Promise<void> {
  const { promise, resolve, reject } = Promise.withResolvers<void>();
  sink.write(bytes, (error) => (error ? reject(error) : resolve()));
  promise.catch(() => {}); // awaited one buffer later; until then it must not count as unhandled
  return promise;
}

/** Writes under `<path>.part`, then renames. @returns the size of the file in bytes */
async function writeWhole(
  path: string,
  gzip: boolean,
  fill: (sink: Writable) => Promise<void>,
): Promise<number> {
  const part = `${path}.part`;
  const file = createWriteStream(part, { flags: 'wx' });
  try {
    await once(file, 'open');
    // The callbacks of write() report errors; events without a listener would end the process.
    file.on('error', () => {});
    const gzipper = gzip ? createGzip() : undefined;
    if (gzipper !== undefined) pipeline(gzipper, file, () => {});
    const sink = gzipper ?? file;
    await fill(sink);
    sink.end();
    await finished(file);
    await rename(part, path);
    return file.bytesWritten;
  } catch (thrown) {
    // A gzip stream whose file failed reports only that it was destroyed.
    const cause = file.errored ?? thrown;
    file.destroy();
    await rm(part, { force: true });
    const full = systemCodeOf(cause) === 'ENOSPC';
    throw new ReelflowError(
      full ? 'diskFull' : 'input',
      full ? 'The disk is full' : 'A file could not be written',
      {
        detail: `${path}: ${messageOf(cause)}`,
        hint: 'Name another folder with --out, or generate fewer titles.',
        cause,
      },
    );
  }
}

async function requireEmpty(out: string): Promise<void> {
  let entries: string[];
  try {
    makeFolder(out);
    entries = await readdir(out);
  } catch (cause) {
    throw new ReelflowError('input', 'The output folder cannot be used', {
      detail: messageOf(cause),
      hint: 'Name a writable folder with --out.',
      cause,
    });
  }
  if (entries.length > 0) {
    throw new ReelflowError('input', 'The output folder is not empty', {
      detail: `${out} holds ${entries.length} entries, ${entries[0]} among them.`,
      hint: 'Name a new folder with --out: existing files are never overwritten.',
    });
  }
}
