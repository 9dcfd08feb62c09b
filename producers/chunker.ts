/**
 * Turns the bytes of one file, in pieces of any size, into chunks. Each row ends up in exactly one chunk or is rejected once,
 * and a partition keeps the order of the file. The result does not depend on the sizes of the pieces. The chunker knows neither
 * Kafka nor files.
 */
import { isUtf8 } from 'node:buffer';
import type { BaseMark } from '../topics/base.ts';
import {
  blockKey,
  blockSize,
  type Dataset,
  deadLetterBytesMax,
  idMax,
  messageBytesMax,
  partitionOf,
} from '../topics/catalog.ts';
import { blockOfGroup } from '../topics/id-groups.ts';
import { type Chunk, ChunkWriter, type FilePosition } from './chunk-writer.ts';
import { officialValue, unquoted } from './equal-values.ts';
import type { Layout } from './file-layout.ts';
import { LineId } from './line-id.ts';
import { RowEncoder, stop } from './row-encoder.ts';
import type { RowRejectReason } from './row-refusal.ts';

export interface RejectedRow {
  /** Row number from 0. */
  readonly row: number;
  /** Line number from 1, the header included. */
  readonly line: number;
  readonly reason: RowRejectReason;
  readonly detail: string;
  /** The raw line without its end, or its first `deadLetterBytesMax` bytes. */
  readonly original: Buffer;
  readonly originalBytes: number;
  /** Block key, if the row starts with an id of the dataset. */
  readonly key: string | null;
  readonly from: FilePosition;
}

export interface ChunkerOptions {
  readonly dataset: Dataset;
  readonly layout: Layout;
  /** Partition count of the topic. */
  readonly shards: number;
  readonly schemaId: number;
  readonly runId: string;
  readonly asOf: Date;
  /** Rows to skip because an earlier attempt sent them. Default: none. */
  readonly start?: FilePosition;
  /** Number of the first chunk of each partition. Default: 0. */
  readonly firstChunk?: number;
  /** Bytes of a row that the caller left out because its line is longer than a message. Default: none. */
  readonly lostBytesOf?: (row: number) => number;
  readonly onChunk: (chunk: Chunk) => void;
  readonly onRejected: (rejected: RejectedRow) => void;
}

/** Stands for any refusal by the encoder. */
const refused = -1;
/** A longer line is rejected without parsing: no chunk could hold it. */
const lineBytesMax = messageBytesMax;
const newline = 0x0a;
const carriageReturn = 0x0d;
const tab = 0x09;

/** Takes a run of adjacent lines with their newlines, and the number of its first row. Some bytes behind it may be read. */
export type EachRun = (bytes: Buffer, start: number, end: number, firstRow: number) => void;

/** Rows of one group of ids. */
export interface GroupRows {
  readonly group: number;
  /** Calls `each` with the rows in file order. */
  forEachRun(each: EachRun): void;
}

/** The result of encoding a group. */
interface GroupOutcome {
  /** One bit for each id that has a record: ids 0 to 31 of the group, and 32 to 49. */
  readonly maskLow: number;
  readonly maskHigh: number;
  readonly rejected: number;
}

export class Chunker {
  readonly #dataset: Dataset;
  readonly #ids: LineId;
  readonly #layout: Layout;
  readonly #shards: number;
  readonly #lostBytesOf: (row: number) => number;
  readonly #onRejected: (rejected: RejectedRow) => void;
  readonly #encoder: RowEncoder;
  readonly #writer: ChunkWriter;
  readonly #partitionOfBlock = new Int16Array(Math.floor(idMax / blockSize) + 1).fill(-1);

  /** Block and partition of the previous row: rows of a block mostly come together. */
  #block = -1;
  #partition = 0;

  /** Lines still to skip: the header, and the rows before `start`. */
  #skip: number;
  #row: number;
  #rejected: number;

  /** The beginning of a line that continues in the next piece. */
  #carry = Buffer.allocUnsafe(64 * 1024);
  #carryBytes = 0;
  /** Bytes of that line beyond the limit, which are not kept. */
  #carryLost = 0;

  /** Inside `replaceGroup` a chunk is cut only where it is full: the group goes into one message if it fits. */
  #isReplacing = false;
  #maskLow = 0;
  #maskHigh = 0;

  constructor(options: ChunkerOptions) {
    const {
      dataset,
      layout,
      shards,
      lostBytesOf = () => 0,
      onRejected,
      start = { row: 0, rejected: 0 },
    } = options;
    this.#dataset = dataset;
    this.#ids = new LineId(dataset.idPrefix, 0);
    this.#layout = layout;
    this.#shards = shards;
    this.#lostBytesOf = lostBytesOf;
    this.#onRejected = onRejected;
    this.#encoder = RowEncoder.of(dataset);
    this.#writer = new ChunkWriter({ ...options, idPrefix: dataset.idPrefix });
    this.#row = start.row;
    this.#rejected = start.rejected;
    this.#skip = 1 + start.row;
  }

  /** The position after the last row read. */
  get read(): FilePosition {
    return { row: this.#row, rejected: this.#rejected };
  }

  /** All rows before this position were handed over, in a chunk or as rejected. */
  get handedOver(): FilePosition {
    return this.#writer.oldest ?? this.read;
  }

  /**
   * Reads at most `rowsMax` rows from `bytes[at]` on.
   * @returns the position after the last byte read
   */
  push(bytes: Buffer, at = 0, rowsMax = Number.POSITIVE_INFINITY): number {
    const wholeEnd = bytes.lastIndexOf(newline) + 1;
    const rowEnd = this.#row + rowsMax;
    let p = at;
    while (p < bytes.length && this.#row < rowEnd) {
      const whole = this.#carryBytes === 0 && p < wholeEnd;
      p = whole ? this.#readRows(bytes, p, wholeEnd, rowEnd) : this.#readThroughCarry(bytes, p);
    }
    return p;
  }

  /** Ends the file, whose last line may lack a newline, and hands over all open chunks. */
  end(): void {
    if (this.#carryBytes > 0) this.#readThroughCarry(Buffer.of(newline), 0);
    this.cut();
  }

  /**
   * Adds a whole group to the open chunk of its partition, which replaces it. Where the group does not fit, its first part
   * replaces and the rest follows as plain upserts in the same partition.
   * @param rows none to empty the group
   */
  replaceGroup(group: number, rows?: GroupRows): GroupOutcome {
    const rejectedBefore = this.#rejected;
    this.#enterBlock(blockOfGroup(group));
    this.#writer.replace(this.#partition, this.#block, group);
    this.#maskLow = 0;
    this.#maskHigh = 0;
    if (rows !== undefined) {
      this.#isReplacing = true;
      this.#skip = 0;
      rows.forEachRun((bytes, start, end, firstRow) => {
        this.#row = firstRow;
        this.#readRows(bytes, start, end, Number.POSITIVE_INFINITY);
      });
      this.#isReplacing = false;
    }
    const rejected = this.#rejected - rejectedBefore;
    return { maskLow: this.#maskLow, maskHigh: this.#maskHigh, rejected };
  }

  /** Rejects the row at `start`, which has no id of the dataset. It ends with a newline. */
  rejectStray(bytes: Buffer, start: number, row: number): void {
    this.#row = row;
    this.#readWithCare(bytes, start);
  }

  /** Hands over the open chunks whose first record is before `row`. */
  cut(row?: number): void {
    this.#writer.cut(row);
  }

  /** Hands over the open chunks, then a mark of a base for every partition. */
  mark(mark: BaseMark): void {
    this.#writer.mark(mark, this.read);
  }

  /** Takes the memory of a chunk back after its value was used. */
  recycle(chunk: Chunk): void {
    this.#writer.recycle(chunk);
  }

  /** Reads whole lines from `at` to `end`. One check for invalid UTF-8 covers those that are encoded together. */
  #readRows(bytes: Buffer, at: number, end: number, rowEnd: number): number {
    let p = at;
    while (this.#skip > 0 && p < end) {
      p = bytes.indexOf(newline, p) + 1;
      this.#skip--;
    }
    while (p < end && this.#row < rowEnd) {
      const first = p;
      const loadedEnd = this.#layout.official ? this.#encoder.load(bytes, first, end) : end;
      // A line that is too long to be loaded is read alone.
      const linesEnd = Math.max(loadedEnd, first + 1);
      const isDirect = this.#layout.official && loadedEnd > first && isUtf8(bytes.subarray(first, loadedEnd));
      while (p < linesEnd && this.#row < rowEnd) {
        if (isDirect) p = first + this.#encodeLoaded(p - first, linesEnd - first, rowEnd - this.#row);
        if (p < linesEnd && this.#row < rowEnd) p = this.#readWithCare(bytes, p);
      }
    }
    return p;
  }

  /** Adds loaded rows to open chunks. @returns the place of the row that is not encoded; `to` if there is none */
  #encodeLoaded(from: number, to: number, rowsMax: number): number {
    const rowEnd = this.#row + rowsMax;
    let p = from;
    for (;;) {
      const room = this.#writer.roomOf(this.#partition, this.#isReplacing);
      const options = { ...room, rowsMax: rowEnd - this.#row, block: this.#block };
      const stopped = this.#encoder.encode(p, to, options);
      p = this.#encoder.next;
      this.#add();
      if (!this.#makesRoom(stopped)) return p;
    }
  }

  /** Adds the row in the encoder's scratch to an open chunk. @returns a negative number if it is refused */
  #encodeScratch(literal: boolean): number {
    for (;;) {
      const room = this.#writer.roomOf(this.#partition, this.#isReplacing);
      const stopped = this.#encoder.encodeScratch({ ...room, rowsMax: 1, block: this.#block }, literal);
      this.#add();
      if (!this.#makesRoom(stopped)) return stopped;
    }
  }

  /** Adds what was encoded last. */
  #add(): void {
    const encoder = this.#encoder;
    if (encoder.rows === 0) return;
    this.#writer.add(this.#partition, this.#block, this.read, encoder);
    this.#row += encoder.rows;
    if (!this.#isReplacing) return;
    this.#maskLow |= encoder.maskLow;
    this.#maskHigh |= encoder.maskHigh;
  }

  /** Makes room for the row that the encoder stopped at. @returns whether it may be encoded now */
  #makesRoom(stopped: number): boolean {
    switch (stopped) {
      case stop.atOtherBlock:
        this.#enterBlock(this.#encoder.otherBlock);
        return true;
      case stop.atCut:
      case stop.full:
        // A row that is too large for an empty chunk is refused.
        return this.#writer.cutPartition(this.#partition);
      default:
        return false;
    }
  }

  /** Reads the row at `at`, which may have another layout, be invalid or be too large. */
  #readWithCare(bytes: Buffer, at: number): number {
    const end = bytes.indexOf(newline, at);
    let lineEnd = end;
    while (lineEnd > at && bytes[lineEnd - 1] === carriageReturn) lineEnd--;
    const line = bytes.subarray(at, lineEnd);
    if (end - at > lineBytesMax) {
      this.#rejectLong(line, end - at + this.#lostBytesOf(this.#row));
    } else if (!isUtf8(line)) {
      this.#reject(line, 'utf8', 'invalid UTF-8');
    } else {
      const columns = this.#rearrange(line);
      if (columns !== this.#layout.columns) {
        this.#reject(line, 'columns', `expected ${this.#layout.columns} columns, got ${columns}`);
      } else {
        let stopped = this.#layout.quoted ? refused : this.#encodeScratch(false);
        if (stopped < 0 && stopped !== stop.full) {
          stopped = this.#makeOfficial() ? this.#encodeScratch(true) : stop.full;
        }
        if (stopped === stop.full) {
          this.#rejectLong(line, line.length);
        } else if (stopped < 0) {
          const { reason, detail } = this.#encoder.explain(stopped, this.#scratchRow());
          this.#reject(line, reason, detail);
        }
      }
    }
    return end + 1;
  }

  /** Writes the line's columns to the scratch row in their official order. @returns the line's number of columns */
  #rearrange(line: Buffer): number {
    const { order } = this.#layout;
    const starts = [0];
    for (let p = line.indexOf(tab); p >= 0; p = line.indexOf(tab, p + 1)) starts.push(p + 1);
    if (starts.length !== this.#layout.columns) return starts.length;
    const { scratch } = this.#encoder;
    let q = 0;
    for (const [index, column] of order.entries()) {
      if (index > 0) scratch[q++] = tab;
      const end = (starts[column + 1] ?? line.length + 1) - 1;
      q += line.copy(scratch, q, starts[column] as number, end);
    }
    scratch[q] = newline;
    return starts.length;
  }

  /** Replaces the values of the scratch row by their official forms. @returns whether there is room for them */
  #makeOfficial(): boolean {
    const { columns } = this.#dataset;
    const values = this.#scratchRow().toString().split('\t');
    const row = columns.map((column, index) =>
      officialValue(column, this.#layout.quoted ? unquoted(values[index] ?? '') : (values[index] ?? '')),
    );
    const bytes = Buffer.from(`${row.join('\t')}\n`);
    return bytes.copy(this.#encoder.scratch) === bytes.length;
  }

  #scratchRow(): Buffer {
    const { scratch } = this.#encoder;
    return scratch.subarray(0, scratch.indexOf(newline));
  }

  #enterBlock(block: number): void {
    if (block === this.#block) return;
    this.#block = block;
    let partition = this.#partitionOfBlock[block] as number;
    if (partition < 0) {
      partition = partitionOf(blockKey(this.#dataset.idPrefix, block), this.#shards);
      this.#partitionOfBlock[block] = partition;
    }
    this.#partition = partition;
  }

  #readThroughCarry(bytes: Buffer, at: number): number {
    const found = bytes.indexOf(newline, at);
    const end = found < 0 ? bytes.length : found + 1;
    const kept = Math.min(end - at, Math.max(0, lineBytesMax + 1 - this.#carryBytes));
    const needed = this.#carryBytes + kept;
    if (needed > this.#carry.length) {
      const grown = Buffer.allocUnsafe(2 * needed);
      this.#carry.copy(grown, 0, 0, this.#carryBytes);
      this.#carry = grown;
    }
    bytes.copy(this.#carry, this.#carryBytes, at, at + kept);
    this.#carryBytes += kept;
    this.#carryLost += end - at - kept;
    if (found < 0) return end;

    const length = this.#carryBytes;
    const lost = this.#carryLost;
    this.#carryBytes = 0;
    this.#carryLost = 0;
    if (lost === 0) {
      this.#readRows(this.#carry, 0, length, Number.POSITIVE_INFINITY);
    } else if (this.#skip > 0) {
      this.#skip--;
    } else {
      this.#rejectLong(this.#carry.subarray(0, length), length + lost - 1);
    }
    return end;
  }

  #rejectLong(line: Buffer, lineBytes: number): void {
    this.#reject(line, 'too_large', `${lineBytes} bytes exceed a chunk of ${messageBytesMax}`, lineBytes);
  }

  #reject(line: Buffer, reason: RowRejectReason, detail: string, originalBytes = line.length): void {
    const id = this.#ids.at(Buffer.concat([line.subarray(0, 16), Buffer.of(newline)]), 0);
    this.#onRejected({
      row: this.#row,
      line: this.#row + 2,
      reason,
      detail,
      original: Buffer.from(line.subarray(0, deadLetterBytesMax)),
      originalBytes,
      key: id < 0 ? null : blockKey(this.#dataset.idPrefix, Math.floor(id / blockSize)),
      from: this.read,
    });
    this.#row++;
    this.#rejected++;
  }
}
