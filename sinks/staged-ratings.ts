/**
 * Versions of ratings on their way into the history: what each message of title.ratings makes of each title, in the order
 * of the partition.
 */
import { type ChunkDecoder, deleteColumns, type Owner, recordColumns } from '../topics/chunk.ts';
import { dayOf } from '../topics/day.ts';
import { firstIdOf, groupSize } from '../topics/id-groups.ts';
import type { IdSet } from '../topics/id-set.ts';
import { nullInt } from '../topics/row-plan.ts';

/** Columns of equal length, in the order of the log. */
export interface RatingVersions {
  readonly length: number;
  readonly tconst: Int32Array;
  /** Days since 1970-01-01. */
  readonly day: Int32Array;
  /** Rating × 10; `nullInt` where the title has no rating any more. */
  readonly tenths: Int32Array;
  /** `nullInt` where the title has no rating any more. */
  readonly votes: Int32Array;
  /** Whether each title occurs once, and had never occurred before: then no version meets another. */
  readonly isFresh: boolean;
}

const columnNames = ['tconst', 'day', 'tenths', 'votes'] as const;

export class StagedRatings {
  /** Titles that the history or the stage may hold. */
  readonly #titles: IdSet;
  readonly #records = recordColumns('title.ratings', ['tconst', 'averageRating', 'numVotes']);
  readonly #deletes = deleteColumns('title.ratings');
  #columns = columnNames.map(() => new Int32Array(1024));
  #length = 0;
  #isFresh = true;

  constructor(titles: IdSet) {
    this.#titles = titles;
  }

  get length(): number {
    return this.#length;
  }

  /**
   * Decodes a chunk and stages what it makes of its titles.
   * @param newestDay of the messages before it in the partition
   * @param historyDays length of the history: an older dump counts as of the cut-off, so that pruned rows can
   *   never matter again
   * @returns the newest day, this message included
   * @throws RejectedMessage, with nothing of the chunk staged
   */
  add(value: Buffer, decoder: ChunkDecoder, owner: Owner, newestDay: number, historyDays: number): number {
    const [records, deletes] = [this.#records, this.#deletes];
    records.clear();
    deletes.clear();
    const header = decoder.decode(value, records, deletes, owner);
    const newest = Math.max(newestDay, dayOf(header.asOfMs));
    const day = Math.max(dayOf(header.asOfMs), newest - historyDays);
    const ids = records.int(0).subarray(0, records.length);
    if (header.replaces.length > 0) {
      const stays = new Set(ids);
      for (const group of header.replaces) {
        const first = firstIdOf(group);
        for (let id = first; id < first + groupSize; id++) if (!stays.has(id)) this.#addGone(id, day);
      }
    }
    for (let row = 0; row < records.length; row++) {
      const id = ids[row] as number;
      if (this.#titles.has(id)) this.#isFresh = false;
      this.#titles.add(id);
      this.#push(id, day, records.int(1)[row] as number, records.int(2)[row] as number);
    }
    for (let row = 0; row < deletes.length; row++) this.#addGone(deletes.int(0)[row] as number, day);
    return newest;
  }

  /** Returns the staged versions and starts again without any. They are valid until the next `add`. */
  take(): RatingVersions {
    const [tconst, day, tenths, votes] = this.#columns as [Int32Array, Int32Array, Int32Array, Int32Array];
    const versions = { length: this.#length, isFresh: this.#isFresh, tconst, day, tenths, votes };
    this.#length = 0;
    this.#isFresh = true;
    return versions;
  }

  /** A title that never had a rating has none to lose. */
  #addGone(id: number, day: number): void {
    if (!this.#titles.has(id)) return;
    this.#isFresh = false;
    this.#push(id, day, nullInt, nullInt);
  }

  #push(...values: readonly [tconst: number, day: number, tenths: number, votes: number]): void {
    if (this.#length === this.#columns[0]?.length) {
      this.#columns = this.#columns.map((column) => {
        const grown = new Int32Array(column.length * 2);
        grown.set(column);
        return grown;
      });
    }
    for (let c = 0; c < values.length; c++) {
      (this.#columns[c] as Int32Array)[this.#length] = values[c] as number;
    }
    this.#length += 1;
  }
}
