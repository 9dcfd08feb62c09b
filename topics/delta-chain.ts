/**
 * The chain of one shard's deltas. A delta is identified by its source range. All readers of the topic, the sink and the
 * processors that look for the published position, fold the same headers with the same rule. So they agree on which
 * deltas count, even when a delta arrives twice, late, or from a member that no longer owns the shard.
 */
import { versionsIn } from './cube-versions.ts';
import { type DeltaPart, fromOf, gapsOf, toOf } from './delta-wire.ts';
import {
  type Gaps,
  gapsBefore,
  nextIn,
  notAfter,
  onTopics,
  type Position,
  sameGaps,
  samePosition,
} from './position.ts';

/**
 * What a reader does with a message: `collect` the part and wait for the rest, `apply` the delta that the part completes,
 * `skip` a delta that the chain contains already, drop one of a `dead` generation, or `refuse` it because its range does
 * not continue the chain. The owner of a refused delta opens its store again.
 */
export const verdicts = ['collect', 'apply', 'skip', 'dead', 'refuse'] as const;

export type Verdict = (typeof verdicts)[number];

/** The state that the applied deltas of one shard lead to. */
export interface ChainState {
  readonly generation: number;
  readonly position: Position;
  /** All before the position. */
  readonly gaps: Gaps;
  /** The cubes and their versions; '' before the first delta. */
  readonly cubeSet: string;
}

/** The state in which a generation begins. */
const startOf = (generation: number): ChainState => ({ generation, position: {}, gaps: {}, cubeSet: '' });

const chainStart = startOf(0);

/** The state before a delta, as the delta itself claims it. Used when everything before it is trimmed. */
function stateBefore(part: DeltaPart): ChainState {
  const { generation, kind, cubeSet, keeps = [] } = part;
  if (kind === 'reset') return startOf(generation - 1);
  if (kind === 'base' && keeps.length === 0) return startOf(generation);
  const position = kind === 'delta' ? fromOf(part) : toOf(part);
  return { generation, position, gaps: gapsBefore(gapsOf(part), position), cubeSet };
}

/**
 * Folds one shard's deltas in the order of their partition. Parts belong together when store, kind and range agree and
 * their numbers ascend from 1 to `parts`; parts of another store may lie between them.
 */
export class DeltaChain {
  #state: ChainState;
  /** Whether everything before is unknown. Then the first whole delta sets the state. */
  #isTrimmed: boolean;
  /** Next part expected, by store and range. */
  #open = new Map<string, number>();

  /** @param state to continue from; `trimmed` if the partition has lost its first messages */
  constructor(state: ChainState | 'trimmed' = chainStart) {
    this.#isTrimmed = state === 'trimmed';
    this.#state = state === 'trimmed' ? chainStart : state;
  }

  get state(): ChainState {
    return this.#state;
  }

  /** Whether the state is unknown: the partition is trimmed and holds no whole delta. */
  get isUnknown(): boolean {
    return this.#isTrimmed;
  }

  /** Whether a delta is incomplete: some of its parts have arrived. */
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
    // `reset` writes its mark to all partitions before any store of the new generation exists.
    if (part.generation > generation) return 'refuse';
    const from = fromOf(part);
    const to = toOf(part);
    if (part.kind === 'delta') {
      if (notAfter(to, position) && (cubeSet === '' || part.cubeSet === cubeSet)) {
        // This includes empty deltas, which change nothing.
        return 'skip';
      }
      if (!samePosition(from, position)) return 'refuse';
      // A store with other gaps computes from another state of the same titles.
      if (!sameGaps(gapsBefore(gapsOf(part), from), gaps)) return 'refuse';
      if (cubeSet !== '' && part.cubeSet !== cubeSet) return 'refuse';
    } else if (!takesBase(this.#state, part)) {
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
    const reached = part.kind === 'delta' ? merge(position, to) : beyondStart(to);
    this.#state = { generation, position: reached, gaps: gapsOf(part), cubeSet: part.cubeSet };
    return 'apply';
  }
}

/**
 * Whether a base may follow. One with all cubes may lead to any position that is not behind. One that keeps cubes counts only
 * where the chain has these in the same version, at the same position and with the same gaps.
 *
 * A base names every topic that its cubes read. A topic that only the cubes before it read leaves the chain with them.
 */
function takesBase({ position, gaps, cubeSet }: ChainState, part: DeltaPart): boolean {
  const to = toOf(part);
  const named = part.cubeSet === cubeSet ? undefined : Object.keys(to);
  const before = onTopics(position, named);
  const { keeps = [] } = part;
  if (keeps.length === 0) return notAfter(before, to);
  const [held, brought] = [versionsIn(cubeSet), versionsIn(part.cubeSet)];
  return (
    samePosition(before, to) &&
    sameGaps(onTopics(gaps, named), gapsOf(part)) &&
    keeps.every((name) => held.has(name) && held.get(name) === brought.get(name))
  );
}

const beyondStart = (position: Position): Position =>
  Object.fromEntries(Object.entries(position).filter(([, next]) => next > 0));

function merge(position: Position, to: Position): Position {
  const merged: Record<string, number> = { ...position };
  for (const topic of Object.keys(to)) merged[topic] = nextIn(to, topic);
  return merged;
}
