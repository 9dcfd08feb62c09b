/**
 * Reads the rows of a file by groups of ids and hashes them, one pass over the bytes. A group is handed over when its
 * last row was read; how the input was cut into pieces changes nothing.
 *
 * Files are sorted by id, as numbers or as texts, which puts tt10000000 between tt1000000 and tt1000001. Ids of one
 * length ascend in both orders, so each length has a lane of its own with one open group. A file in which the ids of a
 * length do not ascend is not sorted: its groups are never whole, and `push` throws `UnsortedRows`.
 */
import { messageBytesMax } from '../../topics/catalog.ts';
import { groupSize } from '../../topics/id-groups.ts';
import { finalHigh, finalLow, mixA, mixB, seedA, seedB } from './id-hash.ts';
import { LineId } from './line-id.ts';

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
export interface ClosedGroup {
  readonly group: number;
  readonly low: number;
  readonly high: number;
  /** One bit for each id that has rows: ids 0 to 31 of the group, and 32 to 49. */
  readonly maskLow: number;
  readonly maskHigh: number;
  readonly rows: number;
  /**
   * Calls `each` with the rows in file order, in runs of adjacent lines with their newlines, and the number of the first
   * row of each run. Some bytes behind a run may be read.
   */
  forEachRun(each: (bytes: Buffer, start: number, end: number, firstRow: number) => void): void;
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
/** What the word steps may read past a line. */
const slackBytes = 8;
/** A longer line is refused whatever it holds; only so much of it is kept. */
export const lineBytesMax = messageBytesMax + 1;
const lanesCount = 3;

class Lane implements ClosedGroup {
  group = -1;
  low = 0;
  high = 0;
  maskLow = 0;
  maskHigh = 0;
  rows = 0;

  id = -1;
  idRows = 0;
  a = 0;
  b = 0;

  /** Rows of earlier pieces: bytes with newlines. */
  kept = Buffer.alloc(0);
  keptBytes = 0;
  /** Runs of adjacent rows: start, end and number of the first row, three entries each. */
  keptRuns: number[] = [];
  runs: number[] = [];
  work: Buffer = this.kept;

  forEachRun(each: (bytes: Buffer, start: number, end: number, firstRow: number) => void): void {
    eachRun(this.kept, this.keptRuns, each);
    eachRun(this.work, this.runs, each);
  }

  /** Copies the rows of the present piece, whose memory will be overwritten. */
  keep(): void {
    for (let i = 0; i < this.runs.length; i += 3) {
      const start = this.runs[i] as number;
      const end = this.runs[i + 1] as number;
      const needed = this.keptBytes + end - start + slackBytes;
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

/** @param marks the highest bit of each byte that may be a newline; the lowest of them is one */
function bytesUpToMark(marks: number): number {
  return (39 - Math.clz32(marks & -marks)) >> 3;
}

/** The bytes of a word up to its newline. */
function upToMark(word: number, marks: number): number {
  const lowest = marks & -marks;
  return word & (lowest | (lowest - 1));
}

function eachRun(
  bytes: Buffer,
  runs: readonly number[],
  each: (bytes: Buffer, start: number, end: number, firstRow: number) => void,
): void {
  for (let i = 0; i < runs.length; i += 3) {
    each(bytes, runs[i] as number, runs[i + 1] as number, runs[i + 2] as number);
  }
}

export class GroupReader {
  readonly #options: GroupReaderOptions;
  readonly #ids: LineId;
  readonly #lanes = Array.from({ length: lanesCount }, () => new Lane());
  #lane = this.#lanes[0] as Lane;
  /** [the beginning of an open line][the present piece][slack] */
  #work = Buffer.alloc(0);
  #view = new DataView(this.#work.buffer);
  #openBytes = 0;
  /** Bytes of the open line that were too many to keep. */
  #lost = 0;
  #skip = 1;
  #row = 0;
  #strays = 0;
  #strayLow = 0;
  #strayHigh = 0;
  #endsWithNewline = true;
  #lastId = -1;

  constructor(options: GroupReaderOptions) {
    this.#options = options;
    this.#ids = new LineId(options.prefix, options.idColumn);
  }

  /** Rows read, the header not counted. */
  get rows(): number {
    return this.#row;
  }

  /** Number and order-free hash of the rows without an id. */
  get strays(): { readonly rows: number; readonly low: number; readonly high: number } {
    return { rows: this.#strays, low: this.#strayLow, high: this.#strayHigh };
  }

  /** Whether the last line ended with a newline. Known after `end`. */
  get endsWithNewline(): boolean {
    return this.#endsWithNewline;
  }

  /** The id of the last row that had one, or -1. */
  get lastId(): number {
    return this.#lastId;
  }

  /** @throws UnsortedRows */
  push(piece: Buffer): void {
    if (piece.length === 0) return;
    this.#load(piece);
    const length = this.#openBytes + piece.length;
    const wholeEnd = this.#work.lastIndexOf(newline, length - 1) + 1;
    const rowsEnd = wholeEnd > 0 ? this.#readLines(wholeEnd) : 0;
    if (this.#options.keepRows) for (const lane of this.#lanes) lane.keep();
    const open = length - rowsEnd;
    const keep = Math.min(open, lineBytesMax);
    this.#work.copyWithin(0, rowsEnd, rowsEnd + keep);
    this.#openBytes = keep;
    this.#lost += open - keep;
  }

  /** The file has ended. Hands over the open groups. @throws UnsortedRows */
  end(): void {
    this.#endsWithNewline = this.#openBytes === 0;
    if (this.#openBytes > 0) this.push(Buffer.of(newline));
    for (const lane of this.#lanes) this.#close(lane);
  }

  #load(piece: Buffer): void {
    const needed = this.#openBytes + piece.length + slackBytes;
    if (needed > this.#work.length) {
      const grown = Buffer.allocUnsafeSlow(needed + (needed >> 2));
      this.#work.copy(grown, 0, 0, this.#openBytes);
      this.#work = grown;
      this.#view = new DataView(grown.buffer, grown.byteOffset, grown.length);
    }
    piece.copy(this.#work, this.#openBytes);
    for (const lane of this.#lanes) lane.work = this.#work;
  }

  /** Reads the lines before `end`, which lies behind a newline. @returns `end` */
  #readLines(end: number): number {
    const bytes = this.#work;
    const view = this.#view;
    const { keepRows } = this.#options;
    let p = 0;
    while (this.#skip > 0 && p < end) {
      p = bytes.indexOf(newline, p) + 1;
      this.#skip--;
    }
    let lane = this.#lane;
    while (p < end) {
      const start = p;
      const id = this.#ids.at(bytes, p);
      let a: number;
      let b: number;
      if (id < 0) {
        a = seedA;
        b = seedB;
      } else {
        if (id !== lane.id) {
          lane = this.#begin(id);
        }
        a = lane.a;
        b = lane.b;
        lane.idRows++;
      }
      for (;;) {
        const first = view.getInt32(p, true);
        const second = view.getInt32(p + 4, true);
        let x = first ^ 0x0a0a0a0a;
        const inFirst = (x - 0x01010101) & ~x & 0x80808080;
        x = second ^ 0x0a0a0a0a;
        const inSecond = (x - 0x01010101) & ~x & 0x80808080;
        if ((inFirst | inSecond) === 0) {
          a = mixA(a, b, first);
          b = mixB(b, a, second);
          p += 8;
          continue;
        }
        // The newline is part of the hash, the bytes behind it are not.
        if (inFirst !== 0) {
          a = mixA(a, b, upToMark(first, inFirst));
          b = mixB(b, a, 0);
          p += bytesUpToMark(inFirst);
        } else {
          a = mixA(a, b, first);
          b = mixB(b, a, upToMark(second, inSecond));
          p += 4 + bytesUpToMark(inSecond);
        }
        break;
      }
      if (this.#lost > 0) {
        a = mixA(a, b, this.#lost);
        this.#lost = 0;
      }
      if (id < 0) {
        this.#stray(start, a, b);
      } else {
        lane.a = a;
        lane.b = b;
        if (keepRows) {
          const { runs } = lane;
          if (runs.length > 0 && runs[runs.length - 2] === start) runs[runs.length - 2] = p;
          else runs.push(start, p, this.#row);
        }
      }
      this.#row++;
    }
    this.#lane = lane;
    return p;
  }

  /** Begins an id in its lane, and its group. */
  #begin(id: number): Lane {
    const lane = this.#lanes[id < 10_000_000 ? 0 : id < 100_000_000 ? 1 : 2] as Lane;
    this.#lastId = id;
    if (lane.id === id) return lane;
    if (id < lane.id) throw new UnsortedRows(this.#row);
    const group = Math.floor(id / groupSize);
    if (group === lane.group) {
      this.#endId(lane);
    } else {
      this.#close(lane);
      lane.group = group;
    }
    lane.id = id;
    lane.idRows = 0;
    lane.a = seedA;
    lane.b = seedB;
    return lane;
  }

  #endId(lane: Lane): void {
    if (lane.idRows === 0) return;
    const low = finalLow(lane.a, lane.b);
    lane.low = (lane.low + low) | 0;
    lane.high = (lane.high + finalHigh(lane.b, low)) | 0;
    lane.rows += lane.idRows;
    if (this.#options.isRefused?.(lane.id, lane.idRows) !== true) {
      const bit = lane.id % groupSize;
      if (bit < 32) lane.maskLow |= 1 << bit;
      else lane.maskHigh |= 1 << (bit - 32);
    }
    lane.idRows = 0;
  }

  #close(lane: Lane): void {
    if (lane.group < 0) return;
    this.#endId(lane);
    this.#options.onGroup(lane);
    lane.group = -1;
    lane.low = 0;
    lane.high = 0;
    lane.maskLow = 0;
    lane.maskHigh = 0;
    lane.rows = 0;
    lane.keptBytes = 0;
    lane.keptRuns.length = 0;
    lane.runs.length = 0;
  }

  #stray(start: number, a: number, b: number): void {
    const low = finalLow(a, b);
    this.#strays++;
    this.#strayLow = (this.#strayLow + low) | 0;
    this.#strayHigh = (this.#strayHigh + finalHigh(b, low)) | 0;
    this.#options.onStray?.(this.#work, start, this.#row);
  }
}
