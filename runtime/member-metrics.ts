/** Metrics that the members of both stages export; each stage adds its own. */
import type { Counter, Registry } from 'prom-client';
import { Metrics } from './metrics.ts';

/** Read at each scrape. */
interface MemberView {
  /** Messages between the last observed end offset and the position. */
  lags(): Iterable<{ readonly topic: string; readonly partition: number; readonly messages: number }>;
  /** Memory that DuckDB uses. */
  memoryBytes(): Promise<number>;
  /** Length of the present outages in seconds; 0 without one. */
  outageSeconds(): { readonly broker: number; readonly registry: number };
}

/** Metrics of one member; a subclass adds those of its stage. */
export abstract class MemberMetrics extends Metrics {
  readonly #deadLetters: Counter<'reason'>;
  readonly #rebalances: Counter;
  #view: MemberView | undefined;

  /**
   * @param rejectReasons labels of the dead letter counter, which all start at 0
   * @param help help texts of lag and memory
   */
  constructor(
    registry: Registry,
    stage: 'processor' | 'sink',
    rejectReasons: readonly string[],
    help: { readonly lag: string; readonly memory: string },
  ) {
    super(registry);
    this.#deadLetters = this.counter(
      `reelflow_${stage}_dead_letters_total`,
      'Messages sent to the dead-letter topic, including repeats after a crash',
      'reason',
    );
    // Starts at 0: otherwise Prometheus sees no increase at the first dead letter.
    for (const reason of rejectReasons) this.#deadLetters.inc({ reason }, 0);
    this.#rebalances = this.counter(
      `reelflow_${stage}_rebalances_total`,
      'Assignments that this member received from the consumer group',
    );
    this.collected(`reelflow_${stage}_lag_messages`, help.lag, ['topic', 'partition'], (lag) => {
      // Drops partitions that are no longer assigned.
      lag.reset();
      for (const { topic, partition, messages } of this.#view?.lags() ?? []) {
        lag.set({ topic, partition }, messages);
      }
    });
    this.collected(`reelflow_${stage}_duckdb_memory_bytes`, help.memory, [], async (memory) => {
      const bytes = await this.#view?.memoryBytes();
      if (bytes !== undefined) memory.set(bytes);
    });
    for (const service of ['broker', 'registry'] as const) {
      this.collected(
        `reelflow_${stage}_${service}_outage_seconds`,
        `Time since the start of the present ${service} outage; 0 without one`,
        [],
        (seconds) => seconds.set(this.#view?.outageSeconds()[service] ?? 0),
      );
    }
  }

  /** Exports the values of the view from now on. */
  open(view: MemberView): void {
    this.#view = view;
  }

  /** Exports no further values of the view. */
  close(): void {
    this.#view = undefined;
  }

  rebalanced(): void {
    this.#rebalances.inc();
  }

  deadLetter(reason: string): void {
    this.#deadLetters.inc({ reason });
  }
}
