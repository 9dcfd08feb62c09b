/** One process at a time publishes into a gold folder or removes from it. */
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { withFolderLock } from '../../runtime/folder-lock.ts';

const lockOf = (gold: string) => join(gold, '.sink');

/** Whether a process has ever published into the folder. */
export const hasGoldLock = (gold: string) => existsSync(lockOf(gold));

/** Runs `work` while no other process publishes into the gold folder or removes from it. @throws ReelflowError busy */
export function withGoldLock<T>(
  gold: string,
  options: { patienceMs: number; onWait?: (owner: string) => void },
  work: () => Promise<T>,
): Promise<T> {
  return withFolderLock(lockOf(gold), { kind: 'gold', ...options }, work);
}
