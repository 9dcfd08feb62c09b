/**
 * One row of a file becomes one Avro record: bytes to bytes in one pass, no string and no object on the way. This is
 * the hot path of the producers; what a row must look like to be taken is said here and nowhere else.
 *
 * The encoder reads up to four bytes past the newline of a row and writes up to four past the end of a record; who
 * calls it leaves that much room.
 */
import type { Column, Dataset } from '../topics/catalog.ts';

/** Why a row was not taken: the reason in its dead letter. */
export type RejectReason =
  | 'columns'
  | 'integer'
  | 'rating'
  | 'id'
  | 'boolean'
  | 'utf8'
  | 'null'
  | 'too_large';

// What encode() and idAt() return in place of a position or an id.
const rejectReasons: readonly RejectReason[] = ['columns', 'integer', 'rating', 'id', 'boolean', 'null'];
const notColumns = -1;
const notInteger = -2;
const notRating = -3;
const notId = -4;
const notBoolean = -5;
const notNull = -6;
/** encode() found no room for the record: start a new chunk and try again. */
export const full = -7;

const tab = 0x09;
const newline = 0x0a;
const backslash = 0x5c;
const minus = 0x2d;
const zero = 0x30;
const point = 0x2e;
const capitalN = 0x4e;

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
} as const;

function kindOf({ name, type }: Column): number {
  switch (type) {
    case 'string':
      if (name === 'nconst') return kind.personId;
      return name === 'titleId' || name.toLowerCase().endsWith('tconst') ? kind.titleId : kind.string;
    case 'nullable-string':
      return kind.nullableString;
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

/** −2^31 is left out: stores use it to mark a null. */
const intMin = -(2 ** 31) + 1;
const intMax = 2 ** 31 - 1;
const intDigitsMax = 10;

/** More than all fixed-width fields of a record together, ids included. */
const fixedBytesMax = 160;

/** The little-endian doubles of 0.0, 0.1, … 10.0, eight bytes each. */
const tenthsBytes = new Uint8Array(Float64Array.from({ length: 101 }, (_, tenths) => tenths / 10).buffer);

/** Where a record goes: the same memory as bytes and as words. */
export interface Room {
  readonly bytes: Buffer;
  readonly view: DataView;
}

export function roomOf(bytes: Buffer): Room {
  return { bytes, view: new DataView(bytes.buffer, bytes.byteOffset, bytes.length) };
}

export class RowEncoder {
  /** After encode() took a row: where its record ends. */
  recordEnd = 0;
  /** After encode() or idAt() refused a row: the column at fault, from 0. */
  column = 0;

  readonly #columns: readonly Column[];
  readonly #kinds: Uint8Array;
  readonly #prefix: number;

  constructor(dataset: Dataset) {
    this.#columns = dataset.columns;
    this.#kinds = Uint8Array.from(dataset.columns, kindOf);
    this.#prefix = dataset.idPrefix.charCodeAt(0);
  }

  /** The number in the id that starts the row, of at most nine digits; negative when it is not an id of this dataset. */
  idAt(bytes: Buffer, at: number): number {
    this.column = 0;
    return parseId(bytes, at, this.#prefix);
  }

  /**
   * Writes the Avro record of the row that starts at `from` and ends with a newline, whose id is `id`.
   * @param limit the record may not go past this position of `room`
   * @returns the position after the newline; `full`; or another negative number: the row is refused
   */
  encode(input: Room, from: number, id: number, room: Room, start: number, limit: number): number {
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
      const isNull = bytes[p] === backslash && bytes[p + 1] === capitalN && endsField(bytes[p + 2] as number);
      switch (code) {
        case kind.string:
        case kind.nullableString: {
          if (isNull) {
            if (code === kind.string) return this.#refuse(column, notNull);
            out[q++] = 0;
            p += 2;
            break;
          }
          if (code === kind.nullableString) out[q++] = 2;
          // Four bytes at a time: copy, then look whether one of them is below 11, as tab and newline are.
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
          const negative = bytes[p] === minus;
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
          const other = parseId(bytes, p, code === kind.titleId ? 0x74 : 0x6e);
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
    this.recordEnd = q;
    return p + 1;
  }

  /**
   * Why encode() or idAt() refused the row, in words. Slow, for the dead letter.
   * @param input starts with the row, which ends with a newline
   */
  explain(refusal: number, input: Buffer): { reason: RejectReason; detail: string } {
    const row = input.subarray(0, input.indexOf(newline));
    let columns = 1;
    for (let at = row.indexOf(tab); at >= 0; at = row.indexOf(tab, at + 1)) columns++;
    if (columns !== this.#columns.length) {
      return { reason: 'columns', detail: `${columns} columns, ${this.#columns.length} expected` };
    }
    const { name } = this.#columns[this.column] as Column;
    const value = row.toString('utf8').split('\t')[this.column] ?? '';
    const reason = value === '\\N' ? 'null' : (rejectReasons[-refusal - 1] ?? 'columns');
    return {
      reason,
      detail: `${name}: ${expectations[reason]}, found ${JSON.stringify(value.slice(0, 80))}`,
    };
  }

  #refuse(column: number, refusal: number): number {
    this.column = column;
    return refusal;
  }
}

const expectations: Record<RejectReason, string> = {
  columns: 'a tab expected',
  integer: 'an integer of 32 bits expected, from 0 up where it counts',
  rating: 'a number from 1.0 to 10.0 with at most one decimal expected',
  id: 'an id expected, two letters and 7 digits or 8 to 9 without a leading zero',
  boolean: '0 or 1 expected',
  utf8: 'UTF-8 expected',
  null: 'a value expected',
  too_large: 'a shorter row expected',
};

function endsField(byte: number): boolean {
  return byte === tab || byte === newline;
}

/** @returns the number of the id `(tt|nm)` + 7 digits, or 8–9 without a leading zero; `notId` otherwise */
function parseId(bytes: Buffer, at: number, prefix: number): number {
  // The prefixes are told apart by their first letter; the second one goes with it.
  if (bytes[at] !== prefix || bytes[at + 1] !== (prefix === 0x74 ? 0x74 : 0x6d)) return notId;
  let id = 0;
  let p = at + 2;
  for (;;) {
    const digit = (bytes[p] as number) - zero;
    if (digit < 0 || digit > 9) break;
    id = id * 10 + digit;
    p++;
  }
  const digits = p - at - 2;
  const wellFormed = digits === 7 || ((digits === 8 || digits === 9) && bytes[at + 2] !== zero);
  return wellFormed && endsField(bytes[p] as number) ? id : notId;
}

/** Bytes of the text of an id, prefix included. */
function idLength(id: number): number {
  return id < 10_000_000 ? 9 : id < 100_000_000 ? 10 : 11;
}

/** Copies the longest id there is, in three words; what follows a shorter one is overwritten. */
function copyId(from: DataView, p: number, to: DataView, q: number): void {
  to.setInt32(q, from.getInt32(p, true), true);
  to.setInt32(q + 4, from.getInt32(p + 4, true), true);
  to.setInt32(q + 8, from.getInt32(p + 8, true), true);
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
