/**
 * Rows of one dataset in an open micro-batch, each classified as it arrives.
 *
 * A row is *fresh* when the store certainly holds nothing of its title in that dataset, and the title's rows arrived in
 * one run of ascending keys. A fresh row needs no look-up: it can only be an insert. Every other row is *known* and is
 * compared with the store. The split is an optimisation without any effect on results: classifying every row as known
 * gives the same deltas (a property test does).
 *
 * A replacement removes every row of its groups that came before it. Its place is before the first record of its message.
 * Earlier rows of the same micro-batch are dropped here; stored rows are found when the micro-batch is applied.
 */
import { type DatasetName, datasets } from '../topics/catalog.ts';
import { deleteColumns, recordColumns } from '../topics/chunk.ts';
import type { Dictionary } from '../topics/dictionary.ts';
import { firstIdOf, groupOf, groupSize } from '../topics/id-groups.ts';
import { IdSet } from '../topics/id-set.ts';
import type { Columns } from '../topics/rows.ts';

/** Rows of one dataset in arrival order. */
export class StagedRows {
  readonly dataset: DatasetName;
  readonly records: Columns;
  readonly deletes: Columns;
  /** How many records arrived before each delete. */
  readonly deletePlaces: number[] = [];
  /** How many records arrived before the last replacement of each replaced group. */
  readonly replacedAt = new Map<number, number>();
  /** 1 where a record is known. */
  known = new Uint8Array(0);
  knownCount = 0;
  /** Whether a key may occur more than once among the known rows. */
  mayRepeat = false;

  /**
   * Titles of this micro-batch: those first seen as fresh, those first seen as known, and those that were fresh and lost
   * that status when more rows or a delete arrived.
   */
  readonly #fresh = new IdSet();
  readonly #known = new IdSet();
  readonly #moved = new IdSet();
  readonly #hasOrdering: boolean;
  #lastTitle = -1;
  #lastOrdering = -1;
  #lastIsKnown = false;

  /** @param spent rows of an applied micro-batch of the same dataset and store, whose memory is reused */
  constructor(
    dataset: DatasetName,
    wanted: readonly string[],
    dictionaries: Readonly<Record<string, Dictionary>>,
    spent?: StagedRows,
  ) {
    this.dataset = dataset;
    this.records = spent?.records ?? recordColumns(dataset, wanted, dictionaries);
    this.deletes = spent?.deletes ?? deleteColumns(dataset);
    this.known = spent?.known ?? this.known;
    this.records.clear();
    this.deletes.clear();
    this.#hasOrdering = datasets[dataset].keyColumns === 2;
  }

  /** Classifies the rows from `from` on, and adds their titles to `present`. */
  classify(from: number, present: IdSet): void {
    const { length } = this.records;
    const titles = this.records.int(0);
    const orderings = this.#hasOrdering ? this.records.int(1) : undefined;
    if (this.known.length < length) {
      const grown = new Uint8Array(Math.max(length, this.known.length * 2));
      grown.set(this.known);
      this.known = grown;
    }
    for (let row = from; row < length; row++) {
      const title = titles[row] as number;
      const ordering = orderings === undefined ? 0 : (orderings[row] as number);
      if (title !== this.#lastTitle) {
        this.#lastTitle = title;
        this.#lastIsKnown = present.has(title);
        if (!this.#lastIsKnown) {
          present.add(title);
          this.#fresh.add(title);
        } else if (this.#fresh.has(title)) {
          this.#moved.add(title);
          this.mayRepeat = true;
        } else if (this.#known.has(title)) {
          this.mayRepeat = true;
        } else {
          this.#known.add(title);
        }
      } else if (ordering <= this.#lastOrdering) {
        this.mayRepeat = true;
        if (!this.#lastIsKnown) this.#moved.add(title);
      }
      this.#lastOrdering = ordering;
      if (this.#lastIsKnown) {
        this.known[row] = 1;
        this.knownCount += 1;
      } else {
        this.known[row] = 0;
      }
    }
  }

  /**
   * Records that a message replaces groups; call it before `classify`. A title of such a group that has rows in this micro-batch is no longer
   * fresh: its earlier rows must not reach the store.
   * @param from the first record of the message
   */
  replace(groups: Int32Array, from: number): void {
    if (groups.length === 0) return;
    for (const group of groups) {
      this.replacedAt.set(group, from);
      const first = firstIdOf(group);
      for (let title = first; title < first + groupSize; title++) {
        if (this.#fresh.has(title)) this.#moved.add(title);
      }
    }
    this.#lastTitle = -1;
  }

  /** Whether a later message of this micro-batch replaces the group of a record. */
  isReplaced(title: number, row: number): boolean {
    return row < (this.replacedAt.get(groupOf(title)) ?? 0);
  }

  /** Records the deletes from `from` on. A title with a delete is no longer fresh. */
  classifyDeletes(from: number): void {
    const titles = this.deletes.int(0);
    for (let row = from; row < this.deletes.length; row++) {
      this.deletePlaces.push(this.records.length);
      this.#moved.add(titles[row] as number);
      this.mayRepeat = true;
    }
    if (this.deletes.length > from) this.#lastTitle = -1;
  }

  /** Reclassifies the rows of titles that lost their fresh status as known. After this the split is final. */
  seal(): void {
    if (this.#moved.isEmpty) return;
    const titles = this.records.int(0);
    for (let row = 0; row < this.records.length; row++) {
      if (this.known[row] === 0 && this.#moved.has(titles[row] as number)) {
        this.known[row] = 1;
        this.knownCount += 1;
      }
    }
  }
}
