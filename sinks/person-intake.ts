/** Takes names in: many chunks for one statement, counted, and proved to be of the topic that the store knows. */

import type { LogBounds } from '../kafka/bounds.ts';
import type { LogMessage } from '../kafka/log.ts';
import { ReelflowError } from '../runtime/errors.ts';
import { type ChunkDecoder, hashOf } from '../topics/chunk.ts';
import { expectedByHash, LogProof } from '../topics/log-proof.ts';
import { Ownership } from '../topics/ownership.ts';
import type { CubeStore, PeopleState } from './cube-store.ts';
import type { SinkMetrics } from './sink-metrics.ts';
import { StagedPeople } from './staged-people.ts';

export interface PersonIntakeOptions {
  readonly store: CubeStore;
  readonly decoder: ChunkDecoder;
  readonly topic: string;
  readonly metrics?: SinkMetrics | undefined;
}

export class PersonIntake {
  /** Since the start. */
  count = 0;
  ownership = new Ownership('nm', 1);
  readonly #options: PersonIntakeOptions;
  readonly #store: CubeStore;
  /** By partition: the last message taken in. */
  readonly #proof = new LogProof<number>();
  // Of the transaction that is open:
  #staged: StagedPeople;
  #states = new Map<number, PeopleState>();
  /** Last message of each partition: only its hash is kept. */
  #lastValues = new Map<number, Buffer | null>();

  constructor(options: PersonIntakeOptions) {
    this.#options = options;
    this.#store = options.store;
    this.#staged = new StagedPeople(options.store.people);
  }

  nextOf(partition: number): number {
    return this.#proof.readFrom(partition, this.#store.names.get(partition)?.next ?? 0);
  }

  /**
   * The last message that was taken in of each partition is read once more, to prove the topic.
   * @param ends of the topic's partitions, undefined when there is no topic
   * @returns partitions whose next offset is another one now
   * @throws ReelflowError sourceLost, sourceReplaced
   */
  distrust(ends: ReadonlyMap<number, LogBounds> | undefined): number[] {
    const again: number[] = [];
    for (const { partition, next, lastHash } of this.#store.names.values()) {
      const { start, end } = ends?.get(partition) ?? { start: 0, end: 0 };
      if (end < next) {
        throw new ReelflowError(
          ends === undefined ? 'sourceLost' : 'sourceReplaced',
          ends === undefined
            ? 'The topic of names is gone'
            : 'The topic of names is shorter than what was read of it',
          {
            detail: `${this.#options.topic}/${partition} ends at offset ${end}; ${next} is next.`,
            hint: 'Replay the names, then `reelflow reset`.',
          },
        );
      }
      if (next <= start) continue;
      this.#proof.require(partition, expectedByHash(next, lastHash));
      if (this.#proof.isPending(partition)) again.push(partition);
    }
    return again;
  }

  /** Begins a transaction: what an earlier one left when it was rolled back is dropped. */
  begin(): void {
    this.#staged = new StagedPeople(this.#store.people);
    this.#states = new Map();
    this.#lastValues = new Map();
  }

  /**
   * Stages a message, unless it is the proof that was asked for.
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
    const own = decoder.isOwn(message.value)
      ? (message.value as Buffer)
      : await decoder.resolve(message.value as Buffer);
    const { ownership } = this;
    const header = await this.#staged.add(own, decoder, { ownership, partition }, () =>
      this.flush(partition),
    );
    const records = header.records + header.deletes;
    this.#count(partition, message, records, 0);
    this.count += records;
    metrics?.names(records);
  }

  /** Counts a message that cannot be taken in. */
  reject(partition: number, message: LogMessage, records: number): void {
    this.#count(partition, message, records, records);
  }

  /** Writes what is staged, which is all of one partition. */
  async flush(partition: number): Promise<void> {
    if (this.#staged.isEmpty) return;
    const changed = await this.#store.writeNames(this.#staged.take());
    const state = this.#stateOf(partition);
    this.#states.set(partition, {
      ...state,
      applied: state.applied + changed,
      duplicate: state.duplicate - changed,
    });
  }

  /** Writes the positions. */
  async write(): Promise<void> {
    for (const [partition, value] of this.#lastValues) {
      this.#states.set(partition, { ...this.#stateOf(partition), lastHash: hashOf(value) });
    }
    for (const state of this.#states.values()) await this.#store.putNames(state);
  }

  /** To be called after the commit. @returns the partitions that have moved */
  committed(): PeopleState[] {
    for (const state of this.#states.values()) this.#store.names.set(state.partition, state);
    return [...this.#states.values()];
  }

  /** Forgets all names, which are to be read from their start. */
  async clear(): Promise<void> {
    await this.#store.clearNames();
    this.#store.names.clear();
    this.#proof.clear();
    this.begin();
  }

  #prove(partition: number, message: LogMessage): void {
    const expected = this.#proof.pending.get(partition)?.offset;
    if (this.#proof.accept(partition, message)) return;
    throw new ReelflowError(
      'sourceReplaced',
      'The topic of names is not the one that the state was made from',
      {
        detail: `${this.#options.topic}/${partition}: the message at offset ${expected} is another one.`,
        hint: 'It was recreated, or lost its tail. If that was intended: `reelflow reset`, then start again.',
      },
    );
  }

  #count(partition: number, { offset, value }: LogMessage, records: number, rejected: number): void {
    const before = this.#stateOf(partition);
    this.#lastValues.set(partition, value);
    // Every record counts as a duplicate until `flush` knows how many rows have changed.
    this.#states.set(partition, {
      ...before,
      next: offset + 1,
      duplicate: before.duplicate + records - rejected,
      rejected: before.rejected + rejected,
    });
  }

  #stateOf(partition: number): PeopleState {
    const none = { partition, next: 0, lastHash: '', applied: 0, duplicate: 0, rejected: 0 };
    return this.#states.get(partition) ?? this.#store.names.get(partition) ?? none;
  }
}
