/** Checks a downloaded file before it replaces another one: it is the whole dump of its dataset, packed with gzip. */
import { createWriteStream } from 'node:fs';
import { rename, stat } from 'node:fs/promises';
import { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { isFileError, messageOf, ReelflowError } from '../../runtime/errors.ts';
import { bytesOf, isGzip } from '../../runtime/file-bytes.ts';
import type { DatasetName } from '../../topics/catalog.ts';
import { inspect } from '../input-files.ts';

/** The server sent something other than the dump. */
export class WrongContent extends Error {}

/** @throws WrongContent, unless these bytes start a gzip file */
export function checkStart(bytes: Buffer, contentType: string): void {
  if (bytes.length < 2 || isGzip(bytes)) return;
  const text = bytes.subarray(0, 60).toString().replace(/\s+/g, ' ').trim();
  throw new WrongContent(`it is not a gzip file (${contentType}) and starts with: ${text}`);
}

/**
 * Reads the whole file: each gzip member has a checksum and a length, and nothing else may follow them. If the server packed
 * the file a second time, it is unpacked once.
 * @throws WrongContent; errors of the file system
 */
export async function checkDump(path: string, dataset: DatasetName): Promise<void> {
  try {
    if ((await stat(path)).size === 0) throw new WrongContent('it is empty');
    if (isGzip(await start(path))) await unpackOnce(path);
    const file = await inspect(dataset, path);
    if (!file.gzip) throw new WrongContent('it is not a gzip file');
    for await (const _ of bytesOf(file)) {
      // Reads to the end.
    }
  } catch (thrown) {
    if (isFileError(thrown) || thrown instanceof WrongContent) throw thrown;
    throw new WrongContent(
      thrown instanceof ReelflowError ? `${thrown.message}. ${thrown.detail}`.trimEnd() : messageOf(thrown),
    );
  }
}

/** The first unpacked bytes. */
async function start(path: string): Promise<Buffer> {
  for await (const bytes of bytesOf(await gzipFile(path))) return Buffer.from(bytes.subarray(0, 2));
  return Buffer.alloc(0);
}

async function unpackOnce(path: string): Promise<void> {
  const unpacked = `${path}.unpacked`;
  // A piece is valid until the next one: the copy is what the stream may keep.
  async function* copies() {
    for await (const bytes of bytesOf(await gzipFile(path))) yield Buffer.from(bytes);
  }
  await pipeline(Readable.from(copies()), createWriteStream(unpacked));
  await rename(unpacked, path);
}

const gzipFile = async (path: string) => ({ path, gzip: true, size: (await stat(path)).size });
