/**
 * Turns rows of a dataset's file into Avro records, bytes to bytes, in WebAssembly, which is more than twice as fast as the
 * same loop in JavaScript. `kernels/encode-rows.ts` decides which values are valid.
 *
 * Between two calls an encoder keeps only the rows that were loaded last, so all chunkers of a dataset share one.
 */
import type { Column, Dataset } from '../topics/catalog.ts';
import { isCoded } from './equal-values.ts';
import { instanceOf } from './kernel.ts';
import { explainRefusal, type RowRejectReason } from './row-refusal.ts';

/** What stops `encode`: the end of the rows; a row of another block; a chunk that has to be cut; or a row that is not encoded. */
export const stop = { atEnd: 0, atOtherBlock: 1, atCut: 2, full: -7 } as const;
/** Reasons for the results -1, -2 and so on. */
const refusals: readonly RowRejectReason[] = ['columns', 'integer', 'rating', 'id', 'boolean', 'null'];

const newline = 0x0a;

/** Codes of the kinds of columns in the kernel. */
function kindOf(column: Column): number {
  const { name, type } = column;
  switch (type) {
    case 'string':
      if (name === 'nconst') return 8;
      return name === 'titleId' || name.toLowerCase().endsWith('tconst') ? 7 : 0;
    case 'nullable-string':
      return isCoded(column) ? 9 : 1;
    case 'int':
      return 2;
    case 'nullable-int':
      return 3;
    case 'boolean':
      return 4;
    case 'nullable-boolean':
      return 5;
    case 'tenths':
      return 6;
  }
}

/** See `kernels/encode-rows.ts`. */
interface Kernel {
  readonly memory: WebAssembly.Memory;
  readonly resultsAt: WebAssembly.Constant;
  readonly kindsAt: WebAssembly.Constant;
  readonly inputAt: WebAssembly.Constant;
  readonly inputBytes: WebAssembly.Constant;
  readonly scratchAt: WebAssembly.Constant;
  readonly scratchBytes: WebAssembly.Constant;
  readonly outputAt: WebAssembly.Constant;
  configure(columns: number, prefix: number): void;
  encodeRows(
    from: number,
    to: number,
    rowsMax: number,
    block: number,
    lastId: number,
    cutAt: number,
    cutRows: number,
    limit: number,
    literal: boolean,
  ): number;
}

const encoders = new Map<Dataset, RowEncoder>();

interface EncodeOptions {
  readonly rowsMax: number;
  /** The rows are of this block; the encoder stops before one of another. */
  readonly block: number;
  /** The id of the row before: a chunk is not cut between rows of one id. */
  readonly lastId: number;
  /** Records of another id begin only before this many bytes and rows. */
  readonly cutBytes: number;
  readonly cutRows: number;
  /** Bytes that the records must not pass. */
  readonly bytesMax: number;
}

const rowsMaxOfCall = 2 ** 31 - 1;

export class RowEncoder {
  /** After `encode`: the place behind the rows that were encoded, and their number. */
  next = 0;
  rows = 0;
  /** The id of the last one. */
  lastId = -1;
  /** The block of the row that is of another one. */
  otherBlock = -1;
  /** One bit for each id that was encoded: ids 0 to 31 of a group, and 32 to 49. */
  maskLow = 0;
  maskHigh = 0;
  /** The invalid column of a refused row, from 0. */
  #column = 0;
  #recordsEnd = 0;

  /** Takes one row, with its newline. */
  readonly scratch: Buffer;
  readonly #input: Buffer;
  readonly #dataset: Dataset;
  readonly #kernel: Kernel;
  readonly #results: Int32Array;
  readonly #memory: Buffer;
  readonly #inputAt: number;
  readonly #scratchAt: number;
  readonly #outputAt: number;

  /** The encoder of a dataset. */
  static of(dataset: Dataset): RowEncoder {
    let encoder = encoders.get(dataset);
    if (encoder === undefined) {
      encoder = new RowEncoder(dataset);
      encoders.set(dataset, encoder);
    }
    return encoder;
  }

  private constructor(dataset: Dataset) {
    const kernel = instanceOf<Kernel>('encode-rows');
    const { buffer } = kernel.memory;
    this.#dataset = dataset;
    this.#kernel = kernel;
    this.#inputAt = kernel.inputAt.value;
    this.#scratchAt = kernel.scratchAt.value;
    this.#outputAt = kernel.outputAt.value;
    this.#memory = Buffer.from(buffer);
    this.#input = Buffer.from(buffer, this.#inputAt, kernel.inputBytes.value);
    this.scratch = Buffer.from(buffer, this.#scratchAt, kernel.scratchBytes.value);
    this.#results = new Int32Array(buffer, kernel.resultsAt.value, 8);
    this.#memory.set(dataset.columns.map(kindOf), kernel.kindsAt.value);
    kernel.configure(dataset.columns.length, dataset.idPrefix.charCodeAt(0));
  }

  /**
   * Loads as many whole lines from `from` on as there is room for.
   * @param end lies behind a newline
   * @returns where they end; `from` if the first one is too long for any record
   */
  load(bytes: Buffer, from: number, end: number): number {
    const room = this.#input.length;
    const to = end - from <= room ? end : bytes.lastIndexOf(newline, from + room - 1) + 1;
    if (to <= from) return from;
    bytes.copy(this.#input, 0, from, to);
    return to;
  }

  /** Encodes loaded rows from place `from` to place `to`. @returns what stopped it */
  encode(from: number, to: number, options: EncodeOptions): number {
    return this.#encode(this.#inputAt, from, to, options, false);
  }

  /**
   * Encodes the row in `scratch`.
   * @param literal take texts as they are; else the encoder refuses a row whose texts may have another official form
   */
  encodeScratch(options: EncodeOptions, literal: boolean): number {
    return this.#encode(this.#scratchAt, 0, 1, options, literal);
  }

  /** Copies the records of the last call. @returns where they end */
  copyRecords(into: Buffer, at: number): number {
    return at + this.#memory.copy(into, at, this.#outputAt, this.#recordsEnd);
  }

  /** The reason and detail for the row that was refused last. @param row without its newline */
  explain(refusal: number, row: Buffer): { reason: RowRejectReason; detail: string } {
    return explainRefusal(this.#dataset, row, {
      reason: refusals[-refusal - 1] ?? 'columns',
      column: this.#column,
    });
  }

  #encode(base: number, from: number, to: number, options: EncodeOptions, literal: boolean): number {
    const { rowsMax, block, lastId, cutBytes, cutRows, bytesMax } = options;
    const outputAt = this.#outputAt;
    const stopped = this.#kernel.encodeRows(
      base + from,
      base + to,
      Math.min(rowsMax, rowsMaxOfCall),
      block,
      lastId,
      outputAt + cutBytes,
      cutRows,
      outputAt + bytesMax,
      literal,
    );
    const results = this.#results;
    this.next = (results[0] as number) - base;
    this.#recordsEnd = results[1] as number;
    this.rows = results[2] as number;
    this.lastId = results[3] as number;
    this.#column = results[4] as number;
    this.otherBlock = results[5] as number;
    this.maskLow = results[6] as number;
    this.maskHigh = results[7] as number;
    return stopped;
  }
}
