/**
 * The shards that the group assigns to this member, and those of them that are open. A lost shard closes at once.
 * Reassignments run one after the other, and each works towards the newest assignment, so a stale one does nothing.
 */
import { ReelflowError } from '../runtime/errors.ts';
import type { Shard } from './shard.ts';

interface AssignmentOptions {
  readonly create: (number: number) => Shard;
  /** Opens a shard. It has closed the shard again if it throws. */
  readonly open: (shard: Shard) => Promise<void>;
  /** Called after a shard is opened. */
  readonly onOpened: (shard: Shard) => void;
  /** Called after each reassignment. */
  readonly onChanged: () => void;
  readonly onFailure: (reason: unknown) => void;
  /** Whether shards may still be opened. */
  readonly isActive: () => boolean;
  /** How long a micro-batch may take to finish when its shard is closed, in milliseconds. */
  readonly graceMs: number;
}

export class Assignment {
  readonly #options: AssignmentOptions;
  readonly #open = new Map<number, Shard>();
  readonly #opening = new Set<Shard>();
  #assigned: readonly number[] | undefined;
  readonly #closing = new Set<Promise<void>>();
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
    // At once: of two owners that publish from the same position, one is refused. An outbox is published while a shard opens.
    for (const shard of this.#opening) if (!shards.includes(shard.number)) shard.lose();
    this.#leave(({ number }) => !shards.includes(number));
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
    await Promise.all(this.#closing);
    await Promise.all([...this.#open.values()].map((shard) => shard.close(this.#options.graceMs)));
    this.#open.clear();
  }

  /** Closes shards that other members own now. They begin and send nothing more as soon as this returns. */
  #leave(isLost: (shard: Shard) => boolean): void {
    const { graceMs, onFailure } = this.#options;
    for (const shard of [...this.#open.values()].filter(isLost)) {
      this.#open.delete(shard.number);
      shard.lose();
      const closing = shard
        .close(graceMs)
        .catch(onFailure)
        .finally(() => this.#closing.delete(closing));
      this.#closing.add(closing);
    }
  }

  async #reassign(): Promise<void> {
    const { isActive, onChanged, onOpened, onFailure } = this.#options;
    if (!isActive()) return;
    // A member that was away may keep its shards without knowing that other owners have published meanwhile.
    const superseded = new Set<Shard>();
    for (const shard of this.#open.values()) if (await this.#isSuperseded(shard)) superseded.add(shard);
    this.#leave((shard) => superseded.has(shard));
    await Promise.all(this.#closing);
    // The newest assignment: it may have changed since.
    const gained = (this.#assigned ?? []).filter((number) => !this.#open.has(number));
    const open = async (number: number) => {
      const shard = await this.#openAgain(number);
      if (shard === undefined) return;
      this.#open.set(number, shard);
      if (shard.isLost) this.#leave((opened) => opened === shard);
      else onOpened(shard);
    };
    // A failure ends the member at once, and this waits for the others: what is open then is closed.
    await Promise.all(gained.map((number) => open(number).catch(onFailure)));
    onChanged();
  }

  /** A shard that is lost while this asks gets no answer, and needs none. */
  async #isSuperseded(shard: Shard): Promise<boolean> {
    try {
      return await shard.isSuperseded();
    } catch (thrown) {
      if (this.#open.get(shard.number) === shard) throw thrown;
      return false;
    }
  }

  /** @returns undefined if the shard is lost meanwhile. If it is assigned again, the next reassignment opens it. */
  async #openAgain(number: number): Promise<Shard | undefined> {
    const { create, open } = this.#options;
    for (;;) {
      const shard = create(number);
      this.#opening.add(shard);
      try {
        await open(shard);
        return shard;
      } catch (thrown) {
        if (shard.isLost) return undefined;
        // Another owner has published while the shard was being opened. Start again from what is published now.
        if (!isRefused(thrown)) throw thrown;
      } finally {
        this.#opening.delete(shard);
      }
    }
  }
}

/** Whether a delta was refused because another owner has published. */
export const isRefused = (thrown: unknown): thrown is ReelflowError =>
  thrown instanceof ReelflowError && thrown.kind === 'deltaRefused';
