/**
 * A copy of an unsorted file whose rows are in the order of their ids; rows of one id keep the order of the file. Rows
 * without an id come first. The rows go to buckets of consecutive ids in one spill file, then one bucket after the other
 * is sorted in memory, so memory does not grow with the file.
 */
import { closeSync, openSync, readSync } from 'node:fs';
import { type FileHandle, open, rm, utimes } from 'node:fs/promises';
import { dirname } from 'node:path';
import { ReelflowError } from '../../runtime/errors.ts';
import { makeFolder } from '../../runtime/files.ts';
import { datasets } from '../../topics/catalog.ts';
import type { InputFile } from '../input-files.ts';
import { unusable } from '../journal.ts';
import { LineId } from '../line-id.ts';
import { checkUnchanged, piecesOf, withoutNewline } from './dump-reading.ts';
import { lineBytesMax } from './group-reader.ts';

/** About 50 MB of the largest official file. */
const idsPerBucket = 100_000;
const newline = 0x0a;
/** Of a spilled row: its number in the file and its length. */
const frameBytes = 8;

export interface SortedCopyOptions {
  /** Path of the copy; the names of its two temporary files begin with it. */
  readonly path: string;
  /** Rows in memory while the file is read. Default 64 MB. */
  readonly pendingBytesMax?: number;
  /** Rows of one bucket, which are sorted in memory. Default 1 GB. */
  readonly bucketBytesMax?: number;
  readonly signal?: AbortSignal | undefined;
  readonly onProgress?: (bytesRead: number) => void;
}

interface Bucket {
  pending: Buffer;
  pendingBytes: number;
  bytes: number;
  /** Its parts of the spill file, in the order of the file: position and length, two entries each. */
  readonly extents: number[];
}

export class SortedCopy {
  /** The copy, with the name, the date and the layout of the original. */
  readonly file: InputFile;
  readonly #numbers: number;

  private constructor(file: InputFile) {
    this.file = file;
    this.#numbers = openSync(numbersPath(file.path), 'r');
  }

  /**
   * @throws ReelflowError input, when the file is damaged, or has a line or a bucket that is too large to sort; cutFile;
   *   inputChanged; diskFull; stateUnusable
   */
  static async of(file: InputFile, options: SortedCopyOptions): Promise<SortedCopy> {
    const { path } = options;
    await removeSortedCopy(path);
    try {
      return new SortedCopy(await sort(file, options));
    } catch (thrown) {
      await removeSortedCopy(path);
      throw thrown instanceof ReelflowError || options.signal?.aborted === true
        ? thrown
        : unusable(path, thrown);
    }
  }

  /** The number in the original file of a row of the copy, both from 0. */
  originalRow(row: number): number {
    const number = Buffer.alloc(4);
    readSync(this.#numbers, number, 0, 4, 4 * row);
    return number.readUInt32LE();
  }

  /** Removes the copy. */
  async close(): Promise<void> {
    closeSync(this.#numbers);
    await removeSortedCopy(this.file.path);
  }
}

const numbersPath = (path: string) => `${path}.rows`;
const spillPath = (path: string) => `${path}.spill`;

/** Removes a copy, or the parts of it that a killed run has left. */
export async function removeSortedCopy(path: string): Promise<void> {
  for (const each of [path, numbersPath(path), spillPath(path)]) await rm(each, { force: true });
}

async function sort(file: InputFile, options: SortedCopyOptions): Promise<InputFile> {
  const { path } = options;
  makeFolder(dirname(path));
  const spill = await open(spillPath(path), 'w+');
  const copy = await open(path, 'w');
  const numbers = await open(numbersPath(path), 'w');
  try {
    const { header, buckets } = await spread(file, spill, options);
    await copy.write(header);
    for (const [, bucket] of [...buckets].sort(([a], [b]) => a - b)) {
      options.signal?.throwIfAborted();
      const { rows, numbersOfRows } = sortedRows(file, await read(spill, bucket));
      await copy.writeFile(rows);
      await numbers.writeFile(numbersOfRows);
    }
    const { size } = await copy.stat();
    await copy.close();
    await utimes(path, file.modified, file.modified);
    return { ...file, path, gzip: false, size };
  } finally {
    await Promise.allSettled([spill.close(), copy.close(), numbers.close()]);
    await rm(spillPath(path), { force: true });
  }
}

/** Reads the file to its end and writes its rows to buckets. */
async function spread(
  file: InputFile,
  spill: FileHandle,
  {
    pendingBytesMax = 64_000_000,
    bucketBytesMax = 1_000_000_000,
    signal,
    onProgress = () => undefined,
  }: SortedCopyOptions,
): Promise<{ header: Buffer; buckets: Map<number, Bucket> }> {
  const ids = lineIdOf(file);
  const buckets = new Map<number, Bucket>();
  let header: Buffer | undefined;
  let row = 0;
  let pendingBytes = 0;
  let spilled = 0;
  const add = (line: Buffer) => {
    const number = Math.floor(ids.at(line, 0) / idsPerBucket);
    let bucket = buckets.get(number);
    if (bucket === undefined) {
      bucket = { pending: Buffer.allocUnsafe(4096), pendingBytes: 0, bytes: 0, extents: [] };
      buckets.set(number, bucket);
    }
    const needed = bucket.pendingBytes + frameBytes + line.length;
    if (needed > bucket.pending.length) {
      const grown = Buffer.allocUnsafe(2 * needed);
      bucket.pending.copy(grown, 0, 0, bucket.pendingBytes);
      bucket.pending = grown;
    }
    const at = bucket.pending.writeUInt32LE(row, bucket.pendingBytes);
    line.copy(bucket.pending, bucket.pending.writeUInt32LE(line.length, at));
    bucket.pendingBytes = needed;
    bucket.bytes += frameBytes + line.length;
    pendingBytes += frameBytes + line.length;
    if (bucket.bytes > bucketBytesMax) {
      throw tooLarge(file, `ids of ${idsPerBucket} take more than ${bucketBytesMax} bytes`);
    }
  };
  const flush = async () => {
    for (const bucket of buckets.values()) {
      if (bucket.pendingBytes === 0) continue;
      await spill.write(bucket.pending, 0, bucket.pendingBytes, spilled);
      bucket.extents.push(spilled, bucket.pendingBytes);
      spilled += bucket.pendingBytes;
      bucket.pendingBytes = 0;
      bucket.pending = Buffer.allocUnsafe(4096);
    }
    pendingBytes = 0;
  };

  let open = Buffer.alloc(0);
  for await (const piece of piecesOf(file, () => row, onProgress)) {
    signal?.throwIfAborted();
    const bytes = open.length === 0 ? piece : Buffer.concat([open, piece]);
    let start = 0;
    for (let end = bytes.indexOf(newline); end >= 0; end = bytes.indexOf(newline, start)) {
      const line = bytes.subarray(start, end + 1);
      start = end + 1;
      if (header === undefined) header = Buffer.from(line);
      else {
        add(line);
        row++;
      }
    }
    open = Buffer.from(bytes.subarray(start));
    if (open.length > lineBytesMax) throw tooLarge(file, `line ${row + 2} is longer than a message`);
    if (pendingBytes > pendingBytesMax) await flush();
  }
  if (open.length > 0 || header === undefined) throw withoutNewline(file, row);
  await checkUnchanged(file);
  await flush();
  return { header, buckets };
}

async function read(spill: FileHandle, { bytes, extents }: Bucket): Promise<Buffer> {
  const all = Buffer.allocUnsafe(bytes);
  let at = 0;
  for (let i = 0; i < extents.length; i += 2) {
    const length = extents[i + 1] as number;
    await spill.read(all, at, length, extents[i] as number);
    at += length;
  }
  return all;
}

/** The rows of a bucket by id, and by their place in the file where ids are equal. */
function sortedRows(file: InputFile, bucket: Buffer): { rows: Buffer; numbersOfRows: Buffer } {
  const ids = lineIdOf(file);
  const places: { readonly id: number; readonly at: number }[] = [];
  for (let at = 0; at < bucket.length; at += frameBytes + bucket.readUInt32LE(at + 4)) {
    places.push({ id: ids.at(bucket, at + frameBytes), at });
  }
  places.sort((a, b) => a.id - b.id || a.at - b.at);
  const rows = Buffer.allocUnsafe(bucket.length - frameBytes * places.length);
  const numbersOfRows = Buffer.allocUnsafe(4 * places.length);
  let end = 0;
  for (const [index, { at }] of places.entries()) {
    numbersOfRows.writeUInt32LE(bucket.readUInt32LE(at), 4 * index);
    const from = at + frameBytes;
    end += bucket.copy(rows, end, from, from + bucket.readUInt32LE(at + 4));
  }
  return { rows, numbersOfRows };
}

function lineIdOf({ dataset, layout }: InputFile): LineId {
  return new LineId(datasets[dataset].idPrefix, layout.order[0] as number);
}

function tooLarge({ name }: InputFile, detail: string): ReelflowError {
  return new ReelflowError('unsorted', `${name} is not sorted by id and too large to sort`, {
    detail: `${detail}. Nothing of it was sent.`,
    hint: 'Sort the lines behind the header by their first column.',
  });
}
