/**
 * A lock on a folder between processes, in one container or in several that share the folder. The file system enforces it:
 * the holder has an exclusive lock of SQLite on `lock.db`. The kernel, or the server of a network file system, frees it when
 * the holder ends in any way. Process ids mean nothing in another container, and a lease would need clocks that agree.
 *
 * POSIX frees the locks of a process when it closes any handle of the file, so no other code may open `lock.db`.
 */
import { readFileSync, rmSync, writeFileSync } from 'node:fs';
import { hostname } from 'node:os';
import { join, resolve } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { messageOf, pathHint, ReelflowError, systemCodeOf } from './errors.ts';
import { makeFolder } from './files.ts';

type Kind = 'state' | 'gold' | 'dumps';

interface Options {
  readonly patienceMs: number;
  /** Called once if the lock is held. @param owner for example `process 12 on gold-0`, as far as it is known */
  readonly onWait?: (owner: string) => void;
  /** The kind of folder, for the error if it is not writable. */
  readonly kind?: Kind;
}

const retryMs = 50;
/** SQLite's error code: another connection holds the lock. */
const sqliteBusy = 5;

/**
 * Runs `work` while no other caller, in this process or another, holds the folder.
 * @throws ReelflowError busy, if it is still held after `patienceMs`; diskFull; stateUnusable or goldUnusable
 */
export async function withFolderLock<T>(
  folder: string,
  { patienceMs, onWait, kind = 'state' }: Options,
  work: () => Promise<T>,
): Promise<T> {
  const DatabaseSync = await loadSqlite();
  // An absolute path, because SQLite takes one that starts with `file:` as an address.
  const lock = resolve(folder, 'lock.db');
  const ownerFile = join(folder, 'lock.owner');
  const startedMs = performance.now();
  let release: (() => void) | undefined;
  for (let isWaiting = false; release === undefined; ) {
    try {
      makeFolder(folder);
      release = tryLock(DatabaseSync, lock);
      if (release !== undefined) writeFileSync(ownerFile, `process ${process.pid} on ${hostname()}\n`);
    } catch (thrown) {
      release?.();
      throw unwritable(thrown, folder, kind);
    }
    if (release !== undefined) break;
    if (!isWaiting) onWait?.(readOwner(ownerFile));
    isWaiting = true;
    if (performance.now() - startedMs > patienceMs) {
      throw new ReelflowError('busy', 'Another process uses the same folder', {
        detail: `${lock} is held by ${readOwner(ownerFile)}`,
        hint: 'Wait for it to end, or end it. The lock is free as soon as its owner has ended.',
      });
    }
    await delay(retryMs);
  }
  try {
    return await work();
  } finally {
    rmSync(ownerFile, { force: true });
    release();
  }
}

type SqliteDatabase = typeof import('node:sqlite').DatabaseSync;

/** Hides the warning of Node 22 that its SQLite is experimental, which does not concern users of a command. */
async function loadSqlite(): Promise<SqliteDatabase> {
  const { emitWarning } = process;
  process.emitWarning = ((warning: string | Error, ...rest: never[]) => {
    if (!String(warning).includes('SQLite')) emitWarning.call(process, warning, ...rest);
  }) as typeof process.emitWarning;
  try {
    return (await import('node:sqlite')).DatabaseSync;
  } finally {
    process.emitWarning = emitWarning;
  }
}

/** @returns a function that frees the lock, or undefined if another holder has it */
function tryLock(DatabaseSync: SqliteDatabase, path: string): (() => void) | undefined {
  const database = new DatabaseSync(path, { timeout: 0 });
  try {
    // Nothing is ever written: the transaction only holds the lock.
    database.exec('PRAGMA journal_mode = MEMORY; BEGIN EXCLUSIVE');
    return () => database.close();
  } catch (thrown) {
    database.close();
    if ((thrown as { errcode?: number }).errcode === sqliteBusy) return undefined;
    throw thrown;
  }
}

function readOwner(file: string): string {
  try {
    return readFileSync(file, 'utf8').trim() || 'another process';
  } catch {
    return 'another process';
  }
}

function unwritable(cause: unknown, folder: string, kind: Kind): ReelflowError {
  const detail = `${folder}: ${messageOf(cause)}`;
  if (systemCodeOf(cause) === 'ENOSPC' || /disk is full/.test(messageOf(cause))) {
    return new ReelflowError('diskFull', `The disk under the ${kind} folder is full`, {
      detail,
      hint: 'Free disk space and start again; nothing is lost.',
      cause,
    });
  }
  const failures = { state: 'stateUnusable', gold: 'goldUnusable', dumps: 'input' } as const;
  const other = kind === 'dumps' ? 'another folder' : `another --${kind} folder`;
  return new ReelflowError(failures[kind], `The ${kind} folder cannot be written`, {
    detail,
    hint: `${pathHint(cause)}, and that its file system supports locks; or use ${other}.`,
    cause,
  });
}
