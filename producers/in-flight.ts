/**
 * Items that were handed over for sending and are not acknowledged yet. Bounds their bytes and knows the file position
 * of the oldest one. A failed send ends everything: callers neither add nor await items after it.
 */
import type { Mark } from './chunk-writer.ts';

export class InFlight<Item extends { readonly from: Mark }> {
  readonly #bytesOf: (item: Item) => number;
  readonly #signal: AbortSignal | undefined;
  readonly #items = new Set<Item>();
  #bytes = 0;
  #failure: { thrown: unknown } | undefined;
  #changed = Promise.withResolvers<void>();

  /** @param signal ends waits in `room`, not in `drained` */
  constructor(bytesOf: (item: Item) => number, signal?: AbortSignal) {
    this.#bytesOf = bytesOf;
    this.#signal = signal;
    signal?.addEventListener('abort', () => this.#wake(), { once: true });
  }

  get failed(): boolean {
    return this.#failure !== undefined;
  }

  add(item: Item): void {
    this.#items.add(item);
    this.#bytes += this.#bytesOf(item);
  }

  acknowledge(item: Item): void {
    this.#items.delete(item);
    this.#bytes -= this.#bytesOf(item);
    this.#wake();
  }

  fail(thrown: unknown): void {
    this.#failure ??= { thrown };
    this.#wake();
  }

  /** The mark before the oldest item; undefined when nothing is in flight. */
  get oldest(): Mark | undefined {
    let oldest: Mark | undefined;
    for (const { from } of this.#items) if (oldest === undefined || from.row < oldest.row) oldest = from;
    return oldest;
  }

  /** Waits until less than `bytesMax` is in flight. @throws what a send threw */
  async room(bytesMax: number): Promise<void> {
    while (this.#failure === undefined && this.#bytes >= bytesMax && this.#signal?.aborted !== true) {
      await this.#changed.promise;
    }
    if (this.#failure !== undefined) throw this.#failure.thrown;
  }

  /** Waits until nothing is in flight. @throws what a send threw */
  async drained(): Promise<void> {
    while (this.#failure === undefined && this.#items.size > 0) await this.#changed.promise;
    if (this.#failure !== undefined) throw this.#failure.thrown;
  }

  #wake(): void {
    this.#changed.resolve();
    this.#changed = Promise.withResolvers<void>();
  }
}
