/** Flushes files to the disk and hashes them, so that they survive a crash and damage is noticed. */
import { createHash } from 'node:crypto';
import { closeSync, createReadStream, createWriteStream, fsyncSync, openSync } from 'node:fs';
import { Transform } from 'node:stream';
import { pipeline } from 'node:stream/promises';

const highWaterMark = 1024 * 1024;

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
