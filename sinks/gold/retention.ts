/**
 * Which snapshots stay: the newest, the one that CURRENT names, and those that are pinned. A pin is a file inside the
 * folder of its snapshot. So pinning and removing, which need not know of each other, cannot both succeed: removing begins
 * with a rename, after which nobody can pin any more, and looks for a pin only then.
 */
import { existsSync, readdirSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { crashPoint } from '../../runtime/crash-points.ts';
import { ReelflowError, systemCodeOf } from '../../runtime/errors.ts';
import { withFolderLock } from '../../runtime/folder-lock.ts';
import { currentSnapshot, listSnapshots, readManifest, snapshotFolder, snapshotsFolder } from './manifest.ts';

const pinFile = 'PINNED';

export const isPinned = (gold: string, id: string) => existsSync(join(snapshotFolder(gold, id), pinFile));

/**
 * Keeps a snapshot from every retention until it is unpinned.
 * @returns false when it was pinned already
 * @throws ReelflowError goldUnusable, when there is no such snapshot
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
      detail: `${gold}: retention was faster than the pin.`,
      hint: 'See `reelflow gold list`.',
    });
  }
}

/** @returns false when it was not pinned. @throws ReelflowError goldUnusable, when there is no such snapshot */
export function unpinSnapshot(gold: string, id: string): boolean {
  readManifest(gold, id);
  const was = isPinned(gold, id);
  rmSync(join(snapshotFolder(gold, id), pinFile), { force: true });
  return was;
}

/** Ids of the newest `keep` snapshots, oldest first. */
export const newestSnapshots = (gold: string, keep: number) => listSnapshots(gold).slice(-keep);

export interface RetentionPlan {
  /** Oldest first. */
  readonly remove: readonly string[];
  /** Older than the newest ones, and yet they stay. */
  readonly stay: readonly { readonly id: string; readonly because: 'current' | 'pinned' }[];
}

/** What `retain` would do. Changes nothing. */
export function planRetention(gold: string, keep: number): RetentionPlan {
  const current = currentSnapshot(gold);
  const remove: string[] = [];
  const stay: { id: string; because: 'current' | 'pinned' }[] = [];
  for (const id of listSnapshots(gold).slice(0, -keep)) {
    if (id === current) stay.push({ id, because: 'current' });
    else if (isPinned(gold, id)) stay.push({ id, because: 'pinned' });
    else remove.push(id);
  }
  return { remove, stay };
}

/**
 * Removes what the plan says and what crashes have left. The caller holds the gold folder's lock.
 * @param keep at least 1
 * @returns the ids that were removed
 */
export function retain(gold: string, keep: number): string[] {
  const folder = snapshotsFolder(gold);
  if (!existsSync(folder)) return [];
  for (const name of readdirSync(folder)) {
    if (name.startsWith('.')) bury(folder, name.slice(1));
  }
  return planRetention(gold, keep).remove.filter((id) => {
    // Renamed first: a crash in the middle of removing must not leave half a snapshot under its name.
    renameSync(join(folder, id), join(folder, `.${id}`));
    return bury(folder, id);
  });
}

/** Removes a folder that has lost its name, or gives the name back if it was pinned before. @returns whether it is gone */
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

/** Runs `work` while nobody else publishes into the gold folder or removes from it. @throws ReelflowError busy */
export function withGoldLock<T>(
  gold: string,
  options: { patienceMs: number; onWait?: (pid: number) => void },
  work: () => Promise<T>,
): Promise<T> {
  return withFolderLock(join(gold, '.sink'), { of: 'gold', ...options }, work);
}
