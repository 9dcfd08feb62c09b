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

/** What the cubes of a store are a function of. */
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
    if (!sameSoFar) return { kind: 'base', why: 'what is published has other gaps' };
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
  if (sameCubes && sameSoFar && samePosition(reached, position)) {
    return { kind: 'continue', publish: left.map(({ number }) => number) };
  }
  if (samePosition(published.position, {})) {
    return { kind: 'base', why: 'no delta of this shard is published' };
  }
  if (notAfter(published.position, position) && !sameGaps(gaps, published.gaps)) {
    return { kind: 'base', why: 'a loss was accepted that what is published does not know' };
  }
  return {
    kind: 'rebuild',
    why: `the store stands at ${positionText(position)}, published is ${positionText(published.position)}, and its outbox does not lead from there to here`,
  };
}

/** What a store is of: all of it must agree before one may stand in for another. */
export interface StoreKind {
  readonly format: number;
  readonly clusterId: string;
  readonly namespace: string;
  readonly shard: number;
  readonly shards: number;
  readonly generation: number;
  /** Fingerprint of the cube declarations. */
  readonly cubeSet: string;
}

/** What a backup says of itself. */
export interface BackupCard extends StoreKind {
  readonly position: Position;
  /** Records that the store had taken in, of whatever fate: how far it is. */
  readonly records: number;
}

export interface RestorePlan {
  /** Ids of the backups that would help, the freshest first: the next one is for when one turns out to be damaged. */
  readonly restore: readonly string[];
  /** Ids of those that must not be used, and why. */
  readonly ignored: ReadonlyMap<string, string>;
}

/**
 * Decides which backups may take the place of a shard's store: those of the same kind, further than the store, and not
 * past what is published, so that a silent catch-up leads from them to where the shard goes on. Pure.
 * @param cards by id; undefined when a backup does not say what it is
 * @param storeRecords how far the store is that the member has; undefined when it has none
 */
export function planRestore(
  cards: ReadonlyMap<string, BackupCard | undefined>,
  wanted: StoreKind,
  published: Position,
  storeRecords: number | undefined,
): RestorePlan {
  const ignored = new Map<string, string>();
  const usable: { id: string; records: number }[] = [];
  for (const [id, card] of cards) {
    const why = whyUnusable(card, wanted, published);
    if (why !== undefined) ignored.set(id, why);
    else if (card !== undefined && card.records > (storeRecords ?? 0)) {
      usable.push({ id, records: card.records });
    }
  }
  usable.sort((a, b) => b.records - a.records || (a.id < b.id ? 1 : -1));
  return { restore: usable.map(({ id }) => id), ignored };
}

function whyUnusable(
  card: BackupCard | undefined,
  wanted: StoreKind,
  published: Position,
): string | undefined {
  if (card === undefined) return 'it does not say what it is';
  if (card.format > wanted.format) return `it is of a newer version (format ${card.format})`;
  for (const name of Object.keys(wanted) as (keyof StoreKind)[]) {
    if (card[name] !== wanted[name]) return `its ${name} is ${card[name]}, not ${wanted[name]}`;
  }
  return notAfter(card.position, published)
    ? undefined
    : `it stands at ${positionText(card.position)}, past what is published`;
}
