/** The daily job on a real broker, with a server of dumps of our own: what it sends, and what it leaves alone. */
import { createHash } from 'node:crypto';
import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import { gzipSync } from 'node:zlib';
import { afterEach, beforeEach, expect, vi } from 'vitest';
import { logBounds } from '../../kafka/bounds.ts';
import type { DownloadedFile } from '../../producers/download/download.ts';
import type { ReplayReport } from '../../producers/replay-report.ts';
import { exitCodes } from '../../runtime/errors.ts';
import { fileSha256 } from '../../runtime/files.ts';
import { broker, headerOf, lastJson, type Place, spoken, test } from '../support/harness.ts';

vi.setConfig({ testTimeout: 180_000 });

interface Dump {
  readonly modified: string;
  readonly files: Readonly<Record<string, Buffer>>;
}

let server: Server;
let dump: Dump;
let answers: number[];

beforeEach(async () => {
  answers = [];
  server = createServer((request, response) => {
    const name = request.url?.slice(1) ?? '';
    const body = dump.files[name];
    const etag = `"${createHash('sha256')
      .update(body ?? '')
      .digest('hex')}"`;
    const status = body === undefined ? 404 : request.headers['if-none-match'] === etag ? 304 : 200;
    answers.push(status);
    response.writeHead(status, status === 200 ? { etag, 'last-modified': dump.modified } : {});
    response.end(status === 200 ? body : undefined);
  }).listen(0, '127.0.0.1');
  await new Promise((resolve) => server.once('listening', resolve));
});
afterEach(async () => {
  server.closeAllConnections();
  await new Promise((resolve) => server.close(resolve));
});

/** A dump of these titles, each with one vote more on each day. */
function dumpOf(day: number, titles: readonly number[]): Dump {
  const ids = titles.map((title) => `tt${String(title).padStart(7, '0')}`);
  const basics = ids.map((id) => `${id}\tmovie\tA\tA\t0\t1990\t\\N\t90\tDrama\n`);
  const ratings = ids.map((id) => `${id}\t6.5\t${100 + day}\n`);
  return {
    modified: new Date(Date.UTC(2026, 0, day)).toUTCString(),
    files: {
      'title.basics.tsv.gz': gzipSync(headerOf('title.basics') + basics.join('')),
      'title.ratings.tsv.gz': gzipSync(headerOf('title.ratings') + ratings.join('')),
    },
  };
}

const refresh = (place: Place, ...more: string[]) => {
  const { port } = server.address() as AddressInfo;
  const from = ['--from', `http://127.0.0.1:${port}`, '--datasets', 'title.basics,title.ratings'];
  const places = ['--state', place.state, '--namespace', place.namespace];
  return place.run(['refresh', '--dir', join(place.folder, 'imdb'), ...from, ...places, ...more]);
};

/** What the job must leave alone when it fails: the dumps, and the ends of the topics. */
async function stateOf(place: Place) {
  const files = ['title.basics', 'title.ratings'].map((name) => join(place.folder, 'imdb', `${name}.tsv.gz`));
  const topics = (['title.basics', 'title.ratings'] as const).map((name) => place.names.source(name));
  const bounds = await logBounds(broker, topics);
  const ends = topics.map((topic) => [...(bounds.get(topic)?.values() ?? [])].map(({ end }) => end));
  return { ends, hashes: await Promise.all(files.map(fileSha256)) };
}

test('it sends what changed, says so in one line, and ends with 0 when nothing did', async ({ place }) => {
  const titles = Array.from({ length: 300 }, (_, at) => at + 1);
  dump = dumpOf(1, titles);
  const first = await refresh(place, '--shards', '2');
  expect(first, first.stderr).toMatchObject({ code: 0 });
  expect(first.stdout).toMatch(
    /^\S+imdb: 2 of 2 files downloaded; 600 rows sent, 0 ids removed, 0 rows rejected; [\d.]+ s\n$/,
  );
  expect(spoken(first)).toContain('non-commercial');

  answers = [];
  const again = await refresh(place);
  expect(again, again.stderr).toMatchObject({ code: 0 });
  expect(again.stdout).toMatch(/^\S+imdb: 0 of 2 files downloaded; nothing changed; [\d.]+ s\n$/);
  expect(answers).toEqual([304, 304]);

  dump = dumpOf(
    2,
    titles.filter((title) => title !== 100),
  );
  const last = await refresh(place, '--json');
  expect(last, last.stderr).toMatchObject({ code: 0 });
  const { files, replay } = lastJson<{ files: DownloadedFile[]; replay: ReplayReport }>(last);
  expect(files.map(({ outcome }) => outcome)).toEqual(['downloaded', 'downloaded']);
  expect(replay.plan?.['title.basics']?.vanished.ids).toBe(1);
  expect(replay.read).toBe(replay.unchanged + replay.produced + replay.rejected);
  expect(replay.unchanged).toBeGreaterThan(0);
});

test('bad input changes neither dumps nor topics, and each kind has an exit code', async ({ place }) => {
  const titles = Array.from({ length: 300 }, (_, at) => at + 1);
  dump = dumpOf(1, titles);
  expect(await refresh(place, '--shards', '2')).toMatchObject({ code: 0 });
  const before = await stateOf(place);
  const next = dumpOf(2, titles);
  const page = Buffer.from('<!DOCTYPE html><title>Sign in</title>');
  const basics = next.files['title.basics.tsv.gz'] as Buffer;
  for (const bad of [page, gzipSync(page), basics.subarray(0, -20), Buffer.alloc(0)]) {
    dump = { ...next, files: { ...next.files, 'title.basics.tsv.gz': bad } };
    const failed = await refresh(place);
    expect(failed, failed.stderr).toMatchObject({ code: exitCodes.input, stdout: '' });
    expect(spoken(failed)).toContain('The server did not send the dump');
    expect(await stateOf(place)).toEqual(before);
  }

  // The file is whole, so it replaces the dump; the topics keep their rows.
  dump = dumpOf(
    3,
    titles.filter((title) => title % 2 === 0 || title === 299),
  );
  const halved = await refresh(place);
  expect(halved, halved.stderr).toMatchObject({ code: exitCodes.tooManyRemoved });
  expect((await stateOf(place)).ends).toEqual(before.ends);

  dump = next;
  server.closeAllConnections();
  const { port } = server.address() as AddressInfo;
  await new Promise((resolve) => server.close(resolve));
  const away = await place.run([
    ...['refresh', '--dir', join(place.folder, 'imdb'), '--from', `http://127.0.0.1:${port}`],
    ...['--state', place.state, '--namespace', place.namespace],
  ]);
  expect(away, away.stderr).toMatchObject({ code: exitCodes.dumpsUnreachable });
  expect((await stateOf(place)).ends).toEqual(before.ends);
  server = createServer().listen(0);
});
