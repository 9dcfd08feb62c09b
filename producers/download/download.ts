/**
 * The official dumps, fetched. A file has its final name only when it is whole; what a broken connection left is kept
 * as `<name>.part` and continued, provided that the server still has the same version. A whole file carries the
 * modification time that the server gave, which tells it from a newer dump.
 */
import { once } from 'node:events';
import { createWriteStream } from 'node:fs';
import { mkdir, open, readFile, rename, rm, stat, utimes, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { messageOf, ReelflowError, systemCodeOf } from '../../runtime/errors.ts';
import { type DatasetName, datasetNames } from '../../topics/catalog.ts';

const officialUrl = 'https://datasets.imdbws.com/';

export const licence = `IMDb's datasets are free for personal and non-commercial use only; they may not be republished or sold.
The terms: https://developer.imdb.com/non-commercial-datasets/
Information courtesy of IMDb (https://www.imdb.com). Used with permission.`;

export interface DownloadOptions {
  readonly out: string;
  readonly datasets?: readonly DatasetName[];
  /** Where `<dataset>.tsv.gz` lie; a slash is added at the end if there is none. */
  readonly from?: string;
  /** Attempts per file without a byte of progress before it is given up. Default 4. */
  readonly attempts?: number;
  /** Pause before the second attempt, doubled for each further one. Default 1 s. */
  readonly retryMs?: number;
  /** A server that sends nothing for this long counts as gone. Default 60 s. */
  readonly idleMs?: number;
  readonly onProgress?: (progress: { dataset: DatasetName; bytes: number; bytesTotal: number }) => void;
}

export interface DownloadedFile {
  readonly dataset: DatasetName;
  readonly file: string;
  readonly bytes: number;
  /** `complete`: it was there already; `resumed`: a part of it was. */
  readonly outcome: 'downloaded' | 'resumed' | 'complete';
}

/** What the server says about the version of a file. */
interface Version {
  /** undefined when the server does not say. */
  readonly bytes: number | undefined;
  readonly etag: string | undefined;
  readonly modified: string | undefined;
}

/**
 * Downloads the dumps one after the other; those that are there and have not changed on the server are left alone.
 * @returns one entry per dataset
 * @throws ReelflowError input (unreachable, refused, cut off), diskFull; usage for a URL that is none
 */
export async function download(options: DownloadOptions): Promise<DownloadedFile[]> {
  const { out, datasets = datasetNames, from = officialUrl } = options;
  if (!URL.canParse(from) || !/^https?:/.test(from)) {
    throw new ReelflowError('usage', 'The address of the dumps is not usable', {
      detail: `--from is ${from}.`,
      hint: 'Give an http or https URL, or leave it out for the official one.',
    });
  }
  try {
    await mkdir(out, { recursive: true });
  } catch (cause) {
    throw failure(out, cause);
  }
  const files: DownloadedFile[] = [];
  for (const dataset of datasets) {
    const file = `${dataset}.tsv.gz`;
    const url = new URL(file, from.endsWith('/') ? from : `${from}/`).href;
    try {
      files.push({ dataset, file, ...(await fetchFile(url, join(out, file), dataset, options)) });
    } catch (cause) {
      throw failure(url, cause);
    }
  }
  return files;
}

async function fetchFile(
  url: string,
  path: string,
  dataset: DatasetName,
  { attempts = 4, retryMs = 1000, idleMs = 60_000, onProgress }: DownloadOptions,
): Promise<Pick<DownloadedFile, 'bytes' | 'outcome'>> {
  let failures = 0;
  let reached = await sizeOf(`${path}.part`);
  const resumed = reached > 0;
  for (;;) {
    try {
      const version = versionOf(await request(url, 'HEAD', {}, idleMs));
      if (await isCurrent(path, version)) return { bytes: await sizeOf(path), outcome: 'complete' };
      const continued = await fetchPart(url, path, version, idleMs, (bytes) =>
        onProgress?.({ dataset, bytes, bytesTotal: version.bytes ?? bytes }),
      );
      await publish(path, version);
      return { bytes: await sizeOf(path), outcome: resumed && continued ? 'resumed' : 'downloaded' };
    } catch (thrown) {
      const now = await sizeOf(`${path}.part`);
      failures = now > reached ? 1 : failures + 1;
      reached = now;
      if (!isPassing(thrown) || failures >= attempts) throw thrown;
      await delay(retryMs * 2 ** (failures - 1));
    }
  }
}

/**
 * Appends what is missing to `<path>.part`, or starts it again if it belongs to another version.
 * @returns whether there was a part to continue
 */
async function fetchPart(
  url: string,
  path: string,
  version: Version,
  idleMs: number,
  onBytes: (bytes: number) => void,
): Promise<boolean> {
  const part = `${path}.part`;
  const versionFile = `${part}.version`;
  const same = (await readFile(versionFile, 'utf8').catch(() => '')) === JSON.stringify(version);
  const identified = version.etag !== undefined || version.modified !== undefined;
  let start = same && identified ? await sizeOf(part) : 0;
  if (version.bytes !== undefined && start > version.bytes) start = 0;
  if (start === 0) await writeFile(versionFile, JSON.stringify(version));
  if (version.bytes === undefined || start < version.bytes || start === 0) {
    const response = await request(url, 'GET', start > 0 ? { range: `bytes=${start}-` } : {}, idleMs);
    try {
      const served = versionOf(response);
      if (served.etag !== version.etag || served.modified !== version.modified) {
        throw new Interrupted('the file changed on the server in the meantime');
      }
      if (start > 0 && !response.headers.get('content-range')?.startsWith(`bytes ${start}-`)) start = 0;
      await append(response.body, part, start, onBytes);
    } finally {
      response.close();
    }
  }
  const size = await sizeOf(part);
  if (version.bytes !== undefined && size !== version.bytes) {
    throw new Interrupted(`${size} of ${version.bytes} bytes came`);
  }
  return start > 0;
}

async function append(
  pieces: AsyncIterable<Uint8Array>,
  part: string,
  start: number,
  onBytes: (bytes: number) => void,
): Promise<void> {
  const file = createWriteStream(part, start > 0 ? { flags: 'r+', start } : {});
  file.on('error', () => {}); // heard below
  try {
    await once(file, 'open');
    let bytes = start;
    for await (const piece of pieces) {
      const { promise, resolve, reject } = Promise.withResolvers<void>();
      file.write(piece, (error) => (error ? reject(error) : resolve()));
      await promise;
      bytes += piece.length;
      onBytes(bytes);
    }
  } catch (thrown) {
    throw file.errored ?? thrown;
  } finally {
    file.destroy();
    if (!file.closed) await new Promise<void>((resolve) => file.once('close', resolve));
  }
}

/** Flushed, dated as on the server, renamed, in this order. */
async function publish(path: string, { modified }: Version): Promise<void> {
  const part = `${path}.part`;
  const handle = await open(part, 'r+');
  await handle.sync().finally(() => handle.close());
  const date = modified === undefined ? new Date() : new Date(modified);
  if (!Number.isNaN(date.getTime())) await utimes(part, date, date);
  await rename(part, path);
  await rm(`${part}.version`, { force: true });
}

async function isCurrent(path: string, { bytes, modified }: Version): Promise<boolean> {
  const found = await stat(path).catch(() => undefined);
  if (found === undefined || bytes === undefined || found.size !== bytes) return false;
  // Dates of HTTP have no fractions of a second; a copied file may be younger than the dump, never older.
  return modified === undefined || found.mtimeMs + 1000 > new Date(modified).getTime();
}

const sizeOf = (path: string): Promise<number> =>
  stat(path).then(
    ({ size }) => size,
    () => 0,
  );

// ---------------------------------------------------------------------------------------------- the server

/** Something that may pass: the connection broke, the server is busy. */
class Interrupted extends Error {}

const isPassing = (thrown: unknown) => thrown instanceof Interrupted;

interface Exchange {
  readonly headers: Headers;
  /** Throws Interrupted when the connection breaks or nothing comes for too long. */
  readonly body: AsyncIterable<Uint8Array>;
  readonly close: () => void;
}

async function request(
  url: string,
  method: 'HEAD' | 'GET',
  headers: Record<string, string>,
  idleMs: number,
): Promise<Exchange> {
  const controller = new AbortController();
  const idle = setTimeout(() => controller.abort(), idleMs);
  const close = () => {
    clearTimeout(idle);
    controller.abort();
  };
  const interrupted = (thrown: unknown) =>
    new Interrupted(controller.signal.aborted ? `nothing came for ${idleMs / 1000} s` : reasonOf(thrown));
  let response: Response;
  try {
    // `identity`: a length is that of the file, not of a compression on the way.
    response = await fetch(url, {
      method,
      headers: { ...headers, 'accept-encoding': 'identity' },
      signal: controller.signal,
    });
  } catch (thrown) {
    clearTimeout(idle);
    throw interrupted(thrown);
  }
  if (!response.ok || method === 'HEAD') close();
  if (!response.ok) {
    const said = `the server said ${response.status} ${response.statusText}`.trimEnd();
    throw response.status >= 500 || response.status === 429 ? new Interrupted(said) : new Error(said);
  }
  async function* body(): AsyncGenerator<Uint8Array> {
    try {
      for await (const piece of response.body ?? []) {
        idle.refresh();
        yield piece;
      }
    } catch (thrown) {
      throw interrupted(thrown);
    }
  }
  return { headers: response.headers, body: body(), close };
}

function versionOf({ headers }: Exchange): Version {
  const length = headers.get('content-length');
  return {
    bytes: length === null ? undefined : Number(length),
    etag: headers.get('etag') ?? undefined,
    modified: headers.get('last-modified') ?? undefined,
  };
}

/** The innermost reason: `fetch failed` hides it. */
function reasonOf(thrown: unknown): string {
  const cause = thrown instanceof Error ? thrown.cause : undefined;
  if (cause === undefined) return messageOf(thrown);
  const code = systemCodeOf(cause);
  const text = messageOf(cause);
  return code === undefined || text.includes(code) ? text : `${code} ${text}`.trimEnd();
}

function failure(what: string, cause: unknown): ReelflowError {
  const passing = isPassing(cause);
  const full = systemCodeOf(cause) === 'ENOSPC';
  const title = full ? 'The disk is full' : passing ? 'The download broke off' : 'The download failed';
  return new ReelflowError(full ? 'diskFull' : 'input', title, {
    detail: `${what}: ${messageOf(cause)}`,
    hint: passing
      ? 'Check the connection and run the command again: it goes on where it stopped. `reelflow generate` needs none.'
      : 'Check the folder (--out) and the address (--from).',
    cause,
  });
}
