/**
 * Gathers encoded records in chunks: Avro in the Confluent wire format, one open chunk per partition. A chunk closes at the
 * first change of id after it has reached its size. A partition keeps the order of its records.
 */
import { type BaseMark, baseMarkBytes } from '../topics/base.ts';
import { blockKey, messageBytesMax } from '../topics/catalog.ts';
import { HeaderWriter, marginBytes } from './chunk-header.ts';
import type { RowEncoder } from './row-encoder.ts';

/** A chunk closes at the first change of id after this many bytes: large enough to compress well. */
export const chunkBytesTarget = 500_000;
/** … or after this many records, which bounds what a consumer decodes at once. */
const chunkRecordsMax = 20_000;

/** A position in a file. */
export interface FilePosition {
  /** Rows before this point; the header is not a row. */
  readonly row: number;
  /** How many of them were rejected. */
  readonly rejected: number;
}

/** The first of the positions in the file; undefined of none. */
export function oldestOf(positions: Iterable<FilePosition>): FilePosition | undefined {
  let oldest: FilePosition | undefined;
  for (const each of positions) if (oldest === undefined || each.row < oldest.row) oldest = each;
  return oldest;
}

export interface Chunk {
  readonly partition: number;
  /** Within its run and partition. */
  readonly number: number;
  /** Block of the first record. */
  readonly key: string;
  /** Valid until `recycle` gets the chunk back. */
  readonly value: Buffer;
  readonly records: number;
  /** All rows of the chunk come after this position. */
  readonly from: FilePosition;
  /** The memory that holds the value. */
  readonly memory: Buffer;
}

/** A chunk replaces at most this many groups, so that its list of them fits the space that is kept for it. */
const replacesMax = 1_500;
const replacesBytesMax = 8 * 1024;
/** Behind the records there is room for the end of the records, the deletes, the replaced groups and the mark of a base. */
const recordsEnd = marginBytes + messageBytesMax - 4;
/** The same where groups are replaced. */
const recordsEndWithGroups = recordsEnd - replacesBytesMax;

class OpenChunk {
  readonly partition: number;
  readonly memory: Buffer;
  /** Before the row of the first record. */
  from: FilePosition = { row: 0, rejected: 0 };
  firstBlock = 0;
  end: number;
  records = 0;
  lastId = -1;
  /** Groups that the chunk replaces. */
  replaces: number[] = [];

  constructor(partition: number, memory: Buffer, start: number) {
    this.partition = partition;
    this.memory = memory;
    this.end = start;
  }
}

interface ChunkWriterOptions {
  readonly idPrefix: 'tt' | 'nm';
  readonly shards: number;
  readonly schemaId: number;
  readonly runId: string;
  readonly asOf: Date;
  /** Number of the first chunk of each partition. Default: 0. */
  readonly firstChunk?: number;
  readonly onChunk: (chunk: Chunk) => void;
}

/** The space that the open chunk of a partition has left. */
interface ChunkRoom {
  readonly lastId: number;
  readonly cutBytes: number;
  readonly cutRows: number;
  readonly bytesMax: number;
}

export class ChunkWriter {
  readonly #options: ChunkWriterOptions;
  readonly #header: HeaderWriter;
  readonly #cutAt: number;
  readonly #nextChunk: number[];
  readonly #open: (OpenChunk | undefined)[];
  readonly #pool: Buffer[] = [];

  constructor(options: ChunkWriterOptions) {
    const { schemaId, runId, asOf, shards, firstChunk = 0 } = options;
    this.#options = options;
    this.#header = new HeaderWriter(schemaId, runId, asOf);
    this.#cutAt = this.#header.end + chunkBytesTarget;
    this.#nextChunk = Array(shards).fill(firstChunk);
    this.#open = Array(shards).fill(undefined);
  }

  /** Before the oldest record in an open chunk. */
  get oldest(): FilePosition | undefined {
    return oldestOf(
      this.#open.flatMap((open) => (open === undefined || open.records === 0 ? [] : [open.from])),
    );
  }

  /** @param isOneGroup cut only where the chunk is full: the records are of a group that should lie in one chunk */
  roomOf(partition: number, isOneGroup: boolean): ChunkRoom {
    const open = this.#open[partition];
    const { lastId = -1, end = this.#header.end, records = 0, replaces = [] } = open ?? {};
    return {
      lastId,
      cutBytes: isOneGroup ? messageBytesMax : this.#cutAt - end,
      cutRows: isOneGroup ? messageBytesMax : chunkRecordsMax - records,
      bytesMax: (replaces.length > 0 ? recordsEndWithGroups : recordsEnd) - end,
    };
  }

  /** Adds the records that were encoded last. @param from the position before their rows */
  add(partition: number, block: number, from: FilePosition, encoded: RowEncoder): void {
    const open = this.#open[partition] ?? this.#begin(partition);
    if (open.records === 0) {
      open.from = from;
      if (open.replaces.length === 0) open.firstBlock = block;
    }
    open.end = encoded.copyRecords(open.memory, open.end);
    open.records += encoded.rows;
    open.lastId = encoded.lastId;
  }

  /** The next chunk of the partition replaces the group. */
  replace(partition: number, block: number, group: number): void {
    let open = this.#open[partition];
    if (
      open !== undefined &&
      (open.records >= chunkRecordsMax || open.end >= this.#cutAt || open.replaces.length === replacesMax)
    ) {
      this.cutPartition(partition);
      open = undefined;
    }
    open ??= this.#begin(partition);
    if (open.records === 0 && open.replaces.length === 0) open.firstBlock = block;
    open.replaces.push(group);
  }

  /** Hands over the open chunks whose first record is before `row`. */
  cut(row = Number.POSITIVE_INFINITY): void {
    for (const open of this.#open) {
      if (open !== undefined && open.from.row < row) this.cutPartition(open.partition);
    }
  }

  /** Hands over the open chunk of a partition. @returns whether there was one */
  cutPartition(partition: number): boolean {
    const open = this.#open[partition];
    if (open === undefined) return false;
    this.#open[partition] = undefined;
    const { memory, records, replaces, firstBlock, from } = open;
    const number = this.#takeNumber(partition);
    const start = this.#header.write(memory, number, records);
    // A count of records that is 0 ends them already.
    let end = open.end;
    if (records > 0) memory[end++] = 0; // the end of the records
    memory[end++] = 0; // no deletes
    end = writeGroups(memory, end, replaces);
    memory[end++] = 0; // no mark of a base
    const key = blockKey(this.#options.idPrefix, firstBlock);
    const value = memory.subarray(start, end);
    this.#options.onChunk({ partition, number, key, value, records, from, memory });
    return true;
  }

  /** Hands over the open chunks, then a mark of a base for every partition. @param from where the file was read to */
  mark(mark: BaseMark, from: FilePosition): void {
    this.cut();
    for (let partition = 0; partition < this.#options.shards; partition++) {
      const memory = this.#memory();
      // A count of records that is 0 ends them already.
      const number = this.#takeNumber(partition);
      const start = this.#header.write(memory, number, 0);
      let end = this.#header.end;
      memory[end++] = 0; // no deletes
      memory[end++] = 0; // no groups
      end += baseMarkBytes(mark).copy(memory, end);
      const value = memory.subarray(start, end);
      this.#options.onChunk({ partition, number, key: 'base', value, records: 0, from, memory });
    }
  }

  /** Takes the memory of a chunk back after its value was used. */
  recycle({ memory }: Chunk): void {
    this.#pool.push(memory);
  }

  #begin(partition: number): OpenChunk {
    const open = new OpenChunk(partition, this.#memory(), this.#header.end);
    this.#open[partition] = open;
    return open;
  }

  #takeNumber(partition: number): number {
    const number = this.#nextChunk[partition] as number;
    this.#nextChunk[partition] = number + 1;
    return number;
  }

  #memory(): Buffer {
    return this.#pool.pop() ?? Buffer.allocUnsafeSlow(messageBytesMax + 2 * marginBytes);
  }
}

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
