/**
 * Downloads from a misbehaving server of our own: checked are the bytes under the final name,
 * and the ranges that were requested again.
 */
import { existsSync } from 'node:fs';
import { mkdtemp, readdir, readFile, rm, stat, utimes, writeFile } from 'node:fs/promises';
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, it, vi } from 'vitest';
import { downloadCommand } from '../../../cli/download.ts';
import { type DownloadOptions, download } from '../../../producers/download/download.ts';
import { datasetNames } from '../../../topics/catalog.ts';

const content = Buffer.from(Array.from({ length: 300_000 }, (_, n) => (n * n) >> 5));
const file = 'title.ratings.tsv.gz';
const lastModified = 'Wed, 21 Jan 2026 07:28:00 GMT';

/** How the server answers; each test changes what it needs. */
interface Manners {
  body: Buffer;
  etag: string | undefined;
  lastModified: string | undefined;
  ranges: boolean;
  /** Answers so often with this status first. */
  failing: { status: number; times: number };
  /** Cuts the connection after so many bytes, so often. */
  cut: { after: number; times: number };
  /** Sends nothing after the first bytes, so often. */
  stall: { times: number };
}

let manners: Manners;
let asked: string[];
let server: Server;
let from: string;
let out: string;

function answer(request: IncomingMessage, response: ServerResponse): void {
  const { body, etag, ranges, failing, cut, stall } = manners;
  asked.push(`${request.method} ${request.headers.range ?? ''}`.trim());
  if (failing.times-- > 0) {
    response.writeHead(failing.status).end();
    return;
  }
  const start = ranges ? Number(/^bytes=(\d+)-$/.exec(request.headers.range ?? '')?.[1] ?? 0) : 0;
  const sent = body.subarray(start);
  response.writeHead(start > 0 ? 206 : 200, {
    'content-length': sent.length,
    ...(etag !== undefined && { etag }),
    ...(manners.lastModified !== undefined && { 'last-modified': manners.lastModified }),
    ...(start > 0 && { 'content-range': `bytes ${start}-${body.length - 1}/${body.length}` }),
  });
  if (request.method === 'HEAD') response.end();
  else if (stall.times-- > 0) response.write(sent.subarray(0, 10));
  else if (cut.times-- > 0) {
    response.write(sent.subarray(0, cut.after));
    // What the client has not read when the connection breaks is lost, so it is given the time to read.
    const part = join(out, `${file}.part`);
    vi.waitFor(async () => expect((await stat(part)).size).toBe(start + cut.after)).finally(() =>
      response.destroy(),
    );
  } else response.end(sent);
}

beforeEach(async () => {
  manners = {
    body: content,
    etag: '"one"',
    lastModified,
    ranges: true,
    failing: { status: 503, times: 0 },
    cut: { after: 100_000, times: 0 },
    stall: { times: 0 },
  };
  asked = [];
  server = createServer(answer).listen(0, '127.0.0.1');
  await new Promise((resolve) => server.once('listening', resolve));
  from = `http://127.0.0.1:${(server.address() as AddressInfo).port}/dumps`;
  out = await mkdtemp(join(tmpdir(), 'reelflow-download-'));
});

afterEach(async () => {
  server.closeAllConnections();
  await new Promise((resolve) => server.close(resolve));
  await rm(out, { recursive: true });
});

const fetchRatings = async (options: Partial<DownloadOptions> = {}) =>
  (await download({ out, from, datasets: ['title.ratings'], retryMs: 1, ...options }))[0];
const expectWhole = async (bytes: Buffer = content) => {
  expect((await readFile(join(out, file))).equals(bytes)).toBe(true);
  expect(await readdir(out)).toEqual([file]);
};

it('downloads all datasets and dates them as the server does', async () => {
  const seen: number[] = [];
  const files = await download({ out, from, onProgress: ({ bytes }) => seen.push(bytes) });
  expect(files.map(({ outcome }) => outcome)).toEqual(datasetNames.map(() => 'downloaded'));
  expect((await readdir(out)).sort()).toEqual(datasetNames.map((name) => `${name}.tsv.gz`).sort());
  expect(seen.at(-1)).toBe(content.length);
  expect((await stat(join(out, file))).mtime).toEqual(new Date(lastModified));
});

it('leaves a whole file alone until the server has a newer one', async () => {
  await fetchRatings();
  asked = [];
  expect(await fetchRatings()).toMatchObject({ outcome: 'complete', bytes: content.length });
  expect(asked).toEqual(['HEAD']);
  manners.lastModified = 'Thu, 22 Jan 2026 07:28:00 GMT';
  manners.body = Buffer.from(content).reverse();
  expect(await fetchRatings()).toMatchObject({ outcome: 'downloaded' });
  await expectWhole(manners.body);
});

it('fetches a file again that has another size', async () => {
  await writeFile(join(out, file), 'short');
  await utimes(join(out, file), new Date(), new Date());
  expect(await fetchRatings()).toMatchObject({ outcome: 'downloaded' });
  await expectWhole();
});

it('goes on by itself after a cut connection', async () => {
  manners.cut.times = 2;
  expect(await fetchRatings()).toMatchObject({ outcome: 'downloaded' });
  expect(asked).toEqual(['HEAD', 'GET', 'HEAD', 'GET bytes=100000-', 'HEAD', 'GET bytes=200000-']);
  await expectWhole();
});

it('has nothing under the final name when it gives up, and goes on in the next run', async () => {
  manners.cut.times = 1;
  await expect(fetchRatings({ attempts: 1 })).rejects.toMatchObject({
    kind: 'input',
    message: 'The download broke off',
    hint: expect.stringContaining('goes on where it stopped'),
  });
  expect(existsSync(join(out, file))).toBe(false);
  asked = [];
  expect(await fetchRatings()).toMatchObject({ outcome: 'resumed' });
  expect(asked).toEqual(['HEAD', 'GET bytes=100000-']);
  await expectWhole();
});

it('starts again when the server has another version than the part', async () => {
  manners.cut.times = 1;
  await expect(fetchRatings({ attempts: 1 })).rejects.toThrow();
  manners.etag = '"two"';
  manners.body = Buffer.from(content).reverse();
  expect(await fetchRatings()).toMatchObject({ outcome: 'downloaded' });
  await expectWhole(manners.body);
});

it('starts again when the version is unknown or ranges are not served', async () => {
  for (const lacking of [{ etag: undefined, lastModified: undefined }, { ranges: false }]) {
    Object.assign(manners, lacking);
    manners.cut.times = 1;
    await expect(fetchRatings({ attempts: 1 })).rejects.toThrow();
    expect(await fetchRatings()).toMatchObject({ outcome: 'downloaded' });
    await expectWhole();
    await rm(join(out, file));
  }
});

it('waits for a server that is busy, and gives up on one that stays so', async () => {
  manners.failing.times = 2;
  expect(await fetchRatings()).toMatchObject({ outcome: 'downloaded' });
  manners.failing.times = Number.POSITIVE_INFINITY;
  await expect(fetchRatings()).rejects.toMatchObject({ detail: expect.stringContaining('503') });
});

it('does not try again what cannot succeed', async () => {
  manners.failing = { status: 404, times: Number.POSITIVE_INFINITY };
  await expect(fetchRatings()).rejects.toMatchObject({
    kind: 'input',
    message: 'The download failed',
    detail: expect.stringContaining(`/dumps/${file}: the server said 404`),
  });
  expect(asked).toEqual(['HEAD']);
  await expect(fetchRatings({ from: 'ftp://there' })).rejects.toMatchObject({ kind: 'usage' });
  await expect(fetchRatings({ out: join(import.meta.filename, 'x') })).rejects.toMatchObject({
    kind: 'input',
  });
});

it('does not wait endlessly for a silent server', async () => {
  manners.stall.times = 1;
  expect(await fetchRatings({ idleMs: 500 })).toMatchObject({ outcome: 'downloaded' });
  expect(asked).toEqual(['HEAD', 'GET', 'HEAD', 'GET bytes=10-']);
  await expectWhole();
});

it('says which server cannot be reached', async () => {
  const gone = from;
  await new Promise((resolve) => server.close(resolve));
  await expect(fetchRatings({ from: gone, attempts: 2 })).rejects.toMatchObject({
    kind: 'input',
    detail: expect.stringMatching(/^http:\/\/127\.0\.0\.1:.*ECONNREFUSED/),
  });
});

it('the command shows the licence before it asks the server', async () => {
  const events: string[] = [];
  const stderr = vi
    .spyOn(process.stderr, 'write')
    .mockImplementation((text) => events.push(String(text)) > 0);
  const stdout = vi
    .spyOn(process.stdout, 'write')
    .mockImplementation((text) => events.push(String(text)) > 0);
  server.once('request', () => events.push('request'));
  try {
    const options = ['--out', out, '--from', from, '--datasets', 'title.crew,title.ratings', '--json'];
    await downloadCommand().parseAsync(options, { from: 'user' });
  } finally {
    stderr.mockRestore();
    stdout.mockRestore();
  }
  expect(events[0]).toContain('non-commercial');
  expect(events[1]).toBe('request');
  expect(JSON.parse(events[2] ?? '').files.map((one: { file: string }) => one.file)).toEqual([
    'title.crew.tsv.gz',
    file,
  ]);
});
