/**
 * Follows the deltas of one shard: collects the parts of each delta and keeps the shard's state after every message. It
 * knows nothing of cubes. The sink commits the state together with the rows that a delta adds, and after a crash starts a
 * new follower from the committed state.
 */
import { type ChainState, DeltaChain, type Verdict } from '../topics/delta-chain.ts';
import { type DeltaHeader, type DeltaPart, gapsOf, toOf } from '../topics/delta-wire.ts';
import { sameGaps, samePosition } from '../topics/position.ts';
import { noRecords, type RecordCounts, sumOf } from '../topics/record-counts.ts';
import type { ShardState } from './shard-state.ts';

interface Followed<Part> {
  readonly verdict: Verdict;
  /** The parts of the delta to apply, in order; empty with another verdict. */
  readonly parts: readonly Part[];
}

/** @typeParam Part what the caller keeps of a part until the last one has arrived */
export class Follower<Part> {
  readonly #chain: DeltaChain;
  /** Incomplete deltas with the offset of their first part. */
  readonly #pending = new Map<string, { first: number; parts: Part[] }>();
  #state: ShardState | undefined;

  /** @param state as committed; undefined before the first delta */
  constructor(state?: ShardState) {
    this.#state = state;
    this.#chain = new DeltaChain(state?.chain);
  }

  /** Undefined before the first delta. */
  get state(): ShardState | undefined {
    return this.#state;
  }

  get chain(): ChainState {
    return this.#chain.state;
  }

  /** Takes the message at `offset`. */
  follow(header: DeltaPart, offset: number, part: Part): Followed<Part> {
    const verdict = this.#chain.accept(header);
    const key = DeltaChain.keyOf(header);
    const pending = header.part === 1 ? undefined : this.#pending.get(key);
    const first = pending?.first ?? offset;
    const parts = [...(pending?.parts ?? []), part];
    switch (verdict) {
      case 'collect':
        this.#pending.set(key, { first, parts });
        return { verdict, parts: [] };
      case 'apply':
        this.#pending.clear();
        this.#state = advanced(this.#state, header, this.#chain.state, { first, next: offset + 1 });
        return { verdict, parts };
      default:
        this.pass(offset);
        return { verdict, parts: [] };
    }
  }

  /** Moves past a message that changes nothing, unless it lies between the parts of a delta. */
  pass(offset: number): void {
    if (this.#state === undefined || this.#chain.isBetweenParts) return;
    this.#state = { ...this.#state, next: offset + 1 };
  }
}

/**
 * Whether a message is the last delta that a shard has applied, judged by what its header says about where it ends. Read
 * again at its offset, it proves that the log is the one from which the state was made.
 */
export function isLastDelta({ shard, chain }: ShardState, header: DeltaHeader): boolean {
  const to = header.kind === 'reset' ? {} : toOf(header);
  return (
    header.shard === shard &&
    header.generation === chain.generation &&
    header.cubeSet === chain.cubeSet &&
    samePosition(to, chain.position) &&
    sameGaps(gapsOf(header), chain.gaps)
  );
}

/** The state of a shard after a part has completed its delta. */
function advanced(
  state: ShardState | undefined,
  part: DeltaPart,
  chain: ChainState,
  offsets: { first: number; next: number },
): ShardState {
  const counts: Record<string, RecordCounts> = part.kind === 'delta' ? { ...state?.counts } : {};
  const heldUntil = part.kind === 'reset' ? toOf(part) : (state?.heldUntil ?? {});
  for (const range of part.kind === 'reset' ? [] : part.range) {
    // A base names topics of which nothing was read yet.
    if (range.to === 0) continue;
    counts[range.topic] = sumOf(counts[range.topic] ?? noRecords, range);
  }
  const { shard, shards } = part;
  return { shard, shards, chain, counts, heldUntil, lastDelta: offsets.first, next: offsets.next };
}
