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
import { gzipSync } from 'node:zlib';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { downloadCommand } from '../../../cli/download.ts';
import { type DownloadOptions, download } from '../../../producers/download/download.ts';
import { type DatasetName, datasetNames, datasets } from '../../../topics/catalog.ts';

/** A packed dump of 300,000 bytes or more: its rows do not compress well. */
const dumpOf = (dataset: DatasetName, seed = 1) => {
  let state = seed;
  const noise = () => {
    state = (state * 48_271) % 2_147_483_647;
    return state.toString(36);
  };
  const { columns } = datasets[dataset];
  const rows = Array.from({ length: Math.ceil(60_000 / columns.length) }, () =>
    columns.map(noise).join('\t'),
  );
  return gzipSync([columns.map(({ name }) => name).join('\t'), ...rows, ''].join('\n'));
};
const dumps = new Map(datasetNames.map((dataset) => [`/dumps/${dataset}.tsv.gz`, dumpOf(dataset)]));
const content = dumps.get('/dumps/title.ratings.tsv.gz') as Buffer;
const newer = dumpOf('title.ratings', 2);
const file = 'title.ratings.tsv.gz';
const lastModified = 'Wed, 21 Jan 2026 07:28:00 GMT';

/** How the server answers; each test changes what it needs. */
interface Manners {
  /** Default: the dump that is asked for. */
  body: Buffer | undefined;
  etag: string | undefined;
  lastModified: string | undefined;
  ranges: boolean;
  /** Answers so often with this status first. */
  failing: { status: number; times: number };
  /** Cuts the connection after so many bytes, so often. */
  cut: { after: number; times: number };
  /** Sends nothing after the first bytes, so often. */
  stall: { times: number };
  /** Headers that it sends besides, or in place of its own; undefined removes one. */
  headers: Record<string, string | undefined>;
  /** Where it sends requests of this path, with status 302. */
  redirect: Record<string, string>;
}

let manners: Manners;
let asked: string[];
let server: Server;
let from: string;
let out: string;

function answer(request: IncomingMessage, response: ServerResponse): void {
  const { etag, ranges, failing, cut, stall } = manners;
  const { url = '', headers } = request;
  const condition = headers['if-none-match'] ?? headers['if-modified-since'] ?? headers.range ?? '';
  asked.push(`${request.method} ${condition}`.trim());
  const elsewhere = manners.redirect[url];
  if (elsewhere !== undefined) {
    response.writeHead(302, { location: elsewhere }).end('moved');
    return;
  }
  if (failing.times-- > 0) {
    response.writeHead(failing.status).end();
    return;
  }
  const isKnown =
    (etag !== undefined && headers['if-none-match'] === etag) ||
    (headers['if-modified-since'] !== undefined && headers['if-modified-since'] === manners.lastModified);
  if (isKnown) {
    response.writeHead(304).end();
    return;
  }
  const body = manners.body ?? dumps.get(url) ?? content;
  const isSame = [etag, manners.lastModified].includes(String(headers['if-range']));
  const start = ranges && isSame ? Number(/^bytes=(\d+)-$/.exec(headers.range ?? '')?.[1] ?? 0) : 0;
  if (start > 0 && start >= body.length) {
    response.writeHead(416, { 'content-range': `bytes */${body.length}` }).end();
    return;
  }
  const sent = body.subarray(start);
  const given = {
    'content-length': String(sent.length),
    etag,
    'last-modified': manners.lastModified,
    'content-range': start > 0 ? `bytes ${start}-${body.length - 1}/${body.length}` : undefined,
    ...manners.headers,
  };
  const defined = Object.entries(given).filter(([, value]) => value !== undefined);
  response.writeHead(start > 0 ? 206 : 200, Object.fromEntries(defined) as Record<string, string>);
  if (stall.times-- > 0) response.write(sent.subarray(0, 10));
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
    body: undefined,
    etag: '"one"',
    lastModified,
    ranges: true,
    failing: { status: 503, times: 0 },
    cut: { after: 100_000, times: 0 },
    stall: { times: 0 },
    headers: {},
    redirect: {},
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
  expect((await readdir(out)).sort()).toEqual(['.download', file]);
};

it('downloads all datasets and dates them as the server does', async () => {
  const seen: number[] = [];
  const files = await download({ out, from, onProgress: ({ bytes }) => seen.push(bytes) });
  expect(files.map(({ outcome }) => outcome)).toEqual(datasetNames.map(() => 'downloaded'));
  expect((await readdir(out)).sort()).toEqual(
    ['.download', ...datasetNames.map((name) => `${name}.tsv.gz`)].sort(),
  );
  expect(seen.at(-1)).toBe(files.at(-1)?.bytes);
  expect((await stat(join(out, file))).mtime).toEqual(new Date(lastModified));
});

describe('a file that is there', () => {
  it.for([
    ['etag', '"one"', {}],
    ['date', lastModified, { etag: undefined }],
  ] as const)(
    'is not downloaded until the server has a newer one, known by its %s',
    async ([, name, lacking]) => {
      Object.assign(manners, lacking);
      await fetchRatings();
      asked = [];
      expect(await fetchRatings()).toMatchObject({ outcome: 'complete', bytes: content.length });
      expect(asked).toEqual([`GET ${name}`]);
      manners.lastModified = 'Thu, 22 Jan 2026 07:28:00 GMT';
      manners.etag &&= '"two"';
      manners.body = newer;
      expect(await fetchRatings()).toMatchObject({ outcome: 'downloaded' });
      await expectWhole(newer);
      expect((await stat(join(out, file))).mtime).toEqual(new Date('Thu, 22 Jan 2026 07:28:00 GMT'));
      asked = [];
      expect(await fetchRatings()).toMatchObject({ outcome: 'complete' });
    },
  );

  // Method: dumps of an earlier version, or that were copied here.
  it('of unknown version is not downloaded if it has the size and date of the server', async () => {
    await writeFile(join(out, file), content);
    expect(await fetchRatings()).toMatchObject({ outcome: 'complete' });
    asked = [];
    expect(await fetchRatings()).toMatchObject({ outcome: 'complete' });
    expect(asked).toEqual(['GET "one"']);
    await writeFile(join(out, file), content);
    await utimes(join(out, file), new Date(0), new Date(0));
    await rm(join(out, '.download/versions.json'));
    expect(await fetchRatings()).toMatchObject({ outcome: 'downloaded' });
  });

  it('is downloaded again when its size has changed, or it came from another address', async () => {
    await fetchRatings();
    await writeFile(join(out, file), 'short');
    expect(await fetchRatings()).toMatchObject({ outcome: 'downloaded' });
    await expectWhole();
    asked = [];
    await fetchRatings({ from: from.replace('127.0.0.1', 'localhost') });
    expect(asked[0]).toBe('GET');
  });

  it('is downloaded again when what is known of it is damaged', async () => {
    await fetchRatings();
    await utimes(join(out, file), new Date(0), new Date(0));
    await writeFile(join(out, '.download/versions.json'), '{"title.ratings.tsv.gz": 5}');
    expect(await fetchRatings()).toMatchObject({ outcome: 'downloaded' });
  });

  const page = Buffer.from('<!DOCTYPE html><title>Sign in</title>');
  const damagedAt = (at: number) => {
    const damaged = Buffer.from(newer);
    damaged[at] = (damaged[at] ?? 0) ^ 0x55;
    return damaged;
  };
  it.for<[string, Partial<Manners>, RegExp]>([
    [
      'an HTML page',
      { body: page, headers: { 'content-type': 'text/html' } },
      /not a gzip file \(text\/html\).*<!DOCTYPE/,
    ],
    [
      'a packed HTML page',
      { body: gzipSync(page), headers: { 'content-encoding': 'gzip' } },
      /HTML or XML page/,
    ],
    ['plain text', { body: Buffer.from('tconst\taverageRating\tnumVotes\n') }, /not a gzip file/],
    ['an empty body', { body: Buffer.alloc(0) }, /it is empty/],
    ['another dataset', { body: dumps.get('/dumps/title.crew.tsv.gz') }, /lacks the column/],
    ['a file that is cut', { body: newer.subarray(0, -100) }, /unexpected end of file/],
    [
      'a length that is too short',
      { headers: { 'content-length': '200000' }, body: newer },
      /unexpected end of file/,
    ],
    ['a changed checksum', { body: damagedAt(newer.length - 6) }, /incorrect data check/],
    ['a changed byte', { body: damagedAt(150_000) }, /incorrect|invalid/],
    [
      'bytes behind the end',
      { body: Buffer.concat([newer, Buffer.from('more')]) },
      /after the end of the gzip data|incorrect header/,
    ],
  ])('stays as it is when the server sends %s', async ([, wrong, reason]) => {
    await fetchRatings();
    const before = await stat(join(out, file));
    Object.assign(manners, { etag: '"two"', lastModified: 'Thu, 22 Jan 2026 07:28:00 GMT', ...wrong });
    await expect(fetchRatings({ attempts: 1 })).rejects.toMatchObject({
      kind: 'input',
      message: 'The server did not send the dump',
      detail: expect.stringMatching(reason),
    });
    await expectWhole();
    expect((await stat(join(out, file))).mtimeMs).toBe(before.mtimeMs);
    // The next run starts from nothing, and asks for the version that the file is not.
    Object.assign(manners, { headers: {}, body: newer });
    expect(await fetchRatings()).toMatchObject({ outcome: 'downloaded' });
    await expectWhole(newer);
  });

  it('stays as it is when the server announces more bytes than it sends', async () => {
    await fetchRatings();
    Object.assign(manners, { etag: '"two"', body: newer, ranges: false });
    manners.headers = { 'content-length': String(newer.length + 1_000) };
    await expect(fetchRatings({ attempts: 2, idleMs: 400 })).rejects.toMatchObject({
      message: 'The download broke off',
    });
    expect((await readFile(join(out, file))).equals(content)).toBe(true);
  });
});

describe('a server that packs a packed file once more', () => {
  it.for([
    ['and says so', { 'content-encoding': 'gzip' }],
    ['and says nothing', {}],
  ] as const)('%s: the dump itself is kept', async ([, headers]) => {
    manners.body = gzipSync(content);
    manners.headers = headers;
    expect(await fetchRatings()).toMatchObject({ outcome: 'downloaded', bytes: content.length });
    await expectWhole();
    expect(await fetchRatings()).toMatchObject({ outcome: 'complete' });
  });

  it('or only says so: the dump is kept as it came', async () => {
    manners.headers = { 'content-encoding': 'gzip' };
    expect(await fetchRatings()).toMatchObject({ outcome: 'downloaded', bytes: content.length });
    await expectWhole();
  });

  it('without a length: the checksum tells the end', async () => {
    manners.headers = { 'content-length': undefined, 'transfer-encoding': 'chunked' };
    expect(await fetchRatings()).toMatchObject({ outcome: 'downloaded', bytes: content.length });
    await expectWhole();
  });
});

describe('redirections', () => {
  const path = `/dumps/${file}`;

  it('are followed, also when a part is continued', async () => {
    manners.redirect = { [path]: '/hop', '/hop': '/real' };
    manners.cut.times = 1;
    expect(await fetchRatings()).toMatchObject({ outcome: 'downloaded' });
    expect(asked).toEqual(['GET', 'GET', 'GET', ...Array(3).fill('GET bytes=100000-')]);
    await expectWhole();
  });

  it('in a circle, or to another kind of address, end the download', async () => {
    manners.redirect = { [path]: path };
    await expect(fetchRatings()).rejects.toMatchObject({ detail: expect.stringContaining('redirections') });
    manners.redirect = { [path]: 'file:///etc/passwd' };
    await expect(fetchRatings()).rejects.toMatchObject({ detail: expect.stringContaining('not followed') });
    expect(await readdir(out)).toEqual(['.download']);
  });
});

it('starts again when a careless server continues a part with another version', async () => {
  manners.cut.times = 1;
  await expect(fetchRatings({ attempts: 1 })).rejects.toThrow();
  manners.body = newer;
  expect(await fetchRatings()).toMatchObject({ outcome: 'downloaded' });
  await expectWhole(newer);
});

it('finishes a part that was whole when its run was killed', async () => {
  await writeFile(join(out, `${file}.part`), content);
  await writeFile(
    join(out, `${file}.part.version`),
    JSON.stringify({ etag: '"one"', modified: lastModified }),
  );
  expect(await fetchRatings()).toMatchObject({ outcome: 'resumed' });
  expect(asked).toEqual([`GET bytes=${content.length}-`]);
  await expectWhole();
  expect((await stat(join(out, file))).mtime).toEqual(new Date(lastModified));
});

it('goes on by itself after a cut connection', async () => {
  manners.cut.times = 2;
  expect(await fetchRatings()).toMatchObject({ outcome: 'downloaded' });
  expect(asked).toEqual(['GET', 'GET bytes=100000-', 'GET bytes=200000-']);
  await expectWhole();
});

it('has nothing under the final name when it gives up, and goes on in the next run', async () => {
  manners.cut.times = 1;
  await expect(fetchRatings({ attempts: 1 })).rejects.toMatchObject({
    kind: 'dumpsUnreachable',
    message: 'The download broke off',
    hint: expect.stringContaining('continues where it stopped'),
  });
  expect(existsSync(join(out, file))).toBe(false);
  asked = [];
  expect(await fetchRatings()).toMatchObject({ outcome: 'resumed' });
  expect(asked).toEqual(['GET bytes=100000-']);
  await expectWhole();
});

it('replaces the files of a dump together, once all of them have come', async () => {
  const both = { out, from, datasets: ['title.ratings', 'title.basics'] as const, retryMs: 1, attempts: 1 };
  await writeFile(join(out, file), 'of the dump before');
  manners.redirect = { '/dumps/title.basics.tsv.gz': '/dumps/nothing' };
  await expect(download(both)).rejects.toMatchObject({
    detail: expect.stringContaining('No file was replaced'),
  });
  expect(await readFile(join(out, file), 'utf8')).toBe('of the dump before');
  manners.redirect = {};
  expect((await download(both)).map(({ outcome }) => outcome)).toEqual(['resumed', 'downloaded']);
  expect((await readFile(join(out, file))).equals(content)).toBe(true);
});

it('starts again when the server has another version than the part', async () => {
  manners.cut.times = 1;
  await expect(fetchRatings({ attempts: 1 })).rejects.toThrow();
  manners.etag = '"two"';
  manners.lastModified = 'Thu, 22 Jan 2026 07:28:00 GMT';
  manners.body = newer;
  expect(await fetchRatings()).toMatchObject({ outcome: 'downloaded' });
  await expectWhole(newer);
});

it('starts again when the version is unknown or ranges are not served', async () => {
  for (const lacking of [{ etag: undefined, lastModified: undefined }, { ranges: false }]) {
    Object.assign(manners, lacking);
    manners.cut.times = 1;
    await expect(fetchRatings({ attempts: 1 })).rejects.toThrow();
    expect(await fetchRatings()).toMatchObject({ outcome: 'downloaded' });
    await expectWhole();
    await rm(join(out, file));
    await rm(join(out, '.download/versions.json'));
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
  expect(asked).toEqual(['GET']);
  await expect(fetchRatings({ from: 'ftp://there' })).rejects.toMatchObject({ kind: 'usage' });
  await expect(fetchRatings({ out: join(import.meta.filename, 'x') })).rejects.toMatchObject({
    kind: 'input',
  });
});

it('does not wait endlessly for a silent server', async () => {
  manners.stall.times = 1;
  expect(await fetchRatings({ idleMs: 500 })).toMatchObject({ outcome: 'downloaded' });
  expect(asked).toEqual(['GET', 'GET bytes=10-']);
  await expectWhole();
});

it('ends with the signal, and continues in the next run', async () => {
  manners.stall.times = 1;
  const stop = new AbortController();
  const ending = fetchRatings({ signal: stop.signal, onProgress: () => stop.abort() });
  await expect(ending).rejects.toMatchObject({ name: 'AbortError' });
  expect(await fetchRatings()).toMatchObject({ outcome: 'resumed' });
  await expectWhole();
});

it('two downloads into one folder do not write the same part', async () => {
  manners.stall.times = 1;
  const first = fetchRatings({ idleMs: 500 });
  await vi.waitFor(() => expect(asked).toHaveLength(1));
  await expect(fetchRatings()).rejects.toMatchObject({ kind: 'busy' });
  expect(await first).toMatchObject({ outcome: 'downloaded' });
});

it('says which server cannot be reached', async () => {
  const gone = from;
  await new Promise((resolve) => server.close(resolve));
  await expect(fetchRatings({ from: gone, attempts: 2 })).rejects.toMatchObject({
    kind: 'dumpsUnreachable',
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

it('refuses "not modified" as the answer to a request without a condition: no file is there', async () => {
  manners.failing = { status: 304, times: 1 };
  await expect(fetchRatings()).rejects.toMatchObject({
    kind: 'input',
    message: 'The server did not send the dump',
    detail: expect.stringContaining('304'),
  });
  expect(await readdir(out)).toEqual(['.download']);
});
