/**
 * One owner's time with the store of a shard: what it does to keep the store and the published deltas together, from
 * opening to closing. What a store is and how a micro-batch is applied to it are given, so a test can put this
 * protocol through thousands of schedules without a database.
 *
 * Whenever somebody else turns out to have published, the tenure is over (deltaRefused): the owner opens the store
 * again, sees what is published now, and heals.
 */

import { crashPoint } from '../runtime/crash-points.ts';
import { ReelflowError } from '../runtime/errors.ts';
import { type Gaps, notAfter, type Position, positionText } from '../topics/position.ts';
import { type Plan, planShard } from './plan.ts';
import type { Publisher } from './publisher.ts';
import type { OutboxEntry } from './store.ts';

export interface TenureStore {
  readonly position: Position;
  readonly gaps: Gaps;
  readonly nextEntry: number;
  /** Oldest first. */
  readOutbox(): Promise<readonly OutboxEntry[]>;
}

/** What can be done with a store; everything it writes is committed when it returns. */
export interface StoreWork<Store, Batch, Applied> {
  /** Applies a micro-batch in one transaction that also drops the outbox up to `publishedEntry`. */
  apply(store: Store, batch: Batch, how: { silently: boolean; publishedEntry: number }): Promise<Applied>;
  /** Puts the whole cubes into the outbox, in place of what is there. */
  writeBase(store: Store): Promise<OutboxEntry>;
  /** Removes the store. @returns an empty one of the same identity */
  rebuild(store: Store): Promise<Store>;
  /** Sends the dead letters that were committed, with this micro-batch or before opening; at least once. */
  sendDeadLetters(store: Store, batch?: Batch): Promise<void>;
  tell(plan: Plan, store: Store): void;
}

export class Tenure<
  Store extends TenureStore,
  Batch,
  Applied extends { readonly entry: OutboxEntry | undefined },
> {
  store: Store;
  readonly #publisher: Publisher;
  readonly #cubeSet: string;
  readonly #work: StoreWork<Store, Batch, Applied>;
  /** Catch up silently to here, then go on. */
  #silentTo: Position | undefined;
  /** Up to here entries are published; they leave the outbox with the next transaction. */
  #publishedEntry = 0;

  /** @param cubeSet fingerprint of the store's cubes */
  constructor(store: Store, publisher: Publisher, cubeSet: string, work: StoreWork<Store, Batch, Applied>) {
    this.store = store;
    this.#publisher = publisher;
    this.#cubeSet = cubeSet;
    this.#work = work;
  }

  /** No source may be applied past this while it is set. */
  get silentTo(): Position | undefined {
    return this.#silentTo;
  }

  /**
   * Brings the store and what is published together, or says how far it has to catch up.
   * @throws ReelflowError deltaRefused
   */
  async reconcile(): Promise<void> {
    const outbox = await this.store.readOutbox();
    const { published } = this.#publisher;
    const { position, gaps } = this.store;
    const plan = planShard({ position, gaps, cubeSet: this.#cubeSet }, outbox, published);
    this.#work.tell(plan, this.store);
    switch (plan.kind) {
      case 'continue':
        await this.#work.sendDeadLetters(this.store);
        for (const entry of outbox) {
          if (plan.publish.includes(entry.number)) await this.#publish(entry);
          this.#publishedEntry = entry.number;
        }
        return;
      case 'catch-up':
        this.#silentTo = plan.to;
        this.#publishedEntry = this.store.nextEntry - 1;
        return;
      case 'rebuild':
        this.store = await this.#work.rebuild(this.store);
        this.#silentTo = published.position;
        this.#publishedEntry = 0;
        return;
      case 'base': {
        const entry = await this.#work.writeBase(this.store);
        await this.#publish(entry);
        this.#publishedEntry = entry.number;
      }
    }
  }

  /**
   * One micro-batch:
   *
   * 1. apply and commit, with its delta in the outbox;
   * 2. publish the delta (nothing while catching up: others have);
   * 3. mark it published, which the next transaction writes;
   * 4. at the end of a silent catch-up, go on in earnest.
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
      // Before the delta: who finds it published catches up silently, and would not send them.
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
   * Looks whether somebody else has published or reset, which an owner with nothing to publish would not notice.
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
      `Somebody else has published deltas of shard ${entry.header.shard}`,
      {
        detail: `Published is ${positionText(this.#publisher.published.position)}, this store stands at ${positionText(this.store.position)}.`,
        hint: 'Two owners of one shard; the store is opened again and heals itself.',
      },
    );
  }
}
