/**
 * A DuckLake catalogue of gold, read back by DuckDB of Python with its own ducklake extension. Snapshots are published from a
 * sink's store that the test fills, without a broker. What needs the extension is skipped without Python with
 * `test/support/lake-requirements.txt`, and says so.
 */
import { cpSync, existsSync, mkdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { parquetFile, sqlText } from '../../../database/sql.ts';
import type { Broker } from '../../../kafka/client.ts';
import { OutageMonitor } from '../../../kafka/outage.ts';
import { exitCodes, type FailureKind } from '../../../runtime/errors.ts';
import { createLogger } from '../../../runtime/logger.ts';
import { lakePlaceOf } from '../../../sinks/gold/lake.ts';
import {
  listSnapshots,
  type Manifest,
  nextSnapshotId,
  readManifest,
  snapshotFolder,
  tableFile,
} from '../../../sinks/gold/manifest.ts';
import { pinSnapshot, retain } from '../../../sinks/gold/retention.ts';
import { DumpDirectories } from '../../../sinks/held-dumps.ts';
import { Publication } from '../../../sinks/publication.ts';
import type { SinkMetrics } from '../../../sinks/sink-metrics.ts';
import { builtIn } from '../../../tables/built-in.ts';
import { topicNamesIn } from '../../../topics/catalog.ts';
import { expectFailure, onDatabase } from '../../support/damage.ts';
import { GoldLab, labIdentity as identity } from '../../support/gold-lab.ts';
import { Place, smallDataset } from '../../support/harness.ts';
import { hasPackages } from '../../support/python.ts';
import { pythonDuckdb } from '../../support/python-duckdb.ts';

const hasExtension = await hasPackages('duckdb_extension_ducklake, pytz');
let lab: GoldLab;
let path: string;

beforeEach(async () => {
  lab = await GoldLab.open();
  path = join(lab.folder, 'lake.ducklake');
});
afterEach(() => {
  vi.restoreAllMocks();
  return lab.close();
});

const publish = () => lab.publish();
const show = (keep = 10) => lab.show({ kind: 'file', path }, keep);

/** Statements of one session that has the lake attached as `lake`. */
const inLake = async (...statements: string[]) =>
  (
    await pythonDuckdb(
      ['ducklake'],
      [`ATTACH ${sqlText(`ducklake:${path}`)} AS lake (READ_ONLY)`, ...statements],
    )
  ).slice(1);

/** What is in the one relation and not in the other, in both directions, and the rows of the first. */
const compare = (left: string, right: string) => `SELECT (SELECT count(*) FROM ${left}),
  (SELECT count(*) FROM (FROM ${left} EXCEPT FROM ${right})), (SELECT count(*) FROM (FROM ${right} EXCEPT FROM ${left}))`;

const versionOf = ({ id }: Manifest) => Number(id.split('_')[2]);

/** By version of the catalogue: the snapshots that its files lie in. Reads the tables as the specification says. */
async function snapshotsByVersion(file = path): Promise<Record<string, string[]>> {
  const copy = lab.copyOf(file);
  const rows = await onDatabase(
    copy,
    `SELECT snapshot_id, split_part(path, '/', 2), count(*) FROM ducklake_snapshot LEFT JOIN ducklake_data_file
     ON snapshot_id >= begin_snapshot AND (end_snapshot IS NULL OR snapshot_id < end_snapshot)
     GROUP BY ALL ORDER BY ALL`,
  );
  const found: Record<string, string[]> = {};
  for (const [version, snapshot, files] of rows) {
    const tables = Object.keys(readManifest(lab.gold, String(snapshot)).tables).length;
    found[String(version)] = [...(found[String(version)] ?? []), `${snapshot}: ${Number(files) === tables}`];
  }
  return found;
}

const rowsIn = async (table: string) =>
  Number((await onDatabase(lab.copyOf(path), `SELECT count(*) FROM ${table}`))[0]?.[0]);

const expected = (...manifests: Manifest[]) =>
  Object.fromEntries(manifests.map((manifest) => [versionOf(manifest), [`${manifest.id}: true`]]));

describe.skipIf(!hasExtension)('the ducklake extension (Python: test/support/lake-requirements.txt)', () => {
  it('reads the rows of each snapshot in its version, and which input it holds', async () => {
    const snapshots = [await publish(), await publish(), await publish()] as const;
    expect(await show()).toMatchObject({ added: snapshots.map(({ id }) => id), expired: [] });
    const tables = Object.keys(snapshots[2].tables);
    const pairs = snapshots.flatMap((manifest) =>
      tables.map((table) => ({ manifest, table, rows: manifest.tables[table]?.rows })),
    );
    const [commits, total, names, comments, ...found] = await inLake(
      "SELECT snapshot_id, author, commit_extra_info FROM ducklake_snapshots('lake') ORDER BY ALL",
      'SELECT count(*), min(decade), max(total_titles), any_value(avg_rating) FROM lake.decade_trends',
      "SELECT table_name FROM duckdb_tables() WHERE database_name = 'lake' ORDER BY ALL",
      "SELECT comment FROM duckdb_columns() WHERE database_name = 'lake' AND table_name = 'decade_trends' AND column_name = 'decade'",
      ...pairs.map(({ manifest, table }) =>
        compare(
          `lake.${table} AT (VERSION => ${versionOf(manifest)})`,
          parquetFile(tableFile(lab.gold, manifest.id, table)),
        ),
      ),
      ...tables.map((table) =>
        compare(`lake.${table}`, parquetFile(tableFile(lab.gold, snapshots[2].id, table))),
      ),
    );
    expect(found).toEqual([
      ...pairs.map(({ rows }) => [[rows, 0, 0]]),
      ...tables.map((table) => [[snapshots[2].tables[table]?.rows, 0, 0]]),
    ]);
    expect(total).toEqual([[lab.titles, 1810, 1, 7]]);
    expect(names?.flat().sort()).toEqual([...tables].sort());
    expect(String(comments)).toContain('ecade');
    const written = commits?.map(([version, author, info]) => [version, author, JSON.parse(String(info))]);
    expect(written).toEqual(
      snapshots.map((manifest) => {
        const { id: snapshot, input, tables: of } = manifest;
        const contentHash = Object.fromEntries(
          Object.entries(of).map(([name, one]) => [name, one.contentHash]),
        );
        return [versionOf(manifest), 'reelflow', { snapshot, ...identity, input, contentHash }];
      }),
    );
  });

  it('reads earlier versions after a table has other columns, is new, or is gone', async () => {
    const first = await publish();
    await show();
    // The next snapshot as a later version of reelflow might write it.
    const second = await publish();
    const manifest = join(snapshotFolder(lab.gold, second.id), 'manifest.json');
    const { genre_analysis: gone, region_analysis, ...rest } = second.tables;
    const file = tableFile(lab.gold, second.id, 'decade_trends');
    const other = tableFile(lab.gold, second.id, 'extra');
    await onDatabase(
      ':memory:',
      `COPY (SELECT *, [1, 2]::INTEGER[] AS added, DATE '2026-01-02' AS day FROM ${parquetFile(file)}) TO '${other}' (FORMAT parquet)`,
    );
    cpSync(other, file);
    const tables = {
      ...rest,
      region_analysis,
      extra: { ...rest.decade_trends, bytes: readFileSync(other).length },
    };
    writeFileSync(manifest, JSON.stringify({ ...second, tables }));
    await show();
    const third = await publish();
    await show();
    const found = await inLake(
      `SELECT count(*) FROM lake.decade_trends AT (VERSION => ${versionOf(first)})`,
      `SELECT count(added), max(added[2]) FROM lake.decade_trends AT (VERSION => ${versionOf(second)})`,
      `SELECT count(added), max(day) FROM lake.extra AT (VERSION => ${versionOf(second)})`,
      ...[first, second, third].map(
        ({ id }) =>
          `SELECT list(t ORDER BY t) FROM (SELECT DISTINCT unnest(flatten(map_values(changes))) AS t
           FROM ducklake_snapshots('lake') WHERE commit_message = 'Snapshot ${id}') WHERE t LIKE 'main.%'`,
      ),
      `SELECT count(*) FROM (DESCRIBE lake.decade_trends) WHERE column_name = 'added'`,
    );
    expect(gone).toBeDefined();
    expect(found.slice(0, 3)).toEqual([
      [[lab.titles - 2]],
      [[lab.titles - 1, 2]],
      [[lab.titles - 1, '2026-01-02']],
    ]);
    const created = (found[5] as string[][][])[0]?.[0];
    expect(created).toEqual(['main.decade_trends', 'main.genre_analysis']);
    expect(found[6]).toEqual([[0]]);
    await show(1);
    for (const name of ['table', 'tag', 'column_mapping', 'table_stats', 'schema_versions']) {
      expect(await rowsIn(`ducklake_${name}`), name).toBe(Object.keys(third.tables).length);
    }
    expect(await rowsIn('ducklake_name_mapping')).toBe(await rowsIn('ducklake_column'));
  });

  it('finds no version whose files retention has removed, and all rows of the others', async () => {
    const all = [await publish(), await publish(), await publish(), await publish()] as const;
    await show();
    pinSnapshot(lab.gold, all[0].id);
    const { expired } = await show(2);
    expect(expired).toEqual([all[1].id]);
    expect(retain(lab.gold, { newest: 2 }).removed).toEqual([all[1].id]);
    const staying = [all[0], all[2], all[3]];
    const found = await inLake(
      "SELECT snapshot_id FROM ducklake_snapshots('lake') ORDER BY ALL",
      ...staying.map(
        (manifest) => `SELECT count(*) FROM lake.decade_trends AT (VERSION => ${versionOf(manifest)})`,
      ),
      ...staying.map(
        (manifest) =>
          `SELECT sum(total_titles) FROM lake.decade_trends AT (TIMESTAMP => '${manifest.created}')`,
      ),
    );
    const rows = staying.map(({ tables }) => [[tables.decade_trends?.rows]]);
    expect(found).toEqual([staying.map((manifest) => [versionOf(manifest)]), ...rows, ...rows]);
  });

  it.each(['region=eu', "it's a*[X]b"])('reads gold and a catalogue under %s', async (name) => {
    lab.gold = join(lab.folder, name, 'gold');
    path = join(lab.folder, name, 'lake.ducklake');
    const { tables } = await publish();
    await show();
    const [columns, rows] = await inLake(
      "SELECT count(*) FROM duckdb_columns() WHERE database_name = 'lake' AND column_name IN ('region', 'total_titles') AND table_name = 'region_analysis'",
      'SELECT count(*) FROM lake.decade_trends',
    );
    expect([columns, rows]).toEqual([[[2]], [[tables.decade_trends?.rows]]]);
  });
});

describe('a catalogue', () => {
  it('has the files of one snapshot in each version', async () => {
    const all = [await publish(), await publish()] as const;
    await show();
    const third = await publish();
    // What a program leaves that had the old file open for writing, and was killed.
    writeFileSync(`${path}.wal`, 'a log');
    await show();
    expect(existsSync(`${path}.wal`)).toBe(false);
    expect(await snapshotsByVersion()).toEqual(expected(...all, third));
    await show(2);
    expect(await snapshotsByVersion()).toEqual(expected(all[1], third));
    expect(await rowsIn('ducklake_data_file')).toBe(2 * Object.keys(third.tables).length);
  });

  it('is not touched when it shows the snapshots already', async () => {
    await publish();
    await show();
    const before = readFileSync(path);
    expect(await show()).toMatchObject({ added: [], expired: [], isChanged: false });
    expect(readFileSync(path).equals(before)).toBe(true);
  });

  it('follows CURRENT when an operator sets it back, and continues behind', async () => {
    const first = await publish();
    const second = await publish();
    await show();
    writeFileSync(join(lab.gold, 'CURRENT'), `${first.id}\n`);
    await show();
    expect(await snapshotsByVersion()).toEqual(expected(first));
    rmSync(snapshotFolder(lab.gold, second.id), { recursive: true });
    const third = await publish();
    await show();
    expect(Object.values(await snapshotsByVersion())).toEqual(Object.values(expected(first, third)));
  });

  it('of a gold folder that was lost starts again behind its last version', async () => {
    await publish();
    await publish();
    await show();
    rmSync(lab.gold, { recursive: true });
    vi.useFakeTimers({ toFake: ['Date'], now: Date.now() + 60_000 });
    const again = await publish().finally(() => vi.useRealTimers());
    expect(again.id).toBe(nextSnapshotId(undefined, new Date(again.created)));
    await show();
    expect(await snapshotsByVersion()).toEqual({ 3: [`${again.id}: true`] });
  });

  it('moves with the gold folder', async () => {
    await publish();
    await show();
    const moved = join(lab.folder, 'moved');
    renameSync(lab.gold, moved);
    lab.gold = moved;
    expect(await show()).toMatchObject({ added: [], expired: [], isChanged: true });
    const [[dataPath] = []] = await onDatabase(
      path,
      "SELECT value FROM ducklake_metadata WHERE key = 'data_path'",
    );
    expect(dataPath).toBe(`${moved}/`);
  });

  it('that is not of this gold is refused and stays as it is', async () => {
    await publish();
    await show();
    await publish();
    const good = path;
    const spoilt: Record<string, readonly [FailureKind, (file: string) => unknown]> = {
      'a text': ['lakeUnusable', (file) => writeFileSync(file, 'a text\n')],
      'another database': [
        'lakeUnusable',
        async (file) => {
          rmSync(file);
          await onDatabase(file, 'CREATE TABLE t (a INTEGER)');
        },
      ],
      'of another program': [
        'lakeUnusable',
        (file) => onDatabase(file, "DELETE FROM ducklake_metadata WHERE key LIKE 'reelflow%'"),
      ],
      'written by another program': [
        'lakeUnusable',
        (file) => onDatabase(file, 'INSERT INTO ducklake_snapshot VALUES (99, now(), 1, 1, 1)'),
      ],
      'of a newer format': [
        'lakeUnusable',
        (file) => onDatabase(file, "UPDATE ducklake_metadata SET value = '9.0' WHERE key = 'version'"),
      ],
      'of another namespace': [
        'foreignCluster',
        (file) =>
          onDatabase(file, "UPDATE ducklake_metadata SET value = 'x' WHERE key = 'reelflow_namespace'"),
      ],
    };
    for (const [what, [kind, spoil]] of Object.entries(spoilt)) {
      path = join(lab.folder, `${what}.ducklake`);
      cpSync(good, path);
      await spoil(path);
      const before = readFileSync(path);
      await expect(show(), what).rejects.toMatchObject({ kind });
      await expect(lab.lake({ kind: 'file', path }).open(), what).rejects.toMatchObject({ kind });
      expect(readFileSync(path).equals(before), what).toBe(true);
    }
  });

  it('has a place that --lake names', () => {
    const places = {
      'ducklake:lake.ducklake': { kind: 'file', path: 'lake.ducklake' },
      'ducklake:/a b/x': { kind: 'file', path: '/a b/x' },
      'ducklake:s3://b/p/x.ducklake': { kind: 'object', prefix: 's3://b/p', name: 'x.ducklake' },
      'ducklake:s3://b/x': { kind: 'object', prefix: 's3://b', name: 'x' },
    };
    for (const [url, place] of Object.entries(places)) expect(lakePlaceOf(url)).toEqual(place);
    const wrong = ['', 'ducklake:', 'lake.ducklake', 'ducklake:postgres:dbname=x', 'ducklake:sqlite:x.db'];
    for (const url of [...wrong, 'ducklake:s3://only', 'ducklake:s3://b/', 'ducklake:dir/']) {
      expect(() => lakePlaceOf(url), url).toThrow(expect.objectContaining({ kind: 'usage' }));
    }
  });
});

describe('a process that is killed while it writes the catalogue', () => {
  const killed = (at: string | number, keep: number) => lab.showKilled({ kind: 'file', path }, at, keep);

  it('leaves the old or the new one, and the next attempt completes it', async () => {
    const first = await publish();
    await show();
    const second = await publish();
    await killed('before-lake-rename', 1);
    expect(await snapshotsByVersion()).toEqual(expected(first));
    await killed('after-lake-before-retention', 1);
    expect(await snapshotsByVersion()).toEqual(expected(second));
    expect(listSnapshots(lab.gold)).toEqual([first.id, second.id]);
    let before = second;
    for (const ms of [0, 60, 200]) {
      const next = await publish();
      await killed(ms, 1);
      const found = JSON.stringify(await snapshotsByVersion());
      const [old, fresh] = [before, next].map((manifest) => JSON.stringify(expected(manifest)));
      expect([old, fresh]).toContain(found);
      if (found === fresh) before = next;
    }
    await show(1);
    expect(Object.keys(await snapshotsByVersion())).toHaveLength(1);
    expect(existsSync(join(lab.folder, '.lake.ducklake'))).toBe(false);
  });
});

describe('a sink whose catalogue cannot be written', () => {
  it('publishes, counts, spares the snapshot that readers have, and completes the catalogue later', async () => {
    const failures: number[] = [];
    const metrics = {
      published: () => undefined,
      unremovable: () => undefined,
      lakeFailures: (attempts: number) => failures.push(attempts),
    } as unknown as SinkMetrics;
    const place = join(lab.folder, 'place');
    mkdirSync(place);
    path = join(place, 'lake.ducklake');
    const lake = lab.lake({ kind: 'file', path });
    const logger = createLogger('silent');
    vi.spyOn(DumpDirectories.prototype, 'read').mockResolvedValue(new Map());
    const publication = new Publication({
      declarations: builtIn,
      broker: { logger, outages: new OutageMonitor(logger, 'Kafka broker') } as Broker,
      names: topicNamesIn(''),
      store: lab.store,
      gold: lab.gold,
      clusterId: 'cluster',
      schemas: {},
      keep: { newest: 1 },
      folder: lab.folder,
      historyDays: 400,
      lake,
      reelflowVersion: 'test',
      metrics,
    });
    const change = () => lab.addTitle(1990);
    await change();
    const publish = async () => (await publication.publish()) as Manifest;
    const first = await publish();
    expect(await snapshotsByVersion()).toEqual(expected(first));
    renameSync(place, `${place}.away`);
    await change();
    const second = await publish();
    await change();
    const third = await publish();
    // The second one was never in the catalogue.
    expect(listSnapshots(lab.gold)).toEqual([first.id, third.id]);
    expect(second.id < third.id).toBe(true);
    await expect(publication.register('throw')).rejects.toMatchObject({ kind: 'lakeUnusable' });
    await publication.register('log');
    renameSync(`${place}.away`, place);
    await publication.register('log');
    expect(await snapshotsByVersion()).toEqual(expected(third));
    await publication.register('log');
    await change();
    const fourth = await publish();
    expect(listSnapshots(lab.gold)).toEqual([fourth.id]);
    expect(await snapshotsByVersion()).toEqual(expected(fourth));
    expect(failures).toEqual([0, 1, 2, 2, 3, 0, 0]);
  });
});

it('sink --lake publishes also where the catalogue cannot be written, says so, and writes it later; prune expires it', async () => {
  const place = new Place();
  try {
    const data = await smallDataset(join(place.folder, 'data'), 200, 3);
    await place.replay(data);
    await place.process();
    const sink = (...args: string[]) => place.run(place.args('sink', '--once', ...args));
    const damaged = join(place.folder, 'damaged');
    writeFileSync(damaged, 'a text');
    const failed = await sink('--lake', `ducklake:${damaged}`);
    expect(expectFailure(failed, 'lakeUnusable')).toContain(damaged);
    expect(readFileSync(damaged, 'utf8')).toBe('a text');
    expect(failed.code).toBe(exitCodes.lakeUnusable);
    const { id } = place.manifest;
    lab.gold = place.gold;
    path = join(place.folder, 'lake.ducklake');
    const done = await sink('--lake', `ducklake:${path}`);
    expect(done, done.stderr).toMatchObject({ code: 0 });
    expect(await snapshotsByVersion()).toEqual({ 1: [`${id}: true`] });
    expectFailure(await sink('--lake', 'ducklake:s3://bucket/lake'), 'usage');

    const newer = nextSnapshotId(id, new Date());
    cpSync(snapshotFolder(lab.gold, id), snapshotFolder(lab.gold, newer), { recursive: true });
    writeFileSync(
      join(snapshotFolder(lab.gold, newer), 'manifest.json'),
      JSON.stringify({ ...place.manifest, id: newer }),
    );
    writeFileSync(join(lab.gold, 'CURRENT'), newer);
    const prune = (lake: string) =>
      place.run(['gold', 'prune', '--gold', lab.gold, '--keep', '1', '--lake', lake]);
    expectFailure(await prune(`ducklake:${damaged}`), 'lakeUnusable');
    expect(listSnapshots(lab.gold)).toEqual([id, newer]);
    expect(await prune(`ducklake:${path}`)).toMatchObject({ code: 0 });
    expect(listSnapshots(lab.gold)).toEqual([newer]);
    expect(await snapshotsByVersion()).toEqual({ 2: [`${newer}: true`] });
  } finally {
    await place.close(false);
  }
});
