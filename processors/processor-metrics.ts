/** Metrics of a processor member, updated per micro-batch and per rebalance, never per record. */
import type { Registry } from 'prom-client';
import { MemberMetrics } from '../runtime/member-metrics.ts';
import { rejectReasons } from '../topics/chunk.ts';
import type { RecordCounts } from '../topics/record-counts.ts';

/** A micro-batch that is applied and published. */
export interface MicroBatchReport extends RecordCounts {
  readonly closedBy: string;
  /** Whether it was applied without publishing, to reach a position that is already published. */
  readonly isSilent: boolean;
  readonly messages: number;
  readonly applyMs: number;
  readonly publishMs: number;
}

export class ProcessorMetrics extends MemberMetrics {
  readonly #records = this.counter(
    'reelflow_processor_records_total',
    'Records that were applied, duplicate, or rejected',
    'fate',
  );
  readonly #removed = this.counter(
    'reelflow_processor_removed_rows_total',
    'Rows that left the store because a later dump does not hold them',
  );
  readonly #chunks = this.counter(
    'reelflow_processor_chunks_total',
    'Messages of source topics in applied micro-batches',
  );
  readonly #microBatches = this.counter(
    'reelflow_processor_micro_batches_total',
    'Micro-batches, by the bound that closed them',
    'closed_by',
  );
  readonly #applySeconds = this.durations(
    'reelflow_processor_apply_duration_seconds',
    'Time from the start of the transaction of a micro-batch to its commit',
  );
  readonly #publishSeconds = this.durations(
    'reelflow_processor_publish_duration_seconds',
    'Time from the commit of a micro-batch to the acknowledgement of its delta',
  );
  readonly #silent = this.counter(
    'reelflow_processor_messages_read_again_total',
    'Messages of source topics that were applied without a delta, because their range is published already',
  );
  readonly #cubes = this.counter(
    'reelflow_processor_cubes_backfilled_total',
    'Cubes of shards that were published whole, in a base',
  );
  readonly #shards = this.gauge('reelflow_processor_shards', 'Shards assigned to this member');

  constructor(registry: Registry) {
    super(registry, 'processor', rejectReasons, {
      lag: 'Messages of a source topic that are not applied yet',
      memory: 'Memory that DuckDB uses for the stores of all shards',
    });
  }

  assigned(shards: number): void {
    this.rebalanced();
    this.#shards.set(shards);
  }

  /** @param cubes number of cubes in a base */
  published(cubes: number): void {
    this.#cubes.inc(cubes);
  }

  microBatch(report: MicroBatchReport): void {
    this.#microBatches.inc({ closed_by: report.closedBy });
    this.#chunks.inc(report.messages);
    this.#applySeconds.observe(report.applyMs / 1000);
    if (report.isSilent) this.#silent.inc(report.messages);
    else this.#publishSeconds.observe(report.publishMs / 1000);
    this.#removed.inc(report.removed);
    for (const fate of ['applied', 'duplicate', 'rejected'] as const) {
      this.#records.inc({ fate }, report[fate]);
    }
  }
}
