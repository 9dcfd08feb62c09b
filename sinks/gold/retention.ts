/**
 * Which snapshots stay: the newest ones, the last ones of days and months, the one that CURRENT names, and pinned ones. A pin is
 * a file inside the folder of its snapshot. A removal first renames the folder, after which no pin can be set, and only then
 * looks for one. So a pin and a removal, which need not know of each other, cannot both succeed.
 */
import { existsSync, readdirSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { crashPoint } from '../../runtime/crash-points.ts';
import { messageOf, ReelflowError, systemCodeOf } from '../../runtime/errors.ts';
import { currentSnapshot, listSnapshots, readManifest, snapshotFolder, snapshotsFolder } from './manifest.ts';

const pinFile = 'PINNED';

export const isPinned = (gold: string, id: string) => existsSync(join(snapshotFolder(gold, id), pinFile));

/**
 * Keeps a snapshot from retention until it is unpinned.
 * @returns false if it was pinned already
 * @throws ReelflowError goldUnusable, if there is no such snapshot
 */
export function pinSnapshot(gold: string, id: string): boolean {
  readManifest(gold, id);
  try {
    writeFileSync(join(snapshotFolder(gold, id), pinFile), '', { flag: 'wx', flush: true });
    return true;
  } catch (thrown) {
    if (systemCodeOf(thrown) === 'EEXIST') return false;
    if (systemCodeOf(thrown) !== 'ENOENT') throw thrown;
    throw new ReelflowError('goldUnusable', `Snapshot ${id} has just been removed`, {
      detail: `${gold}: retention removed it before the pin was set.`,
      hint: 'Run `reelflow gold list` and choose another one.',
    });
  }
}

/** @returns false if it was not pinned. @throws ReelflowError goldUnusable, if there is no such snapshot */
export function unpinSnapshot(gold: string, id: string): boolean {
  readManifest(gold, id);
  const was = isPinned(gold, id);
  rmSync(join(snapshotFolder(gold, id), pinFile), { force: true });
  return was;
}

/** Ids of the newest `keep` snapshots, oldest first. */
export const newestSnapshots = (gold: string, keep: number) => listSnapshots(gold).slice(-keep);

/** How many snapshots stay. */
export interface Keep {
  /** The newest; at least 1. */
  readonly newest: number;
  /** The last one of each of this many days (UTC) that have snapshots. Default 0. */
  readonly daily?: number;
  /** The last one of each of this many months. Default 0. */
  readonly monthly?: number;
}

type Reason = 'current' | 'pinned' | 'lake' | 'daily' | 'monthly';

export interface RetentionPlan {
  /** Oldest first. */
  readonly remove: readonly string[];
  /** Older snapshots that stay. */
  readonly stay: readonly { readonly id: string; readonly because: Reason }[];
}

/** Digits of an id that name its day and its month. */
const dayDigits = 8;
const monthDigits = 6;

/**
 * The snapshots that stay for their age: the last one of a day, and of a month. A period without snapshots does not count, so
 * a pause uses up no history.
 * @param ids ascending
 */
export function keptForAge(
  ids: readonly string[],
  { daily = 0, monthly = 0 }: Keep,
): Map<string, 'daily' | 'monthly'> {
  const lastOf = (digits: number, periods: number) => {
    const last = new Map(ids.map((id) => [id.slice(0, digits), id]));
    return periods === 0 ? [] : [...last.values()].slice(-periods);
  };
  return new Map([
    ...lastOf(monthDigits, monthly).map((id) => [id, 'monthly'] as const),
    ...lastOf(dayDigits, daily).map((id) => [id, 'daily'] as const),
  ]);
}

/** Plans `retain`. Changes nothing. */
export function planRetention(gold: string, keep: Keep, spared?: string): RetentionPlan {
  const current = currentSnapshot(gold);
  const ids = listSnapshots(gold);
  const forAge = keptForAge(ids, keep);
  const remove: string[] = [];
  const stay: { id: string; because: Reason }[] = [];
  for (const id of ids.slice(0, -keep.newest)) {
    const because = forAge.get(id);
    if (id === current) stay.push({ id, because: 'current' });
    else if (isPinned(gold, id)) stay.push({ id, because: 'pinned' });
    else if (id === spared) stay.push({ id, because: 'lake' });
    else if (because !== undefined) stay.push({ id, because });
    else remove.push(id);
  }
  return { remove, stay };
}

/** Ids of the snapshots that `retain` leaves, up to CURRENT, oldest first. */
export function stayingSnapshots(gold: string, keep: Keep): string[] {
  const current = currentSnapshot(gold) ?? '';
  const gone = new Set(planRetention(gold, keep).remove);
  return listSnapshots(gold).filter((id) => id <= current && !gone.has(id));
}

interface Retention {
  /** Removed snapshots, oldest first. */
  readonly removed: readonly string[];
  /** Snapshots that should be removed and could not be: of another user, in use on NFS, … */
  readonly failed: readonly { readonly id: string; readonly reason: string }[];
}

/**
 * Removes the snapshots of the plan and the remains of crashes. A snapshot that cannot be removed does not keep the others
 * from being removed. The caller holds the lock of the gold folder.
 * @param spared a snapshot that stays too: the newest one of a lake that could not be written
 */
export function retain(gold: string, keep: Keep, spared?: string): Retention {
  const folder = snapshotsFolder(gold);
  const removed: string[] = [];
  const failed: { id: string; reason: string }[] = [];
  const attempt = (id: string, remove: () => boolean) => {
    try {
      if (remove()) removed.push(id);
    } catch (thrown) {
      failed.push({ id, reason: messageOf(thrown) });
    }
  };
  const remains = existsSync(folder) ? readdirSync(folder).filter((name) => name.startsWith('.')) : [];
  for (const name of remains) {
    // What a crash has left is not a snapshot: its removal is not reported.
    attempt(name.slice(1), () => bury(folder, name.slice(1)) && false);
  }
  for (const id of planRetention(gold, keep, spared).remove) {
    attempt(id, () => {
      // A crash while files are deleted must not leave half a snapshot under its name.
      renameSync(join(folder, id), join(folder, `.${id}`));
      return bury(folder, id);
    });
  }
  return { removed, failed };
}

/** Removes a folder that has lost its name, or restores the name if a pin was set before. @returns whether it is removed */
function bury(folder: string, id: string): boolean {
  const dead = join(folder, `.${id}`);
  if (existsSync(join(dead, pinFile))) {
    renameSync(dead, join(folder, id));
    return false;
  }
  crashPoint('during-retention');
  rmSync(dead, { recursive: true, force: true });
  return true;
}
