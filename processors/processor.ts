/** The processor stage: topics of chunks in, deltas of cubes out. `runProcessor` runs one member of its group. */
import { setTimeout as sleep } from 'node:timers/promises';
import { isAbort } from '../runtime/errors.ts';
import { cubes as allCubes } from '../tables/cubes/cube-set.ts';
import { DeclarationFailure } from '../tables/declaration-failure.ts';
import { endWithinMs, Member } from './member.ts';
import type { ProcessorOptions, ProcessorReport } from './processor-options.ts';

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
