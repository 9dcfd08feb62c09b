/**
 * A lock on a folder between processes: a file that names its owner. The owner's death frees it; nobody
 * else's clock or patience does.
 */
import { randomUUID } from 'node:crypto';
import { linkSync, mkdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { identityOf, isRunning } from './child-process.ts';
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
 * @param of what the folder belongs to, for the error when it cannot be written
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
        throw new ReelflowError('busy', 'Another process is at work on the same folder', {
          detail: `${lock} is held by process ${owner?.pid ?? 'unknown'}`,
          hint: 'Wait for it to end, or end it; the lock is free as soon as its owner is gone.',
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
      hint: 'Make room and start again; nothing is lost.',
      cause,
    });
  }
  return new ReelflowError(
    of === 'gold' ? 'goldUnusable' : 'stateUnusable',
    `The ${of} folder cannot be written`,
    {
      detail,
      hint: `See to its permissions, or use another --${of} folder.`,
      cause,
    },
  );
}

/**
 * One attempt: link our file to the lock's name, or put it in the place of a dead owner's.
 *
 * Two processes may find the same dead owner. If each removed the lock and linked its own, the slower would
 * remove the lock of the faster. So the right to replace it is itself a link, `lock.heir`, and its holder
 * looks at the lock again before it renames: do not simplify this to remove-and-retry.
 */
function take(lock: string, mine: string): boolean {
  if (linked(mine, lock)) return true;
  const owner = readOwner(lock);
  if (owner === undefined || isRunning(owner)) return false;
  const heir = `${lock}.heir`;
  if (!linked(mine, heir)) {
    const other = readOwner(heir);
    // An heir that died in this function, some instructions long, would block everyone else.
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
