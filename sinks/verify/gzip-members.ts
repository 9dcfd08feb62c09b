/**
 * The content of a gzip file, member by member (RFC 1952). It reads headers and trailers itself and checks each checksum and
 * length, so the oracle shares no reader with the producers. It ends without an error only after it read every byte: members
 * may follow each other directly or after zero bytes, and nothing else may follow them.
 */
import { createReadStream } from 'node:fs';
import { type FileHandle, open } from 'node:fs/promises';
import { crc32, createInflateRaw } from 'node:zlib';

const readBytes = 256 * 1024;
const fixedHeaderBytes = 10;
const trailerBytes = 8;
const flag = { headerChecksum: 2, extra: 4, name: 8, comment: 16 } as const;

/** Whether a file starts like gzip, whatever its name is. */
export async function isGzip(path: string): Promise<boolean> {
  const file = await open(path);
  try {
    return startsMember(await bytesAt(file, 0, 2));
  } finally {
    await file.close();
  }
}

const startsMember = (bytes: Buffer) => bytes[0] === 0x1f && bytes[1] === 0x8b;

/**
 * @param onMore called if anything follows the first member: other readers may stop there
 * @throws Error for a file that is damaged, cut off, or continues with other bytes
 */
export async function* gzipContent(path: string, onMore?: () => void): AsyncGenerator<Buffer> {
  const file = await open(path);
  try {
    for (let at = 0; ; ) {
      const data = await dataStart(file, at);
      const trailer = yield* inflate(path, data);
      at = await checkTrailer(file, trailer);
      if ((await bytesAt(file, at, 1)).length === 0) return;
      onMore?.();
      const next = await skipZeros(file, at);
      const start = await bytesAt(file, next, 2);
      if (start.length === 0) return;
      if (!startsMember(start)) throw new Error(`bytes other than gzip follow at byte ${next}`);
      at = next;
    }
  } finally {
    await file.close();
  }
}

/** The position of the compressed data of the member at `at`. */
async function dataStart(file: FileHandle, at: number): Promise<number> {
  const header = await bytesAt(file, at, readBytes);
  if (header.length < fixedHeaderBytes || !startsMember(header) || header[2] !== 8) {
    throw new Error(`there is no gzip header at byte ${at}`);
  }
  const flags = header[3] as number;
  let end = fixedHeaderBytes;
  if (flags & flag.extra) end += 2 + header.readUInt16LE(end);
  for (const text of [flag.name, flag.comment]) {
    if (flags & text) end = header.indexOf(0, end) + 1;
  }
  if (flags & flag.headerChecksum) end += 2;
  return at + end;
}

interface Trailer {
  readonly at: number;
  readonly checksum: number;
  /** Modulo 2^32. */
  readonly length: number;
}

/** Unpacks the data at `start`. @returns the trailer that must follow it */
async function* inflate(path: string, start: number): AsyncGenerator<Buffer, Trailer> {
  const packed = createReadStream(path, { start, highWaterMark: readBytes });
  const unpacked = createInflateRaw({ chunkSize: readBytes });
  packed.on('error', (error) => unpacked.destroy(error));
  let checksum = 0;
  let length = 0;
  try {
    for await (const bytes of packed.pipe(unpacked) as AsyncIterable<Buffer>) {
      checksum = crc32(bytes, checksum);
      length += bytes.length;
      yield bytes;
    }
    return { at: start + unpacked.bytesWritten, checksum, length: length % 2 ** 32 };
  } finally {
    packed.destroy();
    unpacked.destroy();
  }
}

/** @returns the position after the trailer */
async function checkTrailer(file: FileHandle, { at, checksum, length }: Trailer): Promise<number> {
  const trailer = await bytesAt(file, at, trailerBytes);
  if (trailer.length < trailerBytes) throw new Error('unexpected end of file');
  if (trailer.readUInt32LE(0) !== checksum) throw new Error('incorrect data check');
  if (trailer.readUInt32LE(4) !== length) throw new Error('incorrect length check');
  return at + trailerBytes;
}

async function skipZeros(file: FileHandle, start: number): Promise<number> {
  for (let at = start; ; ) {
    const bytes = await bytesAt(file, at, 64 * 1024);
    const found = bytes.findIndex((byte) => byte !== 0);
    if (found >= 0) return at + found;
    if (bytes.length === 0) return at;
    at += bytes.length;
  }
}

async function bytesAt(file: FileHandle, at: number, length: number): Promise<Buffer> {
  const bytes = Buffer.alloc(length);
  const { bytesRead } = await file.read(bytes, 0, length, at);
  return bytes.subarray(0, bytesRead);
}
