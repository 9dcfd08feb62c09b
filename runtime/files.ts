/** Makes folders, and flushes and hashes files, so that they survive a crash and a reader notices damage. */
import { createHash } from 'node:crypto';
import {
  closeSync,
  createReadStream,
  createWriteStream,
  existsSync,
  fsyncSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  rmSync,
  statSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join, resolve } from 'node:path';
import { Transform } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { systemCodeOf } from './errors.ts';

const highWaterMark = 1024 * 1024;

/**
 * Makes a folder and those above it. Node's recursive mkdir never returns if a file system answers ENOENT below an existing
 * folder, such as /proc or a removed working directory. @throws errors of the file system
 */
export function makeFolder(folder: string): void {
  const path = resolve(folder);
  try {
    mkdirSync(path);
  } catch (thrown) {
    if (systemCodeOf(thrown) === 'ENOENT' && !existsSync(dirname(path))) {
      makeFolder(dirname(path));
      makeFolder(path);
    } else if (!isFolder(path)) throw thrown;
  }
}

/** Runs `work` with a temporary folder, and removes the folder. @param name a part of its name */
export async function withTemporaryFolder<T>(name: string, work: (folder: string) => Promise<T>): Promise<T> {
  const folder = mkdtempSync(join(tmpdir(), `reelflow-${name}-`));
  try {
    return await work(folder);
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

const isFolder = (path: string) => statSync(path, { throwIfNoEntry: false })?.isDirectory() === true;

/** Flushes a file or folder to the disk. */
export function syncPath(path: string): void {
  const handle = openSync(path, 'r');
  try {
    fsyncSync(handle);
  } finally {
    closeSync(handle);
  }
}

/** SHA-256 of a file, hexadecimal. */
export async function fileSha256(path: string): Promise<string> {
  const hash = createHash('sha256');
  await pipeline(createReadStream(path, { highWaterMark }), hash);
  return hash.digest('hex');
}

/** Copies a file and flushes the copy. @returns SHA-256 of the copied bytes, hexadecimal */
export async function copyFileHashed(from: string, to: string): Promise<string> {
  const hash = createHash('sha256');
  const hashing = new Transform({
    transform(bytes: Buffer, _, done) {
      hash.update(bytes);
      done(null, bytes);
    },
  });
  await pipeline(createReadStream(from, { highWaterMark }), hashing, createWriteStream(to));
  syncPath(to);
  return hash.digest('hex');
}
