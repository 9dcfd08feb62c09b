/**
 * Items that a sender took and the broker has not acknowledged yet. Bounds their bytes and knows the file position
 * of the oldest one. A failed send ends everything: callers neither add nor await items after it.
 */
import { type FilePosition, oldestOf } from './chunk-writer.ts';

export abstract class InFlight<Item extends { readonly from: FilePosition }> {
  readonly #bytesMax: number;
  readonly #bytesOf: (item: Item) => number;
  readonly #signal: AbortSignal | undefined;
  readonly #items = new Set<Item>();
  #bytes = 0;
  #failure: { thrown: unknown } | undefined;
  #changed = Promise.withResolvers<void>();

  /** @param signal ends waits in `room`, not in `drained` */
  constructor(bytesMax: number, bytesOf: (item: Item) => number, signal: AbortSignal | undefined) {
    this.#bytesMax = bytesMax;
    this.#bytesOf = bytesOf;
    this.#signal = signal;
    signal?.addEventListener('abort', () => this.#wake(), { once: true });
  }

  protected get failed(): boolean {
    return this.#failure !== undefined;
  }

  protected taken(item: Item): void {
    this.#items.add(item);
    this.#bytes += this.#bytesOf(item);
  }

  protected acknowledged(item: Item): void {
    this.#items.delete(item);
    this.#bytes -= this.#bytesOf(item);
    this.#wake();
  }

  protected fail(thrown: unknown): void {
    this.#failure ??= { thrown };
    this.#wake();
  }

  /** The file position before the oldest item; undefined when nothing is in flight. */
  get oldest(): FilePosition | undefined {
    return oldestOf([...this.#items].map(({ from }) => from));
  }

  /** Waits until there is room for more items. @throws what a send threw, such as ReelflowError brokerUnreachable */
  async room(): Promise<void> {
    while (this.#failure === undefined && this.#bytes >= this.#bytesMax && this.#signal?.aborted !== true) {
      await this.#changed.promise;
    }
    if (this.#failure !== undefined) throw this.#failure.thrown;
  }

  /** Waits until all items are acknowledged. @throws what a send threw */
  async drained(): Promise<void> {
    while (this.#failure === undefined && this.#items.size > 0) await this.#changed.promise;
    if (this.#failure !== undefined) throw this.#failure.thrown;
  }

  #wake(): void {
    this.#changed.resolve();
    this.#changed = Promise.withResolvers<void>();
  }
}
