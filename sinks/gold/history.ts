/** The snapshots of a gold folder as a history: all of them, and the newest one at a point in time. */
import { ReelflowError } from '../../runtime/errors.ts';
import { recordsOf } from '../../topics/record-counts.ts';
import { currentSnapshot, listSnapshots, readManifest } from './manifest.ts';
import { isPinned } from './retention.ts';

export interface SnapshotSummary {
  readonly id: string;
  /** ISO 8601, UTC. */
  readonly created: string;
  readonly isCurrent: boolean;
  readonly isPinned: boolean;
  /** By table. */
  readonly rows: Readonly<Record<string, number>>;
  /** Of the table files. */
  readonly bytes: number;
  /** Records of the topics in its input. */
  readonly records: number;
}

/** All snapshots, oldest first. @throws ReelflowError goldUnusable, if the manifest of one is damaged or newer than this program */
export function historyOf(gold: string): SnapshotSummary[] {
  const current = currentSnapshot(gold);
  return listSnapshots(gold).map((id) => {
    const { created, tables, accounting } = readManifest(gold, id);
    return {
      id,
      created,
      isCurrent: id === current,
      isPinned: isPinned(gold, id),
      rows: Object.fromEntries(Object.entries(tables).map(([table, { rows }]) => [table, rows])),
      bytes: Object.values(tables).reduce((sum, { bytes }) => sum + bytes, 0),
      records: Object.values(accounting).reduce((sum, counts) => sum + recordsOf(counts), 0),
    };
  });
}

/** A date, or a date and a time. Without a zone it is UTC, like the ids. */
const timePattern = /^\d{4}-\d\d-\d\d(?:[T ]\d\d:\d\d(?::\d\d(?:\.\d+)?)?(Z|[+-]\d\d:\d\d)?)?$/;

/**
 * Finds a snapshot by its id, or the newest one at a time. Default: the one that CURRENT names.
 * @throws ReelflowError goldUnusable, if there is none; usage, if `at` is neither
 */
export function snapshotAt(gold: string, at?: string): string {
  if (at === undefined) {
    const current = currentSnapshot(gold);
    if (current !== undefined) return current;
    throw new ReelflowError('goldUnusable', 'There is no snapshot yet', {
      detail: `${gold} has no CURRENT.`,
      hint: 'Publish one with `reelflow sink --once`, or name the folder with --gold.',
    });
  }
  const time = timePattern.exec(at);
  if (time === null) return readManifest(gold, at).id;
  // JavaScript reads a date alone as midnight UTC, but a time without a zone as local time.
  const ms = Date.parse(at.length > 10 && time[1] === undefined ? `${at}Z` : at);
  if (Number.isNaN(ms)) {
    throw new ReelflowError('usage', `${at} is not a time`, {
      hint: 'Write it as 2026-11-21, 2026-11-21T10:30 or 2026-11-21T10:30:00+01:00; without a zone it is UTC.',
    });
  }
  const found = historyOf(gold).findLast(({ created }) => Date.parse(created) <= ms);
  if (found !== undefined) return found.id;
  throw new ReelflowError('goldUnusable', `There was no snapshot at ${new Date(ms).toISOString()}`, {
    detail: `${gold}: the oldest remaining snapshot is ${listSnapshots(gold)[0] ?? 'none'}.`,
    hint: 'Run `reelflow gold list` for the snapshots; a pin excludes a snapshot from retention.',
  });
}
