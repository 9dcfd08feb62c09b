/** Metrics of a processor member, updated per micro-batch and per rebalance, never per record. */
import { Counter, Gauge, Histogram, type Registry } from 'prom-client';
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

/** Seconds: a micro-batch of a quiet topic takes milliseconds, a full one on a loaded machine many seconds. */
const durationBuckets = [0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30];

export class ProcessorMetrics extends MemberMetrics {
  readonly #records: Counter<'fate'>;
  readonly #removed: Counter;
  readonly #chunks: Counter;
  readonly #microBatches: Counter<'closed_by'>;
  readonly #applySeconds: Histogram;
  readonly #publishSeconds: Histogram;
  readonly #shards: Gauge;
  readonly #silent: Counter;
  readonly #cubes: Counter;

  constructor(registry: Registry) {
    super(
      registry,
      'processor',
      {
        lag: 'Messages of a source topic that are not applied yet',
        memory: 'Memory that DuckDB uses for the stores of all shards',
      },
      rejectReasons,
    );
    const registers = [registry];
    this.#records = new Counter({
      name: 'reelflow_processor_records_total',
      help: 'Records that were applied, duplicate, or rejected',
      labelNames: ['fate'],
      registers,
    });
    this.#removed = new Counter({
      name: 'reelflow_processor_removed_rows_total',
      help: 'Rows that left the store because a later dump does not hold them',
      registers,
    });
    this.#chunks = new Counter({
      name: 'reelflow_processor_chunks_total',
      help: 'Messages of source topics in applied micro-batches',
      registers,
    });
    this.#microBatches = new Counter({
      name: 'reelflow_processor_micro_batches_total',
      help: 'Micro-batches, by the bound that closed them',
      labelNames: ['closed_by'],
      registers,
    });
    this.#applySeconds = new Histogram({
      name: 'reelflow_processor_apply_duration_seconds',
      help: 'Time from the start of the transaction of a micro-batch to its commit',
      buckets: durationBuckets,
      registers,
    });
    this.#publishSeconds = new Histogram({
      name: 'reelflow_processor_publish_duration_seconds',
      help: 'Time from the commit of a micro-batch to the acknowledgement of its delta',
      buckets: durationBuckets,
      registers,
    });
    this.#silent = new Counter({
      name: 'reelflow_processor_messages_read_again_total',
      help: 'Messages of source topics that were applied without a delta, because their range is published already',
      registers,
    });
    this.#cubes = new Counter({
      name: 'reelflow_processor_cubes_backfilled_total',
      help: 'Cubes of shards that were published whole, in a base',
      registers,
    });
    this.#shards = new Gauge({
      name: 'reelflow_processor_shards',
      help: 'Shards assigned to this member',
      registers,
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
