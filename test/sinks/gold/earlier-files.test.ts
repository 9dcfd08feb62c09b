/** Snapshots that take over files of the one before, against snapshots of a store that publishes for the first time. */
import { appendFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test, vi } from 'vitest';
import { fileSha256 } from '../../../runtime/files.ts';
import type { CubeStore } from '../../../sinks/cube-store.ts';
import { currentSnapshot, filesOf, type Manifest, snapshotFolder } from '../../../sinks/gold/manifest.ts';
import { retain } from '../../../sinks/gold/retention.ts';
import { type Cube, rowsOf } from '../../../tables/cubes/cube.ts';
import { cubes } from '../../../tables/cubes/cube-set.ts';
import { goldTables } from '../../../tables/gold-tables.ts';
import { nullInt } from '../../../topics/row-plan.ts';
import { Chance } from '../../chaos/chance.ts';
import { cubeNamed, rowOf } from '../../support/cube-rows.ts';
import { openCubes, publishCubes } from '../../support/gold-lab.ts';
import { temporaryFolder } from '../../support/temporary-folder.ts';

let folder: string;
let gold: string;
let store: CubeStore;

const openStore = (name: string) => openCubes(join(folder, name));
const publish = (from = store, to = gold, tables = goldTables) => publishCubes(from, to, { tables });

beforeEach(async () => {
  folder = temporaryFolder();
  gold = join(folder, 'gold');
  store = await openStore('state');
  await store.transaction(async () => {
    for (const step of everyCube) await step(store);
  });
});
afterEach(() => store.close());

type Step = (store: CubeStore) => Promise<unknown>;

/** One title with everything. */
const everyCube: readonly Step[] = [
  (to) =>
    to.addCubeRows(0, rowOf(cubeNamed('title'), 1999, to.dictionary.numberOfText('Drama'), 55, 1, 10, 90, 1)),
  (to) => to.addCubeRows(0, rowOf(cubeNamed('contributor'), 7, 55, 1, 2, 10)),
  (to) => to.addCubeRows(0, rowOf(cubeNamed('region'), to.dictionary.numberOfText('hu'), 55, 1, 1, 10)),
  (to) => to.addCubeRows(0, rowOf(cubeNamed('feature_ratings'), 1, 55, 1, 10)),
];

const name =
  (id: number, text: string): Step =>
  (to) =>
    to.writePeople({
      length: 1,
      ids: Int32Array.of(id),
      texts: [
        { bytes: Buffer.from(text), starts: Int32Array.of(0), ends: Int32Array.of(Buffer.byteLength(text)) },
      ],
      mayExist: true,
      mayRepeat: false,
      deletes: [],
      removed: [],
    });

const pathsOf =
  ({ id }: Pick<Manifest, 'id'>) =>
  (path: string) =>
    join(snapshotFolder(gold, id), path);

/** Files of a snapshot that no earlier one has. */
const written = (manifest: Manifest) =>
  filesOf(manifest)
    .map(({ path }) => path)
    .filter((path) => statSync(pathsOf(manifest)(path)).nlink === 1);

async function expectWhole(manifest: Manifest): Promise<void> {
  for (const { path, sha256, bytes } of filesOf(manifest)) {
    expect(await fileSha256(pathsOf(manifest)(path)), path).toBe(sha256);
    expect(statSync(pathsOf(manifest)(path)).size, path).toBe(bytes);
  }
}

test('a snapshot writes only the tables and cubes that have changed, also after the sink was started again', async () => {
  const first = await publish();
  expect(written(first)).toHaveLength(filesOf(first).length);
  expect(written(await publish())).toEqual([]);

  await store.transaction(async () => {
    await store.addCubeRows(1, rowOf(cubeNamed('region'), store.dictionary.numberOfText('de'), 60, 1, 1, 5));
  });
  expect(written(await publish())).toEqual(['region_analysis.parquet', 'cubes/region.1.parquet']);

  await store.transaction(async () => {
    await name(7, 'Ada')(store);
  });
  store.close();
  store = await openStore('state');
  expect(written(await publish())).toEqual([
    'contributor_analysis.parquet',
    'directors.parquet',
    'writers.parquet',
  ]);

  await store.transaction(async () => {
    await store.addCubeRows(0, rowOf(cubeNamed('feature_akas'), 1, 3, 2));
  });
  store.close();
  store = await openStore('state');
  const last = await publish();
  expect(written(last)).toEqual(['title_features.parquet', 'cubes/feature_akas.1.parquet']);
  // Of what was linked, the snapshots before are not needed.
  retain(gold, { newest: 1 });
  await expectWhole(last);
});

test('a store whose last snapshot is not CURRENT, or of another version, takes over no file', async () => {
  const first = await publish();
  const second = await publish();
  writeFileSync(join(gold, 'CURRENT'), `${first.id}\n`);
  const third = await publish();
  expect(written(third)).toHaveLength(filesOf(third).length);
  expect(currentSnapshot(gold)).not.toBe(second.id);
  const newer = await publishCubes(store, gold, { reelflowVersion: '1' });
  expect(written(newer)).toHaveLength(filesOf(newer).length);
});

test('a file of the snapshot before that was altered or lost is written again', async () => {
  const first = await publish();
  appendFileSync(pathsOf(first)('region_analysis.parquet'), 'x');
  rmSync(pathsOf(first)('cubes/title.parquet'));
  const second = await publish();
  expect(written(second)).toEqual(['region_analysis.parquet', 'cubes/title.parquet']);
  await expectWhole(second);
});

/** Titles by shard in the contributor cube that a snapshot restores. */
async function restoredTitles(manifest: Manifest): Promise<unknown> {
  const restored = await openStore(`restored-${manifest.id}`);
  await restored.restore(pathsOf(manifest)('cubes'), []);
  await restored.sumCubes(new Set(['contributor']));
  const rows = await restored.connection.runAndReadAll(
    'SELECT shard, sum(titles)::INTEGER FROM contributor GROUP BY shard ORDER BY shard',
  );
  restored.close();
  return rows.getRowsJson();
}

const cubeFiles = ({ cubes = {} }: Manifest, cube: string) =>
  Object.keys(cubes).filter((name) => name.split('.')[0] === cube);

test('the files of a cube are its sums and the rows that came later, until these are half as many', async () => {
  await addPeople(5_000);
  await publish();
  const one = () => store.addCubeRows(1, rowOf(cubeNamed('contributor'), 3, 60, 1, 1, 5));
  const counts: number[] = [];
  for (let titles = 1; titles <= 10; titles++) {
    await store.transaction(one);
    if (titles === 5) {
      store.close();
      store = await openStore('state');
    }
    const manifest = await publish();
    counts.push(cubeFiles(manifest, 'contributor').length);
    expect(await restoredTitles(manifest)).toEqual([
      [0, 5_001],
      [1, titles],
    ]);
  }
  expect(Math.max(...counts)).toBeGreaterThan(4);
  expect(counts.slice(1)).toContain(1);
});

test('a cube of which a shard was cleared is written as a whole', async () => {
  await addPeople(5_000);
  await publish();
  const one = (shard: number) => store.addCubeRows(shard, rowOf(cubeNamed('contributor'), 3, 60, 1, 1, 5));
  await store.transaction(() => one(1));
  await publish();
  await store.transaction(async () => {
    await store.clearShard(1);
    await one(2);
  });
  const cleared = await publish();
  expect(cubeFiles(cleared, 'contributor')).toEqual(['contributor']);
  expect(await restoredTitles(cleared)).toEqual([
    [0, 5_001],
    [2, 1],
  ]);
});

test('rows that are summed in place before they are published are in no file twice', async () => {
  const groups = 60_000;
  const ids = Int32Array.from({ length: groups }, (_, row) => row + 1_000);
  const ones = [1, 1, 1].map(() => new Float64Array(groups).fill(1));
  const columns = [ids, new Int32Array(groups).fill(55), ...ones] as Int32Array[];
  const many = () => store.addCubeRows(0, rowsOf(cubeNamed('contributor'), columns, groups));
  await store.transaction(many);
  await publish();
  for (let time = 0; time < 2; time++) await store.transaction(many);
  await store.sumCubes(new Set(['contributor']));
  const { before, after } = await store.compact();
  expect(after).toBeLessThan(before);
  expect(await restoredTitles(await publish())).toEqual([[0, 1 + 3 * groups]]);
});

test('a cube of which a later file was lost is written as a whole, without the other files', async () => {
  await addPeople(5_000);
  await publish();
  const one = () => store.addCubeRows(1, rowOf(cubeNamed('contributor'), 3, 60, 1, 1, 5));
  await store.transaction(one);
  await publish();
  await store.transaction(one);
  const third = await publish();
  expect(cubeFiles(third, 'contributor')).toHaveLength(3);
  rmSync(pathsOf(third)('cubes/contributor.2.parquet'));
  const last = await publish();
  expect(cubeFiles(last, 'contributor')).toEqual(['contributor']);
  expect(await restoredTitles(last)).toEqual([
    [0, 5_001],
    [1, 2],
  ]);
});

test('a change of few people sums no whole cube of people', async () => {
  await addPeople();
  await publish();
  store.close();
  store = await openStore('state');
  await store.transaction(() => store.addCubeRows(1, rowOf(cubeNamed('contributor'), 3, 60, 1, 1, 5)));
  const run = vi.spyOn(store.connection, 'run');
  await publish();
  const statements = run.mock.calls.map(([text]) => text);
  run.mockRestore();
  expect(statements.filter((text) => text.includes('TEMP TABLE contributor_sums'))).toEqual([]);
  expect(await person(3)).toEqual([null, 2]);
});

// Method: random steps; after each one the store brings its sums up to date, and a new store that takes all steps sums once.
// Some of the states are published, restored and published again.
test('sums and snapshots after each of many changes are those of all changes at once', async () => {
  const chance = new Chance(20261127);
  const steps: Step[] = [...everyCube];
  const chosen = ['title', 'contributor', 'feature_basics'].map(cubeNamed);
  /** What was added, so that it can be taken back. */
  const added: ((sign: 1 | -1) => Step)[] = [];
  const change = (): Step => {
    const shard = chance.int(0, 1);
    const kind = chance.int(0, 19);
    if (kind === 0) {
      added.length = 0;
      return async (to) => {
        for (const each of [0, 1]) await to.clearShard(each);
      };
    }
    if (kind === 1) return name(chance.int(0, 8), `name ${chance.int(0, 4)}`);
    if (kind < 8 && added.length > 0)
      return (added.splice(chance.int(0, added.length - 1), 1)[0] as (typeof added)[0])(-1);
    return more(chance.pick(chosen), shard, chance.pick([1, 3, 60]));
  };
  const more = (cube: Cube, shard: number, length: number): Step => {
    const keys = cube.key.map((column) =>
      Int32Array.from({ length }, (_, row) => {
        if (column === 'tconst' || column === 'nconst') return row * 2 + shard;
        if (column === 'rating') return chance.int(10, 12);
        return chance.int(0, 4) === 0 ? nullInt : chance.int(0, 3);
      }),
    );
    const add =
      (sign: 1 | -1): Step =>
      (to) => {
        for (const text of ['a', 'b', 'c', 'd']) to.dictionary.numberOfText(text);
        const measures = cube.measures.map((_, m) => new Float64Array(length).fill(sign * (m + 1)));
        return to.addCubeRows(shard, rowsOf(cube, [...keys, ...measures], length));
      };
    added.push(add);
    return add(1);
  };
  steps.push(...chosen.map((cube) => more(cube, 0, 300)));
  for (const step of steps.slice(everyCube.length))
    await store.transaction(async () => void (await step(store)));
  // These cubes hold several rows of one title, which no store makes: they tie in the order of tables of titles.
  const hasTies = (table: string) => table === 'titles' || table === 'top_titles';
  const hashes = ({ tables }: Manifest) =>
    Object.fromEntries(
      Object.entries(tables).map(([table, { contentHash, rows }]) => [
        table,
        [hasTies(table) ? '' : contentHash, rows],
      ]),
    );
  const all = new Set(cubes.map((cube) => cube.name));
  const sumsOf = async ({ connection }: CubeStore) => {
    const sums: Record<string, unknown> = {};
    for (const cube of all) {
      sums[cube] = (await connection.runAndReadAll(`FROM ${cube} ORDER BY ALL`)).getRowsJson();
    }
    return sums;
  };
  const summed = { whole: 0, recent: 0 };
  for (let round = 1; round <= 16; round++) {
    const next = Array.from({ length: chance.int(1, 3) }, change);
    for (const step of next) await store.transaction(async () => void (await step(store)));
    steps.push(...next);
    const { whole, recent } = await store.sumCubes(all);
    summed.whole += whole;
    summed.recent += recent;
    const other = await openStore(`other-${round}`);
    await other.transaction(async () => {
      for (const step of steps) await step(other);
    });
    await other.sumCubes(all);
    expect(await sumsOf(store), `round ${round}`).toEqual(await sumsOf(other));
    if (round % 4 === 0) {
      const manifest = await publish();
      const afresh = await publish(other, join(folder, `gold-${round}`));
      expect(hashes(manifest)).toEqual(hashes(afresh));
      for (const table of Object.keys(manifest.tables).filter((name) => !hasTies(name))) {
        const rows = async (from: string) =>
          (await store.connection.runAndReadAll(`FROM '${from}/${table}.parquet'`)).getRowsJson();
        const expected = await rows(join(folder, `gold-${round}`, 'snapshots', afresh.id));
        expect(await rows(snapshotFolder(gold, manifest.id)), table).toEqual(expected);
      }
      const restored = await openStore(`restored-${round}`);
      await restored.restore(pathsOf(manifest)('cubes'), []);
      await restored.sumCubes(all);
      expect(await sumsOf(restored)).toEqual(await sumsOf(store));
      restored.close();
      await expectWhole(manifest);
    }
    other.close();
    if (chance.int(0, 5) === 0) {
      store.close();
      store = await openStore('state');
      await store.sumCubes(all);
    }
  }
  expect(summed.whole).toBeGreaterThan(5);
  expect(summed.recent).toBeGreaterThan(5);
}, 120_000);

/** As many people as make a change of one of them small. */
async function addPeople(people = 200): Promise<void> {
  const [titles, credits, votes] = [1, 1, 10].map((value) => new Float64Array(people).fill(value));
  const ids = Int32Array.from({ length: people }, (_, row) => row);
  const columns = [ids, new Int32Array(people).fill(55), titles, credits, votes] as Int32Array[];
  await store.transaction(() => store.addCubeRows(0, rowsOf(cubeNamed('contributor'), columns, people)));
}

/** Name and titles of a person in CURRENT. */
async function person(id: number) {
  const file = pathsOf({ id: currentSnapshot(gold) as string })('contributor_analysis.parquet');
  const rows = await store.connection.runAndReadAll(
    `SELECT primaryName, total_titles::INTEGER FROM '${file}' WHERE nconst = 'nm${String(id).padStart(7, '0')}'`,
  );
  return rows.getRows()[0];
}

test('a snapshot computes the rows of changed ids alone, also after the sink was started again', async () => {
  await addPeople();
  await publish();
  /** Publishes. @returns how often contributor_analysis was computed as a whole, and how often for changed ids */
  const computed = async () => {
    const run = vi.spyOn(store.connection, 'run');
    await publish();
    const statements = run.mock.calls.map(([text]) => text);
    run.mockRestore();
    const whole = statements.filter((text) =>
      text.startsWith('CREATE OR REPLACE TABLE sink.kept_contributor'),
    );
    const changed = statements.filter((text) => text.startsWith('INSERT INTO sink.kept_contributor'));
    return { whole: whole.length, changed: changed.length };
  };
  await store.transaction(() => store.addCubeRows(1, rowOf(cubeNamed('contributor'), 3, 60, 1, 1, 5)));
  expect(await computed()).toEqual({ whole: 0, changed: 1 });
  expect(await person(3)).toEqual([null, 2]);
  await store.transaction(async () => void (await name(7, 'Ada')(store)));
  await store.transaction(async () => void (await name(8, 'Bob')(store)));
  store.close();
  store = await openStore('state');
  expect(await computed()).toEqual({ whole: 0, changed: 1 });
  expect(await person(8)).toEqual(['Bob', 1]);
  // Without a trace of the rows that were cleared, all are computed.
  await store.transaction(() => store.clearShard(1));
  expect(await computed()).toEqual({ whole: 1, changed: 0 });
  expect(await person(3)).toEqual([null, 1]);
  await store.transaction(() => store.clearPeople());
  expect(await computed()).toEqual({ whole: 1, changed: 0 });
  expect(await person(8)).toEqual([null, 1]);
});

test('rows are not kept beyond a publication of other tables, which uses up the recorded names', async () => {
  await addPeople();
  await publish();
  await store.transaction(async () => void (await name(8, 'Bob')(store)));
  await publish(
    store,
    gold,
    goldTables.filter((table) => table.name === 'directors'),
  );
  await publish();
  expect(await person(8)).toEqual(['Bob', 1]);
});

test('a changed history writes its tables and no others, also after the sink was started again', async () => {
  await publish();
  const state = {
    ...{ shard: 0, generation: 0, next: 1, lastHash: '', newestDay: 20_000, historyDays: 400 },
    gaps: [],
  };
  const one = (value: number) => Int32Array.of(value);
  const rated = {
    length: 1,
    isFresh: true,
    tconst: one(1),
    day: one(20_000),
    tenths: one(55),
    votes: one(10),
  };
  await store.transaction(async () => {
    await store.ratings.write(0, rated);
    await store.ratings.put(state);
  });
  store.close();
  store = await openStore('state');
  expect(written(await publish())).toEqual(
    ['rating_history', 'trends', 'movers'].map((of) => `${of}.parquet`),
  );
  expect(written(await publish())).toEqual([]);
});
