/**
 * Reads the rows of a file by groups of ids and hashes them: one pass over the bytes, in WebAssembly (`kernels/hash-rows.ts`).
 * It hands over a group when it has read the group's last row. The sizes of the pieces do not change the result.
 *
 * Files are sorted by id, as numbers or as texts, which puts tt10000000 between tt1000000 and tt1000001. Ids of one
 * length ascend in both orders, so each length has a lane of its own with one open group. A file in which the ids of a
 * length do not ascend is not sorted: its groups are never whole, and `push` throws `UnsortedRows`.
 */
import { messageBytesMax } from '../../topics/catalog.ts';
import { noStrays } from '../../topics/dump-index.ts';
import { groupOf, groupSize } from '../../topics/id-groups.ts';
import type { EachRun, GroupRows } from '../chunker.ts';
import { instanceOf } from '../kernel.ts';

/** The rows of a file do not come in the order of their ids. */
export class UnsortedRows extends Error {
  /** Row number from 0. */
  readonly row: number;
  constructor(row: number) {
    super(`row ${row} has a lower id than a row before it`);
    this.name = 'UnsortedRows';
    this.row = row;
  }
}

/** A group whose last row was read. Valid during the call that hands it over. */
export interface ClosedGroup extends GroupRows {
  readonly low: number;
  readonly high: number;
  /** One bit for each id that has rows: ids 0 to 31 of the group, and 32 to 49. */
  readonly maskLow: number;
  readonly maskHigh: number;
  readonly rows: number;
}

export interface GroupReaderOptions {
  /** First letter of the ids. */
  readonly prefix: 'tt' | 'nm';
  /** The column that holds the id. */
  readonly idColumn: number;
  /** Keeps the bytes of open groups for `forEachRun`. Without it only hashes are taken. */
  readonly keepRows: boolean;
  /** Whether the rows of an id that are refused are all that it has; such an id is no bit of the mask. */
  readonly isRefused?: (id: number, rows: number) => boolean;
  readonly onGroup: (group: ClosedGroup) => void;
  /** A row without an id of the dataset: it belongs to no group. Its bytes are valid during the call. */
  readonly onStray?: (bytes: Buffer, start: number, row: number) => void;
}

const newline = 0x0a;
/** A longer line is refused whatever it holds; only this much of it is kept. */
export const lineBytesMax = messageBytesMax + 1;
/** Bytes of a piece that are read together. */
const pieceBytesMax = 256 * 1024;
const lanesCount = 3;
// Results of the kernel that are no lane.
const stray = -1;
const unsorted = -2;
const otherGroup = -3;

/** See `kernels/hash-rows.ts`. */
interface Kernel {
  readonly memory: WebAssembly.Memory;
  readonly resultsAt: WebAssembly.Constant;
  readonly lanesAt: WebAssembly.Constant;
  readonly laneBytes: WebAssembly.Constant;
  readonly sumAt: WebAssembly.Constant;
  readonly countsAt: WebAssembly.Constant;
  readonly inputAt: WebAssembly.Constant;
  configure(letters: number, idColumn: number): void;
  readRun(from: number, to: number, lost: number): number;
  closeGroup(lane: number): void;
}

/** Kernels of readers that have ended: creating a memory is expensive. */
const idle: Kernel[] = [];

class Lane implements ClosedGroup {
  group = -1;
  low = 0;
  high = 0;
  maskLow = 0;
  maskHigh = 0;
  rows = 0;

  /** Of the kernel: the hash of a closed group, and its rows by place of the id. */
  readonly sum: Int32Array;
  readonly counts: Int32Array;

  /** Rows of earlier pieces: bytes with newlines. */
  kept = Buffer.alloc(0);
  keptBytes = 0;
  /** Runs of adjacent rows: start, end and number of the first row, three entries each. */
  keptRuns: number[] = [];
  runs: number[] = [];
  readonly work: Buffer;

  constructor(work: Buffer, sumAt: number, countsAt: number) {
    this.work = work;
    this.sum = new Int32Array(work.buffer, sumAt, 2);
    this.counts = new Int32Array(work.buffer, countsAt, groupSize);
  }

  forEachRun(each: EachRun): void {
    eachRun(this.kept, this.keptRuns, each);
    eachRun(this.work, this.runs, each);
  }

  /** Copies the rows of the current piece, whose memory will be overwritten. */
  keep(): void {
    for (let i = 0; i < this.runs.length; i += 3) {
      const start = this.runs[i] as number;
      const end = this.runs[i + 1] as number;
      const needed = this.keptBytes + end - start;
      if (needed > this.kept.length) {
        const grown = Buffer.allocUnsafe(Math.max(2 * needed, 4096));
        this.kept.copy(grown, 0, 0, this.keptBytes);
        this.kept = grown;
      }
      this.work.copy(this.kept, this.keptBytes, start, end);
      this.keptRuns.push(this.keptBytes, this.keptBytes + end - start, this.runs[i + 2] as number);
      this.keptBytes += end - start;
    }
    this.runs.length = 0;
  }
}

function eachRun(bytes: Buffer, runs: readonly number[], each: EachRun): void {
  for (let i = 0; i < runs.length; i += 3) {
    each(bytes, runs[i] as number, runs[i + 1] as number, runs[i + 2] as number);
  }
}

export class GroupReader {
  readonly #options: GroupReaderOptions;
  readonly #kernel: Kernel;
  readonly #results: Int32Array;
  /** The kernel's memory: from `#inputAt` on the beginning of an open line, then the current piece. */
  readonly #work: Buffer;
  readonly #inputAt: number;
  readonly #lanes: readonly Lane[];
  #openBytes = 0;
  /** Bytes of the open line that were too many to keep. */
  #lost = 0;
  /** Rows of which bytes were not kept, and how many: each takes a megabyte of the file. */
  readonly #lostOf = new Map<number, number>();
  #skip = 1;
  /** Rows read, the header not counted. */
  rows = 0;
  /** Number and order-free hash of the rows without an id. */
  strays = noStrays;
  /** Whether the last line ended with a newline. Known after `end`. */
  endsWithNewline = true;
  /** The id of the last row that had one, or -1. */
  lastId = -1;

  constructor(options: GroupReaderOptions) {
    const kernel = idle.pop() ?? instanceOf<Kernel>('hash-rows');
    const work = Buffer.from(kernel.memory.buffer);
    this.#options = options;
    this.#kernel = kernel;
    this.#work = work;
    this.#results = new Int32Array(work.buffer, kernel.resultsAt.value, 5);
    this.#inputAt = kernel.inputAt.value;
    this.#lanes = Array.from({ length: lanesCount }, (_, lane) => {
      const at = kernel.lanesAt.value + lane * kernel.laneBytes.value;
      return new Lane(work, at + kernel.sumAt.value, at + kernel.countsAt.value);
    });
    kernel.configure(Buffer.from(options.prefix).readUInt16LE(), options.idColumn);
  }

  /** Bytes of a row that were not kept, because its line is too long. */
  lostBytesOf(row: number): number {
    return this.#lostOf.get(row) ?? 0;
  }

  /** @throws UnsortedRows */
  push(piece: Buffer): void {
    for (let at = 0; at < piece.length; at += pieceBytesMax) {
      this.#read(piece.subarray(at, at + pieceBytesMax));
    }
  }

  /** The file has ended: hands over the open groups. Nothing is read after it. @throws UnsortedRows */
  end(): void {
    this.endsWithNewline = this.#openBytes === 0;
    if (this.#openBytes > 0) this.push(Buffer.of(newline));
    for (const lane of this.#lanes.keys()) this.#close(lane);
    idle.push(this.#kernel);
  }

  #read(piece: Buffer): void {
    const start = this.#inputAt;
    piece.copy(this.#work, start + this.#openBytes);
    const end = start + this.#openBytes + piece.length;
    const wholeEnd = this.#work.lastIndexOf(newline, end - 1) + 1;
    const rowsEnd = wholeEnd > start ? this.#readLines(wholeEnd) : start;
    if (this.#options.keepRows) for (const lane of this.#lanes) lane.keep();
    const open = end - rowsEnd;
    const keep = Math.min(open, lineBytesMax);
    this.#work.copyWithin(start, rowsEnd, rowsEnd + keep);
    this.#openBytes = keep;
    this.#lost += open - keep;
  }

  /** Reads the lines before `end`, which lies behind a newline. @returns `end` */
  #readLines(end: number): number {
    let p = this.#inputAt;
    while (this.#skip > 0 && p < end) {
      p = this.#work.indexOf(newline, p) + 1;
      this.#skip--;
      this.#lost = 0;
    }
    while (p < end) p = this.#readRun(p, end);
    return p;
  }

  /** Reads adjacent rows of one group, or one row without an id. @returns the position after them */
  #readRun(start: number, end: number): number {
    const found = this.#kernel.readRun(start, end, this.#lost);
    if (found === unsorted) throw new UnsortedRows(this.rows);
    if (found <= otherGroup) {
      this.#close(otherGroup - found);
      return start;
    }
    if (this.#lost > 0) this.#lostOf.set(this.rows, this.#lost);
    this.#lost = 0;
    const results = this.#results;
    const next = results[0] as number;
    if (found === stray) {
      const { rows, low, high } = this.strays;
      this.strays = {
        rows: rows + 1,
        low: (low + (results[3] as number)) | 0,
        high: (high + (results[4] as number)) | 0,
      };
      this.#options.onStray?.(this.#work, start, this.rows);
      this.rows++;
      return next;
    }
    const lane = this.#lanes[found] as Lane;
    this.lastId = results[2] as number;
    lane.group = groupOf(this.lastId);
    if (this.#options.keepRows) {
      const { runs } = lane;
      if (runs.length > 0 && runs[runs.length - 2] === start) runs[runs.length - 2] = next;
      else runs.push(start, next, this.rows);
    }
    this.rows += results[1] as number;
    return next;
  }

  /** Hands over the group of a lane, if it has one. */
  #close(number: number): void {
    const lane = this.#lanes[number] as Lane;
    if (lane.group < 0) return;
    this.#kernel.closeGroup(number);
    lane.low = lane.sum[0] as number;
    lane.high = lane.sum[1] as number;
    lane.rows = 0;
    lane.maskLow = 0;
    lane.maskHigh = 0;
    const firstId = lane.group * groupSize;
    for (let bit = 0; bit < groupSize; bit++) {
      const rows = lane.counts[bit] as number;
      if (rows === 0) continue;
      lane.rows += rows;
      if (this.#options.isRefused?.(firstId + bit, rows) === true) continue;
      if (bit < 32) lane.maskLow |= 1 << bit;
      else lane.maskHigh |= 1 << (bit - 32);
    }
    this.#options.onGroup(lane);
    lane.group = -1;
    lane.keptBytes = 0;
    lane.keptRuns.length = 0;
    lane.runs.length = 0;
  }
}
