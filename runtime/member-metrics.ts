/** Metrics that the members of both stages export; each stage adds its own. */
import { Counter, Gauge, type Registry } from 'prom-client';

/** Read at each scrape. */
interface MemberView {
  /** Messages between the last observed end offset and the position. */
  lags(): Iterable<{ readonly topic: string; readonly partition: number; readonly messages: number }>;
  /** Memory that DuckDB uses. */
  memoryBytes(): Promise<number>;
  /** Length of the present outages in seconds; 0 without one. */
  outageSeconds(): { readonly broker: number; readonly registry: number };
}

export class MemberMetrics {
  readonly #deadLetters: Counter<'reason'>;
  readonly #rebalances: Counter;
  #view: MemberView | undefined;

  /**
   * @param help help texts of lag and memory
   * @param rejectReasons labels of the dead letter counter, which all start at 0
   */
  constructor(
    registry: Registry,
    stage: 'processor' | 'sink',
    help: { readonly lag: string; readonly memory: string },
    rejectReasons: readonly string[],
  ) {
    const registers = [registry];
    this.#deadLetters = new Counter({
      name: `reelflow_${stage}_dead_letters_total`,
      help: 'Messages sent to the dead-letter topic, including repeats after a crash',
      labelNames: ['reason'],
      registers,
    });
    // Starts at 0: otherwise Prometheus sees no increase at the first dead letter.
    for (const reason of rejectReasons) this.#deadLetters.inc({ reason }, 0);
    this.#rebalances = new Counter({
      name: `reelflow_${stage}_rebalances_total`,
      help: 'Assignments that this member received from the consumer group',
      registers,
    });
    const view = () => this.#view;
    new Gauge({
      name: `reelflow_${stage}_lag_messages`,
      help: help.lag,
      labelNames: ['topic', 'partition'],
      registers,
      collect() {
        // Drops partitions that are no longer assigned.
        this.reset();
        for (const { topic, partition, messages } of view()?.lags() ?? []) {
          this.set({ topic, partition }, messages);
        }
      },
    });
    new Gauge({
      name: `reelflow_${stage}_duckdb_memory_bytes`,
      help: help.memory,
      registers,
      async collect() {
        const bytes = await view()?.memoryBytes();
        if (bytes !== undefined) this.set(bytes);
      },
    });
    for (const service of ['broker', 'registry'] as const) {
      new Gauge({
        name: `reelflow_${stage}_${service}_outage_seconds`,
        help: `Time since the start of the present ${service} outage; 0 without one`,
        registers,
        collect() {
          this.set(view()?.outageSeconds()[service] ?? 0);
        },
      });
    }
  }

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
