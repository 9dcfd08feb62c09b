/** When the names of titles are read again, and which ones: on the sink's store, without a broker. */
import { afterAll, beforeAll, expect, test } from 'vitest';
import type { CubeStore } from '../../sinks/cube-store.ts';
import { LevelIntake } from '../../sinks/level-intake.ts';
import type { ShardState } from '../../sinks/shard-state.ts';
import { blockKey, partitionOf } from '../../topics/catalog.ts';
import { ChunkDecoder } from '../../topics/chunk.ts';
import type { Gap } from '../../topics/position.ts';
import { openCubes } from '../support/gold-lab.ts';
import { broker } from '../support/harness.ts';
import { temporaryFolder } from '../support/temporary-folder.ts';

const topic = 'imdb.title.basics';
const folder = temporaryFolder();
let store: CubeStore;

beforeAll(async () => {
  store = await openCubes(folder);
  const decoder = new ChunkDecoder('title.basics', 1, { writer: async () => undefined });
  store.titles.readFrom({ topic, decoder, checked: [] });
});
afterAll(() => store.close());

/** A shard whose cubes are at an offset, and lack some before it. */
const shardAt = (next: number, gaps: Gap[] = [], shard = 0, shards = 1): ShardState => ({
  ...{ shard, shards, next: 0, lastDelta: -1, counts: {}, heldUntil: {} },
  chain: { generation: 0, cubeSet: '', position: { [topic]: next }, gaps: { [topic]: gaps } },
});

test('names that came from messages which the cubes have lost since are read again, once', () => {
  const { titles } = store;
  const read = { ...titles.newState(shardAt(0)), next: 10 };
  expect(titles.isOutdated(read, shardAt(10))).toBe(false);
  expect(titles.isOutdated(read, shardAt(10, [[0, 4]]))).toBe(true);
  // Not while it is behind: a base that the cubes are past may still come.
  expect(titles.isOutdated(read, shardAt(11, [[0, 4]]))).toBe(false);
  // Both lack them.
  expect(titles.isOutdated({ ...read, gaps: [[0, 5]] }, shardAt(10, [[0, 4]]))).toBe(false);
  const again = { ...titles.newState(shardAt(10, [[0, 4]])), next: 10 };
  expect(titles.isOutdated(again, shardAt(10, [[0, 4]]))).toBe(false);
});

test('the manifest names what the names lack and the cubes do not', () => {
  const { titles } = store;
  titles.states.set(0, {
    ...titles.newState(shardAt(9, [[0, 2]])),
    gaps: [
      [0, 2],
      [5, 7],
    ],
  });
  expect(titles.lacking(new Map([[0, shardAt(9, [[0, 2]])]]))).toEqual({ 0: [[5, 7]] });
  titles.states.clear();
});

test('a partition is cleared without the titles of others', async () => {
  const ids = Array.from({ length: 40 }, (_, block) => block * 10_000 + 7);
  const rows = ids.map((id) => `(${id}, 'Reel', NULL)`);
  await store.connection.run(`INSERT INTO title_texts VALUES ${rows.join(', ')}`);
  await store.connection.run("INSERT INTO kept VALUES ('title_features', '{}')");
  const { revision } = store.titles;
  await store.transaction(() => store.titles.clear(shardAt(0, [], 1, 4)));
  const left = await store.connection.runAndReadAll('SELECT tconst FROM title_names ORDER BY tconst');
  const others = ids.filter((id) => partitionOf(blockKey('tt', Math.floor(id / 10_000)), 4) !== 1);
  expect(others.length).toBeLessThan(ids.length);
  expect(left.getRows().map(([id]) => Number(id))).toEqual(others);
  expect(store.titles.revision).not.toBe(revision);
  // The ids of the names that went were not recorded.
  expect((await store.connection.runAndReadAll('FROM kept')).getRows()).toEqual([]);
});

test('a partition that is read for the first time begins without the titles that another partition count has left', async () => {
  await store.connection.run("INSERT INTO title_texts VALUES (7, 'Reel', NULL)");
  const owner = partitionOf(blockKey('tt', 0), 4);
  store.shards.set(owner, shardAt(0, [], owner, 4));
  const { signal } = new AbortController();
  const options = { broker, store, topic, signal, crashPoint: 'after-titles-commit' };
  const intake = new LevelIntake({ ...options, dataset: store.titles });
  expect(intake.isLevel).toBe(false);
  await intake.advance();
  expect(intake.isLevel).toBe(true);
  const left = await store.connection.runAndReadAll('SELECT tconst FROM title_names WHERE tconst = 7');
  expect(left.getRows()).toEqual([]);
  await intake.close();
});
