/**
 * Takes the hashes of a dump on the way, while its file goes to an empty topic in one pass. A file that is not sorted by id
 * has no hashes: its groups never come together.
 */
import type { Dataset } from '../../topics/catalog.ts';
import type { Directory } from '../../topics/dump-index.ts';
import type { RejectedRow } from '../chunker.ts';
import type { Layout } from '../file-layout.ts';
import type { FileObserver } from '../file-replay.ts';
import { LineId } from '../line-id.ts';
import { GroupEntries } from './group-entries.ts';
import { GroupReader, UnsortedRows } from './group-reader.ts';
import type { OwnOffsets } from './own-offsets.ts';

export class LoadHasher implements FileObserver {
  readonly entries = new GroupEntries();
  readonly #ids: LineId;
  readonly #reader: GroupReader;
  /** How many rows of an id were rejected. */
  readonly #rejected = new Map<number, number>();
  /** Of this attempt. */
  readonly own: OwnOffsets;
  #isUnsorted = false;
  #isEnded = false;

  constructor(dataset: Dataset, layout: Layout, own: OwnOffsets) {
    this.own = own;
    this.#ids = new LineId(dataset.idPrefix, layout.order[0] as number);
    this.#reader = new GroupReader({
      prefix: dataset.idPrefix,
      idColumn: layout.order[0] as number,
      keepRows: false,
      isRefused: (id, rows) => this.#rejected.size > 0 && this.#rejected.get(id) === rows,
      onGroup: ({ group, low, high, maskLow, maskHigh, rows }) =>
        this.entries.put(group, { low, high, maskLow, maskHigh, rows }),
    });
  }

  /** Whether the hashes of all groups are known. */
  get isWhole(): boolean {
    return this.#isEnded && !this.#isUnsorted;
  }

  get strays(): Directory['strays'] {
    return this.#reader.strays;
  }

  push(piece: Buffer): void {
    this.#read(() => this.#reader.push(piece));
  }

  rejected({ original }: RejectedRow): void {
    const id = this.#ids.at(Buffer.concat([original, Buffer.from('\n')]), 0);
    if (id >= 0) this.#rejected.set(id, (this.#rejected.get(id) ?? 0) + 1);
  }

  acknowledged(partition: number, offset: number | undefined): void {
    this.own.add(partition, offset);
  }

  end(): void {
    this.#read(() => this.#reader.end());
    this.#isEnded = true;
  }

  #read(step: () => void): void {
    if (this.#isUnsorted) return;
    try {
      step();
    } catch (thrown) {
      if (!(thrown instanceof UnsortedRows)) throw thrown;
      this.#isUnsorted = true;
    }
  }
}
