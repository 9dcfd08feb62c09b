/** Publications of a store without a broker: ids, folders with unusual names, failures, and snapshots that cannot be removed. */
import { execFileSync } from 'node:child_process';
import {
  chmodSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import type { DuckDBConnection } from '@duckdb/node-api';
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest';
import { withDatabase } from '../../../database/duckdb.ts';
import { parquetFile } from '../../../database/sql.ts';
import type { Logger } from '../../../runtime/logger.ts';
import { cubeTable } from '../../../sinks/cube-sql.ts';
import type { CubeStore } from '../../../sinks/cube-store.ts';
import { catalogueFile } from '../../../sinks/gold/catalogue.ts';
import { GoldReader } from '../../../sinks/gold/gold-reader.ts';
import {
  currentSnapshot,
  listSnapshots,
  type Manifest,
  readManifest,
  snapshotFolder,
} from '../../../sinks/gold/manifest.ts';
import { retain } from '../../../sinks/gold/retention.ts';
import { restoreFrom } from '../../../sinks/restore.ts';
import { columnsOf } from '../../../tables/cubes/cube.ts';
import { cubeNamed, rowOf } from '../../support/cube-rows.ts';
import { openCubes, publishCubes } from '../../support/gold-lab.ts';
import { temporaryFolder } from '../../support/temporary-folder.ts';

let folder: string;
let store: CubeStore;

beforeEach(async () => {
  folder = temporaryFolder();
  store = await openStore(join(folder, 'state'));
});
afterEach(() => {
  vi.useRealTimers();
  store.close();
});

/** A store with one title of the region `hu` in shard 0. */
async function openStore(state: string): Promise<CubeStore> {
  const opened = await openCubes(state);
  if (!opened.isEmpty) return opened;
  await opened.transaction(async () => {
    const region = opened.dictionary.numberOfText('hu');
    await opened.addCubeRows(0, rowOf(cubeNamed('region'), region, 55, 1, 1, 10));
    const people = { partition: 0, next: 1, lastHash: '', applied: 1, duplicate: 0, rejected: 0, removed: 0 };
    await opened.putPeople(people);
    opened.peopleStates.set(0, people);
  });
  return opened;
}

const publish = (gold: string, from = store) => from.onAllThreads(() => publishCubes(from, gold));

const regionsOf = async (gold: string, id: string) =>
  (await GoldReader.open(gold, (reader) => reader.rows(id, 'region_analysis', 5))).rows.map(
    ([region]) => region,
  );

describe.each(['region=eu', 'env=prod', 'total_titles=7', 'a*b', 'a?b', 'a[X]b', "it's"])(
  'gold under %s',
  (name) => {
    // Method: a sibling folder lies where the name as a pattern would match it, with another snapshot in it.
    test('holds the rows of the store, also after a restore, and its catalogue reads them', async () => {
      const gold = join(folder, name, 'gold');
      mkdirSync(join(folder, 'aXb'), { recursive: true });
      const { id, tables } = await publish(gold);
      expect(tables.region_analysis?.rows).toBe(1);
      expect(await regionsOf(gold, id)).toEqual(['hu']);

      const restored = await openCubes(join(folder, name.replace('?', '!'), 'state'));
      await restored.restore(join(snapshotFolder(gold, id), 'cubes'), []);
      const again = await publish(gold, restored);
      restored.close();
      expect(again.tables.region_analysis?.contentHash).toBe(tables.region_analysis?.contentHash);
      expect(await regionsOf(gold, again.id)).toEqual(['hu']);

      const query = 'SELECT region, total_titles FROM region_analysis';
      const read = (connection: DuckDBConnection) => connection.runAndReadAll(query);
      const rows = await withDatabase(read, catalogueFile(gold), { access_mode: 'READ_ONLY' });
      expect(rows.getRows()).toEqual([['hu', 1n]]);
      expect(rows.columnNames()).toEqual(['region', 'total_titles']);
    });
  },
);

test('a snapshot of a folder with k=v in its path has the columns of the contract', async () => {
  const gold = join(folder, 'env=prod');
  const { id } = await publish(gold);
  const rows = await store.connection.runAndReadAll(
    `DESCRIBE FROM ${parquetFile(join(snapshotFolder(gold, id), 'region_analysis.parquet'))}`,
  );
  expect(rows.getRows().map(([column]) => column)).not.toContain('env');
});

describe('the id of a snapshot', () => {
  const at = (time: string) => vi.useFakeTimers({ now: new Date(time), toFake: ['Date'] });

  // Method: CURRENT is put back to the snapshot before, as a crash between the rename and the swap leaves it.
  test('is above every folder after a crash before the swap of CURRENT, within the same second', async () => {
    at('2026-11-26T10:00:00Z');
    const gold = join(folder, 'gold');
    const first = await publish(gold);
    const second = await publish(gold);
    writeFileSync(join(gold, 'CURRENT'), `${first.id}\n`);
    const third = await publish(gold);
    expect(third.id > second.id).toBe(true);
    expect(currentSnapshot(gold)).toBe(third.id);
    expect(listSnapshots(gold)).toEqual([first.id, second.id, third.id]);
  });

  test('is above a folder that is being built or removed', async () => {
    at('2026-11-26T10:00:00Z');
    const gold = join(folder, 'gold');
    const first = await publish(gold);
    const second = await publish(gold);
    renameSync(snapshotFolder(gold, second.id), join(gold, 'snapshots', `.${second.id}`));
    writeFileSync(join(gold, 'CURRENT'), `${first.id}\n`);
    expect((await publish(gold)).id > second.id).toBe(true);
  });

  test('grows when the clock steps back', async () => {
    at('2026-11-26T10:00:00Z');
    const gold = join(folder, 'gold');
    const first = await publish(gold);
    at('2026-11-26T09:00:00Z');
    const second = await publish(gold);
    at('2026-11-26T11:00:00Z');
    const third = await publish(gold);
    expect([first.id, second.id, third.id]).toEqual([first.id, second.id, third.id].toSorted());
    expect(new Set([first.id, second.id, third.id]).size).toBe(3);
  });
});

test('a publication that fails after its folder has its name leaves nothing and CURRENT as it was', async () => {
  const gold = join(folder, 'gold');
  const { id } = await publish(gold);
  // A folder in place of the catalogue: it cannot be replaced.
  rmSync(catalogueFile(gold));
  mkdirSync(join(catalogueFile(gold), 'inside'), { recursive: true });
  await expect(publish(gold)).rejects.toMatchObject({ kind: 'goldUnusable' });
  expect(readdirSync(join(gold, 'snapshots'))).toEqual([id]);
  expect(currentSnapshot(gold)).toBe(id);
  rmSync(catalogueFile(gold), { recursive: true });
  expect((await publish(gold)).id).toBe(currentSnapshot(gold));
});

// Method: a mount inside the snapshot, or for other users than root a folder without rights, stands for NFS and locked files.
test('a snapshot that cannot be removed does not keep the others, and is removed once that is possible', async ({
  skip,
}) => {
  const gold = join(folder, 'gold');
  const ids: string[] = [];
  for (let n = 0; n < 4; n++) ids.push((await publish(gold)).id);
  const [first = '', second = ''] = ids;
  const undo = makeUnremovable(snapshotFolder(gold, first));
  if (undo === undefined) skip('this user may neither mount nor lack a right');
  try {
    const { removed, failed } = retain(gold, { newest: 2 });
    expect(removed).toEqual([second]);
    expect(failed).toMatchObject([{ id: first }]);
    expect(readManifest(gold, currentSnapshot(gold) ?? '').id).toBe(ids.at(-1));
    expect((await publish(gold)).id).toBe(currentSnapshot(gold));
  } finally {
    for (const path of [snapshotFolder(gold, first), join(gold, 'snapshots', `.${first}`)]) undo?.(path);
  }
  retain(gold, { newest: 2 });
  expect(readdirSync(join(gold, 'snapshots'))).toEqual(listSnapshots(gold));
  expect(listSnapshots(gold)).toHaveLength(2);
});

/** @returns what makes it removable again, wherever it lies by then */
function makeUnremovable(snapshot: string): ((path: string) => void) | undefined {
  const isRoot = process.getuid?.() === 0;
  const cubes = (path: string) => join(path, 'cubes');
  try {
    if (isRoot) execFileSync('mount', ['-t', 'tmpfs', 'tmpfs', cubes(snapshot)], { stdio: 'pipe' });
    else chmodSync(cubes(snapshot), 0o500);
  } catch {
    return undefined;
  }
  return (path) => {
    if (!existsSync(cubes(path))) return;
    if (isRoot) execFileSync('umount', ['--lazy', cubes(path)], { stdio: 'pipe' });
    else chmodSync(cubes(path), 0o700);
  };
}

test('a sink without a state begins empty if the newest snapshot holds no cubes', async () => {
  const gold = join(folder, 'gold');
  const { id } = await publish(gold);
  const path = join(snapshotFolder(gold, id), 'manifest.json');
  const { cubes, ...manifest } = JSON.parse(readFileSync(path, 'utf8')) as Manifest;
  const warnings: unknown[] = [];
  const logger = { warn: (fields: unknown) => warnings.push(fields) } as unknown as Logger;
  for (const [number, named] of [cubes, undefined].entries()) {
    writeFileSync(path, JSON.stringify({ ...manifest, cubes: named }));
    const restored = await openCubes(join(folder, `restored-${number}`));
    await restoreFrom(restored, gold, readManifest(gold, id), logger);
    const rows = await restored.connection.runAndReadAll(
      `FROM ${cubeTable({ name: 'region', columns: columnsOf(cubeNamed('region')) })}`,
    );
    restored.close();
    expect(rows.getRows()).toHaveLength(number === 0 ? 1 : 0);
  }
  expect(warnings).toMatchObject([{ snapshot: id }, { snapshot: id }]);
});
