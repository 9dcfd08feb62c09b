/** The processor stage: topics of chunks in, deltas of cubes out. `runProcessor` runs one member of its group. */
import { setTimeout as sleep } from 'node:timers/promises';
import type { Broker } from '../kafka/client.ts';
import { isAbort } from '../runtime/errors.ts';
import type { Cube } from '../tables/cubes/cube.ts';
import { cubes as allCubes } from '../tables/cubes/cube-set.ts';
import { DeclarationFailure } from '../tables/declaration-failure.ts';
import type { TopicNames } from '../topics/catalog.ts';
import type { RecordCounts } from '../topics/record-counts.ts';
import type { Registry } from '../topics/registry.ts';
import type { Window } from './filling.ts';
import { endWithinMs, Member } from './member.ts';
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

/**
 * Runs a member until `signal` aborts, or until it has caught up. A cube of a user that fails on real rows is left out: a new
 * member goes on without it, as if its file were gone.
 * @throws ReelflowError with the reason why the member ended; DeclarationFailure when it has caught up without a cube
 */
export async function runProcessor(options: ProcessorOptions): Promise<ProcessorReport> {
  const { broker, cubeSet = allCubes, finish, signal } = options;
  const failures: DeclarationFailure[] = [];
  for (;;) {
    const isKept = ({ name }: Cube) => failures.every(({ declaration }) => declaration !== name);
    try {
      const report = await runMember({ ...options, cubeSet: cubeSet.filter(isKept) });
      if (failures[0] !== undefined && finish?.aborted === true && !signal.aborted) throw failures[0];
      return report;
    } catch (thrown) {
      const isOfUser =
        thrown instanceof DeclarationFailure && allCubes.every(({ name }) => name !== thrown.declaration);
      if (!isOfUser || failures.includes(thrown)) throw thrown;
      failures.push(thrown);
      const { declaration: cube, detail, hint } = thrown;
      broker.logger.error({ cube, reason: detail, hint }, 'cube left out');
    }
  }
}

async function runMember(options: ProcessorOptions): Promise<ProcessorReport> {
  const member = await Member.start(options).catch((thrown) => {
    const { aborted, reason } = options.signal;
    if (aborted && (isAbort(thrown) || thrown === reason)) return undefined;
    throw thrown;
  });
  if (member === undefined)
    return { shards: [], microBatches: 0, applied: 0, duplicate: 0, rejected: 0, removed: 0 };
  try {
    const shards = await member.run();
    await member.stop();
    // After stopping: a last micro-batch may have finished meanwhile.
    return { shards, ...member.counts };
  } catch (thrown) {
    await Promise.race([member.stop().catch(() => undefined), sleep(endWithinMs, undefined, { ref: false })]);
    throw thrown;
  }
}
