/**
 * The micro-batch that a shard fills, and the bounds of the window that close it. The one that was applied last gives its memory
 * to the next one.
 */
import type { MicroBatch } from './micro-batch.ts';

export interface Window {
  /** Period of the tumbling processing-time window, in milliseconds. */
  readonly periodMs: number;
  readonly recordsMax: number;
  /** Bytes of messages before compression. */
  readonly bytesMax: number;
}

/** The bound that closed a micro-batch. */
export type ClosedBy = 'window' | 'records' | 'bytes' | 'catch-up' | 'target' | 'base';

interface FillingOptions {
  readonly window: Window;
  /** Makes an empty micro-batch. @param spent an applied one, whose memory it reuses */
  readonly make: (spent: MicroBatch | undefined) => MicroBatch;
  /** Called when the period of the window has ended. */
  readonly onDue: () => void;
}

export class Filling {
  readonly #options: FillingOptions;
  #batch: MicroBatch;
  #spent: MicroBatch | undefined;
  #isDue = false;
  #isBeforeBase = false;
  #timer: NodeJS.Timeout | undefined;

  constructor(options: FillingOptions) {
    this.#options = options;
    this.#batch = options.make(undefined);
  }

  get batch(): MicroBatch {
    return this.#batch;
  }

  /** The next message begins a base, and so the next micro-batch. */
  get isBeforeBase(): boolean {
    return this.#isBeforeBase;
  }

  stopBeforeBase(): void {
    this.#isBeforeBase = true;
  }

  get isFull(): boolean {
    const { recordsMax, bytesMax } = this.#options.window;
    return this.#isBeforeBase || this.#batch.records >= recordsMax || this.#batch.bytes >= bytesMax;
  }

  /**
   * What closes the micro-batch now; undefined while it may grow.
   * @param reached whether everything is staged before the end of a silent catch-up, or before the target
   */
  closedBy(reached: { readonly catchUp: boolean; readonly target: boolean }): ClosedBy | undefined {
    const { recordsMax, bytesMax } = this.#options.window;
    if (this.#batch.isEmpty) return undefined;
    if (this.#batch.records >= recordsMax) return 'records';
    if (this.#batch.bytes >= bytesMax) return 'bytes';
    if (reached.catchUp) return 'catch-up';
    if (reached.target) return 'target';
    if (this.#isBeforeBase) return 'base';
    return this.#isDue ? 'window' : undefined;
  }

  /** Returns the micro-batch, and begins the next one. */
  take(): MicroBatch {
    const taken = this.#batch;
    this.#batch = this.#options.make(this.#spent);
    this.#spent = undefined;
    this.#isDue = false;
    this.#isBeforeBase = false;
    this.stop();
    return taken;
  }

  /** Takes the memory of an applied micro-batch. */
  recycle(spent: MicroBatch): void {
    this.#spent = spent;
  }

  /** Windows tumble: they end at multiples of the period on the wall clock, not a period after the first record. */
  startWindow(): void {
    if (this.#timer !== undefined || this.#batch.isEmpty) return;
    const { window, onDue } = this.#options;
    this.#timer = setTimeout(
      () => {
        this.#isDue = true;
        onDue();
      },
      window.periodMs - (Date.now() % window.periodMs),
    );
  }

  /** Ends the window without closing the micro-batch. */
  stop(): void {
    clearTimeout(this.#timer);
    this.#timer = undefined;
  }
}
