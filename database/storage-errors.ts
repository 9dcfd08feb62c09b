/**
 * Faults of the storage below us: what the file system and DuckDB report when a disk is full, a file is damaged or held, or
 * the memory limit is too small. DuckDB has no error codes, so this is the only place that knows its messages.
 */
import { isFileError, messageOf, ReelflowError, systemCodeOf } from '../runtime/errors.ts';

type StorageFault = 'interrupted' | 'locked' | 'diskFull' | 'outOfMemory' | 'file';

/** What DuckDB writes, most specific first: an I/O error may also be a full disk or a lock. */
const duckdbFaults: readonly (readonly [StorageFault, RegExp])[] = [
  ['interrupted', /^INTERRUPT Error/],
  ['locked', /conflicting lock|could not set lock|already attached|being used by another process/i],
  ['diskFull', /no space left|disk quota exceeded|max_temp_directory_size/i],
  ['outOfMemory', /^Out of Memory Error|out of memory/i],
  [
    'file',
    /^(IO|Permission|Serialization) Error|cannot open file|corrupt|checksum|invalidated|permission denied|read-only|not a valid DuckDB|No magic bytes|snappy|zstd/i,
  ],
];

/** @returns undefined for anything that the storage has not caused */
export function storageFaultOf(thrown: unknown): StorageFault | undefined {
  const code = systemCodeOf(thrown);
  if (code === 'ENOSPC' || code === 'EDQUOT') return 'diskFull';
  if (isFileError(thrown)) return 'file';
  const message = messageOf(thrown);
  return duckdbFaults.find(([, pattern]) => pattern.test(message))?.[0];
}

/** Whether the fault concerns this process or its disk, and not the file that was read. */
export function isOwnFault(thrown: unknown): boolean {
  const fault = storageFaultOf(thrown);
  return fault === 'interrupted' || fault === 'diskFull' || fault === 'outOfMemory';
}

/** What an error text says about a folder or file that we read or write. */
export interface Storage {
  /** The file or folder, for the error's detail. */
  readonly path: string;
  /** What the disk lies under: `the gold folder`. */
  readonly folder: string;
  readonly kind: 'stateUnusable' | 'goldUnusable' | 'input';
  /** First line of the error when the file cannot be used, and its hint. */
  readonly unusable: string;
  readonly hint: string;
  /** Hint when the path cannot be written, or a part of it is a file. Default `hint`. */
  readonly hintWhenDenied?: string;
  /** Hint when the disk is full. */
  readonly hintWhenFull?: string;
  /** First line and hint of the error when another process holds it. */
  readonly busy?: { readonly what: string; readonly hint: string };
}

/** Maps a fault of the storage to a ReelflowError. An interrupt, a ReelflowError and any other error pass unchanged. */
export function asStorageError(thrown: unknown, storage: Storage): unknown {
  if (thrown instanceof ReelflowError) return thrown;
  switch (storageFaultOf(thrown)) {
    case 'locked':
      if (storage.busy === undefined) return unusable(thrown, storage);
      return new ReelflowError('busy', storage.busy.what, {
        detail: storage.path,
        hint: storage.busy.hint,
        cause: thrown,
      });
    case 'diskFull':
      return new ReelflowError('diskFull', `The disk under ${storage.folder} is full`, {
        detail: `${storage.path}: ${messageOf(thrown)}`,
        hint: storage.hintWhenFull ?? 'Free disk space and start again; nothing is lost.',
        cause: thrown,
      });
    case 'outOfMemory':
      return new ReelflowError('stateUnusable', 'The memory limit is too small', {
        detail: `${storage.path}: ${firstLine(thrown)}`,
        hint: 'Raise --memory.',
        cause: thrown,
      });
    case 'file':
      return unusable(thrown, storage);
    default:
      return thrown;
  }
}

/**
 * The same for the opening of a file, where every error of DuckDB is about the file: a damaged one fails in many ways, for
 * example by a table that it lacks. DuckDB throws plain errors; a TypeError stays a defect.
 */
export function asOpeningError(thrown: unknown, storage: Storage): unknown {
  const mapped = asStorageError(thrown, storage);
  const isOfDuckdb = thrown instanceof Error && thrown.constructor === Error;
  return mapped === thrown && isOfDuckdb && storageFaultOf(thrown) !== 'interrupted'
    ? unusable(thrown, storage)
    : mapped;
}

/** DuckDB refuses a file in a format that it does not know before it looks at anything else. */
const otherFormat = /^IO Error: Trying to read a database file with version number/;

/** What Node and DuckDB write about a path that cannot be opened or made, whatever is in it. */
const denied = /permission denied|not permitted|read-only file system|not a directory|file already exists/i;

function unusable(cause: unknown, storage: Storage): ReelflowError {
  const { kind, unusable, path } = storage;
  if (otherFormat.test(messageOf(cause))) {
    return new ReelflowError(kind, 'A database was written by another version of DuckDB', {
      detail: `${path}: ${firstLine(cause)}`,
      hint: 'Use the version of reelflow that wrote it, or another folder.',
      cause,
    });
  }
  const hint = denied.test(messageOf(cause)) ? (storage.hintWhenDenied ?? storage.hint) : storage.hint;
  return new ReelflowError(kind, unusable, { detail: `${path}: ${messageOf(cause)}`, hint, cause });
}

/** DuckDB appends advice that concerns its own users. */
const firstLine = (thrown: unknown) => messageOf(thrown).split('\n', 1)[0] as string;
