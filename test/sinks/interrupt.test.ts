/** A sink that ends in the middle of a publication leaves nothing of it, and the next sink publishes. */
import { existsSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { storageFaultOf } from '../../database/storage-errors.ts';
import type { CubeStore } from '../../sinks/cube-store.ts';
import { currentSnapshot } from '../../sinks/gold/manifest.ts';
import { cubeNamed, rowOf } from '../support/cube-rows.ts';
import { onDatabase } from '../support/damage.ts';
import { openCubes, publishCubes } from '../support/gold-lab.ts';
import { until } from '../support/harness.ts';
import { temporaryFolder } from '../support/temporary-folder.ts';

let folder: string;
let gold: string;
let store: CubeStore;

const open = () => openCubes(join(folder, 'state'));

beforeEach(async () => {
  folder = temporaryFolder();
  gold = join(folder, 'gold');
  store = await open();
  const people = { partition: 0, next: 1, lastHash: '', applied: 1, duplicate: 0, rejected: 0, removed: 0 };
  await store.transaction(() => store.putPeople(people));
});
afterEach(() => store.close());

const publish = () => store.onAllThreads(() => publishCubes(store, gold));
const snapshots = () => (existsSync(join(gold, 'snapshots')) ? readdirSync(join(gold, 'snapshots')) : []);

// Method: the names are an endless view, so the publication never ends by itself.
test('an interrupted publication leaves nothing, and the next one is complete', async () => {
  await store.transaction(() => store.addCubeRows(0, rowOf(cubeNamed('contributor'), 1, 55, 1, 1, 10)));
  await store.connection.run('DROP TABLE names');
  await store.connection.run(
    `CREATE VIEW names AS SELECT range::INTEGER AS nconst, '' AS primaryName
    FROM range(1_000_000_000_000_000) WHERE range < 0`,
  );
  const end = new AbortController();
  store.interruptAfter(end.signal, 0);
  const outcome = publish().then(
    () => expect.unreachable('it has no end'),
    (thrown: unknown) => thrown,
  );
  await until('the publication is under way', async () => snapshots().length > 0);
  end.abort('SIGTERM');
  expect(storageFaultOf(await outcome)).toBe('interrupted');
  expect(snapshots()).toEqual([]);
  expect(currentSnapshot(gold)).toBeUndefined();

  store.close();
  await onDatabase(store.path, 'DROP VIEW names', 'CREATE TABLE names (nconst INTEGER, primaryName VARCHAR)');
  store = await open();
  const { id, tables } = await publish();
  expect(snapshots()).toEqual([id]);
  expect(currentSnapshot(gold)).toBe(id);
  expect(tables.contributor_analysis?.rows).toBe(1);
});
