/**
 * Turns the bytes of one file, in pieces of any size, into chunks: Avro in the Confluent wire format, one open chunk per
 * partition. Each row ends up in exactly one chunk or is rejected once, and a partition keeps the order of the file. The
 * result does not depend on the sizes of the pieces. The chunker knows neither Kafka nor files.
 */
import { isUtf8 } from 'node:buffer';
import { type BaseMark, baseMarkBytes } from '../topics/base.ts';
import {
  blockKey,
  blockSize,
  type Dataset,
  deadLetterBytesMax,
  idMax,
  messageBytesMax,
  partitionOf,
} from '../topics/catalog.ts';
import { blockOfGroup, groupSize } from '../topics/id-groups.ts';
import { HeaderWriter, marginBytes } from './chunk-header.ts';
import { officialValue, unquoted } from './equal-values.ts';
import type { Layout } from './file-layout.ts';
import { full, type Room, RowEncoder, roomOf } from './row-encoder.ts';
import type { RowRejectReason } from './row-refusal.ts';

/** A chunk closes at the first change of id after this many bytes: large enough to compress well. */
export const chunkBytesMax = 500_000;
/** … or after this many records, which bounds what a consumer decodes at once. */
const chunkRecordsMax = 20_000;

/** A position in a file. */
export interface Mark {
  /** Rows before this point; the header is no row. */
  readonly row: number;
  /** How many of them were rejected. */
  readonly rejected: number;
}

export interface Chunk {
  readonly partition: number;
  /** Block of the first record. */
  readonly key: string;
  /** Valid until `recycle` gets the chunk back. */
  readonly value: Buffer;
  readonly records: number;
  /** All rows of the chunk come after this mark. */
  readonly from: Mark;
  /** The memory that holds the value, from `start` on. */
  readonly room: Room;
  readonly start: number;
}

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
  readonly from: Mark;
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
  readonly start?: Mark;
  /** Number of the first chunk of each partition. Default: 0. */
  readonly firstChunk?: number;
  readonly onChunk: (chunk: Chunk) => void;
  readonly onRejected: (rejected: RejectedRow) => void;
}

/** A longer line is rejected without parsing: no chunk could hold it. */
const lineBytesMax = messageBytesMax;
/** Bytes that RowEncoder may touch past a row. */
const slackBytes = 4;
const newline = 0x0a;
const carriageReturn = 0x0d;
const tab = 0x09;
/** Stands for any refusal by the encoder. */
const refused = -1;

/** Rows of one group of ids, in runs of adjacent lines with their newlines. */
export interface GroupRows {
  readonly group: number;
  forEachRun(each: (bytes: Buffer, start: number, end: number, firstRow: number) => void): void;
}

/** The outcome of the rows of a group. */
export interface GroupOutcome {
  /** One bit for each id that has a record: ids 0 to 31 of the group, and 32 to 49. */
  readonly maskLow: number;
  readonly maskHigh: number;
  readonly rejected: number;
}

/** A chunk replaces at most this many groups, so that its list of them fits the space that is kept for it. */
const replacesMax = 1_500;
const replacesBytesMax = 8 * 1024;

class OpenChunk {
  readonly partition: number;
  readonly room: Room;
  /** Mark of the first record: the chunk may open for a row that is then refused. */
  from: Mark = { row: 0, rejected: 0 };
  firstBlock = 0;
  end: number;
  records = 0;
  lastId = -1;
  /** Groups that the chunk replaces. */
  replaces: number[] = [];

  constructor(partition: number, room: Room, start: number) {
    this.partition = partition;
    this.room = room;
    this.end = start;
  }
}

export class Chunker {
  readonly #dataset: Dataset;
  readonly #layout: Layout;
  readonly #shards: number;
  readonly #onChunk: (chunk: Chunk) => void;
  readonly #onRejected: (rejected: RejectedRow) => void;
  readonly #encoder: RowEncoder;
  readonly #header: HeaderWriter;
  readonly #cutAt: number;
  readonly #partitionOfBlock = new Int16Array(Math.floor(idMax / blockSize) + 1).fill(-1);
  readonly #nextChunk: number[];

  readonly #open: (OpenChunk | undefined)[];
  /** Block and partition of the previous row: rows of a block mostly come together. */
  #block = -1;
  #partition = 0;
  #pool: Room[] = [];

  /** Lines still to skip: the header, and the rows before `start`. */
  #skip: number;
  #row: number;
  #rejected: number;

  /** The beginning of a line that continues in the next piece. */
  #carry = roomOf(Buffer.allocUnsafe(64 * 1024));
  #carryBytes = 0;
  /** Bytes of that line beyond the limit, which are not kept. */
  #carryLost = 0;
  #scratch = roomOf(Buffer.allocUnsafe(64 * 1024));

  /** Inside `replaceGroup` a chunk is cut only where it is full: the group goes into one message if it fits. */
  #isReplacing = false;
  #maskLow = 0;
  #maskHigh = 0;
  #groupRoom = this.#scratch;

  constructor(options: ChunkerOptions) {
    this.#dataset = options.dataset;
    this.#layout = options.layout;
    this.#shards = options.shards;
    this.#onChunk = options.onChunk;
    this.#onRejected = options.onRejected;
    this.#encoder = new RowEncoder(options.dataset);
    this.#header = new HeaderWriter(options.schemaId, options.runId, options.asOf);
    this.#cutAt = this.#header.end + chunkBytesMax;
    this.#nextChunk = Array(options.shards).fill(options.firstChunk ?? 0);
    this.#open = Array(options.shards).fill(undefined);
    const start = options.start ?? { row: 0, rejected: 0 };
    this.#row = start.row;
    this.#rejected = start.rejected;
    this.#skip = 1 + start.row;
  }

  /** The position after the last row read. */
  get read(): Mark {
    return { row: this.#row, rejected: this.#rejected };
  }

  /** All rows before this mark were handed over, in a chunk or as rejected. */
  get handedOver(): Mark {
    let oldest = this.read;
    for (const open of this.#open) {
      if (open !== undefined && open.records > 0 && open.from.row < oldest.row) oldest = open.from;
    }
    return oldest;
  }

  /**
   * Reads at most `rowsMax` rows from `bytes[at]` on.
   * @returns the position after the last byte read
   */
  push(bytes: Buffer, at = 0, rowsMax = Number.POSITIVE_INFINITY): number {
    const input = roomOf(bytes);
    const wholeEnd = bytes.lastIndexOf(newline, bytes.length - slackBytes) + 1;
    const rowEnd = this.#row + rowsMax;
    let p = at;
    while (p < bytes.length && this.#row < rowEnd) {
      const whole = this.#carryBytes === 0 && p < wholeEnd;
      p = whole ? this.#readRows(input, p, wholeEnd, rowEnd) : this.#readThroughCarry(bytes, p);
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
    const block = blockOfGroup(group);
    this.#block = block;
    this.#partition = this.#partitionOf(block);
    let open = this.#open[this.#partition];
    if (
      open !== undefined &&
      (open.records >= chunkRecordsMax || open.end >= this.#cutAt || open.replaces.length === replacesMax)
    ) {
      this.#cut(open);
      open = undefined;
    }
    open ??= this.#begin();
    if (open.records === 0 && open.replaces.length === 0) open.firstBlock = block;
    open.replaces.push(group);
    this.#maskLow = 0;
    this.#maskHigh = 0;
    if (rows !== undefined) {
      this.#isReplacing = true;
      this.#skip = 0;
      rows.forEachRun((bytes, start, end, firstRow) => {
        this.#row = firstRow;
        if (this.#groupRoom.bytes !== bytes) this.#groupRoom = roomOf(bytes);
        this.#readRows(this.#groupRoom, start, end, Number.POSITIVE_INFINITY);
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
  cut(row = Number.POSITIVE_INFINITY): void {
    for (const open of this.#open) if (open !== undefined && open.from.row < row) this.#cut(open);
  }

  /** Hands over the open chunks, then a mark of a base for every partition. */
  mark(mark: BaseMark): void {
    this.cut();
    for (let partition = 0; partition < this.#shards; partition++) {
      const room = this.#roomForChunk();
      const number = this.#nextChunk[partition] as number;
      this.#nextChunk[partition] = number + 1;
      // A count of records that is 0 ends them already.
      const start = this.#header.write(room.bytes, number, 0);
      let end = this.#header.end;
      room.bytes[end++] = 0; // no deletes
      room.bytes[end++] = 0; // no groups
      end += baseMarkBytes(mark).copy(room.bytes, end);
      const value = room.bytes.subarray(start, end);
      this.#onChunk({ partition, key: 'base', value, records: 0, from: this.read, room, start });
    }
  }

  /** Takes the memory of a chunk back after its value was used. */
  recycle(chunk: Chunk): void {
    this.#pool.push(chunk.room);
  }

  /** Reads whole lines from `at` to `end`. One check for invalid UTF-8 covers all of them. */
  #readRows(input: Room, at: number, end: number, rowEnd: number): number {
    const { bytes } = input;
    let p = at;
    while (this.#skip > 0 && p < end) {
      p = bytes.indexOf(newline, p) + 1;
      this.#skip--;
    }
    if (p === end) return p;
    const direct = this.#layout.official && isUtf8(bytes.subarray(p, end));
    while (p < end && this.#row < rowEnd) {
      const next = direct ? this.#encode(input, p) : refused;
      if (next > 0) {
        p = next;
        this.#row++;
      } else {
        p = this.#readWithCare(bytes, p);
      }
    }
    return p;
  }

  /** Reads the row at `at`, which may have another layout, be invalid or be too large. */
  #readWithCare(bytes: Buffer, at: number): number {
    const end = bytes.indexOf(newline, at);
    let lineEnd = end;
    while (lineEnd > at && bytes[lineEnd - 1] === carriageReturn) lineEnd--;
    const line = bytes.subarray(at, lineEnd);
    if (end - at > lineBytesMax) {
      this.#rejectLong(line, end - at);
    } else if (!isUtf8(line)) {
      this.#reject(line, 'utf8', 'invalid UTF-8');
    } else {
      const columns = this.#rearrange(line);
      if (columns !== this.#layout.columns) {
        this.#reject(line, 'columns', `expected ${this.#layout.columns} columns, got ${columns}`);
      } else {
        let next = this.#layout.quoted ? refused : this.#encode(this.#scratch, 0);
        if (next < 0 && next !== full) {
          this.#makeOfficial();
          next = this.#encode(this.#scratch, 0, true);
        }
        if (next === full) {
          this.#rejectLong(line, line.length);
        } else if (next < 0) {
          const { reason, detail } = this.#encoder.explain(next, this.#scratchRow());
          this.#reject(line, reason, detail);
        }
      }
    }
    this.#row++;
    return end + 1;
  }

  /** Writes the line's columns to the scratch row in their official order. @returns the line's number of columns */
  #rearrange(line: Buffer): number {
    const { order } = this.#layout;
    const starts = [0];
    for (let p = line.indexOf(tab); p >= 0; p = line.indexOf(tab, p + 1)) starts.push(p + 1);
    if (starts.length !== this.#layout.columns) return starts.length;
    if (this.#scratch.bytes.length < line.length + 1 + slackBytes) {
      this.#scratch = roomOf(Buffer.allocUnsafe(2 * line.length + 1 + slackBytes));
    }
    const scratch = this.#scratch.bytes;
    let q = 0;
    for (const [index, column] of order.entries()) {
      if (index > 0) scratch[q++] = tab;
      const end = (starts[column + 1] ?? line.length + 1) - 1;
      q += line.copy(scratch, q, starts[column] as number, end);
    }
    scratch[q] = newline;
    return starts.length;
  }

  /** Replaces the values of the scratch row by their official forms. */
  #makeOfficial(): void {
    const { columns } = this.#dataset;
    const values = this.#scratchRow().toString().split('\t');
    const row = columns.map((column, index) =>
      officialValue(column, this.#layout.quoted ? unquoted(values[index] ?? '') : (values[index] ?? '')),
    );
    const bytes = Buffer.from(`${row.join('\t')}\n`);
    const needed = bytes.length + slackBytes;
    if (this.#scratch.bytes.length < needed) this.#scratch = roomOf(Buffer.allocUnsafe(2 * needed));
    bytes.copy(this.#scratch.bytes);
  }

  #scratchRow(): Buffer {
    return this.#scratch.bytes.subarray(0, this.#scratch.bytes.indexOf(newline));
  }

  /**
   * Adds the row at `at` to the open chunk of its partition, or to a new one.
   * @returns the position after the row; negative if the row is refused
   */
  #encode(input: Room, at: number, literal = false): number {
    const id = this.#encoder.idAt(input.bytes, at);
    if (id < 0) return id;
    const block = Math.floor(id / blockSize);
    if (block !== this.#block) {
      this.#partition = this.#partitionOf(block);
      this.#block = block;
    }
    let open = this.#open[this.#partition];
    if (open === undefined) {
      open = this.#begin();
    } else if (
      id !== open.lastId &&
      (open.records >= chunkRecordsMax || open.end >= this.#cutAt) &&
      !this.#isReplacing
    ) {
      this.#cut(open);
      open = this.#begin();
    }
    for (;;) {
      const hasGroups = open.replaces.length > 0;
      const limit = hasGroups ? recordsEndWithGroups : recordsEnd;
      const next = this.#encoder.encode(input, at, id, open.room, open.end, limit, literal);
      if (
        next === full &&
        (open.records > 0 || hasGroups) &&
        input.bytes.indexOf(newline, at) - at <= lineBytesMax
      ) {
        this.#cut(open);
        open = this.#begin();
        continue;
      }
      if (next > 0) {
        if (open.records === 0) {
          open.from = this.read;
          if (open.replaces.length === 0) open.firstBlock = block;
        }
        open.end = this.#encoder.recordEnd;
        open.records++;
        open.lastId = id;
        if (this.#isReplacing) this.#noteId(id % groupSize);
      }
      return next;
    }
  }

  #noteId(bit: number): void {
    if (bit < 32) this.#maskLow |= 1 << bit;
    else this.#maskHigh |= 1 << (bit - 32);
  }

  #partitionOf(block: number): number {
    let partition = this.#partitionOfBlock[block] as number;
    if (partition < 0) {
      partition = partitionOf(blockKey(this.#dataset.idPrefix, block), this.#shards);
      this.#partitionOfBlock[block] = partition;
    }
    return partition;
  }

  #begin(): OpenChunk {
    const open = new OpenChunk(this.#partition, this.#roomForChunk(), this.#header.end);
    this.#open[this.#partition] = open;
    return open;
  }

  #roomForChunk(): Room {
    return this.#pool.pop() ?? roomOf(Buffer.allocUnsafeSlow(messageBytesMax + 2 * marginBytes));
  }

  #cut(open: OpenChunk): void {
    this.#open[open.partition] = undefined;
    const { replaces } = open;
    if (open.records === 0 && replaces.length === 0) {
      this.#pool.push(open.room);
      return;
    }
    const { bytes } = open.room;
    const number = this.#nextChunk[open.partition] as number;
    this.#nextChunk[open.partition] = number + 1;
    const start = this.#header.write(bytes, number, open.records);
    // A count of records that is 0 ends them already.
    let end = open.end;
    if (open.records > 0) bytes[end++] = 0; // the end of the records
    bytes[end++] = 0; // no deletes
    end = writeGroups(bytes, end, replaces);
    bytes[end++] = 0; // no mark of a base
    this.#onChunk({
      partition: open.partition,
      key: blockKey(this.#dataset.idPrefix, open.firstBlock),
      value: bytes.subarray(start, end),
      records: open.records,
      from: open.from,
      room: open.room,
      start,
    });
  }

  #readThroughCarry(bytes: Buffer, at: number): number {
    const found = bytes.indexOf(newline, at);
    const end = found < 0 ? bytes.length : found + 1;
    const kept = Math.min(end - at, Math.max(0, lineBytesMax + 1 - this.#carryBytes));
    const needed = this.#carryBytes + kept + slackBytes;
    if (needed > this.#carry.bytes.length) {
      const grown = roomOf(Buffer.allocUnsafe(2 * needed));
      this.#carry.bytes.copy(grown.bytes, 0, 0, this.#carryBytes);
      this.#carry = grown;
    }
    bytes.copy(this.#carry.bytes, this.#carryBytes, at, at + kept);
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
      this.#rejectLong(this.#carry.bytes.subarray(0, length), length + lost - 1);
      this.#row++;
    }
    return end;
  }

  #rejectLong(line: Buffer, lineBytes: number): void {
    this.#reject(line, 'too_large', `${lineBytes} bytes exceed a chunk of ${messageBytesMax}`, lineBytes);
  }

  #reject(line: Buffer, reason: RowRejectReason, detail: string, originalBytes = line.length): void {
    const id = this.#encoder.idAt(Buffer.concat([line.subarray(0, 16), Buffer.of(newline)]), 0);
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
    this.#rejected++;
  }
}

/** Records end before the zeros that close records and deletes, the groups that are replaced, and the mark of a base. */
const recordsEnd = marginBytes + messageBytesMax - 4;
/** The same where groups are replaced. */
const recordsEndWithGroups = recordsEnd - replacesBytesMax;

/** Writes an Avro array of ints. @returns the position behind it */
function writeGroups(bytes: Buffer, at: number, groups: readonly number[]): number {
  let p = at;
  const write = (value: number) => {
    let rest = value * 2;
    for (; rest > 0x7f; rest >>>= 7) bytes[p++] = (rest & 0x7f) | 0x80;
    bytes[p++] = rest;
  };
  if (groups.length > 0) {
    write(groups.length);
    for (const group of groups) write(group);
  }
  bytes[p++] = 0;
  return p;
}
