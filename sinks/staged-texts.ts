/** Texts on their way into a table of the sink's store: the rows of many chunks for one write, in the order of arrival. */
import type { TextColumn } from '../database/duckdb.ts';
import {
  type ChunkDecoder,
  type ChunkHeader,
  deleteColumns,
  type Owner,
  recordColumns,
} from '../topics/chunk.ts';
import { firstIdOf, groupSize } from '../topics/id-groups.ts';
import { IdSet } from '../topics/id-set.ts';
import type { Columns } from '../topics/rows.ts';
import { beginsText, noText, type TextRows, type TextTable } from './text-table.ts';

export class StagedTexts {
  readonly #table: TextTable;
  /** Columns of the staged records: the id, those that are only checked, the texts. */
  readonly #records: Columns;
  readonly #deletesRead: Columns;
  readonly #ids: IdSet;
  #seen = new IdSet();
  #mayExist = false;
  #mayRepeat = false;
  #deletes: number[] = [];
  #removed = new Set<number>();

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
    return this.#records.length === 0 && this.#deletes.length === 0 && this.#removed.size === 0;
  }

  /**
   * Decodes a chunk and stages its rows. Calls `flush` between upserts and deletes, and between the removal of an id and
   * an upsert of the same one.
   * @throws RejectedMessage, with nothing of the chunk staged
   */
  async add(
    value: Buffer,
    decoder: ChunkDecoder,
    owner: Owner,
    flush: () => Promise<void>,
  ): Promise<ChunkHeader> {
    const [records, deletes] = [this.#records, this.#deletesRead];
    const { length, textLength } = records;
    deletes.clear();
    const header = decoder.decode(value, records, deletes, owner);
    const ids = records.int(0).subarray(length, records.length);
    const gone = this.#goneFrom(header.replaces, ids);
    const isOutOfOrder =
      (this.#deletes.length > 0 && ids.length > 0) ||
      gone.some((id) => this.#seen.has(id)) ||
      (this.#removed.size > 0 && ids.some((id) => this.#removed.has(id)));
    if (isOutOfOrder) {
      Object.assign(records, { length, textLength });
      await flush();
      return this.add(value, decoder, owner, flush);
    }
    for (const id of gone) this.#removed.add(id);
    for (const id of ids) {
      if (this.#seen.has(id)) this.#mayRepeat = true;
      this.#seen.add(id);
      if (this.#ids.has(id)) this.#mayExist = true;
      this.#ids.add(id);
    }
    if (deletes.length > 0) {
      if (records.length > 0) await flush();
      for (const id of deletes.int(0).subarray(0, deletes.length)) this.#deletes.push(id);
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

  /** Returns the staged rows, which stay valid until the next `add`, and starts again without any. */
  take(): TextRows {
    const rows = {
      length: this.#records.length,
      ids: this.#records.int(0),
      texts: textsOf(this.#records, this.#table.texts.length),
      mayExist: this.#mayExist,
      mayRepeat: this.#mayRepeat,
      deletes: this.#deletes,
      removed: [...this.#removed],
    };
    this.#records.clear();
    this.#removed = new Set();
    this.#mayExist = false;
    this.#mayRepeat = false;
    this.#deletes = [];
    this.#seen = new IdSet();
    return rows;
  }
}

/** The texts of the staged rows, in the forms of the table. */
function textsOf(records: Columns, count: number): TextColumn[] {
  const bytes = records.text;
  const starts = records.textStarts();
  const [first, ...others] = records.ints.slice(-count).map((ends, t): TextColumn => {
    return { bytes, starts: starts[t] as Int32Array, ends };
  }) as [TextColumn, ...TextColumn[]];
  return [first, ...others.map((other) => differencesOf(first, other, records.length))];
}

/** A text after the first: null if it equals the first, else `noText` or `beginsText` and the text. */
function differencesOf(first: TextColumn, other: TextColumn, length: number): TextColumn {
  const starts = new Int32Array(length);
  const ends = new Int32Array(length).fill(-1);
  let bytes = Buffer.allocUnsafe(1024);
  let used = 0;
  for (let row = 0; row < length; row++) {
    if (isSame(first, other, row)) continue;
    const start = other.starts[row] as number;
    const end = other.ends[row] as number;
    const size = Math.max(0, end - start);
    if (used + 1 + size > bytes.length) bytes = Buffer.concat([bytes], 2 * (used + 1 + size));
    starts[row] = used;
    bytes[used] = end < 0 ? noText : beginsText;
    bytes.set(other.bytes.subarray(start, start + size), used + 1);
    used += 1 + size;
    ends[row] = used;
  }
  return { bytes, starts, ends };
}

/** Whether two texts of a row are equal; null equals null. */
function isSame(a: TextColumn, b: TextColumn, row: number): boolean {
  const [start, end] = [a.starts[row] as number, a.ends[row] as number];
  const [otherStart, otherEnd] = [b.starts[row] as number, b.ends[row] as number];
  if (end < 0 || otherEnd < 0) return end < 0 && otherEnd < 0;
  if (end - start !== otherEnd - otherStart) return false;
  for (let i = start, j = otherStart; i < end; i++, j++) if (a.bytes[i] !== b.bytes[j]) return false;
  return true;
}
