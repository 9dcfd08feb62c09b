/**
 * A micro-batch while it is open: chunks are decoded onto columns as they arrive, and each row is told apart at once.
 *
 * A row is *fresh* when the store certainly holds nothing of its title in that dataset, and the title's rows came in
 * one run of ascending keys: such a row needs no look-up, it can only be an insert. Every other row is *known*: it is
 * compared with the store. The split is an optimisation that must not be seen in any result: calling every row known
 * gives the same deltas (a property test does).
 */
import { type DatasetName, datasets } from '../topics/catalog.ts';
import {
  type ChunkDecoder,
  type ChunkHeader,
  deleteColumns,
  hashOf,
  RejectedMessage,
  recordColumns,
} from '../topics/chunk.ts';
import type { Dictionary } from '../topics/dictionary.ts';
import { IdSet } from '../topics/id-set.ts';
import type { Ownership } from '../topics/ownership.ts';
import type { Gap } from '../topics/position.ts';
import type { Columns } from '../topics/rows.ts';

/** Which chunk a partition's position lies behind: proves on reading it again that the log is still the same one. */
export interface Fingerprint {
  readonly runId: string;
  readonly chunk: number;
  /** SHA-256 of the message's value. */
  readonly hash: string;
}

/** What one source topic brought to a micro-batch. */
export interface SourceProgress {
  readonly topic: string;
  readonly dataset: DatasetName;
  /** Next offset before and after. */
  readonly from: number;
  to: number;
  /** What the log had lost at the beginning of it. */
  readonly gap?: Gap;
  records: number;
  rejected: number;
  messages: number;
  /** Timestamp of the newest message, in milliseconds since 1970. */
  recordTimeMs: number;
  /** The last message's value, for the fingerprint. */
  last: { runId: string; chunk: number; value: Buffer | null };
}

/** Rows of one dataset in arrival order. */
export class StagedRows {
  readonly dataset: DatasetName;
  readonly records: Columns;
  readonly deletes: Columns;
  /** How many records had come before each delete. */
  readonly deletePlaces: number[] = [];
  /** 1 where a record is known. */
  known = new Uint8Array(0);
  knownCount = 0;
  /** Whether a key may come more than once among the known rows. */
  mayRepeat = false;

  /** Titles of this micro-batch that are still fresh, that are known, and that were fresh until they came again. */
  readonly #fresh = new IdSet();
  readonly #known = new IdSet();
  readonly #moved = new IdSet();
  readonly #hasOrdering: boolean;
  #lastTitle = -1;
  #lastOrdering = -1;
  #lastIsKnown = false;

  /** @param spent rows of the same dataset and store that nobody needs any more: their memory is used again */
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

  /** Tells the rows from `from` on apart, and notes their titles in `present`. */
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

  /** Notes the deletes from `from` on: a title that is deleted from is no longer fresh. */
  classifyDeletes(from: number): void {
    const titles = this.deletes.int(0);
    for (let row = from; row < this.deletes.length; row++) {
      this.deletePlaces.push(this.records.length);
      this.#moved.add(titles[row] as number);
      this.mayRepeat = true;
    }
    if (this.deletes.length > from) this.#lastTitle = -1;
  }

  /** Makes the titles known that were fresh only until they came again. After this the split is final. */
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

/** What a store knows without asking its database. */
export interface StoreMemory {
  /** By dataset: titles of which the store may hold rows. Never misses one that it holds. */
  readonly present: ReadonlyMap<DatasetName, IdSet>;
  readonly dictionary: Dictionary;
}

export interface SourceMessage {
  readonly topic: string;
  readonly dataset: DatasetName;
  readonly offset: number;
  readonly timestampMs: number;
  readonly value: Buffer | null;
}

export interface RejectedSource {
  readonly message: SourceMessage;
  readonly rejection: RejectedMessage;
}

export class MicroBatch {
  readonly staged = new Map<DatasetName, StagedRows>();
  readonly sources = new Map<string, SourceProgress>();
  readonly rejected: RejectedSource[] = [];
  records = 0;
  bytes = 0;
  /** Timestamp of the newest message. */
  recordTimeMs = 0;

  readonly #shard: number;
  readonly #memory: StoreMemory;
  readonly #projection: ReadonlyMap<DatasetName, readonly string[]>;
  readonly #ownership: Ownership;
  /** Not the micro-batch that they are of: it would keep the one before it, and so all that ever were. */
  readonly #spent: ReadonlyMap<DatasetName, StagedRows> | undefined;

  /**
   * @param ownership of the source topics
   * @param spent a micro-batch of the same store that is applied: its memory is used again
   */
  constructor(
    shard: number,
    memory: StoreMemory,
    projection: ReadonlyMap<DatasetName, readonly string[]>,
    ownership: Ownership,
    spent?: MicroBatch,
  ) {
    this.#ownership = ownership;
    this.#spent = spent?.staged;
    this.#shard = shard;
    this.#memory = memory;
    this.#projection = projection;
  }

  get isEmpty(): boolean {
    return this.sources.size === 0;
  }

  /**
   * Adds a message whose value is written with our own schema, or is about to be rejected.
   * @param decode the decoder of its dataset
   * @param value the value to decode: the message's own, or what `ChunkDecoder.resolve` made of it
   */
  add(message: SourceMessage, decoder: ChunkDecoder, value: Buffer): void {
    let staged = this.staged.get(message.dataset);
    if (staged === undefined) {
      const wanted = this.#projection.get(message.dataset) ?? [];
      staged = new StagedRows(
        message.dataset,
        wanted,
        Object.fromEntries(wanted.map((column) => [column, this.#memory.dictionary])),
        this.#spent?.get(message.dataset),
      );
      this.staged.set(message.dataset, staged);
    }
    const { records, deletes } = staged;
    const firstRecord = records.length;
    const firstDelete = deletes.length;
    let header: ChunkHeader;
    try {
      header = decoder.decode(value, records, deletes);
      try {
        const held = header.records + header.deletes;
        this.#ownership.check(records, firstRecord, this.#shard, held);
        this.#ownership.check(deletes, firstDelete, this.#shard, held);
      } catch (thrown) {
        records.length = firstRecord;
        deletes.length = firstDelete;
        throw thrown;
      }
    } catch (thrown) {
      if (!(thrown instanceof RejectedMessage)) throw thrown;
      this.reject(message, thrown);
      return;
    }
    staged.classify(firstRecord, this.#memory.present.get(message.dataset) as IdSet);
    staged.classifyDeletes(firstDelete);
    const count = header.records + header.deletes;
    this.#advance(message, { runId: header.runId, chunk: header.chunk }, count, 0);
    this.records += count;
  }

  /** Counts a message that cannot be applied; it becomes a dead letter with this micro-batch. */
  reject(message: SourceMessage, rejection: RejectedMessage): void {
    this.rejected.push({ message, rejection });
    this.#advance(message, { runId: '', chunk: -1 }, rejection.records, rejection.records);
  }

  /** Passes over an offset that holds no message. */
  pass(message: SourceMessage): void {
    this.#advance(message, { runId: '', chunk: -1 }, 0, 0);
  }

  /** Begins a source behind messages that its log has lost. */
  lose(topic: string, dataset: DatasetName, gap: Gap): void {
    const [from, to] = gap;
    const none = { records: 0, rejected: 0, messages: 0, recordTimeMs: 0 };
    const last = { runId: '', chunk: -1, value: null };
    this.sources.set(topic, { topic, dataset, from, to, gap, ...none, last });
  }

  seal(): void {
    for (const staged of this.staged.values()) staged.seal();
  }

  #advance(
    message: SourceMessage,
    chunk: { runId: string; chunk: number },
    records: number,
    rejected: number,
  ): void {
    let source = this.sources.get(message.topic);
    const last = { ...chunk, value: message.value };
    if (source === undefined) {
      const { topic, dataset, offset } = message;
      const none = { records: 0, rejected: 0, messages: 0, recordTimeMs: 0 };
      source = { topic, dataset, from: offset, to: offset, ...none, last };
      this.sources.set(message.topic, source);
    }
    source.to = message.offset + 1;
    source.records += records;
    source.rejected += rejected;
    source.messages += 1;
    source.recordTimeMs = Math.max(source.recordTimeMs, message.timestampMs);
    source.last = last;
    this.bytes += message.value?.length ?? 0;
    this.recordTimeMs = Math.max(this.recordTimeMs, message.timestampMs);
  }
}

export function fingerprintOf(last: SourceProgress['last']): Fingerprint {
  return { runId: last.runId, chunk: last.chunk, hash: hashOf(last.value) };
}
