/**
 * State and gold that are not ours, not whole, or not of this version. One pipeline is run once; every test spoils one
 * thing in a copy of its folders.
 */

import {
  appendFileSync,
  closeSync,
  cpSync,
  openSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { dirname, join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest';
import { logBounds } from '../../kafka/bounds.ts';
import { deleteBefore } from '../../kafka/topics.ts';
import type { FailureKind } from '../../runtime/errors.ts';
import { currentSnapshot, snapshotFolder } from '../../sinks/gold/manifest.ts';
import { endsOf, expectFailure, hashesBelow, onDatabase, shards, storesBelow } from '../support/damage.ts';
import { broker, type Finished, Place, smallDataset } from '../support/harness.ts';

vi.setConfig({ testTimeout: 240_000 });

let place: Place;
let data: string;
const failed = false;
let copies = 0;

beforeAll(async () => {
  place = new Place();
  data = await smallDataset(join(place.folder, 'data'), 300, 5);
  await place.pipeline(data, { replay: ['--shards', String(shards)] });
});
afterAll(() => place.close(failed));

/** Folders like those of the pipeline, to spoil. */
function copy(): { state: string; gold: string } {
  copies += 1;
  const state = join(place.folder, `state-${copies}`);
  const gold = join(place.folder, `gold-${copies}`);
  cpSync(place.state, state, { recursive: true });
  cpSync(place.gold, gold, { recursive: true });
  return { state, gold };
}

const inside = (stage: 'process' | 'sink', { state, gold }: { state: string; gold: string }) =>
  place.args(
    stage,
    stage === 'sink' ? '--once' : '--until-caught-up',
    '--state',
    state,
    '--gold',
    gold,
    '--json',
  );

/** Overwrites bytes in the middle of a file. */
function damage(path: string, from = 0.3, to = 0.7): void {
  const { size } = statSync(path);
  const file = openSync(path, 'r+');
  writeSync(file, Buffer.alloc(Math.floor(size * (to - from)), 0xa5), 0, undefined, Math.floor(size * from));
  closeSync(file);
}

async function expectRefusal(
  stage: 'process' | 'sink',
  folders: { state: string; gold: string },
  kind: FailureKind,
  ...texts: string[]
): Promise<Finished> {
  const before = [hashesBelow(folders.state), hashesBelow(folders.gold)];
  const finished = await place.run(inside(stage, folders));
  const text = expectFailure(finished, kind);
  for (const part of texts) expect(text).toContain(part);
  expect([hashesBelow(folders.state), hashesBelow(folders.gold)]).toEqual(before);
  return finished;
}

const sinkFileBelow = (state: string) =>
  join(state, Object.keys(hashesBelow(state)).find((name) => name.endsWith('sink.duckdb')) as string);

const manifestOf = (gold: string) => join(snapshotFolder(gold, currentSnapshot(gold) ?? ''), 'manifest.json');

function editManifest(gold: string, edit: (manifest: Record<string, never>) => unknown): void {
  const path = manifestOf(gold);
  const json = JSON.parse(readFileSync(path, 'utf8'));
  edit(json);
  writeFileSync(path, JSON.stringify(json));
}

describe('a shard store', () => {
  const cases: [string, FailureKind, (path: string) => unknown, string][] = [
    [
      'of another cluster',
      'foreignCluster',
      (path) => onDatabase(path, "UPDATE meta SET value = 'another' WHERE name = 'clusterId'"),
      'another --state',
    ],
    [
      'of another namespace',
      'foreignCluster',
      (path) => onDatabase(path, "UPDATE meta SET value = 'another' WHERE name = 'namespace'"),
      'another --state',
    ],
    [
      'of a newer version',
      'stateUnusable',
      (path) => onDatabase(path, "UPDATE meta SET value = '999' WHERE name = 'format'"),
      'format 999',
    ],
    ['whose head is overwritten', 'stateUnusable', (path) => damage(path, 0, 0.05), 'move it away'],
    ['whose middle is overwritten', 'stateUnusable', (path) => damage(path, 0.1, 0.95), 'move it away'],
  ];
  test.for(cases)('%s is refused and stays as it is', async ([, kind, spoil, text]) => {
    const folders = copy();
    const [path] = storesBelow(folders.state) as [string];
    await spoil(path);
    await expectRefusal('process', folders, kind, path, text);
  });

  // Method: the file is there as soon as it is attached, the tables only with the transaction behind it.
  test('whose creation was cut short by a crash is built again', async () => {
    const folders = copy();
    const [path] = storesBelow(folders.state) as [string];
    rmSync(path);
    await onDatabase(path, 'SELECT 1');
    const finished = await place.run(inside('process', folders));
    expect(finished, finished.stderr).toMatchObject({ code: 0 });
    expect(finished.stderr).toContain('it holds no tables');
    expect(finished.stderr).toContain('catching up silently');
  });

  test('that was damaged and moved away is built again, silently, and gold stays the same', async () => {
    const folders = copy();
    const [path] = storesBelow(folders.state) as [string];
    rmSync(path);
    const finished = await place.run(inside('process', folders));
    expect(finished, finished.stderr).toMatchObject({ code: 0 });
    expect(finished.stderr).toContain('catching up silently');
    const sink = await place.run(inside('sink', folders));
    expect(JSON.parse(sink.stdout)).toMatchObject({ snapshot: null, deltas: 0, refused: 0 });
  });
});

describe("the sink's state", () => {
  const cases: [string, FailureKind, (path: string) => unknown][] = [
    [
      'of another cluster',
      'foreignCluster',
      (path) => onDatabase(path, "UPDATE meta SET value = 'another' WHERE name = 'clusterId'"),
    ],
    [
      'of another version',
      'stateUnusable',
      (path) => onDatabase(path, "UPDATE meta SET value = '999' WHERE name = 'format'"),
    ],
    ['whose head is overwritten', 'stateUnusable', (path) => damage(path, 0, 0.05)],
    ['whose middle is overwritten', 'stateUnusable', (path) => damage(path, 0.1, 0.95)],
  ];
  const sinkFile = sinkFileBelow;

  test.for(cases)('%s is refused and stays as it is', async ([, kind, spoil]) => {
    const folders = copy();
    const path = sinkFile(folders.state);
    await spoil(path);
    await expectRefusal('sink', folders, kind, path);
  });

  // Method: of the deltas of the pipeline only the last one is left, so that nothing but CURRENT can tell.
  test('that is lost is restored from CURRENT; names are read again and counted once', async () => {
    const folders = copy();
    rmSync(sinkFile(folders.state));
    const deltas = place.names.deltas;
    const ends = await endsOf(deltas);
    await deleteBefore(
      broker,
      deltas,
      ends.map((end, partition) => ({ partition, offset: end - 1 })),
    );
    const before = JSON.parse(readFileSync(manifestOf(folders.gold), 'utf8'));
    const finished = await place.run(inside('sink', folders));
    expect(finished, finished.stderr).toMatchObject({ code: 0 });
    expect(finished.stderr).toContain('restoring from the newest snapshot');
    // The whole data once more changes no table: without CURRENT it is published all the same.
    await place.upsert(data);
    rmSync(join(folders.gold, 'CURRENT'));
    const process = await place.run(inside('process', folders));
    expect(process, process.stderr).toMatchObject({ code: 0 });
    const sink = await place.run(inside('sink', folders));
    expect(sink, sink.stderr).toMatchObject({ code: 0 });
    const after = JSON.parse(readFileSync(manifestOf(folders.gold), 'utf8'));
    expect(after.id).not.toBe(before.id);
    for (const [name, { contentHash }] of Object.entries<{ contentHash: string }>(before.tables)) {
      expect(after.tables[name].contentHash, name).toBe(contentHash);
    }
    for (const [topic, { applied, duplicate }] of Object.entries<Record<string, number>>(before.accounting)) {
      expect(after.accounting[topic], topic).toEqual({
        applied,
        duplicate: Number(applied) + 2 * Number(duplicate),
        rejected: 0,
        removed: 0,
      });
    }

    // The earlier state and the earlier CURRENT now miss deltas, whichever of them a sink continues from.
    const old = copy();
    await deleteBefore(
      broker,
      deltas,
      (await endsOf(deltas)).map((end, partition) => ({ partition, offset: end })),
    );
    await expectRefusal('sink', old, 'deltasTrimmed', deltas);
    rmSync(sinkFile(old.state));
    const gold = hashesBelow(old.gold);
    expectFailure(await place.run(inside('sink', old)), 'deltasTrimmed');
    expect(hashesBelow(old.gold)).toEqual(gold);
  });

  test.for<[string, (path: string) => void]>([
    ['lacks a cube', rmSync],
    ['has a cube that was altered', (path) => appendFileSync(path, 'x')],
  ])('that is lost is not restored from a snapshot that %s', async ([, spoil]) => {
    const folders = copy();
    rmSync(sinkFile(folders.state));
    spoil(join(dirname(manifestOf(folders.gold)), 'cubes', 'feature_basics.parquet'));
    const gold = hashesBelow(folders.gold);
    const finished = await place.run(inside('sink', folders));
    expectFailure(finished, 'goldUnusable');
    expect(finished.stderr).toContain('feature_basics.parquet');
    expect(hashesBelow(folders.gold)).toEqual(gold);
  });
});

// Method: the sink keeps one snapshot, so its second one trims the deltas; then the stores go, and all is replayed once more.
test('deltas that the sink has trimmed are not needed by a processor without a store', async () => {
  const own = new Place();
  try {
    await own.pipeline(data, { replay: ['--shards', String(shards)] });
    await own.upsert(data);
    await own.process();
    // Equal tables are published only where there is no CURRENT to equal.
    rmSync(join(own.gold, 'CURRENT'));
    await own.sink('--keep', '1');
    const bounds = (await logBounds(broker, [own.names.deltas])).get(own.names.deltas);
    for (const { start, end } of bounds?.values() ?? []) {
      expect(start).toBeGreaterThan(0);
      expect(start).toBeLessThan(end);
    }
    for (const path of storesBelow(own.state)) rmSync(path);
    await own.upsert(data);
    const finished = await own.run(own.args('process', '--until-caught-up', '--json'));
    expect(finished, finished.stderr).toMatchObject({ code: 0 });
    expect(finished.stderr.match(/catching up silently/g)).toHaveLength(shards);
    expect(await own.sink()).toMatchObject({ refused: 0 });
    expect(await own.differences(data)).toEqual([]);
  } finally {
    await own.close(false);
  }
});

describe('gold', () => {
  test('of another cluster or namespace is refused', async () => {
    for (const name of ['clusterId', 'namespace']) {
      const folders = copy();
      editManifest(folders.gold, (manifest) => Object.assign(manifest, { [name]: 'another' }));
      await expectRefusal('sink', folders, 'foreignCluster', 'another --gold');
    }
  });

  test('of a newer version, with a damaged manifest or a damaged CURRENT is refused', async () => {
    const newer = copy();
    editManifest(newer.gold, ({ versions }) =>
      Object.assign(versions as unknown as object, { manifest: 999 }),
    );
    await expectRefusal('sink', newer, 'goldUnusable', 'manifest version 999');
    const damaged = copy();
    appendFileSync(manifestOf(damaged.gold), '}');
    await expectRefusal('sink', damaged, 'goldUnusable', 'damaged');
    const lost = copy();
    writeFileSync(join(lost.gold, 'CURRENT'), '\0\0\0');
    await expectRefusal('sink', lost, 'goldUnusable', 'CURRENT');
  });
});
