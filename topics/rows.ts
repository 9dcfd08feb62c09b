/**
 * Decodes arrays of Avro records into columns of numbers, without an object per record: the hot path of every consumer.
 * `row-plan.ts` maps each field to a column.
 */
import { MalformedRows, readBlockCount, readLong } from './avro-reader.ts';
import type { Dictionary } from './dictionary.ts';
import { FastRows } from './fast-rows.ts';
import { nullableBit, nullInt, op, type RowPlan, type Step } from './row-plan.ts';

/**
 * Growable columns of equal length. A text column holds the end of its row's bytes in `text`; null is `-1 - end`. Several text
 * columns share the bytes, row after row. A column of lists holds the place of its row's list in `lists`: there are the number
 * of ids, then the ids.
 */
export class Columns {
  readonly plan: RowPlan;
  /** Undefined if the plan has columns that only `decodeRecords` fills: those of longs. */
  readonly fast: FastRows | undefined;
  length = 0;
  ints: Int32Array[] = [];
  longs: Float64Array[] = [];
  text = new Uint8Array(0);
  textLength = 0;
  /** The list at place 0 is empty. */
  lists = new Int32Array(1);
  listsLength = 1;

  constructor(plan: RowPlan, capacity = 0) {
    this.plan = plan;
    this.fast = FastRows.of(plan);
    for (const form of plan.forms) {
      this.ints.push(new Int32Array(form === 'long' ? 0 : capacity));
      this.longs.push(new Float64Array(form === 'long' ? capacity : 0));
    }
  }

  /** The number column at an index, without unused capacity. */
  column(index: number): Int32Array | Float64Array {
    const source = this.plan.forms[index] === 'long' ? this.longs[index] : this.ints[index];
    return (source as Int32Array).subarray(0, this.length);
  }

  int(index: number): Int32Array {
    return this.ints[index] as Int32Array;
  }

  /** Makes room for `more` rows. */
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
    this.listsLength = 1;
  }

  /** Appends to `text`. */
  addText(bytes: Uint8Array): void {
    const end = this.textLength + bytes.length;
    if (end > this.text.length) this.text = grown(this.text, end);
    this.text.set(bytes, this.textLength);
    this.textLength = end;
  }

  /** Appends to `lists`. */
  addLists(more: Int32Array): void {
    const end = this.listsLength + more.length;
    if (end > this.lists.length) this.lists = grown(this.lists, end);
    this.lists.set(more, this.listsLength);
    this.listsLength = end;
  }

  /** Where the texts of each row begin in `text`: one column for each text column, in their order. */
  textStarts(): Int32Array[] {
    const ends = this.ints.filter((_, c) => this.plan.forms[c] === 'text');
    const starts = ends.map(() => new Int32Array(this.length));
    let start = 0;
    for (let row = 0; row < this.length; row++) {
      for (let t = 0; t < ends.length; t++) {
        (starts[t] as Int32Array)[row] = start;
        const end = (ends[t] as Int32Array)[row] as number;
        if (end > start) start = end;
      }
    }
    return starts;
  }

  /** Adds the ids in a text, and leaves out what is none. @returns the place of the list, `nullInt` if it is empty */
  addList(from: Uint8Array, start: number, end: number, prefix: number): number {
    // An id and its comma take ten bytes at least.
    const most = this.listsLength + 2 + (end - start) / 10;
    if (most > this.lists.length) this.lists = grown(this.lists, Math.ceil(most));
    const place = this.listsLength;
    let to = place + 1;
    for (let at = start; at < end; at++) {
      const first = at;
      while (at < end && from[at] !== comma) at++;
      const id = readId(from, first, at, prefix);
      if (id >= 0) this.lists[to++] = id;
    }
    if (to === place + 1) return nullInt;
    this.lists[place] = to - place - 1;
    this.listsLength = to;
    return place;
  }
}

const comma = 0x2c;

function grown<T extends Int32Array | Float64Array | Uint8Array>(array: T, needed: number): T {
  if (array.length >= needed) return array;
  const next = new (array.constructor as new (length: number) => T)(Math.max(needed, array.length * 2, 1024));
  next.set(array);
  return next;
}

/**
 * Appends one Avro array of records to `out`.
 * @returns the position after the array
 * @throws MalformedRows, with `out` unchanged
 */
export function decodeRows(from: Uint8Array, start: number, out: Columns): number {
  const length = out.length;
  const { textLength, listsLength } = out;
  try {
    return decodeArray(from, start, out);
  } catch (thrown) {
    out.length = length;
    out.textLength = textLength;
    out.listsLength = listsLength;
    throw thrown;
  }
}

// One function with the position in a local variable: passing it through small functions costs a third of the speed.
// Reading past the end gives `undefined`, which the bit operators treat as 0, so every loop ends; the check after each
// record then rejects the record.
function decodeArray(from: Uint8Array, start: number, out: Columns): number {
  let at = start;
  let isTaken = false;
  for (;;) {
    const [count, next] = readBlockCount(from, at);
    at = next;
    if (count === 0) return at;
    out.reserve(count);
    const stop = out.length + count;
    const { fast } = out;
    if (fast !== undefined && !isTaken) isTaken = fast.take(from, at);
    if (fast === undefined || !isTaken) {
      at = decodeRecords(from, at, out, out.length, stop);
    } else {
      for (let row = out.length; ; row++) {
        row = fast.decode(at, out, row, stop);
        at = fast.at;
        if (row === stop) break;
        at = decodeRecords(from, at, out, row, row + 1);
        fast.learn(out.ints, row);
      }
    }
    out.length = stop;
  }
}

/** Decodes the records from `at` on into rows [firstRow, stopRow). @returns the position after them */
function decodeRecords(
  from: Uint8Array,
  start: number,
  out: Columns,
  firstRow: number,
  stopRow: number,
): number {
  const { steps, codes, targets } = out.plan;
  const { ints, longs } = out;
  const end = from.length;
  let at = start;
  for (let row = firstRow; row < stopRow; row++) {
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
          // Nearly all strings are shorter than 64 bytes: their length is one byte, whose lowest bit is the sign.
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
          // A larger value would lose its sign bit.
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
          if (!(Math.abs((doubleValue[0] as number) * 10 - tenths) < 1e-6 && tenths >= 10 && tenths <= 100)) {
            throw new MalformedRows('invalid_value', `${steps[s]?.name} is ${doubleValue[0]}`);
          }
          (ints[targets[s] as number] as Int32Array)[row] = tenths;
          break;
        }
        default: {
          // All other steps keep a string.
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
          } else if (step.op === op.people) {
            into[row] = out.addList(from, at, stop, step.prefix);
          } else {
            out.addText(from.subarray(at, stop));
            into[row] = out.textLength;
          }
          at = stop;
        }
      }
    }
    if (at > end) throw new MalformedRows('undecodable', 'a record, or a string in it, goes past the end');
  }
  return at;
}

function malformed(steps: readonly Step[], at: number, what: string): MalformedRows {
  return new MalformedRows('undecodable', `${what} in ${steps[at]?.name}`);
}

const doubleBytes = new Uint8Array(8);
const doubleValue = new Float64Array(doubleBytes.buffer);

/** The number in an id such as `tt0111161`. @throws MalformedRows */
function idOf(from: Uint8Array, start: number, end: number, step: Step): number {
  const id = readId(from, start, end, step.prefix);
  if (id >= 0) return id;
  const text = Buffer.from(from.subarray(start, Math.min(end, start + 32))).toString('latin1');
  throw new MalformedRows('invalid_value', `${step.name} is not an id: ${JSON.stringify(text)}`);
}

/**
 * The digits of `tt0111161`: seven, or eight or nine without a leading zero.
 * @param prefix second byte of the prefix
 * @returns -1 for what is not an id
 */
function readId(from: Uint8Array, start: number, end: number, prefix: number): number {
  const digits = end - start - 2;
  let ok =
    digits >= 7 &&
    digits <= 9 &&
    from[start + 1] === prefix &&
    from[start] === (prefix === 0x6d ? 0x6e : 0x74) &&
    (digits === 7 || from[start + 2] !== 0x30);
  let value = 0;
  for (let i = start + 2; i < end; i++) {
    const digit = (from[i] as number) - 0x30;
    if (digit < 0 || digit > 9) ok = false;
    value = value * 10 + digit;
  }
  return ok ? value : -1;
}
