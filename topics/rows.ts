/**
 * Arrays of Avro records as columns of numbers, both ways, without an object per record: the hot path of every
 * consumer. A plan is made once from the Avro record schema; fields that nobody wants are skipped by their length.
 *
 * Every column is numbers: an id is its digits, a boolean 0 or 1, a tenths double is ten times its value, a string of few
 * values is its number in a Dictionary, null is `nullInt`.
 */
import { Dictionary } from './dictionary.ts';

/** Null in an int column; no field may carry it as a value. */
export const nullInt = -2147483648;

/** An Avro field type as it occurs in our schemas. */
export type AvroType = string | [string, string] | { type: string };

export interface AvroField {
  readonly name: string;
  readonly type: AvroType;
}

/** How a wanted field becomes numbers. `text` keeps the bytes, for strings of many values. */
export type ColumnForm = 'tt' | 'nm' | 'int' | 'boolean' | 'long' | 'tenths' | 'dictionary' | 'text';

export interface WantedField {
  readonly name: string;
  readonly form: ColumnForm;
}

/** Bytes that do not follow the schema, or a value that no row may have. */
export class MalformedRows extends Error {
  readonly reason: 'undecodable' | 'invalid_value';
  constructor(reason: 'undecodable' | 'invalid_value', detail: string) {
    super(detail);
    this.name = 'MalformedRows';
    this.reason = reason;
  }
}

const op = {
  skipVarint: 0,
  skipString: 1,
  skipDouble: 2,
  skipByte: 3,
  id: 4,
  int: 5,
  long: 6,
  tenths: 7,
  dictionary: 8,
  text: 9,
  boolean: 10,
} as const;

const nullableBit = 0x80;

interface Step {
  readonly op: number;
  /** A union ["null", T]: its branch number comes first. */
  readonly nullable: boolean;
  /** Index of the column, -1 for skipped fields. */
  readonly column: number;
  /** Second byte of an id's prefix (`t` or `m` after `t` or `n`), 0 for others. */
  readonly prefix: number;
  readonly dictionary: Dictionary | undefined;
  readonly name: string;
}

export interface RowPlan {
  readonly steps: readonly Step[];
  /** What the decoder's loop needs of each step, side by side: its op with `nullableBit`, and its column. */
  readonly codes: Uint8Array;
  readonly targets: Int8Array;
  readonly forms: readonly ColumnForm[];
  readonly names: readonly string[];
}

/**
 * @param fields fields of the record in schema order
 * @param wanted the fields to keep, in the order of the columns
 * @param dictionaries by field name, for fields of the form `dictionary`
 */
export function planRows(
  fields: readonly AvroField[],
  wanted: readonly WantedField[],
  dictionaries: Readonly<Record<string, Dictionary>> = {},
): RowPlan {
  const steps = fields.map((field): Step => {
    const nullable = Array.isArray(field.type);
    const base = Array.isArray(field.type)
      ? field.type[1]
      : typeof field.type === 'string'
        ? field.type
        : field.type.type;
    const column = wanted.findIndex(({ name }) => name === field.name);
    const form = wanted[column]?.form;
    return {
      op: form === undefined ? skipOf(base) : keepOf(form),
      nullable,
      column,
      prefix: form === 'nm' ? 0x6d : form === 'tt' ? 0x74 : 0,
      dictionary: form === 'dictionary' ? (dictionaries[field.name] ?? new Dictionary()) : undefined,
      name: field.name,
    };
  });
  for (const { name } of wanted) {
    if (!fields.some((field) => field.name === name)) throw new RangeError(`the schema has no field ${name}`);
  }
  return {
    steps,
    codes: Uint8Array.from(steps, (step) => step.op | (step.nullable ? nullableBit : 0)),
    targets: Int8Array.from(steps, ({ column }) => column),
    forms: wanted.map(({ form }) => form),
    names: wanted.map(({ name }) => name),
  };
}

function skipOf(base: string): number {
  if (base === 'string') return op.skipString;
  if (base === 'double') return op.skipDouble;
  if (base === 'boolean') return op.skipByte;
  return op.skipVarint;
}

function keepOf(form: ColumnForm): number {
  if (form === 'tt' || form === 'nm') return op.id;
  return op[form];
}

/**
 * Growable columns of equal length. A text column holds where its row's bytes end in `text`;
 * null is `-1 - end`.
 */
export class Columns {
  readonly plan: RowPlan;
  length = 0;
  ints: Int32Array[] = [];
  longs: Float64Array[] = [];
  /** The bytes of the text column (at most one), rows one after the other. */
  text = new Uint8Array(0);
  textLength = 0;

  constructor(plan: RowPlan, capacity = 0) {
    this.plan = plan;
    for (const form of plan.forms) {
      this.ints.push(new Int32Array(form === 'long' ? 0 : capacity));
      this.longs.push(new Float64Array(form === 'long' ? capacity : 0));
    }
  }

  /** The number column at an index, cut to the length. */
  column(index: number): Int32Array | Float64Array {
    const source = this.plan.forms[index] === 'long' ? this.longs[index] : this.ints[index];
    return (source as Int32Array).subarray(0, this.length);
  }

  int(index: number): Int32Array {
    return this.ints[index] as Int32Array;
  }

  /** Room for `more` further rows. */
  reserve(more: number): void {
    const needed = this.length + more;
    this.plan.forms.forEach((form, i) => {
      if (form === 'long') this.longs[i] = grown(this.longs[i] as Float64Array, needed);
      else this.ints[i] = grown(this.ints[i] as Int32Array, needed);
    });
  }

  clear(): void {
    this.length = 0;
    this.textLength = 0;
  }
}

function grown<T extends Int32Array | Float64Array | Uint8Array>(array: T, needed: number): T {
  if (array.length >= needed) return array;
  const next = new (array.constructor as new (length: number) => T)(Math.max(needed, array.length * 2, 1024));
  next.set(array);
  return next;
}

/**
 * Decodes one Avro array of records onto the end of `out`.
 * @returns the position behind the array
 * @throws MalformedRows, with `out` as it was before the call
 */
export function decodeRows(from: Uint8Array, start: number, out: Columns): number {
  const length = out.length;
  const textLength = out.textLength;
  try {
    return decodeArray(from, start, out);
  } catch (thrown) {
    out.length = length;
    out.textLength = textLength;
    throw thrown;
  }
}

// One function with the position in a local variable: passing it through small functions costs a third of the speed.
// Reading past the end gives `undefined`, which the bit operators take as 0, so every loop ends; the check after each
// record then refuses what lay outside.
function decodeArray(from: Uint8Array, start: number, out: Columns): number {
  const { steps, codes, targets } = out.plan;
  const end = from.length;
  let at = start;
  for (;;) {
    const [count, next] = readBlockCount(from, at);
    at = next;
    if (count === 0) return at;
    out.reserve(count);
    const { ints, longs } = out;
    const stopRow = out.length + count;
    for (let row = out.length; row < stopRow; row++) {
      for (let s = 0; s < codes.length; s++) {
        const code = codes[s] as number;
        if (code >= nullableBit) {
          const branch = from[at++] as number;
          if (branch === 0) {
            const column = targets[s] as number;
            if (column >= 0) {
              const isText = code === (op.text | nullableBit);
              (ints[column] as Int32Array)[row] = isText ? -1 - out.textLength : nullInt;
            }
            continue;
          }
          if (branch !== 2) throw malformed(steps, s, `union branch byte ${branch}`);
        }
        switch (code & ~nullableBit) {
          case op.skipString: {
            // Nearly all are shorter than 64 bytes: one byte of length, whose lowest bit is the sign.
            const short = from[at] as number;
            if ((short & 0x81) === 0) {
              at += 1 + (short >>> 1);
              break;
            }
            const [size, next] = readLong(from, at);
            if (size < 0) throw malformed(steps, s, 'negative string length');
            at = next + size;
            break;
          }
          case op.skipVarint: {
            while ((from[at++] as number) >= 0x80);
            break;
          }
          case op.skipDouble:
            at += 8;
            break;
          case op.skipByte:
            at += 1;
            break;
          case op.int: {
            let byte = from[at++] as number;
            let value = byte & 0x7f;
            for (let shift = 7; byte >= 0x80; shift += 7) {
              byte = from[at++] as number;
              if (shift === 28 && byte > 0x0f) {
                throw malformed(steps, s, 'int too long');
              }
              value |= (byte & 0x7f) << shift;
            }
            value = (value >>> 1) ^ -(value & 1);
            if (value === nullInt) throw new MalformedRows('invalid_value', `${steps[s]?.name} is ${value}`);
            (ints[targets[s] as number] as Int32Array)[row] = value;
            break;
          }
          case op.long: {
            let byte = from[at++] as number;
            let scale = 1;
            let value = byte & 0x7f;
            while (byte >= 0x80) {
              scale *= 128;
              if (scale > 2 ** 63) throw malformed(steps, s, 'long too long');
              byte = from[at++] as number;
              value += (byte & 0x7f) * scale;
            }
            // Above, the sign bit would be lost.
            if (value > Number.MAX_SAFE_INTEGER) {
              throw malformed(steps, s, 'long too large');
            }
            const odd = value % 2;
            (longs[targets[s] as number] as Float64Array)[row] = odd === 0 ? value / 2 : -(value + 1) / 2;
            break;
          }
          case op.boolean: {
            const byte = from[at++] as number;
            if (byte > 1) throw malformed(steps, s, `boolean byte ${byte}`);
            (ints[targets[s] as number] as Int32Array)[row] = byte;
            break;
          }
          case op.tenths: {
            if (at + 8 > end) throw new MalformedRows('undecodable', 'cut off');
            doubleBytes.set(from.subarray(at, at + 8));
            at += 8;
            const tenths = Math.round((doubleValue[0] as number) * 10);
            if (
              !(Math.abs((doubleValue[0] as number) * 10 - tenths) < 1e-6 && tenths >= 10 && tenths <= 100)
            ) {
              throw new MalformedRows('invalid_value', `${steps[s]?.name} is ${doubleValue[0]}`);
            }
            (ints[targets[s] as number] as Int32Array)[row] = tenths;
            break;
          }
          default: {
            // What is left is a string that is kept.
            let size = from[at++] as number;
            if ((size & 0x81) === 0) size >>>= 1;
            else [size, at] = readLong(from, at - 1);
            const stop = at + size;
            if (size < 0) throw malformed(steps, s, 'negative string length');
            if (stop > end) throw malformed(steps, s, 'string past the end');
            const step = steps[s] as Step;
            const into = ints[targets[s] as number] as Int32Array;
            if (step.op === op.id) {
              into[row] = idOf(from, at, stop, step);
            } else if (step.op === op.dictionary) {
              const word = (step.dictionary as Dictionary).numberOf(from, at, stop);
              if (word < 0) throw new MalformedRows('invalid_value', `${step.name} is not UTF-8`);
              into[row] = word;
            } else {
              const textEnd = out.textLength + size;
              if (textEnd > out.text.length) out.text = grown(out.text, textEnd);
              out.text.set(from.subarray(at, stop), out.textLength);
              out.textLength = textEnd;
              into[row] = textEnd;
            }
            at = stop;
          }
        }
      }
      if (at > end) throw new MalformedRows('undecodable', 'a record, or a string in it, goes past the end');
    }
    out.length = stopRow;
  }
}

function malformed(steps: readonly Step[], at: number, what: string): MalformedRows {
  return new MalformedRows('undecodable', `${what} in ${steps[at]?.name}`);
}

const doubleBytes = new Uint8Array(8);
const doubleValue = new Float64Array(doubleBytes.buffer);

/** The digits of `tt0111161`: seven, or eight or nine without a leading zero. */
function idOf(from: Uint8Array, start: number, end: number, step: Step): number {
  const digits = end - start - 2;
  const first = from[start] as number;
  let ok =
    digits >= 7 &&
    digits <= 9 &&
    from[start + 1] === step.prefix &&
    first === (step.prefix === 0x6d ? 0x6e : 0x74) &&
    (digits === 7 || from[start + 2] !== 0x30);
  let value = 0;
  for (let i = start + 2; i < end; i++) {
    const digit = (from[i] as number) - 0x30;
    if (digit < 0 || digit > 9) ok = false;
    value = value * 10 + digit;
  }
  if (!ok) {
    const text = Buffer.from(from.subarray(start, Math.min(end, start + 32))).toString('latin1');
    throw new MalformedRows('invalid_value', `${step.name} is not an id: ${JSON.stringify(text)}`);
  }
  return value;
}

/** Count of the next array block (its byte size, if given, is passed over). @returns [count, position behind] */
export function readBlockCount(from: Uint8Array, start: number): [number, number] {
  let [count, at] = readLong(from, start);
  if (count < 0) {
    count = -count;
    [, at] = readLong(from, at);
  }
  // Every record takes at least one byte: a larger count is a lie that would make us reserve memory for it.
  if (count > from.length - at)
    throw new MalformedRows('undecodable', `${count} records in ${from.length} bytes`);
  return [count, at];
}

/** A zigzag varint as a number. @returns [value, position behind] @throws MalformedRows past the end or ±2^52 */
export function readLong(from: Uint8Array, start: number): [number, number] {
  let at = start;
  let scale = 1;
  let value = 0;
  for (;;) {
    const byte = from[at++];
    if (byte === undefined) throw new MalformedRows('undecodable', 'cut off');
    value += (byte & 0x7f) * scale;
    if (byte < 0x80) break;
    scale *= 128;
    if (scale > 2 ** 56) throw new MalformedRows('undecodable', 'number too long');
  }
  if (value > Number.MAX_SAFE_INTEGER) throw new MalformedRows('undecodable', 'number too large');
  return [value % 2 === 0 ? value / 2 : -(value + 1) / 2, at];
}

/** A string. @returns [text, position behind] */
export function readString(from: Uint8Array, start: number): [string, number] {
  const [size, at] = readLong(from, start);
  if (size < 0 || at + size > from.length) throw new MalformedRows('undecodable', 'string past the end');
  return [Buffer.from(from.buffer, from.byteOffset + at, size).toString(), at + size];
}

/** Growable bytes that Avro values are written to. */
export class AvroWriter {
  bytes = Buffer.allocUnsafe(64 * 1024);
  length = 0;

  /** What has been written, as a copy of its own. */
  take(): Buffer {
    return Buffer.from(this.bytes.subarray(0, this.length));
  }

  long(value: number): void {
    this.#room(10);
    let rest = value >= 0 ? value * 2 : -value * 2 - 1;
    while (rest >= 0x80) {
      this.bytes[this.length++] = (rest % 128) | 0x80;
      rest = Math.floor(rest / 128);
    }
    this.bytes[this.length++] = rest;
  }

  string(value: string): void {
    this.#bytesWithLength(Buffer.from(value));
  }

  raw(value: Uint8Array): void {
    this.#room(value.length);
    this.bytes.set(value, this.length);
    this.length += value.length;
  }

  byte(value: number): void {
    this.#room(1);
    this.bytes[this.length++] = value;
  }

  #bytesWithLength(value: Uint8Array): void {
    this.long(value.length);
    this.raw(value);
  }

  /**
   * One record of a plan whose every field is kept (int, long, dictionary), from row `row` of `columns`,
   * which are in plan order.
   */
  row(plan: RowPlan, columns: readonly ArrayLike<number>[], row: number): void {
    for (const step of plan.steps) {
      const value = (columns[step.column] as ArrayLike<number>)[row] as number;
      if (step.nullable) {
        const isNull = value === nullInt;
        this.byte(isNull ? 0 : 2);
        if (isNull) continue;
      }
      if (step.op === op.dictionary) this.#bytesWithLength((step.dictionary as Dictionary).bytesOf(value));
      else this.long(value);
    }
  }

  #room(more: number): void {
    if (this.length + more <= this.bytes.length) return;
    const next = Buffer.allocUnsafe(Math.max(this.bytes.length * 2, this.length + more));
    this.bytes.copy(next, 0, 0, this.length);
    this.bytes = next;
  }
}
