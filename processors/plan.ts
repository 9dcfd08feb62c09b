import type { ChainState, DeltaHeader } from '../topics/deltas.ts';
import { fromOf, toOf } from '../topics/deltas.ts';
import { notAfter, type Position, positionText, samePosition } from '../topics/position.ts';

/** How an owner brings its store and the published deltas of its shard together before it goes on. */
export type Plan =
  /** Publish these outbox entries (by number), then go on. */
  | { readonly kind: 'continue'; readonly publish: readonly number[] }
  /** Apply silently up to exactly the published position. */
  | { readonly kind: 'catch-up'; readonly to: Position }
  /** The store went another way than what is published: start from nothing and catch up. */
  | { readonly kind: 'rebuild'; readonly why: string }
  /** What is published does not lead here and never will: publish the whole cubes. */
  | { readonly kind: 'base'; readonly why: string };

/**
 * Decides from the store's position, its outbox (oldest first) and the chain of published deltas. Pure.
 * @param cubeSet fingerprint of the store's cubes
 */
export function planShard(
  position: Position,
  outbox: readonly { readonly number: number; readonly header: DeltaHeader }[],
  published: ChainState,
  cubeSet: string,
): Plan {
  const sameCubes = published.cubeSet === '' || published.cubeSet === cubeSet;
  if (samePosition(position, published.position)) {
    return sameCubes
      ? { kind: 'continue', publish: [] }
      : { kind: 'base', why: `the published cubes are of another cube set (${published.cubeSet})` };
  }
  if (notAfter(position, published.position)) return { kind: 'catch-up', to: published.position };

  // The store is ahead of what is published: right if its outbox leads from there to here.
  const left = outbox.filter(({ header }) => !notAfter(toOf(header), published.position));
  let reached = published.position;
  for (const { header } of left) {
    const continues =
      header.kind === 'base' ? notAfter(reached, toOf(header)) : samePosition(fromOf(header), reached);
    if (!continues) break;
    reached = toOf(header);
  }
  if (sameCubes && samePosition(reached, position)) {
    return { kind: 'continue', publish: left.map(({ number }) => number) };
  }
  if (samePosition(published.position, {})) {
    return { kind: 'base', why: 'no delta of this shard is published' };
  }
  return {
    kind: 'rebuild',
    why: `the store stands at ${positionText(position)}, published is ${positionText(published.position)}, and its outbox does not lead from there to here`,
  };
}
