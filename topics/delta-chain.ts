/**
 * The chain of one shard's deltas. A delta is identified by its source range. All readers of the topic, the sink and the
 * processors that look for the published position, fold the same headers with the same rule. So they agree on which
 * deltas count, even when a delta arrives twice, late, or from a member that no longer owns the shard.
 */
import { type DeltaPart, fromOf, gapsOf, toOf } from './delta-wire.ts';
import {
  type Gaps,
  gapsBefore,
  nextIn,
  notAfter,
  type Position,
  sameGaps,
  samePosition,
} from './position.ts';

/**
 * What a reader does with a message: `collect` its part and wait for the rest, `apply` the delta that it completes,
 * `skip` what is already contained, forget what belongs to a `dead` generation, or `refuse` it: its range does not
 * go on where the shard stands, and somebody has to heal.
 */
export const verdicts = ['collect', 'apply', 'skip', 'dead', 'refuse'] as const;

export type Verdict = (typeof verdicts)[number];

/** Where one shard stands in the chain of its deltas. */
export interface ChainState {
  readonly generation: number;
  readonly position: Position;
  /** Before the position. */
  readonly gaps: Gaps;
  /** Fingerprint of the cubes; '' before the first delta. */
  readonly cubeSet: string;
}

/** Where a generation begins. */
const startOf = (generation: number): ChainState => ({ generation, position: {}, gaps: {}, cubeSet: '' });

export const chainStart = startOf(0);

/** The state that a delta goes on from, taken for granted where what was before it is trimmed. */
const stateBefore = (part: DeltaPart): ChainState =>
  part.kind === 'delta'
    ? {
        generation: part.generation,
        position: fromOf(part),
        gaps: gapsBefore(gapsOf(part), fromOf(part)),
        cubeSet: part.cubeSet,
      }
    : startOf(part.generation - (part.kind === 'reset' ? 1 : 0));

/**
 * Folds one shard's deltas in the order of their partition.
 * Parts belong together when store, kind and range agree and they follow each other from 1 to `parts`; parts of
 * another store may lie between them.
 */
export class DeltaChain {
  #state: ChainState;
  /** Whether what came before is unknown: the first delta that is whole then tells. */
  #isTrimmed: boolean;
  /** Next part expected, by store and range. */
  #open = new Map<string, number>();

  /** @param state where the shard stands; `trimmed` when the partition no longer begins at its first message */
  constructor(state: ChainState | 'trimmed' = chainStart) {
    this.#isTrimmed = state === 'trimmed';
    this.#state = state === 'trimmed' ? chainStart : state;
  }

  get state(): ChainState {
    return this.#state;
  }

  /** Whether nothing that is left tells where the shard stands. */
  get isUnknown(): boolean {
    return this.#isTrimmed;
  }

  /** Whether parts of an unfinished delta are outstanding. */
  get isBetweenParts(): boolean {
    return this.#open.size > 0;
  }

  /** Identifies the delta that a part belongs to. */
  static keyOf(part: DeltaPart): string {
    return JSON.stringify([part.storeId, part.kind, part.generation, part.parts, fromOf(part), toOf(part)]);
  }

  accept(part: DeltaPart): Verdict {
    if (this.#isTrimmed) {
      if (part.part !== 1) return 'skip';
      this.#state = stateBefore(part);
      this.#isTrimmed = false;
    }
    const { generation, position, gaps, cubeSet } = this.#state;
    if (part.generation < generation) return 'dead';
    if (part.kind === 'reset') {
      if (part.generation === generation) return 'skip';
      this.#state = startOf(part.generation);
      this.#open.clear();
      return 'apply';
    }
    // A generation begins with its reset mark, which all partitions get before any store works for it.
    if (part.generation > generation) return 'refuse';
    const from = fromOf(part);
    const to = toOf(part);
    if (part.kind === 'delta') {
      if (notAfter(to, position) && (cubeSet === '' || part.cubeSet === cubeSet)) {
        // An empty delta changes nothing either way.
        return 'skip';
      }
      if (!samePosition(from, position)) return 'refuse';
      // A store that lacks other messages would count from another state of the same titles.
      if (!sameGaps(gapsBefore(gapsOf(part), from), gaps)) return 'refuse';
      if (cubeSet !== '' && part.cubeSet !== cubeSet) return 'refuse';
    } else if (!notAfter(position, to)) {
      return 'refuse';
    }
    const key = DeltaChain.keyOf(part);
    const expected = part.part === 1 ? 1 : this.#open.get(key);
    if (part.part !== expected) return 'skip';
    if (part.part < part.parts) {
      this.#open.set(key, part.part + 1);
      return 'collect';
    }
    this.#open.clear();
    this.#state = { generation, position: merge(position, to), gaps: gapsOf(part), cubeSet: part.cubeSet };
    return 'apply';
  }
}

function merge(position: Position, to: Position): Position {
  const merged: Record<string, number> = { ...position };
  for (const topic of Object.keys(to)) merged[topic] = nextIn(to, topic);
  return merged;
}
