/** What a member of the processors is given, and what it reports. */
import type { Broker } from '../kafka/client.ts';
import type { Cube } from '../tables/cubes/cube.ts';
import type { TopicNames } from '../topics/catalog.ts';
import type { RecordCounts } from '../topics/record-counts.ts';
import type { Registry } from '../topics/registry.ts';
import type { Window } from './filling.ts';
import type { ProcessorMetrics } from './processor-metrics.ts';

export interface ProcessorOptions {
  readonly broker: Broker;
  readonly registry: Registry;
  readonly names: TopicNames;
  /** The state folder. */
  readonly state: string;
  readonly window: Window;
  /**
   * When it aborts, the member ends after the end offsets of that moment are applied, published and committed. If it is
   * aborted already, the end offsets at the start count.
   */
  readonly finish?: AbortSignal;
  readonly acceptLoss: boolean;
  /** DuckDB's limit for all shards of this member, in DuckDB's notation. */
  readonly memoryLimit: string;
  /** Partition count for topics that do not exist yet. */
  readonly shards: number;
  /** When it aborts, the member finishes or drops the open micro-batch, and ends. */
  readonly signal: AbortSignal;
  readonly cubeSet?: readonly Cube[];
  /** A shard without progress for this time, while its log grows, ends the member; in milliseconds. */
  readonly stuckAfterMs: number;
  /** Positions of undecodable record batches to skip and count as rejected: `topic:partition:offset`. */
  readonly skipBatches?: readonly string[];
  /** Where stores are backed up, in a folder that members may share, and how often, in milliseconds. */
  readonly backups?: { readonly folder: string; readonly everyMs: number } | undefined;
  readonly metrics?: ProcessorMetrics;
  /** Called when the member has caught up and begins to end: what `finish` asked for is published. */
  readonly onCaughtUp?: () => void;
  /** Called once, with a function that applies everything up to the present end offsets without waiting for a window to end. */
  readonly onStarted?: (flush: () => void) => void;
  /** Called once, with a function that returns the member's present health. */
  readonly onHealth?: (health: () => Health) => void;
}

export interface Health {
  /** Whether the member works or is starting. */
  readonly isHealthy: boolean;
  /** Whether all assigned shards are open, and no outage of broker or registry is on. */
  readonly isReady: boolean;
  readonly shards: readonly number[];
  readonly detail: string;
}

export interface ProcessorReport extends RecordCounts {
  readonly shards: number[];
  readonly microBatches: number;
}
