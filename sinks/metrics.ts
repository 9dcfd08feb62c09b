/** What the sink tells Prometheus. It is told per transaction, delta and snapshot, never per record. */
import { Counter, Gauge, Histogram, type Registry } from 'prom-client';
import { rejectReasons } from '../topics/chunk.ts';
import { type Verdict, verdicts } from '../topics/deltas.ts';
import type { Manifest } from './manifest.ts';

/** Asked when Prometheus scrapes. */
export interface SinkView {
  /** Messages between the end of a log, as last seen, and what is in the cubes and names. */
  lags(): Iterable<{ readonly topic: string; readonly partition: number; readonly messages: number }>;
  memoryBytes(): Promise<number>;
}

const durationBuckets = [0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60];

export class SinkMetrics {
  readonly #deltas: Counter<'verdict'>;
  readonly #names: Counter;
  readonly #commitSeconds: Histogram;
  readonly #deadLetters: Counter<'reason'>;
  readonly #rebalances: Counter;
  readonly #snapshots: Counter;
  readonly #snapshotSeconds: Histogram;
  readonly #created: Gauge;
  readonly #rows: Gauge<'table'>;
  #view: SinkView | undefined;

  constructor(registry: Registry) {
    const registers = [registry];
    this.#deltas = new Counter({
      name: 'reelflow_sink_deltas_total',
      help: 'Messages of the delta topic by what the chain of their shard said',
      labelNames: ['verdict'],
      registers,
    });
    for (const verdict of verdicts) this.#deltas.inc({ verdict }, 0);
    this.#names = new Counter({
      name: 'reelflow_sink_names_total',
      help: 'Records of name.basics that were read',
      registers,
    });
    this.#commitSeconds = new Histogram({
      name: 'reelflow_sink_commit_duration_seconds',
      help: 'One transaction of what was fetched',
      buckets: durationBuckets,
      registers,
    });
    this.#deadLetters = new Counter({
      name: 'reelflow_sink_dead_letters_total',
      help: 'Messages that became a dead letter; one that is sent again counts again',
      labelNames: ['reason'],
      registers,
    });
    // From 0 on, or Prometheus would see no increase in the first one.
    for (const reason of rejectReasons) this.#deadLetters.inc({ reason }, 0);
    this.#rebalances = new Counter({
      name: 'reelflow_sink_rebalances_total',
      help: 'Assignments that the consumer group gave this member',
      registers,
    });
    this.#snapshots = new Counter({
      name: 'reelflow_sink_snapshots_total',
      help: 'Snapshots that were published',
      registers,
    });
    this.#snapshotSeconds = new Histogram({
      name: 'reelflow_sink_snapshot_duration_seconds',
      help: 'From the begin of a snapshot to CURRENT swapped and what is old removed',
      buckets: durationBuckets,
      registers,
    });
    this.#created = new Gauge({
      name: 'reelflow_sink_snapshot_created_timestamp_seconds',
      help: 'When CURRENT was created; time() minus it is the age of gold',
      registers,
    });
    // A gauge without labels says 0 before it is set: there may be no snapshot.
    this.#created.remove();
    this.#rows = new Gauge({
      name: 'reelflow_sink_snapshot_rows',
      help: 'Rows of the tables of CURRENT',
      labelNames: ['table'],
      registers,
    });
    const view = () => this.#view;
    new Gauge({
      name: 'reelflow_sink_lag_messages',
      help: 'Messages of deltas and names that are not taken in yet',
      labelNames: ['topic', 'partition'],
      registers,
      collect() {
        this.reset();
        for (const { topic, partition, messages } of view()?.lags() ?? []) {
          this.set({ topic, partition }, messages);
        }
      },
    });
    new Gauge({
      name: 'reelflow_sink_duckdb_memory_bytes',
      help: 'Memory that DuckDB holds for cubes and names',
      registers,
      async collect() {
        const bytes = await view()?.memoryBytes();
        if (bytes !== undefined) this.set(bytes);
      },
    });
  }

  open(view: SinkView): void {
    this.#view = view;
  }

  /** From here on there is nothing to ask. */
  close(): void {
    this.#view = undefined;
  }

  assigned(): void {
    this.#rebalances.inc();
  }

  delta(verdict: Verdict): void {
    this.#deltas.inc({ verdict });
  }

  names(records: number): void {
    this.#names.inc(records);
  }

  committed(ms: number): void {
    this.#commitSeconds.observe(ms / 1000);
  }

  deadLetter(reason: string): void {
    this.#deadLetters.inc({ reason });
  }

  published(manifest: Manifest, ms: number): void {
    this.#snapshots.inc();
    this.#snapshotSeconds.observe(ms / 1000);
    this.current(manifest);
  }

  /** What CURRENT is. */
  current({ created, tables }: Manifest): void {
    this.#created.set(Date.parse(created) / 1000);
    for (const [table, { rows }] of Object.entries(tables)) this.#rows.set({ table }, rows);
  }
}
