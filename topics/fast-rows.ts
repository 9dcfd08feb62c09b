/**
 * A decoder of plain records in WebAssembly, generated for each plan: a third of the time that `rows.ts` takes for the same
 * records. It stops at the first record that is not plain (a number or an id of more bytes than usual, a word that it has not
 * met, any damage), and `rows.ts` decodes that one. So what a record means, and what is wrong with it, is written there alone.
 */
import type { Dictionary } from './dictionary.ts';
import { type ColumnForm, nullInt, op, type RowPlan, type Step } from './row-plan.ts';
import type { Columns } from './rows.ts';
import {
  block,
  branch,
  branchIf,
  type Code,
  copyMemory,
  f64,
  get,
  i32,
  i64,
  loop,
  moduleOf,
  set,
  when,
} from './wasm.ts';

const pageBytes = 65_536;
/** Rows that one call decodes at most, and columns of a plan at most. */
const stripRows = 4096;
const columnsMax = 16;
/** A word that was met: tag of its dictionary with its length, hash, number, and its bytes. */
const wordSlots = 8192;
const slotBytes = 64;
const wordAt = 12;
const wordBytesMax = slotBytes - wordAt;
/** Bytes of a message; a longer one is not decoded here. */
const inputBytesMax = 1024 * 1024;
/** A string is skipped by at most 8 kB, so reading goes past the input by no more than the strings of one record. */
const slackBytes = 2 * pageBytes;

const endAddress = 0;
const textEndAddress = 4;
const listEndAddress = 8;
const tagsAddress = 64;
const columnsAddress = 256;
const wordsAddress = columnsAddress + columnsMax * stripRows * 4;
const inputAddress = wordsAddress + wordSlots * slotBytes;
/** The texts of the records: together no longer than the input. */
const textAddress = inputAddress + inputBytesMax + slackBytes;
/** The lists of ids: a number takes ten bytes of the input at least, and a list one more. */
const listAddress = textAddress + inputBytesMax;

/** All decoders use one memory, because each call is complete before the next one. It exists from the first use on. */
class Room {
  static #room: Room | undefined;
  readonly memory = new WebAssembly.Memory({
    initial: Math.ceil((listAddress + inputBytesMax) / pageBytes),
  });
  readonly bytes = new Uint8Array(this.memory.buffer);
  readonly ints = new Int32Array(this.memory.buffer);

  static get(): Room {
    Room.#room ??= new Room();
    return Room.#room;
  }
}

/** Numbers for dictionaries. One that no longer exists leaves words behind that nothing looks for. */
const tags = new WeakMap<Dictionary, number>();
let tagCount = 0;

function tagOf(dictionary: Dictionary): number {
  let tag = tags.get(dictionary);
  if (tag === undefined) {
    tag = ++tagCount * slotBytes;
    tags.set(dictionary, tag);
  }
  return tag;
}

type Run = (row: number, stop: number, at: number, end: number) => number;

/** Decoders by what they do with the fields of a record. */
const decoders = new Map<string, Run>();
/** What it decodes. A plan with anything else is left to `rows.ts`. */
const supported: readonly number[] = [
  ...[op.skipVarint, op.skipString, op.skipDouble, op.skipByte],
  ...[op.id, op.int, op.tenths, op.boolean, op.dictionary, op.text, op.people],
];

/** A column of words. */
interface Words {
  readonly column: number;
  readonly dictionary: Dictionary;
  readonly tag: number;
}

export class FastRows {
  readonly #room = Room.get();
  readonly #run: Run;
  readonly #words: readonly Words[];
  readonly #columns: number;
  /** Columns of texts, and of lists. */
  readonly #texts: readonly number[];
  readonly #lists: readonly number[];
  /** Where the input in the room begins and ends in the message. */
  #from = 0;
  #end = 0;
  /** Position in the message behind the last record that `decode` has decoded. */
  at = 0;

  private constructor(plan: RowPlan, run: Run) {
    this.#run = run;
    this.#columns = plan.forms.length;
    const columnsOf = (form: ColumnForm) =>
      [...plan.forms.keys()].filter((column) => plan.forms[column] === form);
    this.#texts = columnsOf('text');
    this.#lists = columnsOf('people');
    this.#words = plan.steps.flatMap(({ column, dictionary }) =>
      dictionary === undefined ? [] : [{ column, dictionary, tag: tagOf(dictionary) }],
    );
  }

  /** @returns undefined for a plan with columns that it does not decode */
  static of(plan: RowPlan): FastRows | undefined {
    if (plan.forms.length > columnsMax || !plan.steps.every((step) => supported.includes(step.op)))
      return undefined;
    const key = plan.steps.map((step, s) => [plan.codes[s], step.column, step.prefix]).join(';');
    let run = decoders.get(key);
    if (run === undefined) {
      const module = new WebAssembly.Module(
        moduleOf(4, ['i32', 'i32', 'i32', 'i32', 'i64', 'f64', 'i32', 'i32'], bodyOf(plan.steps)),
      );
      run = new WebAssembly.Instance(module, { env: { memory: Room.get().memory } }).exports.run as Run;
      decoders.set(key, run);
    }
    return new FastRows(plan, run);
  }

  /** Takes the bytes from `start` on. @returns whether they are few enough */
  take(from: Uint8Array, start: number): boolean {
    if (from.length - start > inputBytesMax) return false;
    this.#from = start;
    this.#end = from.length;
    const { bytes } = this.#room;
    bytes.set(from.subarray(start), inputAddress);
    // Ends a number that is cut off.
    bytes.fill(0, inputAddress + this.#end - start, inputAddress + this.#end - start + slotBytes);
    return true;
  }

  /**
   * Decodes the records of the taken bytes from `at` on into rows [row, stop), as far as they are plain.
   * @returns the first row that is not decoded
   */
  decode(at: number, out: Columns, first: number, stop: number): number {
    const { ints: room } = this.#room;
    const { ints } = out;
    for (let i = 0; i < this.#words.length; i++) {
      const { column, tag } = this.#words[i] as Words;
      room[tagsAddress / 4 + column] = tag;
    }
    const toRoom = inputAddress - this.#from;
    this.at = at;
    room[textEndAddress / 4] = textAddress;
    room[listEndAddress / 4] = listAddress;
    let row = first;
    for (;;) {
      const wanted = Math.min(stripRows, stop - row);
      const done = this.#run(0, wanted, this.at + toRoom, this.#end + toRoom);
      this.at = (room[endAddress / 4] as number) - toRoom;
      for (let column = 0; column < this.#columns; column++) {
        copy(room, columnsAddress / 4 + column * stripRows, done, ints[column] as Int32Array, row);
      }
      row += done;
      if (done < wanted || row === stop) break;
    }
    if (this.#texts.length > 0) this.#moveTexts(out, first, row);
    if (this.#lists.length > 0) this.#moveLists(out, first, row);
    return row;
  }

  /** Appends the texts of rows [first, stop), whose ends are addresses so far. */
  #moveTexts(out: Columns, first: number, stop: number): void {
    const { bytes, ints } = this.#room;
    const more = out.textLength - textAddress;
    out.addText(bytes.subarray(textAddress, ints[textEndAddress / 4]));
    for (const column of this.#texts) {
      const ends = out.int(column);
      for (let row = first; row < stop; row++) {
        const end = ends[row] as number;
        ends[row] = end < 0 ? end - more : end + more;
      }
    }
  }

  /** Appends the lists of rows [first, stop), whose places are addresses so far. */
  #moveLists(out: Columns, first: number, stop: number): void {
    const { ints } = this.#room;
    const before = out.listsLength;
    out.addLists(ints.subarray(listAddress / 4, (ints[listEndAddress / 4] as number) / 4));
    for (const column of this.#lists) {
      const places = out.int(column);
      for (let row = first; row < stop; row++) {
        const place = places[row] as number;
        if (place !== nullInt) places[row] = (place - listAddress) / 4 + before;
      }
    }
  }

  /** Remembers the words of a row that was not plain. */
  learn(ints: readonly Int32Array[], row: number): void {
    const { bytes: room, ints: words } = this.#room;
    for (const { column, dictionary, tag } of this.#words) {
      const number = (ints[column] as Int32Array)[row] as number;
      if (number === nullInt) continue;
      const bytes = dictionary.bytesOf(number);
      if (bytes.length > wordBytesMax) continue;
      let hash = hashStart;
      for (let i = 0; i < bytes.length; i++) hash = Math.imul(hash ^ (bytes[i] as number), hashFactor);
      const slot = wordsAddress + (slotOf(hash ^ tag) & (wordSlots - 1)) * slotBytes;
      words[slot / 4] = tag | bytes.length;
      words[slot / 4 + 1] = hash;
      words[slot / 4 + 2] = number;
      room.set(bytes, slot + wordAt);
    }
  }
}

/** A view costs more than some numbers. */
const fewNumbers = 100;

function copy(from: Int32Array, start: number, length: number, to: Int32Array, at: number): void {
  if (length > fewNumbers) to.set(from.subarray(start, start + length), at);
  else for (let i = 0; i < length; i++) to[at + i] = from[start + i] as number;
}

const hashStart = 0x811c9dc5 | 0;
const hashFactor = 0x01000193;
const slotOf = (hash: number) => hash ^ (hash >>> 15);

// Locals: the parameters of `Run`, then those of the module.
const [row, stop, at, end, start, size, hash, slot, digits, double, text, list] = [
  0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11,
] as const;

const advance = (by: Code | number): Code =>
  set(at, i32.add(get(at), typeof by === 'number' ? i32.const(by) : by));
const byteAt = (offset: number): Code => i32.load8(get(at), offset);

/** `run`: a block that is left when a record is not plain, or at the end; its `start` is then where to continue. */
function bodyOf(steps: readonly Step[]): Code {
  const leave = 1;
  return [
    ...set(text, i32.load(i32.const(textEndAddress), 0)),
    ...set(list, i32.load(i32.const(listEndAddress), 0)),
    ...block(
      loop(
        set(start, get(at)),
        branchIf(leave, i32.notLess(get(row), get(stop))),
        ...steps.map((step) => fieldOf(step, leave)),
        branchIf(leave, i32.greater(get(at), get(end))),
        set(row, i32.add(get(row), i32.const(1))),
        i32.store(i32.const(textEndAddress), 0, get(text)),
        i32.store(i32.const(listEndAddress), 0, get(list)),
        branch(0),
      ),
    ),
    ...i32.store(i32.const(endAddress), 0, get(start)),
    ...get(row),
  ];
}

function fieldOf(step: Step, leave: number): Code {
  if (!step.nullable) return presentOf(step, leave);
  const isNull = i32.isZero(byteAt(0));
  return [
    ...when(
      isNull,
      [...(step.column < 0 ? [] : keep(step, nullOf(step))), ...advance(1)],
      [
        ...branchIf(leave + 1, i32.differs(byteAt(0), i32.const(2))),
        ...advance(1),
        ...presentOf(step, leave + 1),
      ],
    ),
  ];
}

const nullOf = (step: Step): Code =>
  step.op === op.text ? i32.subtract(i32.const(-1), get(text)) : i32.const(nullInt);

const keep = ({ column }: Step, value: Code): Code =>
  i32.store(i32.shiftLeft(get(row), i32.const(2)), columnsAddress + column * stripRows * 4, value);

function presentOf(step: Step, leave: number): Code {
  switch (step.op) {
    case op.skipString:
      return skipString(leave);
    case op.skipVarint:
      return [
        // Behind the end there are zeros, or what an earlier message has left.
        ...branchIf(leave, i32.greater(get(at), get(end))),
        ...loop(
          advance(1),
          branchIf(0, i32.greater(i32.load8(i32.subtract(get(at), i32.const(1)), 0), i32.const(0x7f))),
        ),
      ];
    case op.skipDouble:
      return advance(8);
    case op.skipByte:
      return advance(1);
    case op.id:
      return idOf(step, leave);
    case op.int:
      return intOf(step, leave);
    case op.tenths:
      return tenthsOf(step, leave);
    case op.boolean:
      return [
        ...branchIf(leave, i32.greater(byteAt(0), i32.const(1))),
        ...keep(step, byteAt(0)),
        ...advance(1),
      ];
    case op.text:
      return textOf(step, leave);
    case op.people:
      return listOf(step, leave);
    default:
      return wordOf(step, leave);
  }
}

/** Sets `size` to the length of a string, which has one or two bytes, and goes to its first byte. */
function sizeOf(leave: number): Code {
  return [
    ...set(size, byteAt(0)),
    ...when(i32.greater(get(size), i32.const(0x7f)), [
      ...branchIf(leave + 1, i32.greater(byteAt(1), i32.const(0x7f))),
      ...set(size, i32.or(i32.and(get(size), i32.const(0x7f)), i32.shiftLeft(byteAt(1), i32.const(7)))),
      ...advance(1),
    ]),
    ...branchIf(leave, i32.and(get(size), i32.const(1))),
    ...set(size, i32.shiftRight(get(size), i32.const(1))),
    ...advance(1),
  ];
}

const skipString = (leave: number): Code => [...sizeOf(leave), ...advance(get(size))];

function textOf(step: Step, leave: number): Code {
  return [
    ...sizeOf(leave),
    ...branchIf(leave, i32.greater(i32.add(get(at), get(size)), get(end))),
    ...copyMemory(get(text), get(at), get(size)),
    ...set(text, i32.add(get(text), get(size))),
    ...keep(step, get(text)),
    ...advance(get(size)),
  ];
}

/** An int of at most four bytes. */
function intOf(step: Step, leave: number): Code {
  return [
    ...set(size, i32.const(0)),
    ...set(hash, i32.const(0)),
    ...loop(
      branchIf(leave + 1, i32.greater(get(size), i32.const(21))),
      set(hash, i32.or(get(hash), i32.shiftLeft(i32.and(byteAt(0), i32.const(0x7f)), get(size)))),
      set(size, i32.add(get(size), i32.const(7))),
      advance(1),
      branchIf(0, i32.greater(i32.load8(i32.subtract(get(at), i32.const(1)), 0), i32.const(0x7f))),
    ),
    ...keep(
      step,
      i32.xor(
        i32.shiftRight(get(hash), i32.const(1)),
        i32.subtract(i32.const(0), i32.and(get(hash), i32.const(1))),
      ),
    ),
  ];
}

const prefixOf = ({ prefix }: Step) => i32.const((prefix === 0x6d ? 0x6e : 0x74) | (prefix << 8));
/** Puts a zero before the seven digits in `digits`. */
const eightDigits = set(digits, i64.or(i64.shiftLeft(get(digits), i64.const(8n)), i64.const(0x30n)));

/** Turns eight digits, all of them in `digits`, into their number. */
function numberOfDigits(leave: number): Code {
  const nibbles = (mask: bigint, factor: bigint, shift: bigint): Code =>
    set(
      digits,
      i64.shiftRight(
        i64.multiply(i64.and(get(digits), i64.const(mask)), i64.const(factor)),
        i64.const(shift),
      ),
    );
  const high = i64.const(0xf0f0f0f0f0f0f0f0n);
  return [
    // A byte is a digit if its high half is 3, also after adding 6.
    ...branchIf(
      leave,
      i64.differs(
        i64.or(
          i64.and(get(digits), high),
          i64.shiftRight(i64.and(i64.add(get(digits), i64.const(0x0606060606060606n)), high), i64.const(4n)),
        ),
        i64.const(0x3333333333333333n),
      ),
    ),
    // Pairs of digits, then of pairs, then of fours become one number.
    ...nibbles(0x0f0f0f0f0f0f0f0fn, 2561n, 8n),
    ...nibbles(0x00ff00ff00ff00ffn, 6553601n, 16n),
    ...nibbles(0x0000ffff0000ffffn, 42949672960001n, 32n),
  ];
}

/** An id of seven or eight digits. */
function idOf(step: Step, leave: number): Code {
  return [
    ...set(size, byteAt(0)),
    ...branchIf(leave, i32.differs(i32.load16(get(at), 1), prefixOf(step))),
    ...set(digits, i64.load(get(at), 3)),
    ...when(i32.equal(get(size), i32.const(9 * 2)), eightDigits, [
      ...branchIf(leave + 1, i32.differs(get(size), i32.const(10 * 2))),
      ...branchIf(leave + 1, i32.equal(byteAt(3), i32.const(0x30))),
    ]),
    ...numberOfDigits(leave),
    ...keep(step, i32.ofI64(get(digits))),
    ...advance(i32.add(i32.shiftRight(get(size), i32.const(1)), i32.const(1))),
  ];
}

/** Ids of seven or eight digits, with commas between: their number and the ids, behind the earlier lists. */
function listOf(step: Step, leave: number): Code {
  const comma = 0x2c;
  // `slot` is the end of the string.
  const endsAfter = (bytes: number): Code => {
    const behind = i32.add(get(at), i32.const(bytes));
    const isComma = i32.equal(byteAt(bytes), i32.const(comma));
    return i32.or(i32.equal(behind, get(slot)), i32.and(i32.less(behind, get(slot)), isComma));
  };
  return [
    ...sizeOf(leave),
    ...set(slot, i32.add(get(at), get(size))),
    ...branchIf(leave, i32.greater(get(slot), get(end))),
    ...branchIf(leave, i32.isZero(get(size))),
    // `hash` is where the list begins.
    ...set(hash, get(list)),
    ...loop(
      set(list, i32.add(get(list), i32.const(4))),
      branchIf(leave + 1, i32.differs(i32.load16(get(at), 0), prefixOf(step))),
      set(digits, i64.load(get(at), 2)),
      when(
        endsAfter(9),
        [...eightDigits, ...set(size, i32.const(9))],
        [
          ...branchIf(leave + 2, i32.isZero(endsAfter(10))),
          ...branchIf(leave + 2, i32.equal(byteAt(2), i32.const(0x30))),
          ...set(size, i32.const(10)),
        ],
      ),
      numberOfDigits(leave + 1),
      i32.store(get(list), 0, i32.ofI64(get(digits))),
      advance(get(size)),
      when(i32.differs(get(at), get(slot)), [...advance(1), ...branch(1)]),
    ),
    ...i32.store(get(hash), 0, i32.shiftRight(i32.subtract(get(list), get(hash)), i32.const(2))),
    ...set(list, i32.add(get(list), i32.const(4))),
    ...keep(step, get(hash)),
  ];
}

function tenthsOf(step: Step, leave: number): Code {
  const tenths = f64.nearest(get(double));
  const isBetween = (least: number, most: number): Code =>
    i32.and(f64.notGreater(f64.const(least), tenths), f64.notGreater(tenths, f64.const(most)));
  const isNear = f64.less(f64.absolute(f64.subtract(get(double), tenths)), f64.const(1e-6));
  return [
    ...set(double, f64.multiply(f64.load(get(at), 0), f64.const(10))),
    ...branchIf(leave, i32.isZero(i32.and(isNear, isBetween(10, 100)))),
    ...keep(step, i32.ofF64(tenths)),
    ...advance(8),
  ];
}

/** A word that was met before in the same dictionary. */
function wordOf(step: Step, leave: number): Code {
  const tag = i32.load(i32.const(0), tagsAddress + step.column * 4);
  const hashOfByte = i32.multiply(i32.xor(get(hash), byteAt(0)), i32.const(hashFactor));
  return [
    ...set(size, byteAt(0)),
    ...branchIf(
      leave,
      i32.or(i32.and(get(size), i32.const(1)), i32.greater(get(size), i32.const(wordBytesMax * 2))),
    ),
    ...set(size, i32.shiftRight(get(size), i32.const(1))),
    ...advance(1),
    ...set(hash, i32.const(hashStart)),
    // `slot` is the end of the word until the hash is known.
    ...set(slot, i32.add(get(at), get(size))),
    ...block(
      loop(branchIf(1, i32.notLess(get(at), get(slot))), set(hash, hashOfByte), advance(1), branch(0)),
    ),
    ...set(slot, i32.xor(get(hash), tag)),
    ...set(
      slot,
      i32.multiply(
        i32.and(i32.xor(get(slot), i32.shiftRight(get(slot), i32.const(15))), i32.const(wordSlots - 1)),
        i32.const(slotBytes),
      ),
    ),
    ...branchIf(leave, i32.differs(i32.load(get(slot), wordsAddress), i32.or(tag, get(size)))),
    ...branchIf(leave, i32.differs(i32.load(get(slot), wordsAddress + 4), get(hash))),
    ...keep(step, i32.load(get(slot), wordsAddress + 8)),
    // From the last byte to the first; `hash` is the begin of the word.
    ...set(hash, i32.subtract(get(at), get(size))),
    ...block(
      loop(
        branchIf(1, i32.isZero(get(size))),
        set(size, i32.subtract(get(size), i32.const(1))),
        branchIf(
          leave + 2,
          i32.differs(
            i32.load8(i32.add(get(slot), get(size)), wordsAddress + wordAt),
            i32.load8(i32.add(get(hash), get(size)), 0),
          ),
        ),
        branch(0),
      ),
    ),
  ];
}
