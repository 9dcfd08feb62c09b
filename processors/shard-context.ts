/** What a shard gets from its member. */
import type { DuckDBInstance } from '@duckdb/node-api';
import type { Logger } from '../runtime/logger.ts';
import type { Backups } from './backup.ts';
import type { StagerOptions } from './chunk-stager.ts';
import type { Window } from './filling.ts';
import type { MicroBatchReport, ProcessorMetrics } from './processor-metrics.ts';
import type { Shard } from './shard.ts';
import type { RequestContext } from './shard-requests.ts';

export interface ShardContext extends StagerOptions, RequestContext {
  readonly instance: DuckDBInstance;
  readonly folder: string;
  readonly window: Window;
  readonly logger: Logger;
  readonly deltaSchemaId: number;
  /** How long to wait for a store that another owner holds, in milliseconds. */
  readonly lockPatienceMs: number;
  /** Continue after the log has lost messages that were never applied. */
  readonly acceptLoss: boolean;
  /** Where stores are backed up and restored from. */
  readonly backups: Backups | undefined;
  /** Called after every published micro-batch. */
  readonly onPublished: (shard: Shard, report: MicroBatchReport) => void;
  readonly metrics?: ProcessorMetrics;
  readonly onFailure: (shard: Shard, reason: unknown) => void;
}
