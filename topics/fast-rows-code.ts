/**
 * The WebAssembly of a decoder of plain records, for the steps of one plan, and the layout of the memory in which it works
 * (`fast-rows.ts`).
 */
import { nullInt, op, type Step } from './row-plan.ts';
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

export const pageBytes = 65_536;
/** Rows that one call decodes at most, and columns of a plan at most. */
export const stripRows = 4096;
export const columnsMax = 16;
/** A word that was met: tag of its dictionary with its length, hash, number, and its bytes. */
export const wordSlots = 8192;
export const slotBytes = 64;
export const wordAt = 12;
export const wordBytesMax = slotBytes - wordAt;
/** Bytes of a message; a longer one is not decoded here. */
export const inputBytesMax = 1024 * 1024;
/** A string is skipped by at most 8 kB, so reading goes past the input by no more than the strings of one record. */
const slackBytes = 2 * pageBytes;

export const endAddress = 0;
export const textEndAddress = 4;
export const listEndAddress = 8;
export const tagsAddress = 64;
export const columnsAddress = 256;
export const wordsAddress = columnsAddress + columnsMax * stripRows * 4;
export const inputAddress = wordsAddress + wordSlots * slotBytes;
/** The texts of the records: together no longer than the input. */
export const textAddress = inputAddress + inputBytesMax + slackBytes;
/** The lists of ids: a number takes ten bytes of the input at least, and a list one more. */
export const listAddress = textAddress + inputBytesMax;

export const hashStart = 0x811c9dc5 | 0;
export const hashFactor = 0x01000193;

// Locals: the parameters of `Run`, then those of the module.
const [row, stop, at, end, start, size, hash, slot, digits, double, text, list] = [
  0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11,
] as const;

const advance = (by: Code | number): Code =>
  set(at, i32.add(get(at), typeof by === 'number' ? i32.const(by) : by));
const byteAt = (offset: number): Code => i32.load8(get(at), offset);

/** A module whose `run` decodes the records of a plan with these steps. */
export const moduleFor = (steps: readonly Step[]): Uint8Array<ArrayBuffer> =>
  moduleOf(4, ['i32', 'i32', 'i32', 'i32', 'i64', 'f64', 'i32', 'i32'], bodyOf(steps));

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
