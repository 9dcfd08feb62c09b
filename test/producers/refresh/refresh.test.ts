/**
 * Refreshes on a real broker, each test in a namespace of its own. What the topics hold is folded by avsc, with the rule of
 * `replaces` written out once more; it must be the rows of the newest dump, whatever was replayed before.
 */
import { randomBytes } from 'node:crypto';
import { mkdtempSync, rmSync, utimesSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { gzipSync } from 'node:zlib';
import { afterEach, describe, expect, inject, it } from 'vitest';
import { logBounds } from '../../../kafka/bounds.ts';
import { createBroker, withAdmin } from '../../../kafka/client.ts';
import { scanTopic } from '../../../kafka/scan.ts';
import { type ReplayOptions, replay } from '../../../producers/replay.ts';
import type { FailureKind } from '../../../runtime/errors.ts';
import { createLogger } from '../../../runtime/logger.ts';
import { type DatasetName, datasets, idText, topicNamesIn } from '../../../topics/catalog.ts';
import { groupOf } from '../../../topics/id-groups.ts';
import { Registry } from '../../../topics/registry.ts';

type Row = Record<string, unknown>;

const logger = createLogger('silent');
const broker = createBroker({ brokers: inject('brokers'), registryUrl: inject('registryUrl') }, logger);
const registry = new Registry({ url: inject('registryUrl') });
const folders: string[] = [];
const namespaces: string[] = [];

afterEach(async ({ task }) => {
  if (task.result?.state === 'fail') return;
  for (const folder of folders.splice(0)) rmSync(folder, { recursive: true, force: true });
  await withAdmin(broker, async (admin) => {
    const topics = (await admin.listTopics()).filter((topic) =>
      namespaces.some((namespace) => topic.startsWith(`${namespace}.`)),
    );
    if (topics.length > 0) await admin.deleteTopics({ topics });
  });
  namespaces.length = 0;
});

function folder(): string {
  const path = mkdtempSync(join(tmpdir(), 'reelflow-refresh-'));
  folders.push(path);
  return path;
}

/** A pipeline's left end, and the dumps that are replayed into it. */
class Place {
  readonly options: Omit<ReplayOptions, 'inputs'>;
  #day = 0;

  constructor() {
    const namespace = `refresh-${randomBytes(5).toString('hex')}`;
    namespaces.push(namespace);
    const names = topicNamesIn(namespace);
    this.options = { broker, registry, logger, names, state: folder(), mode: 'refresh', shards: 2 };
  }

  /** Files of a dump that is a day newer than the one before. */
  dump(files: Partial<Record<DatasetName, string | Buffer>>, day = ++this.#day): string {
    const directory = folder();
    // Dates of files are finer than milliseconds.
    const time = Date.UTC(2026, 0, day) / 1000 + 0.0006;
    for (const [dataset, content] of Object.entries(files)) {
      const path = join(directory, `${dataset}.tsv${typeof content === 'string' ? '' : '.gz'}`);
      writeFileSync(path, content);
      utimesSync(path, time, time);
    }
    return directory;
  }

  replay(directory: string, more: Partial<ReplayOptions> = {}) {
    return replay({ ...this.options, inputs: [directory], ...more });
  }

  /** What the topic holds. */
  async held(dataset: DatasetName): Promise<Map<string, Row>> {
    const { columns, keyColumns } = datasets[dataset];
    const keyOf = (row: Row) =>
      columns
        .slice(0, keyColumns)
        .map(({ name }) => String(row[name]))
        .join(' ');
    const rows = new Map<string, Row>();
    for await (const { messages } of scanTopic(broker, this.options.names.source(dataset))) {
      for (const { value } of messages) {
        const bytes = value as Buffer;
        const type = await registry.writer(bytes.readInt32BE(1));
        const chunk = type?.fromBuffer(bytes.subarray(5)) as {
          replaces: number[];
          records: Row[];
          deletes: Row[];
        };
        for (const key of rows.keys()) {
          if (chunk.replaces.includes(groupOf(Number(key.slice(2).split(' ')[0])))) rows.delete(key);
        }
        for (const row of chunk.records) rows.set(keyOf(row), { ...row });
        for (const row of chunk.deletes) rows.delete(keyOf(row));
      }
    }
    return rows;
  }

  async keys(dataset: DatasetName): Promise<string[]> {
    return [...(await this.held(dataset)).keys()].sort();
  }

  /** Messages on all source topics. */
  async messages(): Promise<number> {
    const { names } = this.options;
    const topics = (Object.keys(datasets) as DatasetName[]).map((dataset) => names.source(dataset));
    const bounds = await logBounds(broker, topics);
    return [...bounds.values()].flatMap((of) => [...of.values()]).reduce((sum, { end }) => sum + end, 0);
  }
}

const header = (dataset: DatasetName) => datasets[dataset].columns.map(({ name }) => name).join('\t');
const fileOf = (dataset: DatasetName, lines: readonly string[]) =>
  `${[header(dataset), ...lines].join('\n')}\n`;
const ratings = (votes: Readonly<Record<number, number>>) =>
  fileOf(
    'title.ratings',
    Object.entries(votes)
      .map(([id, count]) => `${idText('tt', Number(id))}\t5.0\t${count}`)
      .sort(),
  );
const basics = (ids: readonly number[]) =>
  fileOf('title.basics', ids.map((id) => `${idText('tt', id)}\tmovie\tA\tA\t0\t1994\t\\N\t90\tDrama`).sort());
const many = (votes: (id: number) => number | undefined, count = 2_000) => {
  const all: Record<number, number> = {};
  for (let id = 1; id <= count; id++) {
    const vote = votes(id);
    // Far apart, so that there are several blocks, and ids of both lengths.
    if (vote !== undefined) all[id * 9_973] = vote;
  }
  return all;
};
const titles = (votes: Readonly<Record<number, number>>) => basics(Object.keys(votes).map(Number));
const votesOf = async (place: Place) =>
  Object.fromEntries(
    [...(await place.held('title.ratings'))].map(([key, row]) => [Number(key.slice(2)), row.numVotes]),
  );
const dumpOf = (votes: Readonly<Record<number, number>>) => ({
  'title.ratings': ratings(votes),
  'title.basics': titles(votes),
});

async function failureOf(work: Promise<unknown>): Promise<{ kind?: FailureKind; detail?: string }> {
  return work.then(
    () => ({}),
    (thrown) => thrown,
  );
}

const a = many((id) => id);
/** Some rows changed, some vanished, some are new. */
const b = many((id) => (id % 400 === 7 ? undefined : id % 100 === 3 ? id + 1_000_000 : id), 2_010);
const c = many((id) => (id % 300 === 11 ? undefined : id % 50 === 3 ? id + 2_000_000 : id), 1_999);

describe('the topics hold exactly the newest dump', () => {
  it.each([
    ['from a spool', {}],
    ['from a second reading', { spoolBytesMax: -1 }],
  ])('rows change, vanish and return: %s', async (_, more) => {
    const place = new Place();
    for (const votes of [a, b, c, a]) {
      const report = await place.replay(place.dump(dumpOf(votes)), more);
      expect(report.interrupted).toBe(false);
      expect(report.read).toBe(report.unchanged + report.produced + report.rejected);
      expect(await votesOf(place)).toEqual(votes);
      expect((await place.keys('title.basics')).length).toBe(Object.keys(votes).length);
    }
  });

  it('of what did not change nothing is sent', async () => {
    const place = new Place();
    await place.replay(place.dump(dumpOf(a)));
    const messages = await place.messages();
    const report = await place.replay(place.dump(dumpOf(a)));
    expect(report).toMatchObject({ read: 4_000, unchanged: 4_000, produced: 0, rejected: 0, chunks: 0 });
    expect(report.plan?.['title.ratings']).toMatchObject({
      rows: 2_000,
      changed: { groups: 0, ids: 0 },
      new: { groups: 0, ids: 0 },
      vanished: { groups: 0, ids: 0 },
      unknown: { groups: 0, ids: 0 },
    });
    expect(await place.messages()).toBe(messages);
  });

  it('the plan counts what changes, vanishes and is new', async () => {
    const place = new Place();
    await place.replay(place.dump(dumpOf(a)));
    const report = await place.replay(place.dump(dumpOf(b)), { dryRun: true });
    const plan = report.plan?.['title.ratings'];
    expect(plan?.vanished.ids).toBe(5);
    expect(plan?.new.ids).toBe(9);
    expect(plan?.changed.ids).toBe(20);
    expect(await votesOf(place)).toEqual(a);
  });

  it('rows that others wrote are gone, also in groups of no dump', async () => {
    const place = new Place();
    await place.replay(place.dump(dumpOf(a)));
    await place.replay(place.dump(dumpOf({ 5: 1, 9973: 77, 9000000: 1 })), { mode: 'upsert' });
    expect(await votesOf(place)).toEqual({ ...a, 5: 1, 9973: 77, 9000000: 1 });
    await place.replay(place.dump(dumpOf(a)), { maxRemoved: 100 });
    expect(await votesOf(place)).toEqual(a);
  });

  it.each([
    ['the topic of the index is deleted', 'index'],
    ['a source topic is recreated', 'source'],
  ])('%s', async (_, what) => {
    const place = new Place();
    const { names } = place.options;
    await place.replay(place.dump(dumpOf(a)));
    const topic = what === 'index' ? names.dumpIndex : names.source('title.ratings');
    await withAdmin(broker, (admin) => admin.deleteTopics({ topics: [topic] }));
    await place.replay(place.dump(dumpOf(b)));
    expect(await votesOf(place)).toEqual(b);
    const again = await place.replay(place.dump(dumpOf(b)));
    expect(again).toMatchObject({ unchanged: 2 * Object.keys(b).length, produced: 0 });
  });

  it('a row that becomes malformed removes its good predecessor, and is a dead letter once', async () => {
    const place = new Place();
    const good = many((id) => id, 300);
    await place.replay(place.dump(dumpOf(good)));
    const broken = {
      ...dumpOf(good),
      'title.ratings': ratings(good).replace(/\t5\.0\t7\n/, '\tfive\t7\n'),
    };
    const report = await place.replay(place.dump(broken));
    expect(report.datasets['title.ratings']).toMatchObject({ rejected: 1, read: 300 });
    expect(report.plan?.['title.ratings']).toMatchObject({ refused: 1, vanished: { ids: 1 } });
    const { [7 * 9_973]: _gone, ...left } = good;
    expect(await votesOf(place)).toEqual(left);
    expect((await place.replay(place.dump(broken))).rejected).toBe(0);
  });

  it('a dataset that the dump lacks stays until it is dropped', async () => {
    const place = new Place();
    const episode = fileOf('title.episode', ['tt0000002\ttt0000001\t1\t1']);
    await place.replay(place.dump({ ...dumpOf(a), 'title.episode': episode }));
    const without = place.dump(dumpOf(a));
    expect(await failureOf(place.replay(without))).toMatchObject({ kind: 'datasetAbsent' });
    expect(await place.keys('title.episode')).toHaveLength(1);
    await place.replay(without, { drop: ['title.episode'] });
    expect(await place.keys('title.episode')).toEqual([]);
    await place.replay(place.dump(dumpOf(a)));
  });

  it('a first load that was broken off is no loss: the next dump leaves only its own rows', async () => {
    const place = new Place();
    const gzip = gzipSync(ratings(a));
    const damaged = place.dump({ ...dumpOf(a), 'title.ratings': gzip.subarray(0, gzip.length - 200) });
    expect(await failureOf(place.replay(damaged))).toMatchObject({ kind: 'input' });
    await place.replay(place.dump(dumpOf(c)), { maxRemoved: 100 });
    expect(await votesOf(place)).toEqual(c);
  });
});

describe('nothing is sent and nothing removed', () => {
  const half = many((id) => (id <= 1_000 ? id : undefined));
  const gzip = gzipSync(ratings(b));
  const cases: [
    string,
    FailureKind,
    Partial<Record<DatasetName, string | Buffer>>,
    Partial<ReplayOptions>?,
  ][] = [
    ['a file that is cut in the middle', 'input', { 'title.ratings': gzip.subarray(0, gzip.length / 2) }],
    ['an empty file', 'input', { 'title.ratings': '' }],
    ['a header alone', 'cutFile', { 'title.ratings': fileOf('title.ratings', []) }],
    ['half of the ids', 'tooManyRemoved', dumpOf(many((id) => (id % 2 === 0 ? id : undefined)))],
    ['a file that ends early', 'cutFile', dumpOf(half)],
    ['a last line without its newline', 'cutFile', { 'title.ratings': ratings(b).slice(0, -1) }],
    ['an HTML page', 'input', { 'title.ratings': gzipSync('<html><body>Not found</body></html>') }],
    [
      'rows that are not sorted',
      'input',
      { 'title.ratings': fileOf('title.ratings', ['tt0000002\t5.0\t1', 'tt0000001\t5.0\t1']) },
    ],
  ];
  it.each(cases)('%s: %s', async (_, kind, files) => {
    const place = new Place();
    await place.replay(place.dump(dumpOf(a)));
    const messages = await place.messages();
    const bad = place.dump({ ...dumpOf(b), ...files });
    expect(await failureOf(place.replay(bad))).toMatchObject({ kind });
    expect(await place.messages()).toBe(messages);
    expect(await votesOf(place)).toEqual(a);
    await place.replay(place.dump(dumpOf(b)));
    expect(await votesOf(place)).toEqual(b);
  });

  it('a dump older than the one that the topics hold, unless it is allowed', async () => {
    const place = new Place();
    await place.replay(place.dump(dumpOf(a), 5));
    const older = place.dump(dumpOf(b), 4);
    expect(await failureOf(place.replay(older))).toMatchObject({ kind: 'olderDump' });
    expect(await votesOf(place)).toEqual(a);
    await place.replay(older, { allowOlder: true });
    expect(await votesOf(place)).toEqual(b);
  });

  it('a dump of the future', async () => {
    const place = new Place();
    await place.replay(place.dump(dumpOf(a)));
    expect(await failureOf(place.replay(place.dump(dumpOf(b), 36_500)))).toMatchObject({
      kind: 'futureDump',
    });
    expect(await votesOf(place)).toEqual(a);
  });
});
