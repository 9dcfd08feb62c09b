/**
 * Turns rows of a file into Avro records: bytes to bytes in one pass. This loop is the hot path of the producers, so it stays
 * in one piece. It alone decides which values are valid. AssemblyScript, compiled by `npm run wasm`; its wrapper is
 * `producers/row-encoder.ts`.
 *
 * It reads up to 16 bytes past a row and writes up to 16 bytes past a record: the areas of the memory have that room.
 */

const slackBytes: i32 = 64;
const rowBytesMax: i32 = 1_000_000;

/** What `encodeRows` has done: words, in this order. */
export const resultsAt: i32 = 1024;
/** A byte per column: the code of its kind. Set by the caller. */
export const kindsAt: i32 = 1088;
/** Rows that are encoded together. */
export const inputAt: i32 = 1152;
export const inputBytes: i32 = rowBytesMax + 1;
/** One row that the caller has put into its official form. */
export const scratchAt: i32 = inputAt + inputBytes + slackBytes;
export const scratchBytes: i32 = rowBytesMax + 64;
/** Where the records go. */
export const outputAt: i32 = scratchAt + scratchBytes + slackBytes;
memory.grow((outputAt + rowBytesMax + slackBytes) / 65_536 + 1);

/** What stops `encodeRows`. Refusals of a row are negative. */
const atEnd: i32 = 0;
const atOtherBlock: i32 = 1;
const atCut: i32 = 2;
const notColumns: i32 = -1;
const notInteger: i32 = -2;
const notRating: i32 = -3;
const notId: i32 = -4;
const notBoolean: i32 = -5;
const notNull: i32 = -6;
const full: i32 = -7;
const notOfficial: i32 = -8;

/** Kinds of columns. */
const string: i32 = 0;
const nullableString: i32 = 1;
const count: i32 = 2;
const nullableInt: i32 = 3;
const boolean: i32 = 4;
const nullableBoolean: i32 = 5;
const tenths: i32 = 6;
const titleId: i32 = 7;
const personId: i32 = 8;
/** A nullable string in which `NaN` and the like mean a missing value. */
const codedString: i32 = 9;

const tab: u32 = 0x09;
const newline: u32 = 0x0a;
const carriageReturn: u32 = 0x0d;
const quote: u32 = 0x22;
const minus: u32 = 0x2d;
const point: u32 = 0x2e;
const zero: u32 = 0x30;

/** Words of two and four characters, little-endian. */
const tt: u32 = 0x7474;
const nm: u32 = 0x6d6e;
const backslashN: u32 = 0x4e5c;
const wordNone: u32 = 0x656e6f4e;
const wordNULL: u32 = 0x4c4c554e;
const wordNull: u32 = 0x6c6c756e;
const wordNA: u32 = 0x3e414e3c;
const wordNaN: u32 = 0x4e614e;
const wordNan: u32 = 0x6e616e;

/** −2^31 is excluded: stores use it to mark a null. */
const intMax: i64 = 2147483647;
const intDigitsMax: i32 = 10;
/** More than all fixed-width fields of a record together, ids included. */
const fixedBytesMax: i32 = 160;
const idsOfBlock: u32 = 10_000;
const idsOfGroup: i32 = 50;

let columns: i32 = 0;
let prefix: u32 = 0;

/** Where the records end. */
let recordsEnd: i32 = 0;
/** The invalid column of a refused row. */
let column: i32 = 0;

/** @param first letter of the dataset's ids */
export function configure(columnCount: i32, first: u32): void {
  columns = columnCount;
  prefix = first === (tt & 0xff) ? tt : nm;
}

/**
 * Encodes the rows from `from` to `to`, at most `rowsMax`, each of which ends with a newline. It stops before a row
 * - of another block,
 * - of another id than `lastId` and the row before, if `cutAt` or `cutRows` is reached,
 * - whose record would pass `limit`, or that is refused.
 * The results: position after the rows; where the records end; rows; the id of the last one; the invalid column of a refused
 * row; the block of a row of another block; two words with a bit for each id that was encoded, by its place in its group.
 * @param literal take texts as they are; else a row is refused whose texts may have another official form
 * @returns what stopped it
 */
export function encodeRows(
  from: i32,
  to: i32,
  rowsMax: i32,
  block: i32,
  lastId: i32,
  cutAt: i32,
  cutRows: i32,
  limit: i32,
  literal: bool,
): i32 {
  recordsEnd = outputAt;
  column = 0;
  const firstId = (block as u32) * idsOfBlock;
  let id = lastId;
  let otherBlock = -1;
  let mask: u64 = 0;
  let rows = 0;
  let p = from;
  let stop = atEnd;
  while (p < to && rows < rowsMax) {
    const own = parseId(p, prefix);
    if (own < 0) {
      stop = own;
      break;
    }
    if (own !== id) {
      if ((own as u32) - firstId >= idsOfBlock) {
        otherBlock = own / (idsOfBlock as i32);
        stop = atOtherBlock;
        break;
      }
      if (rows >= cutRows || recordsEnd >= cutAt) {
        stop = atCut;
        break;
      }
    }
    const end = encodeRow(p, own, limit, literal);
    if (end < 0) {
      stop = end;
      break;
    }
    id = own;
    mask |= (1 as u64) << (own % idsOfGroup);
    p = end;
    rows++;
  }
  store<i32>(resultsAt, p);
  store<i32>(resultsAt + 4, recordsEnd);
  store<i32>(resultsAt + 8, rows);
  store<i32>(resultsAt + 12, id);
  store<i32>(resultsAt + 16, column);
  store<i32>(resultsAt + 20, otherBlock);
  store<u64>(resultsAt + 24, mask);
  return stop;
}

/** Appends a record. @returns the position after the row, or a refusal */
function encodeRow(from: i32, rowId: i32, limit: i32, literal: bool): i32 {
  const stringLimit = limit - fixedBytesMax;
  if (recordsEnd > stringLimit) return full;
  let q = copyId(from, rowId, recordsEnd);
  let p = from + idLength(rowId);

  for (let c = 1; c < columns; c++) {
    if (load<u8>(p) !== tab) return refuse(c, notColumns);
    p++;
    const kind = load<u8>(kindsAt + c) as i32;
    const first = load<u8>(p) as u32;
    const isNull = load<u16>(p) === backslashN && endsField(load<u8>(p + 2));
    switch (kind) {
      case string:
      case nullableString:
      case codedString: {
        if (isNull) {
          if (kind === string) return refuse(c, notNull);
          store<u8>(q++, 0);
          p += 2;
          break;
        }
        if (kind !== string) {
          if (endsField(first)) {
            store<u8>(q++, 0);
            break;
          }
          store<u8>(q++, 2);
        }
        // Copies 16 bytes at a time, and finds the first of them that ends the field.
        const textAt = p;
        const lengthAt = q++;
        for (;;) {
          if (q > stringLimit) return full;
          const bytes = v128.load(p);
          v128.store(q, bytes);
          const ends = i8x16.bitmask(
            v128.or(i8x16.eq(bytes, i8x16.splat(tab as i8)), i8x16.eq(bytes, i8x16.splat(newline as i8))),
          );
          const copied = ends === 0 ? 16 : ctz(ends);
          p += copied;
          q += copied;
          if (ends !== 0) break;
        }
        const length = p - textAt;
        if (!literal) {
          if (first === quote && load<u8>(p - 1) === quote) return refuse(c, notOfficial);
          if (kind === codedString && meansNull(textAt, length)) return refuse(c, notOfficial);
        }
        if (length < 64) {
          store<u8>(lengthAt, length << 1);
        } else {
          const extra = length < 8_192 ? 1 : 2;
          memory.copy(lengthAt + 1 + extra, lengthAt + 1, length);
          writeVarint(lengthAt, length << 1);
          q += extra;
        }
        break;
      }
      case count:
      case nullableInt: {
        if (isNull) {
          if (kind === count) return refuse(c, notNull);
          store<u8>(q++, 0);
          p += 2;
          break;
        }
        const isNegative = first === minus;
        if (isNegative) p++;
        const digitsAt = p;
        let value: i64 = 0;
        for (let digit = digitAt(p); digit <= 9; digit = digitAt(p)) {
          value = value * 10 + digit;
          p++;
        }
        const digits = p - digitsAt;
        // More digits than these may have wrapped around; they are refused whatever the value is.
        if (digits === 0 || digits > intDigitsMax || value > intMax) return refuse(c, notInteger);
        if (kind === nullableInt) store<u8>(q++, 2);
        else if (isNegative) return refuse(c, notInteger);
        const signed = (isNegative ? -value : value) as i32;
        q = writeVarint(q, (signed << 1) ^ (signed >> 31));
        if (!endsField(load<u8>(p))) return refuse(c, notInteger);
        break;
      }
      case boolean:
      case nullableBoolean: {
        if (isNull) {
          if (kind === boolean) return refuse(c, notNull);
          store<u8>(q++, 0);
          p += 2;
          break;
        }
        const digit = digitAt(p);
        if (digit > 1 || !endsField(load<u8>(p + 1))) return refuse(c, notBoolean);
        if (kind === nullableBoolean) store<u8>(q++, 2);
        store<u8>(q++, digit);
        p++;
        break;
      }
      case tenths: {
        if (isNull) return refuse(c, notNull);
        let whole = digitAt(p++);
        if (whole === 1 && load<u8>(p) === zero) {
          whole = 10;
          p++;
        }
        let tenth: u32 = 0;
        if (load<u8>(p) === point) {
          tenth = digitAt(p + 1);
          p += 2;
        }
        // Characters below 0 give huge digits.
        if (whole < 1 || whole > 10 || tenth > 9) return refuse(c, notRating);
        const value = whole * 10 + tenth;
        if (value > 100 || !endsField(load<u8>(p))) return refuse(c, notRating);
        store<f64>(q, (value as f64) / 10);
        q += 8;
        break;
      }
      default: {
        if (isNull) return refuse(c, notNull);
        const other = parseId(p, kind === titleId ? tt : nm);
        if (other < 0) return refuse(c, notId);
        q = copyId(p, other, q);
        p += idLength(other);
      }
    }
  }
  if (load<u8>(p) !== newline) return refuse(columns - 1, notColumns);
  if (load<u8>(p - 1) === carriageReturn && !literal) return refuse(columns - 1, notOfficial);
  recordsEnd = q;
  return p + 1;
}

function refuse(at: i32, refusal: i32): i32 {
  column = at;
  return refusal;
}

/**
 * The number in the field at `at`: prefix, then 7 digits, or 8 to 9 without a leading zero.
 * @returns the number; `notId` otherwise
 */
function parseId(at: i32, letters: u32): i32 {
  if (load<u16>(at) !== letters) return notId;
  let value = 0;
  let p = at + 2;
  for (let digit = digitAt(p); digit <= 9; digit = digitAt(p)) {
    value = value * 10 + digit;
    p++;
  }
  const digits = p - at - 2;
  const isWellFormed = digits === 7 || ((digits === 8 || digits === 9) && load<u8>(at + 2) !== zero);
  return isWellFormed && endsField(load<u8>(p)) ? value : notId;
}

/** Bytes of the text of an id, prefix included. */
function idLength(value: i32): i32 {
  return value < 10_000_000 ? 9 : value < 100_000_000 ? 10 : 11;
}

/** Writes an id as a string. The next field overwrites what follows a short one. @returns the position after it */
function copyId(from: i32, value: i32, to: i32): i32 {
  const length = idLength(value);
  store<u8>(to, length << 1);
  store<u64>(to + 1, load<u64>(from));
  store<u32>(to + 9, load<u32>(from + 8));
  return to + 1 + length;
}

/** Whether the text is one of `nullTexts` in equal-values.ts. */
function meansNull(at: i32, length: i32): bool {
  const word = load<u32>(at);
  if (length === 4) return word === wordNone || word === wordNULL || word === wordNull || word === wordNA;
  if (length !== 3) return false;
  const three = word & 0xffffff;
  return three === wordNaN || three === wordNan;
}

/** Above 9 if there is no digit. */
function digitAt(at: i32): u32 {
  return (load<u8>(at) as u32) - zero;
}

function endsField(byte: u32): bool {
  return byte === tab || byte === newline;
}

/** @param bits zigzag-encoded value; @returns the position after it */
function writeVarint(at: i32, bits: u32): i32 {
  let q = at;
  for (; bits > 0x7f; bits >>>= 7) store<u8>(q++, (bits & 0x7f) | 0x80);
  store<u8>(q, bits);
  return q + 1;
}
