/**
 * The shards that the group assigns to this member, and those of them that are open. Reassignments run one after the
 * other, and each works towards the newest assignment, so a stale one does nothing.
 */
import { ReelflowError } from '../runtime/errors.ts';
import type { Logger } from '../runtime/logger.ts';
import type { Shard } from './shard.ts';

export interface AssignmentOptions {
  /** Opens a shard. It has closed the shard again if it throws. */
  readonly open: (number: number) => Promise<Shard>;
  /** Called after a shard is opened. */
  readonly onOpened: (shard: Shard) => Promise<void>;
  /** Called after each reassignment. */
  readonly onChanged: () => void;
  readonly onFailure: (reason: unknown) => void;
  /** Whether shards may still be opened. */
  readonly isActive: () => boolean;
  /** How long a micro-batch may take to finish when its shard is closed, in milliseconds. */
  readonly graceMs: number;
  readonly logger: Logger;
}

export class Assignment {
  readonly #options: AssignmentOptions;
  readonly #open = new Map<number, Shard>();
  #assigned: readonly number[] | undefined;
  #turn: Promise<void> = Promise.resolve();

  constructor(options: AssignmentOptions) {
    this.#options = options;
  }

  /** Open shards by number. */
  get shards(): ReadonlyMap<number, Shard> {
    return this.#open;
  }

  /** Undefined before the first assignment. */
  get assigned(): readonly number[] | undefined {
    return this.#assigned;
  }

  /** Whether the member has an assignment and all its shards are open. */
  get isComplete(): boolean {
    return this.#assigned?.every((number) => this.#open.has(number)) === true;
  }

  assign(shards: readonly number[]): void {
    this.#assigned = shards;
    this.reassignSoon();
  }

  reassignSoon(): void {
    this.inTurn(() => this.#reassign());
  }

  /** Closes a shard whose delta was refused and opens it again, to continue from what is published now. */
  reopenSoon(shard: Shard): void {
    this.inTurn(async () => {
      if (this.#open.get(shard.number) !== shard) return;
      this.#open.delete(shard.number);
      await shard.close(this.#options.graceMs);
      await this.#reassign();
    });
  }

  /** Runs `work` between two reassignments. */
  inTurn(work: () => Promise<void>): void {
    this.#turn = this.#turn.then(work).catch((thrown) => this.#options.onFailure(thrown));
  }

  /** Waits for the reassignment that is running and closes all shards. */
  async close(): Promise<void> {
    await this.#turn;
    await Promise.all([...this.#open.values()].map((shard) => shard.close(this.#options.graceMs)));
    this.#open.clear();
  }

  async #reassign(): Promise<void> {
    const { isActive, graceMs, onChanged, onOpened } = this.#options;
    if (!isActive()) return;
    const wanted = new Set(this.#assigned);
    // A member that was away may keep its shards without knowing that other owners have published meanwhile.
    const superseded = new Set<Shard>();
    for (const shard of this.#open.values()) {
      if (wanted.has(shard.number) && (await shard.isSuperseded())) superseded.add(shard);
    }
    const lost = [...this.#open.values()].filter(
      (shard) => !wanted.has(shard.number) || superseded.has(shard),
    );
    for (const shard of lost) this.#open.delete(shard.number);
    await Promise.all(lost.map((shard) => shard.close(graceMs, true)));
    const gained = [...wanted].filter((number) => !this.#open.has(number));
    await Promise.all(
      gained.map(async (number) => {
        const shard = await this.#openAgain(number);
        this.#open.set(number, shard);
        await onOpened(shard);
      }),
    );
    onChanged();
  }

  async #openAgain(number: number): Promise<Shard> {
    for (;;) {
      try {
        return await this.#options.open(number);
      } catch (thrown) {
        // Another owner has published while the shard was being opened. Start again from what is published now.
        if (!isRefused(thrown)) throw thrown;
      }
    }
  }
}

/** Whether a delta was refused because another owner has published. */
export const isRefused = (thrown: unknown): thrown is ReelflowError =>
  thrown instanceof ReelflowError && thrown.kind === 'deltaRefused';
