/** The decision whether a backup may replace a shard's store. */
import { messagesBefore, nextIn, notAfter, type Position, positionText } from '../topics/position.ts';

/** Everything that must agree before one store may replace another. */
export interface StoreKind {
  readonly format: number;
  readonly clusterId: string;
  readonly namespace: string;
  readonly shard: number;
  readonly shards: number;
  readonly generation: number;
}

/** The description that a backup carries. */
export interface BackupCard extends StoreKind {
  readonly position: Position;
  /** Records that the store had processed, whether applied, duplicate or rejected. */
  readonly records: number;
}

interface RestorePlan {
  /** Ids of useful backups, the freshest first. The next one serves if one turns out to be damaged. */
  readonly restore: readonly string[];
  /** Ids of backups that must not be used, and the reasons. */
  readonly ignored: ReadonlyMap<string, string>;
}

/**
 * Decides which backups may replace a shard's store: those of the same kind, further than the store, and not past the
 * published position, so that a silent catch-up leads from them to that position. Pure.
 * @param cards by id; undefined for a backup without a readable description
 * @param starts where the logs begin, if a store must not lie before that
 * @param storeMessages messages that the member's store has processed; undefined if it has no store
 */
export function planRestore(
  cards: ReadonlyMap<string, BackupCard | undefined>,
  wanted: StoreKind,
  published: Position,
  storeMessages: number | undefined,
  starts: Position = {},
): RestorePlan {
  const ignored = new Map<string, string>();
  const usable: { id: string; messages: number }[] = [];
  for (const [id, card] of cards) {
    const why = whyUnusable(card, wanted, published, starts);
    if (why !== undefined) ignored.set(id, why);
    else if (card !== undefined) {
      const messages = messagesBefore(card.position);
      if (messages > (storeMessages ?? 0)) usable.push({ id, messages });
    }
  }
  usable.sort((a, b) => b.messages - a.messages || (a.id < b.id ? 1 : -1));
  return { restore: usable.map(({ id }) => id), ignored };
}

function whyUnusable(
  card: BackupCard | undefined,
  wanted: StoreKind,
  published: Position,
  starts: Position,
): string | undefined {
  if (card === undefined) return 'its description is missing or damaged';
  if (card.format > wanted.format) return `a newer version wrote it (format ${card.format})`;
  for (const name of Object.keys(wanted) as (keyof StoreKind)[]) {
    if (card[name] !== wanted[name]) return `its ${name} is ${card[name]}, not ${wanted[name]}`;
  }
  const cut = Object.keys(starts).find((topic) => nextIn(card.position, topic) < nextIn(starts, topic));
  if (cut !== undefined)
    return `${cut} starts at offset ${nextIn(starts, cut)}, the backup ends at ${nextIn(card.position, cut)}`;
  return notAfter(card.position, published)
    ? undefined
    : `it is at ${positionText(card.position)}, past the published position`;
}
