/**
 * The marks of a reset, one in each partition of the delta topic. A mark begins a generation only if it is the first one of
 * that generation in its partition: the mark of an earlier reset that was killed, or of another reset at the same time, may
 * be there first, and it names other end offsets. Then this reset begins the next generation.
 */
import { randomUUID } from 'node:crypto';
import { ReelflowError } from '../runtime/errors.ts';
import type { DeltaHeader } from '../topics/delta-wire.ts';
import type { Position } from '../topics/position.ts';
import { noRecords } from '../topics/record-counts.ts';
import type { Publisher } from './publisher.ts';

interface Marking {
  /** By shard; each has folded its partition. */
  readonly publishers: ReadonlyMap<number, Publisher>;
  /** End offsets of the sources of each shard: what a snapshot must hold before it replaces CURRENT. */
  readonly endsOf: (shard: number) => Position;
  readonly encode: (mark: DeltaHeader) => readonly Buffer[];
  /** The new generation is above this one. */
  readonly generationMin: number;
}

/** Resets that run at the same time overtake each other; more often than this, something else is wrong. */
const attemptsMax = 20;

/** @returns the generation that a mark might begin now */
export const nextGeneration = ({
  publishers,
  generationMin,
}: Pick<Marking, 'publishers' | 'generationMin'>) =>
  Math.max(generationMin, ...[...publishers.values()].map(({ published }) => published.generation)) + 1;

/**
 * Publishes the marks until one generation has begun with a mark of this reset in every partition.
 * @returns the generation
 * @throws ReelflowError busy, if other resets are always faster; errors of the broker
 */
export async function publishMarks(marking: Marking): Promise<number> {
  const { publishers, endsOf, encode } = marking;
  const id = `reset-${randomUUID()}`;
  for (let attempt = 1; attempt <= attemptsMax; attempt++) {
    const generation = nextGeneration(marking);
    for (const [shard, publisher] of publishers) {
      const range = Object.entries(endsOf(shard)).map(([topic, to]) => ({
        ...{ topic, from: 0, to },
        ...noRecords,
        gaps: [],
      }));
      const head = { shard, shards: publishers.size, generation, cubeSet: '', storeId: id };
      await publisher.publish(encode({ ...head, kind: 'reset', range, recordTimeMs: Date.now() }));
    }
    const isOurs = [...publishers.values()].every(
      ({ published, resetBy }) => published.generation === generation && resetBy === id,
    );
    if (isOurs) return generation;
  }
  throw new ReelflowError('busy', 'Other resets run at the same time', {
    detail: `Other resets began ${attemptsMax} generations meanwhile.`,
    hint: 'Wait for them to end, then run `reelflow reset` again.',
  });
}
