/** The decision how a store and the published deltas of its shard fit together. */
import { sameCubesIn } from '../topics/cube-versions.ts';
import { type ChainState, DeltaChain } from '../topics/delta-chain.ts';
import { type DeltaHeader, toOf } from '../topics/delta-wire.ts';
import {
  gapsBefore,
  notAfter,
  onTopics,
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
  /** The published deltas do not lead to this store and never will: publish its cubes, but for those that stay as they are. */
  | { readonly kind: 'base'; readonly keeps: readonly string[]; readonly why: string };

/** Everything that the cubes of a store are a function of. */
interface StoreState extends Omit<ChainState, 'generation'> {
  /** Source topics that these cubes read. */
  readonly topics: readonly string[];
}

/** Decides from a store, its outbox (oldest first) and the chain of published deltas. Pure. */
export function planShard(
  store: StoreState,
  outbox: readonly { readonly number: number; readonly header: DeltaHeader }[],
  chain: ChainState,
): Plan {
  const { topics, cubeSet } = store;
  // A topic that none of these cubes reads leaves the chain with their base, and the store when it is adapted.
  const published = reduced(chain, topics);
  const { position, gaps } = reduced(store, topics);
  if (samePosition(position, published.position)) {
    if (!sameGaps(gapsBefore(gaps, published.position), published.gaps)) {
      return { kind: 'base', keeps: [], why: 'the published deltas have other gaps' };
    }
    return published.cubeSet === '' || published.cubeSet === cubeSet
      ? { kind: 'continue', publish: [] }
      : {
          kind: 'base',
          keeps: sameCubesIn(cubeSet, published.cubeSet),
          why: 'the published cubes are others',
        };
  }
  if (notAfter(position, published.position)) return { kind: 'catch-up', to: published.position };

  // The store is ahead of the published position. That is fine if its outbox leads from there to the store.
  const left = outbox.filter(({ header }) => !notAfter(toOf(header), chain.position));
  const reached = new DeltaChain(chain);
  for (const { header } of left) {
    if (reached.accept({ ...header, part: 1, parts: 1 }) === 'refuse') break;
  }
  if (samePosition(reduced(reached.state, topics).position, position)) {
    return { kind: 'continue', publish: left.map(({ number }) => number) };
  }
  if (samePosition(published.position, {})) {
    return { kind: 'base', keeps: [], why: 'no delta of this shard is published' };
  }
  if (notAfter(published.position, position) && !sameGaps(gaps, published.gaps)) {
    return {
      kind: 'base',
      keeps: [],
      why: 'the store accepted a loss that the published deltas do not record',
    };
  }
  return {
    kind: 'rebuild',
    why: `the store is at ${positionText(position)}, the published position is ${positionText(published.position)}, and the outbox does not connect them`,
  };
}

/** The part of a state on these topics. */
const reduced = <State extends Pick<ChainState, 'position' | 'gaps'>>(
  state: State,
  topics: readonly string[],
): State => ({
  ...state,
  position: onTopics(state.position, topics),
  gaps: onTopics(state.gaps, topics),
});
