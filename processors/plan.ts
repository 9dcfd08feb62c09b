/** The decision how a store and the published deltas of its shard fit together. */
import type { ChainState } from '../topics/delta-chain.ts';
import type { DeltaHeader } from '../topics/delta-wire.ts';
import { fromOf, toOf } from '../topics/delta-wire.ts';
import {
  gapsBefore,
  notAfter,
  type Position,
  positionText,
  sameGaps,
  samePosition,
} from '../topics/position.ts';

/** How an owner reconciles its store with the published deltas of its shard before it continues. */
export type Plan =
  /** Publish these outbox entries (by number), then continue. */
  | { readonly kind: 'continue'; readonly publish: readonly number[] }
  /** Apply without publishing, up to exactly the published position. */
  | { readonly kind: 'catch-up'; readonly to: Position }
  /** The store diverged from what is published: start with an empty store and catch up. */
  | { readonly kind: 'rebuild'; readonly why: string }
  /** The published deltas do not lead to this store and never will: publish the whole cubes. */
  | { readonly kind: 'base'; readonly why: string };

/** Everything that the cubes of a store are a function of. */
export type StoreState = Omit<ChainState, 'generation'>;

/** Decides from a store, its outbox (oldest first) and the chain of published deltas. Pure. */
export function planShard(
  { position, gaps, cubeSet }: StoreState,
  outbox: readonly { readonly number: number; readonly header: DeltaHeader }[],
  published: ChainState,
): Plan {
  const sameCubes = published.cubeSet === '' || published.cubeSet === cubeSet;
  const sameSoFar = sameGaps(gapsBefore(gaps, published.position), published.gaps);
  if (samePosition(position, published.position)) {
    if (!sameSoFar) return { kind: 'base', why: 'the published deltas have other gaps' };
    return sameCubes
      ? { kind: 'continue', publish: [] }
      : { kind: 'base', why: `the published cubes are of another cube set (${published.cubeSet})` };
  }
  if (notAfter(position, published.position)) return { kind: 'catch-up', to: published.position };

  // The store is ahead of the published position. That is fine if its outbox leads from there to the store.
  const left = outbox.filter(({ header }) => !notAfter(toOf(header), published.position));
  let reached = published.position;
  for (const { header } of left) {
    const continues =
      header.kind === 'base' ? notAfter(reached, toOf(header)) : samePosition(fromOf(header), reached);
    if (!continues) break;
    reached = toOf(header);
  }
  if (sameCubes && sameSoFar && samePosition(reached, position)) {
    return { kind: 'continue', publish: left.map(({ number }) => number) };
  }
  if (samePosition(published.position, {})) {
    return { kind: 'base', why: 'no delta of this shard is published' };
  }
  if (notAfter(published.position, position) && !sameGaps(gaps, published.gaps)) {
    return { kind: 'base', why: 'the store accepted a loss that the published deltas do not record' };
  }
  return {
    kind: 'rebuild',
    why: `the store is at ${positionText(position)}, the published position is ${positionText(published.position)}, and the outbox does not connect them`,
  };
}
