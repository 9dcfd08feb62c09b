/**
 * Downloads the official dumps. A file gets its final name only after it was read to its end and checked; until then the
 * file of the same name stays as it is. A broken connection leaves `<name>.part`, which is continued if the server still has
 * the same version. A file carries the modification time that the server gave, which is the date of the dump.
 */
import { once } from 'node:events';
import { createWriteStream } from 'node:fs';
import { open, readFile, rename, rm, stat, utimes, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { messageOf, ReelflowError, systemCodeOf } from '../../runtime/errors.ts';
import { makeFolder, syncPath } from '../../runtime/files.ts';
import { withFolderLock } from '../../runtime/folder-lock.ts';
import { type DatasetName, datasetNames } from '../../topics/catalog.ts';
import { checkDump, checkStart, WrongContent } from './checked-dump.ts';
import { Interrupted, type Response, requestFile } from './http-file.ts';
import { ownFolder, readVersions, type Version, writeVersion } from './versions.ts';

const officialUrl = 'https://datasets.imdbws.com/';

export const licence = `IMDb's datasets are free for personal and non-commercial use only; they may not be republished or sold.
The terms: https://developer.imdb.com/non-commercial-datasets/
Information courtesy of IMDb (https://www.imdb.com). Used with permission.`;

export interface DownloadOptions {
  readonly out: string;
  readonly datasets?: readonly DatasetName[];
  /** The address of `<dataset>.tsv.gz`; a slash is added at the end if there is none. */
  readonly from?: string;
  /** Attempts per file without a byte of progress before it is given up. Default 4. */
  readonly attempts?: number;
  /** Pause before the second attempt, doubled for each further one. Default 1 s. */
  readonly retryMs?: number;
  /** A server that sends nothing for this long counts as gone. Default 60 s. */
  readonly idleMs?: number;
  readonly onProgress?: (progress: { dataset: DatasetName; bytes: number; bytesTotal: number }) => void;
  /** Ends the download; a later one continues it. */
  readonly signal?: AbortSignal;
}

export interface DownloadedFile {
  readonly dataset: DatasetName;
  readonly file: string;
  readonly bytes: number;
  /** `complete`: it was there already; `resumed`: a part of it was. */
  readonly outcome: 'downloaded' | 'resumed' | 'complete';
}

/**
 * Downloads the dumps one after the other. A file that has not changed on the server is not downloaded.
 * @returns one entry per dataset
 * @throws ReelflowError dumpsUnreachable, when the server is away, busy or breaks off; input, when it refuses or sends
 *   something other than the dump; diskFull; busy, while another download uses the folder; usage for an address that is none;
 *   the reason of `signal`
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
    makeFolder(out);
  } catch (cause) {
    throw failure(out, messageOf(cause), cause);
  }
  return withFolderLock(ownFolder(out), { patienceMs: 0, kind: 'dumps' }, async () => {
    const fetched: { dataset: DatasetName; file: string; url: string; found: Fetched }[] = [];
    for (const dataset of datasets) {
      const file = `${dataset}.tsv.gz`;
      const url = new URL(file, from.endsWith('/') ? from : `${from}/`).href;
      try {
        fetched.push({ dataset, file, url, found: await new FileDownload(url, dataset, options).run() });
      } catch (cause) {
        options.signal?.throwIfAborted();
        throw failure(url, `${messageOf(cause)}. No file was replaced.`, cause);
      }
    }
    // Only now, so that a folder never has files of two dumps because the server failed in between.
    const files: DownloadedFile[] = [];
    for (const { dataset, file, url, found } of fetched) {
      await found.publish().catch((cause) => {
        throw failure(url, messageOf(cause), cause);
      });
      files.push({ dataset, file, bytes: await sizeOf(join(out, file)), outcome: found.outcome });
    }
    return files;
  });
}

/** A file that was fetched and checked. */
interface Fetched {
  readonly outcome: DownloadedFile['outcome'];
  /** Gives it its name. */
  readonly publish: () => Promise<void>;
}

/** What the server says about the version of a file. */
type Identity = Pick<Version, 'etag' | 'modified'>;

class FileDownload {
  readonly #url: string;
  readonly #dataset: DatasetName;
  readonly #options: DownloadOptions;
  readonly #file: string;
  readonly #path: string;
  readonly #part: string;

  constructor(url: string, dataset: DatasetName, options: DownloadOptions) {
    this.#url = url;
    this.#dataset = dataset;
    this.#options = options;
    this.#file = `${dataset}.tsv.gz`;
    this.#path = join(options.out, this.#file);
    this.#part = `${this.#path}.part`;
  }

  async run(): Promise<Fetched> {
    const { attempts = 4, retryMs = 1000, signal } = this.#options;
    let failures = 0;
    let reached = await sizeOf(this.#part);
    const wasStarted = reached > 0;
    for (;;) {
      try {
        const { isContinued, identity } = await this.#attempt();
        if (identity === undefined) return { outcome: 'complete', publish: async () => undefined };
        const outcome = isContinued && wasStarted ? 'resumed' : 'downloaded';
        return { outcome, publish: () => this.#publish(identity) };
      } catch (thrown) {
        const now = await sizeOf(this.#part);
        failures = now > reached ? 1 : failures + 1;
        reached = now;
        if (!(thrown instanceof Interrupted) || failures >= attempts || signal?.aborted) throw thrown;
        await delay(retryMs * 2 ** (failures - 1), undefined, signal === undefined ? {} : { signal });
      }
    }
  }

  /**
   * 1. Asks for the rest of a part, for the file if it has changed, or for the file.
   * 2. Writes the body to the part, and stops early if it cannot be the dump.
   * 3. Checks the whole part.
   * @returns the identity to publish; none if the file is there already
   */
  async #attempt(): Promise<{ readonly isContinued: boolean; readonly identity?: Identity }> {
    const { idleMs = 60_000, signal } = this.#options;
    const started = await this.#startedPart();
    const known = started === undefined ? await this.#knownVersion() : undefined;
    const response = await requestFile(this.#url, headersFor(started, known), idleMs, signal);
    const identity = { etag: response.etag, modified: response.modified };
    let start = 0;
    try {
      if (response.status === 304) {
        if (known !== undefined) return { isContinued: false };
        throw new WrongContent(
          'the answer is "not modified" (304), but nothing was asked about an earlier file',
        );
      }
      if (started === undefined && (await this.#isSame(response))) {
        await this.#remember(identity);
        return { isContinued: false };
      }
      if (response.status !== 200) {
        start = started?.bytes ?? 0;
        // 416: there is nothing behind the part, which may be whole.
        const expected = response.status === 416 ? `bytes */${start}` : `bytes ${start}-`;
        if (start === 0 || response.contentRange?.startsWith(expected) !== true) {
          await this.#discard();
          throw new Interrupted(`the server answered ${response.status} with another range`);
        }
      }
      if (start === 0) await writeFile(`${this.#part}.version`, JSON.stringify(identity));
      if (response.status !== 416) await this.#append(response, start);
    } finally {
      response.close();
    }
    await this.#check(start > 0);
    return { isContinued: start > 0, identity: start > 0 ? (started as Identity) : identity };
  }

  /** A part whose version the server can compare; other parts are downloaded again. */
  async #startedPart(): Promise<(Identity & { readonly bytes: number }) | undefined> {
    const bytes = await sizeOf(this.#part);
    if (bytes === 0) return undefined;
    const text = await readFile(`${this.#part}.version`, 'utf8').catch(() => '{}');
    const { etag, modified } = identityIn(text);
    // A weak tag does not promise equal bytes.
    const strong = etag?.startsWith('W/') === true ? undefined : etag;
    return strong === undefined && modified === undefined ? undefined : { bytes, etag: strong, modified };
  }

  /** The version of the file that is there, if it is from this address and still has its size. */
  async #knownVersion(): Promise<Version | undefined> {
    const known = (await readVersions(this.#options.out))[this.#file];
    const isThere =
      known !== undefined && known.url === this.#url && known.bytes === (await sizeOf(this.#path));
    return isThere ? known : undefined;
  }

  /** Whether a file of unknown version has the server's size and date. A copied file may be younger, never older. */
  async #isSame({ status, length, modified }: Response): Promise<boolean> {
    const found = await stat(this.#path).catch(() => undefined);
    if (status !== 200 || found === undefined || modified === undefined || found.size !== length)
      return false;
    // Dates of HTTP have no fractions of a second.
    return found.mtimeMs + 1000 > Date.parse(modified);
  }

  async #append({ body, length, contentType }: Response, start: number): Promise<void> {
    const { onProgress } = this.#options;
    const file = createWriteStream(this.#part, start > 0 ? { flags: 'r+', start } : {});
    file.on('error', () => undefined); // Thrown below.
    let bytes = start;
    try {
      await once(file, 'open');
      for await (const piece of body) {
        if (bytes === 0) checkStart(piece, contentType);
        const { promise, resolve, reject } = Promise.withResolvers<void>();
        file.write(piece, (error) => (error ? reject(error) : resolve()));
        await promise;
        bytes += piece.length;
        onProgress?.({
          dataset: this.#dataset,
          bytes,
          bytesTotal: length === undefined ? bytes : start + length,
        });
      }
    } catch (thrown) {
      if (thrown instanceof WrongContent) await this.#discard();
      throw file.errored ?? thrown;
    } finally {
      file.destroy();
      if (!file.closed) await new Promise<void>((resolve) => file.once('close', resolve));
    }
  }

  /** A continued part of two versions is damaged: its download starts again. */
  async #check(isContinued: boolean): Promise<void> {
    try {
      await checkDump(this.#part, this.#dataset);
    } catch (thrown) {
      if (!(thrown instanceof WrongContent)) throw thrown;
      await this.#discard();
      throw isContinued ? new Interrupted(`the continued file is damaged: ${thrown.message}`) : thrown;
    }
  }

  async #discard(): Promise<void> {
    await Promise.all([this.#part, `${this.#part}.version`].map((path) => rm(path, { force: true })));
  }

  /** Flushed, dated as on the server, renamed, in this order. */
  async #publish(identity: Identity): Promise<void> {
    const handle = await open(this.#part, 'r+');
    await handle.sync().finally(() => handle.close());
    const date = identity.modified === undefined ? new Date() : new Date(identity.modified);
    await utimes(this.#part, date, date);
    await rename(this.#part, this.#path);
    await rm(`${this.#part}.version`, { force: true });
    syncPath(this.#options.out);
    await this.#remember(identity);
  }

  async #remember({ etag, modified }: Identity): Promise<void> {
    await writeVersion(this.#options.out, this.#file, {
      url: this.#url,
      ...(etag !== undefined && { etag }),
      ...(modified !== undefined && { modified }),
      bytes: await sizeOf(this.#path),
    });
  }
}

function headersFor(
  started: (Identity & { readonly bytes: number }) | undefined,
  known: Identity | undefined,
): Record<string, string> {
  if (started !== undefined) {
    // The server sends the rest only of this version, else the whole file.
    return { range: `bytes=${started.bytes}-`, 'if-range': started.etag ?? started.modified ?? '' };
  }
  if (known?.etag !== undefined) return { 'if-none-match': known.etag };
  if (known?.modified !== undefined) return { 'if-modified-since': known.modified };
  return {};
}

function identityIn(text: string): Identity {
  try {
    const { etag, modified } = JSON.parse(text) as Record<string, unknown>;
    return {
      etag: typeof etag === 'string' ? etag : undefined,
      modified: typeof modified === 'string' ? modified : undefined,
    };
  } catch {
    return {};
  }
}

const sizeOf = (path: string): Promise<number> =>
  stat(path).then(
    ({ size }) => size,
    () => 0,
  );

function failure(what: string, why: string, cause: unknown): ReelflowError {
  const isFull = systemCodeOf(cause) === 'ENOSPC';
  if (cause instanceof WrongContent) {
    return new ReelflowError('input', 'The server did not send the dump', {
      detail: `${what}: ${why}`,
      hint: 'Open the address in a browser, check --from and any proxy or login page before it.',
      cause,
    });
  }
  const isPassing = cause instanceof Interrupted;
  const title = isFull ? 'The disk is full' : isPassing ? 'The download broke off' : 'The download failed';
  return new ReelflowError(isFull ? 'diskFull' : isPassing ? 'dumpsUnreachable' : 'input', title, {
    detail: `${what}: ${why}`,
    hint: isPassing
      ? 'Check the connection and run the command again: it continues where it stopped. `reelflow generate` needs none.'
      : 'Check the folder (--out) and the address (--from).',
    cause,
  });
}
