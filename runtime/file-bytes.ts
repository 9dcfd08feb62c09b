/**
 * The bytes of a file as a stream that holds a few hundred kilobytes at a time, unpacked if it is gzip. It ends without
 * an error only if every byte of the file was read.
 */
import { createReadStream } from 'node:fs';
import { open } from 'node:fs/promises';
import { createGunzip } from 'node:zlib';

export interface ReadableFile {
  readonly path: string;
  readonly gzip: boolean;
  /** Bytes on disk. */
  readonly size: number;
}

/** Large enough to make a turn of the event loop cheap in comparison, small enough for smooth rates. */
const readBytes = 256 * 1024;

interface Observer {
  readonly read?: (bytes: number) => void;
  readonly padding?: () => void;
}

/** @param start at least the first two bytes */
export function isGzip(start: Buffer): boolean {
  return start[0] === 0x1f && start[1] === 0x8b;
}

/** A file that was not read to its end. */
class DamagedFile extends Error {}

/**
 * Reads a file; while the caller uses one piece, the next one is read and unpacked. A piece is valid until the caller
 * asks for the next one.
 * @param on `read`: called with each piece and the bytes of the file on disk that were read so far; `padding`: called
 *   where zero bytes follow a gzip member
 * @throws DamagedFile; zlib's errors; errors of the file system
 */
export async function* bytesOf(file: ReadableFile, on: Observer = {}): AsyncGenerator<Buffer> {
  let end = 0;
  if (file.gzip) {
    end = yield* gunzip(file, on);
  } else {
    for await (const bytes of readAhead(file.path)) {
      end += bytes.length;
      on.read?.(end);
      yield bytes;
    }
  }
  if (end !== file.size) throw new DamagedFile(`its size changed from ${file.size} to ${end} bytes`);
}

/**
 * Unpacks all members of a gzip file, also with zero bytes between them, where zlib stops without an error.
 * @returns the bytes read
 */
async function* gunzip({ path }: ReadableFile, on: Observer): AsyncGenerator<Buffer, number> {
  for (let start = 0; ; ) {
    start += yield* gunzipMembers(path, start, on);
    const { next, magic } = await afterZeros(path, start);
    if (next > start) on.padding?.();
    if (magic.length === 0) return next;
    if (!isGzip(magic)) {
      throw new DamagedFile(`other data lies after the end of the gzip data, at byte ${next}`);
    }
    start = next;
  }
}

/** Unpacks adjacent members from `start` on. @returns the bytes of the file that they take */
async function* gunzipMembers(path: string, start: number, on: Observer): AsyncGenerator<Buffer, number> {
  const packed = createReadStream(path, { start, highWaterMark: readBytes });
  const unpacked = createGunzip({ chunkSize: readBytes });
  packed.on('error', (error) => unpacked.destroy(error));
  // zlib may report bytes after the last member as an error; `afterZeros` checks them.
  unpacked.on('error', () => undefined);
  try {
    for await (const bytes of packed.pipe(unpacked)) {
      on.read?.(start + packed.bytesRead);
      yield bytes;
    }
    return unpacked.bytesWritten;
  } finally {
    packed.destroy();
    unpacked.destroy();
  }
}

/** The position of the first byte from `start` on that is not zero, and two bytes there; none at the file's end. */
async function afterZeros(path: string, start: number): Promise<{ next: number; magic: Buffer }> {
  const handle = await open(path);
  try {
    const bytes = Buffer.alloc(64 * 1024);
    for (let at = start; ; ) {
      const { bytesRead } = await handle.read(bytes, 0, bytes.length, at);
      if (bytesRead === 0) return { next: at, magic: Buffer.alloc(0) };
      const found = bytes.subarray(0, bytesRead).findIndex((byte) => byte !== 0);
      if (found < 0) {
        at += bytesRead;
        continue;
      }
      const magic = await handle.read(Buffer.alloc(2), 0, 2, at + found);
      return { next: at + found, magic: magic.buffer };
    }
  } finally {
    await handle.close();
  }
}

/** Reads a file into two alternating buffers. A stream allocates one per piece, which took a tenth of a replay's time. */
async function* readAhead(path: string): AsyncGenerator<Buffer> {
  const handle = await open(path);
  const read = async (into: Buffer) => into.subarray(0, (await handle.read(into, 0, into.length)).bytesRead);
  let [now, then] = [Buffer.allocUnsafeSlow(readBytes), Buffer.allocUnsafeSlow(readBytes)];
  let next = read(now);
  try {
    for (let bytes = await next; bytes.length > 0; bytes = await next) {
      next = read(then);
      yield bytes;
      [now, then] = [then, now];
    }
  } finally {
    await next.catch(() => undefined);
    await handle.close();
  }
}
