/**
 * A version of the program whose cubes read other datasets than those of the version that has published: a whole shard over
 * logs in memory, opened with one set of cubes after the other.
 */
import { rmSync } from 'node:fs';
import { join } from 'node:path';
import { beforeEach, expect, test } from 'vitest';
import type { ProcessorMetrics } from '../../processors/processor-metrics.ts';
import type { Cube } from '../../tables/cubes/cube.ts';
import { cubes } from '../../tables/cubes/cube-set.ts';
import { DeltaChain } from '../../topics/delta-chain.ts';
import { type DeltaPart, decodeDeltaHeader, toOf } from '../../topics/delta-wire.ts';
import { aka, basics, type Chunk, principal, type Row, rating } from '../support/chunks.ts';
import { addDeltas, type Cubes } from '../support/cube-model.ts';
import { hashesBelow } from '../support/damage.ts';
import { deltaSchemaId, Logs, type ShardOverLogs, shardOver } from '../support/shard-over-logs.ts';
import { temporaryFolder } from '../support/temporary-folder.ts';

let folder: string;
let logs: Logs;
let open: ShardOverLogs | undefined;

beforeEach(() => {
  open = undefined;
  folder = temporaryFolder();
  logs = new Logs();
  logs.produceTitle(1);
  logs.produce(
    { dataset: 'title.principals', records: [principal(1, 1, 5)], deletes: [] },
    { dataset: 'title.akas', records: [aka(1, 1, 'DE')], deletes: [] },
  );
});

const all = [...cubes];
const withoutAkas = all.filter(({ reads }) => reads['title.akas'] === undefined);
const akas = 'imdb.title.akas';

async function end(): Promise<void> {
  await open?.shard.close(0);
  open = undefined;
}

/** Opens the shard with these cubes in the place of the one that is open. @param metrics takes the numbers of backfilled cubes */
async function start(set: readonly Cube[], stores = folder, metrics: number[] = []): Promise<ShardOverLogs> {
  await end();
  const counts = { published: (count: number) => metrics.push(count) } as unknown as ProcessorMetrics;
  const started = shardOver(logs, stores, { metrics: counts }, [], set);
  await started.shard.open(undefined);
  open = started;
  return started;
}

/** Publishes all that the cubes of this set read. @returns the offsets below the published position that it read, by topic */
async function publish(set: readonly Cube[], stores = folder) {
  const chain = new DeltaChain();
  for (const header of headers()) chain.accept(header);
  const metrics: number[] = [];
  const { shard, until } = await start(set, stores, metrics);
  const read = new Map<string, [number, number]>();
  for (const { topic, next } of shard.wants()) {
    const published = chain.state.position[topic] ?? 0;
    // A proof reads the last applied message once more.
    if (next < published - 1 || shard.readNext(topic) < published) read.set(topic, [next, published]);
  }
  const ends = Object.fromEntries(shard.topics.map((topic) => [topic, logs.of(topic).length]));
  shard.aimAt(ends);
  await until(ends);
  return { read, metrics };
}

const headers = (): DeltaPart[] => logs.deltas.map((value) => decodeDeltaHeader(value, deltaSchemaId).header);

/** The sum of what is published. */
function sum(): Cubes {
  const published: Cubes = new Map();
  for (const message of logs.deltas) {
    const { kind, keeps = [] } = decodeDeltaHeader(message, deltaSchemaId).header;
    for (const key of kind === 'base' ? [...published.keys()] : []) {
      if (!keeps.includes((JSON.parse(key) as string[])[0] as string)) published.delete(key);
    }
    addDeltas(published, [message], deltaSchemaId);
  }
  return published;
}

test('a cube set with a further dataset begins with a base and then reads the dataset', async () => {
  await publish(withoutAkas);
  const before = headers().length;
  await publish(all);
  const more = headers().slice(before);
  expect(more.map(({ kind }) => kind)).toEqual(['base', 'delta']);
  expect(toOf(more[0] as DeltaPart)).toMatchObject({ [akas]: 0 });
  expect(toOf(more[1] as DeltaPart)).toMatchObject({ [akas]: 1 });
  expect(sum()).toEqual(await fresh(all));
});

/** What a shard that reads all messages once publishes of these cubes. */
async function fresh(set: readonly Cube[]): Promise<Cubes> {
  await end();
  const deltas = logs.deltas.splice(0);
  const other = temporaryFolder();
  try {
    await publish(set, other);
    return sum();
  } finally {
    await end();
    logs.deltas.splice(0, logs.deltas.length, ...deltas);
    rmSync(other, { recursive: true, force: true });
  }
}

const categories: Cube = {
  name: 'categories',
  reads: {
    'title.principals': ['tconst', 'ordering', 'category'],
    'title.ratings': ['tconst', 'averageRating'],
  },
  key: ['category', 'rating'],
  texts: ['category'],
  measures: ['credits'],
  contribution: `SELECT category, averageRating AS rating, count(*) AS credits
    FROM title_principals JOIN title_ratings ON title_principals.tconst = title_ratings.tconst
    GROUP BY category, averageRating`,
};

/** Opens the shard with these cubes, reads on, and says what it did and published. */
async function change(to: readonly Cube[]) {
  const before = headers().length;
  const { read, metrics } = await publish(to);
  const more = headers().slice(before);
  expect(sum()).toEqual(await fresh(to));
  const kinds = more.map(({ kind, keeps = [] }) => [kind, keeps.length]);
  return { read: [...read], kinds, backfilled: metrics, more };
}

test('a changed contribution is backfilled from the store: no message is read again, and only this cube is published', async () => {
  await publish(all);
  const [title, ...others] = all as [Cube, ...Cube[]];
  const changed = { ...title, contribution: title.contribution.replace('count(*)', '2 * count(*)') };
  const { read, kinds, backfilled, more } = await change([changed, ...others]);
  expect({ read, kinds, backfilled }).toEqual({
    read: [],
    kinds: [['base', all.length - 1]],
    backfilled: [1],
  });
  const published: Cubes = new Map();
  addDeltas(published, logs.deltas.slice(-more.length), deltaSchemaId);
  expect([...published.keys()].every((key) => key.startsWith('["title"'))).toBe(true);
});

test('a cube with a column that the store lacks reads this dataset again, and a removed cube reads nothing', async () => {
  await publish(all);
  logs.produce({ dataset: 'title.principals', records: [principal(1, 2, 6)], deletes: [] });
  expect(await change([...all, categories])).toMatchObject({
    read: [['imdb.title.principals', [0, 1]]],
    kinds: [
      ['base', all.length],
      ['delta', 0],
    ],
    backfilled: [1],
  });
  expect(await change(all)).toMatchObject({ read: [], kinds: [['base', all.length]], backfilled: [0] });
  // Its column stays.
  expect(await change([...all, categories])).toMatchObject({ read: [], backfilled: [1] });
});

// Method: the store commits a delta, and its member ends before it is published.
test('what the outbox of the earlier cubes holds is published before the cubes change', async () => {
  await publish(all);
  const committed = logs.deltas.length;
  logs.produce({ dataset: 'title.akas', records: [aka(1, 2, 'FR')], deletes: [] });
  await publish(all);
  logs.deltas.length = committed;
  const { kinds } = await change([...all, categories]);
  expect(kinds).toEqual([
    ['delta', 0],
    ['base', all.length],
  ]);
});

test('a cube set without an earlier dataset leaves its topic, and reads it from the start when it comes back', async () => {
  await publish(all);
  const reduced = await change(withoutAkas);
  expect(reduced).toMatchObject({ read: [], kinds: [['base', withoutAkas.length]] });
  expect(toOf(reduced.more[0] as DeltaPart)).not.toHaveProperty(akas);
  logs.produce({ dataset: 'title.akas', records: [aka(1, 2, 'FR')], deletes: [] });
  logs.produce({ dataset: 'title.basics', records: [basics(2, 'Comedy')], deletes: [] });
  await publish(withoutAkas);
  expect((await change(all)).kinds).toEqual([
    ['base', withoutAkas.length],
    ['delta', 0],
  ]);
});

// Method: fresh rows, known rows and deletes of titles with and without a rating, each in a micro-batch of its own.
test('a cube with another gate counts titles without a rating, and the others count rated ones only', async () => {
  const kinds: Cube = {
    name: 'kinds',
    reads: { 'title.basics': ['tconst', 'startYear'] },
    gate: 'title.basics',
    key: ['startYear'],
    measures: ['titles'],
    contribution: 'SELECT startYear, count(*) AS titles FROM title_basics GROUP BY startYear',
  };
  const set = [...all, kinds];
  const counted = () =>
    [...sum()]
      .filter(([key]) => key.startsWith('["kinds"'))
      .reduce((titles, [, [count = 0]]) => titles + count, 0);
  const rated = () => [...sum().keys()].filter((key) => key.startsWith('["feature_basics"')).length;
  const after = async (...chunks: Chunk[]) => {
    logs.produce(...chunks);
    await publish(set);
    return [counted(), rated()];
  };
  const of = (records: Row[], deletes: Row[] = []) => ({
    dataset: 'title.basics' as const,
    records,
    deletes,
  });
  expect(await after(of([basics(2, 'Drama'), basics(3, 'Drama')]))).toEqual([3, 1]);
  expect(await after(of([basics(2, 'Comedy'), basics(4, 'Drama')]))).toEqual([4, 1]);
  expect(await after({ dataset: 'title.ratings', records: [rating(4, 6)], deletes: [] })).toEqual([4, 2]);
  expect(await after(of([], [{ tconst: basics(3, 'Drama').tconst as string }]))).toEqual([3, 2]);
  expect(sum()).toEqual(await fresh(set));
});

// Method: the title is there before the cube, then changes; the check of declarations would refuse this cube.
test.each([
  ['numVotes * 1000000000', /Out of Range Error: Overflow in multiplication of INT32/],
  ['CAST(numVotes AS BIGINT) * numVotes * 1000000000', /^votes exceeds 53 bits$/],
])(
  'a cube that fails on %s ends a member with its name, and the cubes without it go on',
  async (votes, detail) => {
    const kinds: Cube = {
      name: 'kinds',
      reads: { 'title.ratings': ['tconst', 'averageRating', 'numVotes'] },
      key: ['averageRating'],
      measures: ['votes'],
      contribution: `SELECT averageRating, sum(${votes}) AS votes FROM title_ratings GROUP BY averageRating`,
    };
    const failure = {
      kind: 'declarationUnusable',
      message: 'kinds cannot be computed',
      detail: expect.stringMatching(detail),
    };
    const rated = (id: number, votes: number) =>
      logs.produce({ dataset: 'title.ratings', records: [rating(id, 7, votes)], deletes: [] });
    rated(1, 4_000);
    await publish(all);
    await expect(publish([...all, kinds])).rejects.toMatchObject(failure);
    rated(1, 1);
    await publish(all);
    await publish([...all, kinds]);
    rated(2, 4_000);
    await expect(publish([...all, kinds])).rejects.toMatchObject(failure);
    await publish(all);
    expect(sum()).toEqual(await fresh(all));
  },
);

// Method: a second member with an empty folder takes the shard, as after a rolling restart.
test('a member without a store backfills after a silent catch-up', async () => {
  await publish(all);
  await end();
  for (const path of Object.keys(hashesBelow(folder))) rmSync(join(folder, path));
  const { kinds, backfilled } = await change([...all, categories]);
  expect({ kinds, backfilled }).toEqual({ kinds: [['base', all.length]], backfilled: [1] });
});

// Method: all deltas go; a store that knew where they led could be yesterday's.
test('a shard is not opened when no delta remains to tell the published position', async () => {
  await publish(all);
  await end();
  logs.starts.set('reelflow.deltas', logs.deltas.length);
  const stores = hashesBelow(folder);
  const refusal = { kind: 'deltasTrimmed', hint: expect.stringContaining('reelflow reset') };
  await expect(start(all)).rejects.toMatchObject(refusal);
  expect(hashesBelow(folder)).toEqual(stores);
  for (const path of Object.keys(stores)) rmSync(join(folder, path));
  await expect(start(all)).rejects.toMatchObject(refusal);
  expect(logs.deltas).toHaveLength(1);
});
