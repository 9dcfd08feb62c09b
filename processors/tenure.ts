/**
 * The time during which one owner holds the store of a shard: it keeps the store and the published deltas consistent,
 * from opening to closing. The store and the work on it are parameters, so a test can run this protocol through thousands
 * of schedules without a database.
 *
 * A tenure ends with deltaRefused when another owner has published. Then the owner opens the store again and reconciles it
 * with what is published now.
 */

import { crashPoint } from '../runtime/crash-points.ts';
import { ReelflowError } from '../runtime/errors.ts';
import { type Gaps, notAfter, onTopics, type Position, positionText } from '../topics/position.ts';
import { type Plan, planShard } from './plan.ts';
import type { Publisher } from './publisher.ts';
import type { OutboxEntry } from './shard-store.ts';

interface TenureStore {
  readonly position: Position;
  readonly gaps: Gaps;
  readonly nextEntry: number;
  /** Whether it keeps every column that its cubes read, and no dataset that none of them reads. */
  readonly fitsCubes: boolean;
  /** Oldest first. */
  readOutbox(): Promise<readonly OutboxEntry[]>;
}

/** The work on a store. Each function returns after it has committed what it writes. */
interface StoreWork<Store, Batch, Applied> {
  /** Applies a micro-batch in one transaction that also drops the outbox up to `publishedEntry`. */
  apply(store: Store, batch: Batch, how: { silently: boolean; publishedEntry: number }): Promise<Applied>;
  /**
   * Makes a store fit its cubes and drops its outbox. A dataset of which it lacks a column begins again at its start, one that no
   * cube reads is dropped.
   */
  adapt(store: Store): Promise<void>;
  /** Replaces the outbox with the whole cubes, but for those that a base keeps. */
  writeBase(store: Store, keeps: readonly string[]): Promise<OutboxEntry>;
  /** Removes the store. @returns an empty one of the same identity */
  rebuild(store: Store): Promise<Store>;
  /** Sends the committed dead letters, of this micro-batch or from before opening, at least once. */
  sendDeadLetters(store: Store, batch?: Batch): Promise<void>;
  /** Where a silent catch-up to the published position may end: there, or behind the base at which the store begins. */
  reach(store: Store, published: Position): Promise<Position>;
  report(plan: Plan, store: Store): void;
}

export class Tenure<
  Store extends TenureStore,
  Batch,
  Applied extends { readonly entry: OutboxEntry | undefined },
> {
  store: Store;
  readonly #publisher: Publisher;
  /** What the store's cubes are, and which topics they read. */
  readonly #cubes: { readonly cubeSet: string; readonly topics: readonly string[] };
  readonly #work: StoreWork<Store, Batch, Applied>;
  /** Catch up silently to here, then continue with deltas. */
  #silentTo: Position | undefined;
  /** Entries up to this number are published and leave the outbox with the next transaction. */
  #publishedEntry = 0;

  constructor(
    store: Store,
    publisher: Publisher,
    cubes: { readonly cubeSet: string; readonly topics: readonly string[] },
    work: StoreWork<Store, Batch, Applied>,
  ) {
    this.store = store;
    this.#publisher = publisher;
    this.#cubes = cubes;
    this.#work = work;
  }

  /** While this is set, no source may be applied past it. */
  get silentTo(): Position | undefined {
    return this.#silentTo;
  }

  /**
   * Reconciles the store with the published deltas, or sets the position to catch up to:
   *
   * 1. publish what the outbox still has to tell: deltas of the cubes that are published;
   * 2. adapt a store that does not fit the cubes of this member, which may put a dataset back to its start;
   * 3. catch up, or publish the cubes that are not published in this version.
   *
   * @throws ReelflowError deltaRefused
   */
  async reconcile(): Promise<void> {
    const outbox = await this.store.readOutbox();
    const { published } = this.#publisher;
    const { position, gaps } = this.store;
    const plan = planShard({ position, gaps, ...this.#cubes }, outbox, published);
    if (plan.kind === 'continue') {
      await this.#work.sendDeadLetters(this.store);
      for (const entry of outbox) {
        if (plan.publish.includes(entry.number)) await this.#publish(entry);
        this.#publishedEntry = entry.number;
      }
    }
    if (plan.kind !== 'rebuild' && !this.store.fitsCubes) {
      await this.#work.adapt(this.store);
      return this.reconcile();
    }
    this.#work.report(plan, this.store);
    switch (plan.kind) {
      case 'continue':
        // The outbox was of the cubes of an earlier member.
        if (plan.publish.length > 0 && this.#publisher.published.cubeSet !== this.#cubes.cubeSet)
          return this.reconcile();
        return;
      case 'catch-up':
        this.#silentTo = await this.#work.reach(this.store, plan.to);
        this.#publishedEntry = this.store.nextEntry - 1;
        return;
      case 'rebuild':
        this.store = await this.#work.rebuild(this.store);
        this.#silentTo = await this.#work.reach(this.store, onTopics(published.position, this.#cubes.topics));
        this.#publishedEntry = 0;
        return;
      case 'base': {
        const entry = await this.#work.writeBase(this.store, plan.keeps);
        await this.#publish(entry);
        this.#publishedEntry = entry.number;
      }
    }
  }

  /**
   * One micro-batch:
   *
   * 1. apply and commit, with its delta in the outbox;
   * 2. publish the delta (there is none during a silent catch-up);
   * 3. mark it published, which the next transaction records;
   * 4. at the end of a silent catch-up, reconcile again.
   *
   * @throws ReelflowError deltaRefused; whatever `apply` throws
   */
  async apply(batch: Batch): Promise<Applied> {
    const silently = this.#silentTo !== undefined;
    const publishedEntry = this.#publishedEntry;
    const applied = await this.#work.apply(this.store, batch, { silently, publishedEntry });
    crashPoint('after-commit-before-publish');
    const { entry } = applied;
    if (entry !== undefined) {
      // Before the delta: an owner that finds the delta published catches up silently and sends no letters.
      await this.#work.sendDeadLetters(this.store, batch);
      await this.#publish(entry);
      crashPoint('after-publish-before-mark');
      this.#publishedEntry = entry.number;
    }
    if (this.#silentTo !== undefined && notAfter(this.#silentTo, this.store.position)) {
      this.#silentTo = undefined;
      await this.reconcile();
    }
    return applied;
  }

  /**
   * Whether another owner has published or reset. An owner without work would not notice otherwise.
   * @param end end offset of the delta partition
   */
  async isSuperseded(end: number): Promise<boolean> {
    const before = this.#publisher.published;
    await this.#publisher.fold(end);
    return this.#publisher.published !== before;
  }

  async #publish(entry: OutboxEntry): Promise<void> {
    if (await this.#publisher.publish(entry.messages)) return;
    throw new ReelflowError(
      'deltaRefused',
      `Another owner has published deltas of shard ${entry.header.shard}`,
      {
        detail: `The published position is ${positionText(this.#publisher.published.position)}, this store is at ${positionText(this.store.position)}.`,
        hint: 'Two members owned this shard for a moment. The processor opens the store again and continues.',
      },
    );
  }
}
