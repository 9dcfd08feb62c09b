/**
 * Marks tie the dump index to the log: per partition, the offset up to which the index is true. A mark holds only while the
 * log has the same two messages before it. So a log that was recreated, cut at its end or trimmed is never taken for the one
 * that was marked.
 */
import type { LogBounds } from '../../kafka/bounds.ts';
import type { IndexMark } from '../../topics/dump-index.ts';
import type { SourceLog } from './devices.ts';

/** An offset of a partition whose log begins at `start`. */
interface LogPlace {
  readonly partition: number;
  readonly start: number;
  readonly offset: number;
}

/**
 * The marks that hold, by partition. A log that lost its beginning may lack rows, unless it starts at the base that the
 * index knows. Two messages are compared: a single one may have come back, at the same offset of a recreated topic, as the
 * late copy of a request.
 */
export async function heldMarks(
  log: SourceLog,
  marks: readonly IndexMark[],
  bounds: readonly LogBounds[],
): Promise<(IndexMark | undefined)[]> {
  const possible = marks.flatMap((mark, partition) => {
    const { start, end } = bounds[partition] as LogBounds;
    const isPossible = (start === mark.start || start === mark.base) && mark.offset <= end;
    return isPossible ? [{ mark, partition, start, offset: mark.offset }] : [];
  });
  const held: (IndexMark | undefined)[] = bounds.map(() => undefined);
  for (const { mark, partition, hash, previous } of await withLastHashes(log, possible)) {
    if (hash !== mark.hash || (mark.previous !== undefined && previous !== mark.previous)) continue;
    held[partition] = mark;
  }
  return held;
}

/** Marks at the ends of the partitions. @param held marks that hold: their hashes were just read */
export async function marksAtEnd(
  log: SourceLog,
  bounds: readonly LogBounds[],
  held: readonly (IndexMark | undefined)[],
): Promise<IndexMark[]> {
  const marks: IndexMark[] = [];
  const unread: LogPlace[] = [];
  for (const [partition, { start, end: offset }] of bounds.entries()) {
    const { offset: heldAt, hash, previous } = held[partition] ?? {};
    if (heldAt !== offset || hash === undefined || previous === undefined) {
      unread.push({ partition, start, offset });
    } else {
      marks[partition] = { start, offset, hash, previous };
    }
  }
  for (const { partition, start, offset, hash, previous } of await withLastHashes(log, unread)) {
    // No message has this hash: the mark of a log that was shortened after its bounds were read never holds.
    marks[partition] = { start, offset, hash: hash ?? 'gone', previous };
  }
  return marks;
}

/** The places with the hashes of the last two messages before each. `hash` is undefined if the log has lost that message. */
async function withLastHashes<Place extends LogPlace>(
  log: SourceLog,
  places: readonly Place[],
): Promise<(Place & { readonly hash: string | undefined; readonly previous: string })[]> {
  const found = await log.hashesOf(
    places.map(({ partition, start, offset }) => ({
      partition,
      start: Math.max(start, offset - 2),
      end: offset,
    })),
  );
  return places.map((place) => {
    const { partition, start, offset } = place;
    if (offset === start) return { ...place, hash: '', previous: '' };
    const hashes = found.get(partition);
    return { ...place, hash: hashes?.get(offset - 1), previous: hashes?.get(offset - 2) ?? '' };
  });
}
