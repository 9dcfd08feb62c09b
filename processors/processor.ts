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

/**
 * Runs a member until `signal` aborts, or until it has caught up. A cube of a user that fails on real rows is left out: a new
 * member goes on without it, as if its file were gone.
 * @throws ReelflowError with the reason why the member ended; DeclarationFailure when it has caught up without a cube
 */
export async function runProcessor(options: ProcessorOptions): Promise<ProcessorReport> {
  const { broker, cubeSet = allCubes, finish, signal } = options;
  const leftOut: DeclarationFailure[] = [];
  let report: ProcessorReport | undefined;
  while (report === undefined) {
    const kept = cubeSet.filter(({ name }) => leftOut.every(({ declaration }) => declaration !== name));
    report = await runMember({ ...options, cubeSet: kept }).catch((thrown) => {
      if (!(thrown instanceof DeclarationFailure) || !isOfUser(thrown)) throw thrown;
      leftOut.push(thrown);
      broker.logger.error(
        { cube: thrown.declaration, reason: thrown.detail, hint: thrown.hint },
        'cube left out',
      );
      return undefined;
    });
  }
  if (leftOut[0] !== undefined && finish?.aborted === true && !signal.aborted) throw leftOut[0];
  return report;
}

const isOfUser = ({ declaration }: DeclarationFailure) => allCubes.every(({ name }) => name !== declaration);

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
    const stopped = member.stop().catch(() => undefined);
    // The next member needs the stores of this one; any other failure ends the process.
    const isNext = thrown instanceof DeclarationFailure;
    await (isNext ? stopped : Promise.race([stopped, sleep(endWithinMs, undefined, { ref: false })]));
    throw thrown;
  }
}
