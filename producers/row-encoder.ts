/**
 * Turns one row of a file into one Avro record: bytes to bytes in one pass, without a string or an object. This loop is
 * the hot path of the producers, so it stays in one piece. It alone decides which values are valid.
 *
 * The encoder reads up to four bytes past the newline of a row and writes up to four bytes past the end of a record;
 * the caller provides that room.
 */
import type { Column, Dataset } from '../topics/catalog.ts';
import { isCoded, isNullText } from './equal-values.ts';
import { copyId, idLength, notId, parseId, personPrefix, titlePrefix } from './row-ids.ts';
import { explainRefusal, type RowRejectReason } from './row-refusal.ts';

// What encode() and idAt() return instead of a position or an id.
const refusals: readonly RowRejectReason[] = ['columns', 'integer', 'rating', 'id', 'boolean', 'null'];
const notColumns = -1;
const notInteger = -2;
const notRating = -3;
const notBoolean = -5;
const notNull = -6;
/** A value may have an official form: see `officialValue`. */
const notOfficial = -8;
/** encode() found no room for the record: start a new chunk and try again. */
export const full = -7;

const tab = 0x09;
const newline = 0x0a;
const backslash = 0x5c;
const minus = 0x2d;
const zero = 0x30;
const point = 0x2e;
const capitalN = 0x4e;
const carriageReturn = 0x0d;
const quote = 0x22;
const smallN = 0x6e;
const less = 0x3c;

const kind = {
  string: 0,
  nullableString: 1,
  /** A count or an ordinal: from 0 up. */
  count: 2,
  nullableInt: 3,
  boolean: 4,
  nullableBoolean: 5,
  tenths: 6,
  titleId: 7,
  personId: 8,
  /** A nullable string in which `NaN` and the like mean a missing value. */
  codedString: 9,
} as const;

function kindOf(column: Column): number {
  const { name, type } = column;
  switch (type) {
    case 'string':
      if (name === 'nconst') return kind.personId;
      return name === 'titleId' || name.toLowerCase().endsWith('tconst') ? kind.titleId : kind.string;
    case 'nullable-string':
      return isCoded(column) ? kind.codedString : kind.nullableString;
    case 'int':
      return kind.count;
    case 'nullable-int':
      return kind.nullableInt;
    case 'boolean':
      return kind.boolean;
    case 'nullable-boolean':
      return kind.nullableBoolean;
    case 'tenths':
      return kind.tenths;
  }
}

/** −2^31 is excluded: stores use it to mark a null. */
const intMin = -(2 ** 31) + 1;
const intMax = 2 ** 31 - 1;
const intDigitsMax = 10;

/** More than all fixed-width fields of a record together, ids included. */
const fixedBytesMax = 160;

/** The little-endian doubles of 0.0, 0.1, … 10.0, eight bytes each. */
const tenthsBytes = new Uint8Array(Float64Array.from({ length: 101 }, (_, tenths) => tenths / 10).buffer);

/** Memory for rows or records, seen as bytes and as words. */
export interface Room {
  readonly bytes: Buffer;
  readonly view: DataView;
}

export function roomOf(bytes: Buffer): Room {
  return { bytes, view: new DataView(bytes.buffer, bytes.byteOffset, bytes.length) };
}

export class RowEncoder {
  /** After encode() accepted a row: where its record ends. */
  recordEnd = 0;
  /** After encode() or idAt() refused a row: the invalid column, from 0. */
  column = 0;

  readonly #dataset: Dataset;
  readonly #kinds: Uint8Array;
  readonly #prefix: number;

  constructor(dataset: Dataset) {
    this.#dataset = dataset;
    this.#kinds = Uint8Array.from(dataset.columns, kindOf);
    this.#prefix = dataset.idPrefix.charCodeAt(0);
  }

  /** The number in the id that starts the row, at most nine digits; negative if it is no id of this dataset. */
  idAt(bytes: Buffer, at: number): number {
    this.column = 0;
    return parseId(bytes, at, this.#prefix);
  }

  /**
   * Writes the Avro record of the row with this id, which starts at `from` and ends with a newline.
   * @param limit position of `room` that the record must not pass
   * @param literal take texts as they are; else the encoder refuses a row whose texts may have another official form
   * @returns the position after the newline; `full`; or another negative number: the row is refused
   */
  encode(
    input: Room,
    from: number,
    id: number,
    room: Room,
    start: number,
    limit: number,
    literal: boolean,
  ): number {
    const { bytes, view } = input;
    const { bytes: out, view: outView } = room;
    const kinds = this.#kinds;
    const last = kinds.length - 1;
    const stringLimit = limit - fixedBytesMax;
    if (start > stringLimit) return full;

    const idBytes = idLength(id);
    out[start] = idBytes << 1;
    copyId(view, from, outView, start + 1);
    let q = start + 1 + idBytes;
    let p = from + idBytes;

    for (let column = 1; column <= last; column++) {
      if (bytes[p] !== tab) return this.#refuse(column, notColumns);
      p++;
      const code = kinds[column] as number;
      const first = bytes[p] as number;
      const isNull = first === backslash && bytes[p + 1] === capitalN && endsField(bytes[p + 2] as number);
      switch (code) {
        case kind.string:
        case kind.nullableString:
        case kind.codedString: {
          if (isNull) {
            if (code === kind.string) return this.#refuse(column, notNull);
            out[q++] = 0;
            p += 2;
            break;
          }
          if (code !== kind.string) {
            if (endsField(first)) {
              out[q++] = 0;
              break;
            }
            out[q++] = 2;
          }
          // Copies four bytes at a time, then tests whether one of them is below 11, as tab and newline are.
          const lengthAt = q;
          q++;
          for (;;) {
            if (q > stringLimit) return full;
            const word = view.getInt32(p, true);
            outView.setInt32(q, word, true);
            const low = (word - 0x0b0b0b0b) & ~word & 0x80808080;
            if (low === 0) {
              p += 4;
              q += 4;
              continue;
            }
            const ahead = (31 - Math.clz32(low & -low)) >> 3;
            p += ahead;
            q += ahead;
            if (endsField(bytes[p] as number)) break;
            p++;
            q++;
          }
          const length = q - lengthAt - 1;
          if (!literal) {
            if (first === quote && bytes[p - 1] === quote) return this.#refuse(column, notOfficial);
            if (
              code === kind.codedString &&
              (length === 3 || length === 4) &&
              meansNull(bytes, p - length, p)
            ) {
              return this.#refuse(column, notOfficial);
            }
          }
          if (length < 64) {
            out[lengthAt] = length << 1;
          } else {
            const extra = length < 8_192 ? 1 : 2;
            out.copyWithin(lengthAt + 1 + extra, lengthAt + 1, q);
            writeVarint(out, lengthAt, length << 1);
            q += extra;
          }
          break;
        }
        case kind.count:
        case kind.nullableInt: {
          if (isNull) {
            if (code === kind.count) return this.#refuse(column, notNull);
            out[q++] = 0;
            p += 2;
            break;
          }
          const negative = first === minus;
          if (negative) p++;
          const digitsAt = p;
          let value = 0;
          for (;;) {
            const digit = (bytes[p] as number) - zero;
            if (digit < 0 || digit > 9) break;
            value = value * 10 + digit;
            p++;
          }
          const digits = p - digitsAt;
          if (negative) value = -value;
          if (digits === 0 || digits > intDigitsMax || value < intMin || value > intMax) {
            return this.#refuse(column, notInteger);
          }
          if (code === kind.nullableInt) out[q++] = 2;
          else if (negative) return this.#refuse(column, notInteger);
          q = writeVarint(out, q, (value << 1) ^ (value >> 31));
          if (!endsField(bytes[p] as number)) return this.#refuse(column, notInteger);
          break;
        }
        case kind.boolean:
        case kind.nullableBoolean: {
          if (isNull) {
            if (code === kind.boolean) return this.#refuse(column, notNull);
            out[q++] = 0;
            p += 2;
            break;
          }
          const digit = (bytes[p] as number) - zero;
          if ((digit !== 0 && digit !== 1) || !endsField(bytes[p + 1] as number)) {
            return this.#refuse(column, notBoolean);
          }
          if (code === kind.nullableBoolean) out[q++] = 2;
          out[q++] = digit;
          p++;
          break;
        }
        case kind.tenths: {
          if (isNull) return this.#refuse(column, notNull);
          let whole = (bytes[p++] as number) - zero;
          if (whole === 1 && bytes[p] === zero) {
            whole = 10;
            p++;
          }
          let tenth = 0;
          if (bytes[p] === point) {
            tenth = (bytes[p + 1] as number) - zero;
            p += 2;
          }
          const tenths = whole * 10 + tenth;
          if (whole < 1 || tenth < 0 || tenth > 9 || tenths > 100 || !endsField(bytes[p] as number)) {
            return this.#refuse(column, notRating);
          }
          for (let i = 0; i < 8; i++) out[q + i] = tenthsBytes[tenths * 8 + i] as number;
          q += 8;
          break;
        }
        default: {
          if (isNull) return this.#refuse(column, notNull);
          const other = parseId(bytes, p, code === kind.titleId ? titlePrefix : personPrefix);
          if (other < 0) return this.#refuse(column, notId);
          const length = idLength(other);
          out[q] = length << 1;
          copyId(view, p, outView, q + 1);
          q += 1 + length;
          p += length;
        }
      }
    }
    if (bytes[p] !== newline) return this.#refuse(last, notColumns);
    if (bytes[p - 1] === carriageReturn && !literal) return this.#refuse(last, notOfficial);
    this.recordEnd = q;
    return p + 1;
  }

  /** The reason and detail for the row that encode() or idAt() refused last. @param row without its newline */
  explain(refusal: number, row: Buffer): { reason: RowRejectReason; detail: string } {
    return explainRefusal(this.#dataset, row, {
      reason: refusals[-refusal - 1] ?? 'columns',
      column: this.column,
    });
  }

  #refuse(column: number, refusal: number): number {
    this.column = column;
    return refusal;
  }
}

/** Whether the text is one of those that mean a missing value. Few texts of this length start like one. */
function meansNull(bytes: Buffer, start: number, end: number): boolean {
  const first = bytes[start];
  if (first !== capitalN && first !== smallN && first !== less) return false;
  return isNullText(bytes.toString('latin1', start, end));
}

function endsField(byte: number): boolean {
  return byte === tab || byte === newline;
}

/** @param bits zigzag-encoded value, as 32 bits without sign; @returns the position after it */
function writeVarint(out: Buffer, at: number, bits: number): number {
  let rest = bits;
  let q = at;
  while ((rest & ~0x7f) !== 0) {
    out[q++] = (rest & 0x7f) | 0x80;
    rest >>>= 7;
  }
  out[q++] = rest;
  return q;
}
