/**
 * A decoder of plain records in WebAssembly, generated for each plan: a third of the time that `rows.ts` takes for the same
 * records. It stops at the first record that is not plain (a number or an id of more bytes than usual, a word that it has not
 * met, any damage), and `rows.ts` decodes that one. So what a record means, and what is wrong with it, is written there alone.
 */
import type { Dictionary } from './dictionary.ts';
import {
  columnsAddress,
  columnsMax,
  endAddress,
  hashFactor,
  hashStart,
  inputAddress,
  inputBytesMax,
  listAddress,
  listEndAddress,
  moduleFor,
  pageBytes,
  slotBytes,
  stripRows,
  tagsAddress,
  textAddress,
  textEndAddress,
  wordAt,
  wordBytesMax,
  wordSlots,
  wordsAddress,
} from './fast-rows-code.ts';
import { type ColumnForm, nullInt, op, type RowPlan } from './row-plan.ts';
import type { Columns } from './rows.ts';

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
      const module = new WebAssembly.Module(moduleFor(plan.steps));
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

const slotOf = (hash: number) => hash ^ (hash >>> 15);
