/** Metrics of the sink, updated per transaction, delta and snapshot, never per record. */
import type { Registry } from 'prom-client';
import { MemberMetrics } from '../runtime/member-metrics.ts';
import { rejectReasons } from '../topics/chunk.ts';
import { type Verdict, verdicts } from '../topics/delta-chain.ts';
import type { Manifest } from './gold/manifest.ts';

export class SinkMetrics extends MemberMetrics {
  readonly #deltas = this.counter(
    'reelflow_sink_deltas_total',
    'Messages of the delta topic by the verdict of the chain of their shard',
    'verdict',
  );
  readonly #names = this.counter('reelflow_sink_names_total', 'Records of name.basics read');
  readonly #commitSeconds = this.durations(
    'reelflow_sink_commit_duration_seconds',
    'Duration of a transaction that applies what was fetched',
  );
  readonly #snapshots = this.counter('reelflow_sink_snapshots_total', 'Snapshots published');
  readonly #snapshotSeconds = this.durations(
    'reelflow_sink_snapshot_duration_seconds',
    'Duration from the start of a snapshot to the swap of CURRENT',
  );
  readonly #created = this.gauge(
    'reelflow_sink_snapshot_created_timestamp_seconds',
    'When the snapshot of CURRENT was created; time() minus it is the age of gold',
  );
  readonly #checked = this.gauge(
    'reelflow_sink_checked_timestamp_seconds',
    'When the tables were computed last: published, or equal to those of CURRENT',
  );
  readonly #leftOut = this.gauge(
    'reelflow_sink_left_out_tables',
    'Tables of users that the snapshot of CURRENT lacks, because their SQL failed or their cubes are not complete',
  );
  readonly #rows = this.gauge(
    'reelflow_sink_snapshot_rows',
    'Rows of each table in the snapshot of CURRENT',
    'table',
  );
  readonly #sourcesDeleted = this.counter(
    'reelflow_sink_source_messages_deleted_total',
    'Messages of source topics deleted because a base has replaced them',
  );
  readonly #unremovable = this.gauge(
    'reelflow_sink_unremovable_snapshots',
    'Old snapshots that could not be removed after the last publication',
  );
  readonly #lakeFailures = this.gauge(
    'reelflow_sink_lake_failures',
    'Attempts to write the lake that failed since the last success',
  );

  constructor(registry: Registry) {
    super(registry, 'sink', rejectReasons, {
      lag: 'Messages of deltas and names that the sink has not applied',
      memory: 'Memory that DuckDB uses for cubes and names',
    });
    for (const verdict of verdicts) this.#deltas.inc({ verdict }, 0);
    // Exported once they are set: there may be no snapshot.
    this.#created.remove();
    this.#checked.remove();
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
