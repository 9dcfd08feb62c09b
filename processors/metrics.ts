/** What a processor member tells Prometheus. It is told per micro-batch and per rebalance, never per record. */
import { Counter, Gauge, Histogram, type Registry } from 'prom-client';
import { rejectReasons } from '../topics/chunk.ts';

/** A micro-batch that is applied and published. */
export interface MicroBatchReport {
  readonly closedBy: string;
  /** Applied to reach a position that others have published. */
  readonly isSilent: boolean;
  readonly messages: number;
  readonly applied: number;
  readonly duplicate: number;
  readonly rejected: number;
  readonly applyMs: number;
  readonly publishMs: number;
}

/** Asked when Prometheus scrapes. */
export interface ProcessorView {
  /** Messages between the end of a log, as last seen, and what is applied. */
  lags(): Iterable<{ readonly topic: string; readonly partition: number; readonly messages: number }>;
  memoryBytes(): Promise<number>;
}

/** Seconds: a micro-batch of a quiet topic takes milliseconds, a full one on a loaded machine many seconds. */
const durationBuckets = [0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30];

export class ProcessorMetrics {
  readonly #records: Counter<'fate'>;
  readonly #chunks: Counter;
  readonly #microBatches: Counter<'closed_by'>;
  readonly #applySeconds: Histogram;
  readonly #publishSeconds: Histogram;
  readonly #deadLetters: Counter<'reason'>;
  readonly #rebalances: Counter;
  readonly #shards: Gauge;
  #view: ProcessorView | undefined;

  constructor(registry: Registry) {
    const registers = [registry];
    this.#records = new Counter({
      name: 'reelflow_processor_records_total',
      help: 'Records that were applied, were duplicates, or were rejected',
      labelNames: ['fate'],
      registers,
    });
    this.#chunks = new Counter({
      name: 'reelflow_processor_chunks_total',
      help: 'Messages of source topics in micro-batches that are applied',
      registers,
    });
    this.#microBatches = new Counter({
      name: 'reelflow_processor_micro_batches_total',
      help: 'Micro-batches by the bound that closed them',
      labelNames: ['closed_by'],
      registers,
    });
    this.#applySeconds = new Histogram({
      name: 'reelflow_processor_apply_duration_seconds',
      help: 'From the begin of the transaction of a micro-batch to its commit',
      buckets: durationBuckets,
      registers,
    });
    this.#publishSeconds = new Histogram({
      name: 'reelflow_processor_publish_duration_seconds',
      help: 'From the commit of a micro-batch to the acknowledgement of its delta',
      buckets: durationBuckets,
      registers,
    });
    this.#deadLetters = new Counter({
      name: 'reelflow_processor_dead_letters_total',
      help: 'Messages that became a dead letter; one that is sent again counts again',
      labelNames: ['reason'],
      registers,
    });
    // From 0 on, or Prometheus would see no increase in the first one.
    for (const reason of rejectReasons) this.#deadLetters.inc({ reason }, 0);
    this.#rebalances = new Counter({
      name: 'reelflow_processor_rebalances_total',
      help: 'Assignments that the consumer group gave this member',
      registers,
    });
    this.#shards = new Gauge({
      name: 'reelflow_processor_shards',
      help: 'Shards that this member is assigned',
      registers,
    });
    const view = () => this.#view;
    new Gauge({
      name: 'reelflow_processor_lag_messages',
      help: 'Messages of a source that are not applied yet',
      labelNames: ['topic', 'partition'],
      registers,
      collect() {
        // Shards come and go.
        this.reset();
        for (const { topic, partition, messages } of view()?.lags() ?? []) {
          this.set({ topic, partition }, messages);
        }
      },
    });
    new Gauge({
      name: 'reelflow_processor_duckdb_memory_bytes',
      help: 'Memory that DuckDB holds for the stores of all shards',
      registers,
      async collect() {
        const bytes = await view()?.memoryBytes();
        if (bytes !== undefined) this.set(bytes);
      },
    });
  }

  open(view: ProcessorView): void {
    this.#view = view;
  }

  /** From here on there is nothing to ask. */
  close(): void {
    this.#view = undefined;
  }

  assigned(shards: number): void {
    this.#rebalances.inc();
    this.#shards.set(shards);
  }

  microBatch(report: MicroBatchReport): void {
    this.#microBatches.inc({ closed_by: report.closedBy });
    this.#chunks.inc(report.messages);
    this.#applySeconds.observe(report.applyMs / 1000);
    if (!report.isSilent) this.#publishSeconds.observe(report.publishMs / 1000);
    for (const fate of ['applied', 'duplicate', 'rejected'] as const) {
      this.#records.inc({ fate }, report[fate]);
    }
  }

  deadLetter(reason: string): void {
    this.#deadLetters.inc({ reason });
  }
}
