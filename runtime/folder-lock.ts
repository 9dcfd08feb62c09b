/**
 * A lock on a folder between processes: a file that names its owner. Only the owner's end frees it; no timeout or clock
 * does.
 */
import { randomUUID } from 'node:crypto';
import { linkSync, mkdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { identityOf, isRunning } from './detached-process.ts';
import { messageOf, ReelflowError, systemCodeOf } from './errors.ts';

interface Owner {
  readonly pid: number;
  readonly started: string;
  /** Tells two holders in one process apart. */
  readonly nonce: string;
}

/**
 * Runs `work` while no other caller, in this process or another, holds the folder.
 * @param onWait called once with the owner's pid when the lock is held
 * @param of the kind of folder, for the error when it is not writable
 * @throws ReelflowError busy, when it is still held after `patienceMs`; diskFull; stateUnusable or goldUnusable
 */
export async function withFolderLock<T>(
  folder: string,
  options: { patienceMs: number; onWait?: (pid: number) => void; of?: 'state' | 'gold' },
  work: () => Promise<T>,
): Promise<T> {
  const lock = join(folder, 'lock');
  const nonce = randomUUID();
  const mine = join(folder, `lock.${nonce}`);
  const me: Owner = { pid: process.pid, started: identityOf(process.pid) ?? '', nonce };
  const deadline = Date.now() + options.patienceMs;
  let told = false;
  try {
    mkdirSync(folder, { recursive: true });
    writeFileSync(mine, JSON.stringify(me));
  } catch (thrown) {
    throw unwritable(thrown, folder, options.of ?? 'state');
  }
  try {
    while (!take(lock, mine)) {
      const owner = readOwner(lock);
      if (owner !== undefined && !told) {
        told = true;
        options.onWait?.(owner.pid);
      }
      if (Date.now() > deadline) {
        throw new ReelflowError('busy', 'Another process uses the same folder', {
          detail: `${lock} is held by process ${owner?.pid ?? 'unknown'}`,
          hint: 'Wait for it to end, or end it. The lock is free as soon as its owner has ended.',
        });
      }
      await delay(50);
    }
    try {
      return await work();
    } finally {
      rmSync(lock, { force: true });
    }
  } finally {
    rmSync(mine, { force: true });
  }
}

function unwritable(cause: unknown, folder: string, of: 'state' | 'gold'): ReelflowError {
  const detail = `${folder}: ${messageOf(cause)}`;
  if (systemCodeOf(cause) === 'ENOSPC') {
    return new ReelflowError('diskFull', `The disk under the ${of} folder is full`, {
      detail,
      hint: 'Free disk space and start again; nothing is lost.',
      cause,
    });
  }
  return new ReelflowError(
    of === 'gold' ? 'goldUnusable' : 'stateUnusable',
    `The ${of} folder cannot be written`,
    {
      detail,
      hint: `Check its permissions, or use another --${of} folder.`,
      cause,
    },
  );
}

/**
 * Tries once: links this process's file to the lock's name, or replaces the lock of an owner that has ended.
 *
 * Two processes may find the same ended owner. If each removed the lock and linked its own file, the slower one would
 * remove the lock of the faster one. So the right to replace the lock is itself a link, `lock.heir`, and its holder
 * checks the lock again before it renames. Do not simplify this to remove and retry.
 */
function take(lock: string, mine: string): boolean {
  if (linked(mine, lock)) return true;
  const owner = readOwner(lock);
  if (owner === undefined || isRunning(owner)) return false;
  const heir = `${lock}.heir`;
  if (!linked(mine, heir)) {
    const other = readOwner(heir);
    // An heir that died inside this function would block every other process.
    if (other !== undefined && !isRunning(other)) rmSync(heir, { force: true });
    return false;
  }
  try {
    const now = readOwner(lock);
    if (now === undefined || isRunning(now)) return false;
    const copy = `${mine}.copy`;
    linkSync(mine, copy);
    renameSync(copy, lock);
    return true;
  } finally {
    rmSync(heir, { force: true });
  }
}

function linked(from: string, to: string): boolean {
  try {
    linkSync(from, to);
    return true;
  } catch (error) {
    if (systemCodeOf(error) === 'EEXIST') return false;
    throw error;
  }
}

function readOwner(file: string): Owner | undefined {
  try {
    return JSON.parse(readFileSync(file, 'utf8')) as Owner;
  } catch {
    return undefined;
  }
}
