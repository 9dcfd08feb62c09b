/**
 * The pace of a replay with `--rate`: rows per second, spread evenly. Rows missed while the broker was slow do not
 * follow in a burst.
 */
import { setTimeout as delay } from 'node:timers/promises';

/** Longest wait, and longest burst, in milliseconds. */
const grainMs = 100;
/** Shortest burst worth a wait. */
const burstMs = 10;

export class RateLimit {
  readonly #rate: number;
  #credit = 0;
  #at = performance.now();

  /** @param rate rows per second, above 0 */
  constructor(rate: number) {
    this.#rate = rate;
  }

  /** Waits at most `grainMs`. @returns the number of rows that may be read now, possibly 0 */
  async rows(): Promise<number> {
    this.#earn();
    const wanted = Math.max(1, (this.#rate * burstMs) / 1000);
    if (this.#credit < wanted) {
      await delay(Math.min(grainMs, Math.ceil(((wanted - this.#credit) / this.#rate) * 1000)));
      this.#earn();
    }
    return Math.floor(this.#credit);
  }

  /** Subtracts the rows that were read. */
  took(rows: number): void {
    this.#credit -= rows;
  }

  #earn(): void {
    const now = performance.now();
    const most = Math.max(1, (this.#rate * grainMs) / 1000);
    this.#credit = Math.min(most, this.#credit + ((now - this.#at) / 1000) * this.#rate);
    this.#at = now;
  }
}
