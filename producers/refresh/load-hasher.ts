/**
 * Hashes the groups of a file while the file is loaded into an empty topic, in one pass. If the file is not sorted by id, its
 * groups are never whole: `readSorted` then hashes a sorted copy.
 */
import { bytesOf, type ReadableFile } from '../../runtime/file-bytes.ts';
import type { Dataset } from '../../topics/catalog.ts';
import type { Strays } from '../../topics/dump-index.ts';
import { groupOf } from '../../topics/id-groups.ts';
import type { Chunk } from '../chunk-writer.ts';
import type { RejectedRow } from '../chunker.ts';
import type { Layout } from '../file-layout.ts';
import type { FileObserver } from '../file-replay.ts';
import { LineId } from '../line-id.ts';
import { entryOfRows, GroupEntries } from './group-entries.ts';
import { GroupReader, type GroupReaderOptions, UnsortedRows } from './group-reader.ts';
import type { OwnOffsets } from './own-offsets.ts';

export class LoadHasher implements FileObserver {
  readonly #own: OwnOffsets;
  readonly #ids: LineId;
  readonly #options: GroupReaderOptions;
  #reader: GroupReader;
  /** How many rows of an id were rejected. */
  readonly #rejected = new Map<number, number>();
  readonly #groupsOfRejected = new Set<number>();
  entries = new GroupEntries();
  /** Whether the hashes have to be taken from a sorted copy. */
  isUnsorted = false;

  /** @param own takes the offsets of this attempt */
  constructor(dataset: Dataset, layout: Layout, own: OwnOffsets) {
    this.#own = own;
    this.#ids = new LineId(dataset.idPrefix, layout.order[0] as number);
    this.#options = {
      prefix: dataset.idPrefix,
      idColumn: layout.order[0] as number,
      keepRows: false,
      isRefused: (id, rows) => this.#rejected.size > 0 && this.#rejected.get(id) === rows,
      onGroup: (closed) => {
        const hasRefused = this.#groupsOfRejected.has(closed.group);
        this.entries.put(closed.group, entryOfRows(closed, closed, hasRefused));
      },
    };
    this.#reader = new GroupReader(this.#options);
  }

  get strays(): Strays {
    return this.#reader.strays;
  }

  push(piece: Buffer): void {
    this.#read(() => this.#reader.push(piece));
  }

  rejected({ original }: RejectedRow): void {
    const id = this.#ids.at(Buffer.concat([original, Buffer.from('\n')]), 0);
    if (id < 0) return;
    this.#rejected.set(id, (this.#rejected.get(id) ?? 0) + 1);
    this.#groupsOfRejected.add(groupOf(id));
  }

  acknowledged({ partition, number }: Chunk, offset: number | undefined): void {
    this.#own.add(partition, number, offset);
  }

  end(): void {
    this.#read(() => this.#reader.end());
  }

  /** Takes the hashes from a sorted copy of the file that was read to its end. */
  async readSorted(copy: ReadableFile): Promise<void> {
    this.entries = new GroupEntries();
    this.#reader = new GroupReader(this.#options);
    for await (const piece of bytesOf(copy)) this.#reader.push(piece);
    this.#reader.end();
  }

  #read(step: () => void): void {
    if (this.isUnsorted) return;
    try {
      step();
    } catch (thrown) {
      if (!(thrown instanceof UnsortedRows)) throw thrown;
      this.isUnsorted = true;
    }
  }
}
