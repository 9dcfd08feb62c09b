/**
 * Takes in the records of name.basics: stages many chunks for one statement, counts every record, and proves that the topic
 * is the one from which the state was made.
 */
import type { LogBounds } from '../kafka/bounds.ts';
import type { LogMessage } from '../kafka/log.ts';
import { ReelflowError } from '../runtime/errors.ts';
import { type BaseMark, followBase } from '../topics/base.ts';
import type { ChunkDecoder } from '../topics/chunk.ts';
import { expectedByHash, LogProof, proofHashOf } from '../topics/log-proof.ts';
import { Ownership } from '../topics/ownership.ts';
import { differenceOf, noRecords, sumOf } from '../topics/record-counts.ts';
import type { CubeStore } from './cube-store.ts';
import type { PeopleState } from './shard-state.ts';
import type { SinkMetrics } from './sink-metrics.ts';
import { StagedTexts } from './staged-texts.ts';
import { namesOfPeople } from './text-table.ts';

interface PersonIntakeOptions {
  readonly store: CubeStore;
  readonly decoder: ChunkDecoder;
  readonly topic: string;
  readonly metrics?: SinkMetrics | undefined;
}

export class PersonIntake {
  /** Records since the start. */
  count = 0;
  ownership = new Ownership('nm', 1);
  readonly #options: PersonIntakeOptions;
  readonly #store: CubeStore;
  /** By partition: the last message that the state contains. */
  readonly #proof = new LogProof<number>();
  // State of the open transaction:
  #staged: StagedTexts;
  #states = new Map<number, PeopleState>();
  /** The last message of each partition. Only its hash is stored. */
  #lasts = new Map<number, LogMessage>();

  constructor(options: PersonIntakeOptions) {
    this.#options = options;
    this.#store = options.store;
    this.#staged = new StagedTexts(namesOfPeople, options.store.personIds);
  }

  nextOf(partition: number): number {
    return this.#proof.readFrom(partition, this.#store.peopleStates.get(partition)?.next ?? 0);
  }

  /**
   * Requires a proof of each partition: its last message is read once more.
   * @param bounds of the topic's partitions, undefined if there is no topic
   * @returns partitions whose next offset has changed
   * @throws ReelflowError sourceLost, sourceReplaced
   */
  requireProof(bounds: ReadonlyMap<number, LogBounds> | undefined): number[] {
    const again: number[] = [];
    for (const { partition, next, lastHash } of this.#store.peopleStates.values()) {
      const { start, end } = bounds?.get(partition) ?? { start: 0, end: 0 };
      if (end < next) {
        throw new ReelflowError(
          bounds === undefined ? 'sourceLost' : 'sourceReplaced',
          bounds === undefined
            ? 'The topic of names does not exist any more'
            : 'The topic of names is shorter than what was read from it',
          {
            detail: `${this.#options.topic}/${partition} ends at offset ${end}, expected offset ${next}.`,
            hint: 'Replay the names, then run `reelflow reset`.',
          },
        );
      }
      if (next <= start) continue;
      this.#proof.require(partition, expectedByHash(next, lastHash));
      if (this.#proof.isPending(partition)) again.push(partition);
    }
    return again;
  }

  /** Begins a transaction. Drops what a rolled-back one has left. */
  begin(): void {
    this.#staged = new StagedTexts(namesOfPeople, this.#store.personIds);
    this.#states = new Map();
    this.#lasts = new Map();
  }

  /**
   * Stages a message, unless it is read again as a proof.
   * @throws ReelflowError sourceReplaced; RejectedMessage, with nothing of it staged
   */
  async add(partition: number, message: LogMessage): Promise<void> {
    if (this.#proof.isPending(partition)) {
      this.#prove(partition, message);
      return;
    }
    if (message.isMarker) {
      this.#count(partition, message, 0, 0);
      return;
    }
    const { decoder, metrics } = this.#options;
    const own = await decoder.asOwn(message.value);
    const { ownership } = this;
    const header = await this.#staged.add(own, decoder, { ownership, partition }, () =>
      this.flush(partition),
    );
    const records = header.records + header.deletes;
    // Before the mark counts: what is staged came before it.
    if (header.base !== undefined) await this.flush(partition);
    this.#count(partition, message, records, 0);
    if (header.base !== undefined) this.#mark(partition, header.base, message.offset);
    this.count += records;
    metrics?.names(records);
  }

  /** Counts the records of a message that cannot be used. */
  reject(partition: number, message: LogMessage, records: number): void {
    this.#count(partition, message, records, records);
    // A refused message of a base leaves the names that it should have replaced.
    this.#states.set(partition, { ...this.#stateOf(partition), openBase: undefined });
  }

  /** Writes the staged rows, which are all of one partition. */
  async flush(partition: number): Promise<void> {
    if (this.#staged.isEmpty) return;
    const { changed, removed } = await this.#store.writePeople(this.#staged.take());
    const state = this.#stateOf(partition);
    this.#states.set(partition, {
      ...state,
      applied: state.applied + changed,
      duplicate: state.duplicate - changed,
      removed: state.removed + removed,
    });
  }

  /** Writes the states that have changed. */
  async write(): Promise<void> {
    for (const [partition, last] of this.#lasts) {
      this.#states.set(partition, { ...this.#stateOf(partition), lastHash: proofHashOf(last) });
    }
    for (const state of this.#states.values()) await this.#store.putPeople(state);
  }

  /** Call it after the commit. @returns the states that have changed */
  committed(): PeopleState[] {
    for (const state of this.#states.values()) this.#store.peopleStates.set(state.partition, state);
    return [...this.#states.values()];
  }

  /** Forgets all names, so that the topic is read again from its start: offset 0, or a base. */
  async clear(): Promise<void> {
    await this.#store.clearPeople();
    this.#store.peopleStates.clear();
    this.#proof.clear();
    this.begin();
  }

  #prove(partition: number, message: LogMessage): void {
    const expected = this.#proof.pending.get(partition)?.offset;
    if (this.#proof.accept(partition, message)) return;
    throw new ReelflowError(
      'sourceReplaced',
      'The topic of names was replaced after the state was built from it',
      {
        detail: `${this.#options.topic}/${partition}: the message at offset ${expected} is not the one that was read.`,
        hint: 'It was recreated, or has lost its tail. If that was intended, run `reelflow reset` and start again.',
      },
    );
  }

  /** After the end of a base, the input of the partition starts at its begin. */
  #mark(partition: number, mark: BaseMark, offset: number): void {
    const state = this.#stateOf(partition);
    const { open, whole } = followBase(state.openBase, mark, offset);
    const before = open === state.openBase ? state.openBase?.before : sumOf(noRecords, state);
    const since =
      whole === undefined
        ? state
        : { ...state, ...differenceOf(state, state.openBase?.before ?? noRecords), start: whole.begin };
    this.#states.set(partition, { ...since, openBase: open && { ...open, before: before ?? noRecords } });
  }

  #count(partition: number, message: LogMessage, records: number, rejected: number): void {
    const { offset } = message;
    // The first message of a partition is at its log's start.
    const before = this.#stateOf(partition, offset);
    this.#lasts.set(partition, message);
    // A record counts as a duplicate until `flush` knows how many rows have changed.
    this.#states.set(partition, {
      ...before,
      next: offset + 1,
      duplicate: before.duplicate + records - rejected,
      rejected: before.rejected + rejected,
    });
  }

  #stateOf(partition: number, start = 0): PeopleState {
    const none = { partition, start, next: 0, lastHash: '', ...noRecords };
    return this.#states.get(partition) ?? this.#store.peopleStates.get(partition) ?? none;
  }
}
