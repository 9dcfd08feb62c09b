/** What a member of a consumer group tells Prometheus, whatever its stage; each stage's own room adds its own. */
import { Counter, Gauge, type Registry } from 'prom-client';

/** Asked when Prometheus scrapes. */
export interface MemberView {
  /** Messages between the end of a log, as last seen, and what is taken in of it. */
  lags(): Iterable<{ readonly topic: string; readonly partition: number; readonly messages: number }>;
  /** Memory that DuckDB holds. */
  memoryBytes(): Promise<number>;
}

export class MemberMetrics {
  readonly #deadLetters: Counter<'reason'>;
  readonly #rebalances: Counter;
  #view: MemberView | undefined;

  /**
   * @param help what lag and memory are of
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
      help: 'Messages that became a dead letter; one that is sent again counts again',
      labelNames: ['reason'],
      registers,
    });
    // From 0 on, or Prometheus would see no increase in the first one.
    for (const reason of rejectReasons) this.#deadLetters.inc({ reason }, 0);
    this.#rebalances = new Counter({
      name: `reelflow_${stage}_rebalances_total`,
      help: 'Assignments that the consumer group gave this member',
      registers,
    });
    const view = () => this.#view;
    new Gauge({
      name: `reelflow_${stage}_lag_messages`,
      help: help.lag,
      labelNames: ['topic', 'partition'],
      registers,
      collect() {
        // Partitions come and go.
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
  }

  open(view: MemberView): void {
    this.#view = view;
  }

  /** From here on there is nothing to ask. */
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
