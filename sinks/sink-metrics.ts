/** Metrics of the sink, updated per transaction, delta and snapshot, never per record. */
import { Counter, Gauge, Histogram, type Registry } from 'prom-client';
import { MemberMetrics } from '../runtime/member-metrics.ts';
import { rejectReasons } from '../topics/chunk.ts';
import { type Verdict, verdicts } from '../topics/delta-chain.ts';
import type { Manifest } from './gold/manifest.ts';

const durationBuckets = [0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60];

export class SinkMetrics extends MemberMetrics {
  readonly #deltas: Counter<'verdict'>;
  readonly #names: Counter;
  readonly #commitSeconds: Histogram;
  readonly #snapshots: Counter;
  readonly #snapshotSeconds: Histogram;
  readonly #created: Gauge;
  readonly #checked: Gauge;
  readonly #rows: Gauge<'table'>;
  readonly #leftOut: Gauge;
  readonly #sourcesDeleted: Counter;
  readonly #unremovable: Gauge;
  readonly #lakeFailures: Gauge;

  constructor(registry: Registry) {
    super(
      registry,
      'sink',
      {
        lag: 'Messages of deltas and names that the sink has not applied',
        memory: 'Memory that DuckDB uses for cubes and names',
      },
      rejectReasons,
    );
    const registers = [registry];
    this.#deltas = new Counter({
      name: 'reelflow_sink_deltas_total',
      help: 'Messages of the delta topic by the verdict of the chain of their shard',
      labelNames: ['verdict'],
      registers,
    });
    for (const verdict of verdicts) this.#deltas.inc({ verdict }, 0);
    this.#names = new Counter({
      name: 'reelflow_sink_names_total',
      help: 'Records of name.basics read',
      registers,
    });
    this.#commitSeconds = new Histogram({
      name: 'reelflow_sink_commit_duration_seconds',
      help: 'Duration of a transaction that applies what was fetched',
      buckets: durationBuckets,
      registers,
    });
    this.#snapshots = new Counter({
      name: 'reelflow_sink_snapshots_total',
      help: 'Snapshots published',
      registers,
    });
    this.#snapshotSeconds = new Histogram({
      name: 'reelflow_sink_snapshot_duration_seconds',
      help: 'Duration from the start of a snapshot to the swap of CURRENT',
      buckets: durationBuckets,
      registers,
    });
    this.#created = new Gauge({
      name: 'reelflow_sink_snapshot_created_timestamp_seconds',
      help: 'When the snapshot of CURRENT was created; time() minus it is the age of gold',
      registers,
    });
    // A gauge without labels exports 0 before it is set, but there may be no snapshot.
    this.#created.remove();
    this.#checked = new Gauge({
      name: 'reelflow_sink_checked_timestamp_seconds',
      help: 'When the tables were computed last: published, or equal to those of CURRENT',
      registers,
    });
    this.#checked.remove();
    this.#leftOut = new Gauge({
      name: 'reelflow_sink_left_out_tables',
      help: 'Tables of users that the snapshot of CURRENT lacks, because their SQL failed or their cubes are not complete',
      registers,
    });
    this.#rows = new Gauge({
      name: 'reelflow_sink_snapshot_rows',
      help: 'Rows of each table in the snapshot of CURRENT',
      labelNames: ['table'],
      registers,
    });
    this.#sourcesDeleted = new Counter({
      name: 'reelflow_sink_source_messages_deleted_total',
      help: 'Messages of source topics deleted because a base has replaced them',
      registers,
    });
    this.#unremovable = new Gauge({
      name: 'reelflow_sink_unremovable_snapshots',
      help: 'Old snapshots that could not be removed after the last publication',
      registers,
    });
    this.#lakeFailures = new Gauge({
      name: 'reelflow_sink_lake_failures',
      help: 'Attempts to write the lake that failed since the last success',
      registers,
    });
  }

  /** @param attempts that failed since the lake was last written */
  lakeFailures(attempts: number): void {
    this.#lakeFailures.set(attempts);
  }

  /** @param snapshots old snapshots that could not be removed after the last publication */
  unremovable(snapshots: number): void {
    this.#unremovable.set(snapshots);
  }

  sourcesDeleted(messages: number): void {
    this.#sourcesDeleted.inc(messages);
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

  published(manifest: Manifest, ms: number): void {
    this.#snapshots.inc();
    this.#snapshotSeconds.observe(ms / 1000);
    this.current(manifest);
    this.checked(manifest.created);
  }

  /** @param at when every table was found equal to CURRENT */
  checked(at: string): void {
    this.#checked.set(Date.parse(at) / 1000);
  }

  /** Exports the snapshot that CURRENT names. */
  current({ created, tables, leftOut = {} }: Manifest): void {
    this.#leftOut.set(Object.keys(leftOut).length);
    this.#created.set(Date.parse(created) / 1000);
    for (const [table, { rows }] of Object.entries(tables)) this.#rows.set({ table }, rows);
  }
}
