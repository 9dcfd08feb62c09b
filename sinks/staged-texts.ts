/**
 * Names on their way into a table of texts: many rows for one statement, in the order of arrival.
 *
 * The rows travel as one text with control characters between them. Two list parameters take six times the CPU (60,000 names:
 * 330 ms against 55 ms), because the binding converts every value of a list by itself.
 */
import { type ChunkDecoder, type ChunkHeader, deleteColumns, recordColumns } from '../topics/chunk.ts';
import { firstIdOf, groupSize } from '../topics/id-groups.ts';
import { IdSet } from '../topics/id-set.ts';
import type { Ownership } from '../topics/ownership.ts';
import type { Columns } from '../topics/rows.ts';
import { nullMark, recordSeparator, type TextRows, type TextTable, unitSeparator } from './text-table.ts';

/** Of a text after the first: whether it is null, or begins here. */
const noText = 0x2d;
const beginsText = 0x3d;

export class StagedTexts {
  readonly #table: TextTable;
  /** Columns of the records: the id, those that are only checked, the texts. */
  readonly #records: Columns;
  readonly #deletesRead: Columns;
  readonly #ids: IdSet;
  #seen = new IdSet();
  #text: string[] = [];
  #length = 0;
  #mayExist = false;
  #mayRepeat = false;
  #deletes: number[] = [];
  #removed = new Set<number>();
  #odd: [number, (string | null)[], number][] = [];

  /**
   * @param ids that the store may hold; staged ids are added
   * @param checked other columns whose values can make a message invalid
   */
  constructor(table: TextTable, ids: IdSet, checked: readonly string[] = []) {
    const { dataset, id, texts } = table;
    this.#table = table;
    this.#ids = ids;
    const others = checked.filter((column) => column !== id && !texts.includes(column));
    this.#records = recordColumns(dataset, [id, ...others, ...texts], {}, texts);
    this.#deletesRead = deleteColumns(dataset);
  }

  get isEmpty(): boolean {
    return this.#length === 0 && this.#deletes.length === 0 && this.#removed.size === 0;
  }

  /**
   * Decodes a chunk and stages its rows. Calls `flush` between upserts and deletes, and between the removal of an id and
   * an upsert of the same one.
   * @throws RejectedMessage, with nothing of the chunk staged
   */
  async add(
    value: Buffer,
    decoder: ChunkDecoder,
    owner: { readonly ownership: Ownership; readonly partition: number },
    flush: () => Promise<void>,
  ): Promise<ChunkHeader> {
    const [records, deletes] = [this.#records, this.#deletesRead];
    records.clear();
    deletes.clear();
    const header = decoder.decode(value, records, deletes);
    for (const rows of [records, deletes]) {
      owner.ownership.check(rows, 0, owner.partition, header.records + header.deletes);
    }
    owner.ownership.checkGroups(header.replaces, owner.partition, header.records + header.deletes);
    const ids = records.int(0).subarray(0, records.length);
    const gone = this.#goneFrom(header.replaces, ids);
    const isOutOfOrder =
      (this.#deletes.length > 0 && records.length > 0) ||
      gone.some((id) => this.#seen.has(id)) ||
      (this.#removed.size > 0 && ids.some((id) => this.#removed.has(id)));
    if (isOutOfOrder) await flush();
    for (const id of gone) this.#removed.add(id);
    const first = records.plan.forms.length - this.#table.texts.length;
    const ends = records.ints.slice(first);
    // Per row: digits, separators and the bytes of the texts. All rows are decoded to text at once.
    const marks = 12 + 2 * ends.length;
    let out = Buffer.allocUnsafe(records.textLength + records.length * marks);
    let length = 0;
    let start = 0;
    for (let row = 0; row < records.length; row++) {
      const id = ids[row] as number;
      if (this.#seen.has(id)) this.#mayRepeat = true;
      this.#seen.add(id);
      if (this.#ids.has(id)) this.#mayExist = true;
      this.#ids.add(id);
      this.#length += 1;
      const rowStart = start;
      for (const of of ends) start = endAfter(start, of[row] as number);
      if (length + marks + start - rowStart > out.length) out = Buffer.concat([out], out.length * 2);
      if (holdsMark(records.text, rowStart, start)) {
        this.#odd.push([id, textsIn(records.text, rowStart, ends, row), this.#length]);
        // An empty line takes its place, so that the other lines keep theirs.
        out[length++] = recordSeparator;
        continue;
      }
      length += out.write(String(id), length, 'latin1');
      let from = rowStart;
      for (let t = 0; t < ends.length; t++) {
        const end = (ends[t] as Int32Array)[row] as number;
        const to = endAfter(from, end);
        out[length++] = unitSeparator;
        const isNull =
          t === 0 ? end < 0 : isFirstAgain(records.text, rowStart, ends[0]?.[row] as number, from, end);
        if (isNull) out[length++] = nullMark;
        else if (t > 0) out[length++] = end < 0 ? noText : beginsText;
        if (!isNull) for (let i = from; i < to; i++) out[length++] = records.text[i] as number;
        from = to;
      }
      out[length++] = recordSeparator;
    }
    if (length > 0) this.#text.push(out.toString('utf8', 0, length));
    if (deletes.length > 0) {
      if (this.#length > 0) await flush();
      for (let row = 0; row < deletes.length; row++) this.#deletes.push(deletes.int(0)[row] as number);
    }
    return header;
  }

  /** Ids of replaced groups that the store may hold and the replacing message does not. */
  #goneFrom(groups: Int32Array, ids: Int32Array): number[] {
    const gone: number[] = [];
    if (groups.length === 0) return gone;
    const stays = new Set(ids);
    for (const group of groups) {
      const first = firstIdOf(group);
      for (let id = first; id < first + groupSize; id++) {
        if (this.#ids.has(id) && !stays.has(id)) gone.push(id);
      }
    }
    return gone;
  }

  /** Returns the staged rows and starts again without any. */
  take(): TextRows {
    const rows = {
      length: this.#length,
      text: this.#text.join(''),
      odd: this.#odd,
      mayExist: this.#mayExist,
      mayRepeat: this.#mayRepeat,
      deletes: this.#deletes,
      removed: [...this.#removed],
    };
    this.#removed = new Set();
    this.#text = [];
    this.#length = 0;
    this.#mayExist = false;
    this.#mayRepeat = false;
    this.#deletes = [];
    this.#odd = [];
    this.#seen = new IdSet();
    return rows;
  }
}

/** The place behind a text that begins at `start`. A negative end is that of a null. */
const endAfter = (start: number, end: number) => (end < 0 ? start : end);

/** Whether a later text equals the first one; null equals null. */
function isFirstAgain(
  text: Uint8Array,
  first: number,
  firstEnd: number,
  start: number,
  end: number,
): boolean {
  if (firstEnd < 0 || end < 0) return firstEnd < 0 && end < 0;
  if (firstEnd - first !== end - start) return false;
  for (let i = start; i < end; i++) if (text[i] !== text[first + i - start]) return false;
  return true;
}

/** The texts of a row as the table has them. */
function textsIn(
  text: Uint8Array,
  rowStart: number,
  ends: readonly Int32Array[],
  row: number,
): (string | null)[] {
  let from = rowStart;
  const [first = null, ...others] = ends.map((of) => {
    const end = of[row] as number;
    const start = from;
    from = endAfter(start, end);
    return end < 0 ? null : Buffer.from(text.subarray(start, end)).toString();
  });
  return [first, ...others.map((other) => (other === first ? null : other === null ? '-' : `=${other}`))];
}

/** Whether texts contain a byte that separates rows. */
function holdsMark(text: Uint8Array, start: number, end: number): boolean {
  for (let i = start; i < end; i++) {
    const byte = text[i] as number;
    if (byte === unitSeparator || byte === recordSeparator || byte === nullMark) return true;
  }
  return false;
}
