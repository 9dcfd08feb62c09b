/**
 * Gold as Iceberg tables, read back by PyIceberg and by DuckDB of Python with its iceberg extension. Needs Python with
 * `test/support/lake-requirements.txt`; what reads with it is skipped without, and says so.
 */
import { execFile } from 'node:child_process';
import {
  cpSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { parquetFile, sqlText } from '../../../database/sql.ts';
import { lakePlaceOf } from '../../../sinks/gold/lake.ts';
import { type Manifest, snapshotFolder, tableFile } from '../../../sinks/gold/manifest.ts';
import { retain } from '../../../sinks/gold/retention.ts';
import { onDatabase } from '../../support/damage.ts';
import { GoldLab } from '../../support/gold-lab.ts';
import { hasPackages, python } from '../../support/python.ts';
import { pythonDuckdb } from '../../support/python-duckdb.ts';

vi.setConfig({ testTimeout: 240_000 });

const run = promisify(execFile);
const isThere = await hasPackages('pyiceberg, pyarrow, duckdb_extension_iceberg, duckdb_extension_avro');

let lab: GoldLab;
let path: string;

beforeEach(async () => {
  lab = await GoldLab.open();
  path = join(lab.folder, 'lake');
});
afterEach(() => lab.close());

const show = (keep = 10) => lab.show({ kind: 'folder', path }, keep);
const versionOf = ({ id }: Manifest) => Number(id.split('_')[2]);

interface Metadata {
  readonly snapshots: readonly { readonly 'snapshot-id': number; readonly summary: Record<string, string> }[];
}

/** Per table: the snapshots of the metadata that its hint names. Fails if a file that they name is missing. */
function shown(): Record<string, (string | undefined)[]> {
  const found: Record<string, (string | undefined)[]> = {};
  for (const table of readdirSync(path)) {
    const folder = join(path, table, 'metadata');
    const hint = readFileSync(join(folder, 'version-hint.text'), 'utf8');
    const text = readFileSync(join(folder, `v${hint}.metadata.json`), 'utf8');
    const { snapshots } = JSON.parse(text) as Metadata;
    found[table] = snapshots.map(({ summary }) => summary['reelflow.snapshot']);
    for (const { 'snapshot-id': version } of snapshots) {
      for (const kind of ['list', 'manifest'])
        expect(readdirSync(folder)).toContain(`${version}-${kind}.avro`);
    }
  }
  return found;
}

const expected = (...manifests: Manifest[]) =>
  Object.fromEntries(
    Object.keys(manifests.at(-1)?.tables ?? {}).map((name) => [name, manifests.map(({ id }) => id)]),
  );

/** Whether PyIceberg reads the rows of these snapshots, table by table; and what the tables say of themselves. */
async function readBack(manifests: readonly Manifest[]): Promise<unknown[]> {
  const program = `
import json, sys
import pyarrow.parquet
from pyiceberg.table import StaticTable
path, asked = json.loads(sys.argv[1])
answers = []
for table, version, file in asked:
    static = StaticTable.from_metadata(f"{path}/{table}")
    scan = static.scan(snapshot_id=version) if version else static.scan()
    rows = scan.to_arrow().to_pylist()
    wanted = pyarrow.parquet.ParquetFile(file).read().to_pylist()
    answers.append([table, version, len(rows), rows == wanted])
print(json.dumps(answers))`;
  const asked = manifests.flatMap((manifest) =>
    Object.keys(manifest.tables).map((table) => [
      table,
      versionOf(manifest),
      tableFile(lab.gold, manifest.id, table),
    ]),
  );
  const last = manifests.at(-1) as Manifest;
  const newest = Object.keys(last.tables).map((table) => [table, null, tableFile(lab.gold, last.id, table)]);
  const { stdout } = await run(python, ['-c', program, JSON.stringify([path, [...asked, ...newest]])]);
  return JSON.parse(stdout.trim().split('\n').at(-1) ?? '') as unknown[];
}

const allRead = (manifests: readonly Manifest[]) => {
  const last = manifests.at(-1) as Manifest;
  const rows = (of: Manifest, version: number | null) =>
    Object.entries(of.tables).map(([table, one]) => [table, version, one.rows, true]);
  return [...manifests.flatMap((one) => rows(one, versionOf(one))), ...rows(last, null)];
};

describe.skipIf(!isThere)('PyIceberg and DuckDB (Python: test/support/lake-requirements.txt)', () => {
  it('read the rows of each snapshot that retention left', async () => {
    const all = [await lab.publish(), await lab.publish(), await lab.publish()] as const;
    await show();
    expect(await show(2)).toMatchObject({ added: [], expired: [all[0].id] });
    expect(retain(lab.gold, { newest: 2 }).removed).toEqual([all[0].id]);
    const staying = all.slice(1);
    expect(await readBack(staying)).toEqual(allRead(staying));
    const folder = join(path, 'decade_trends');
    const file = tableFile(lab.gold, all[2].id, 'decade_trends');
    const [scan, wanted] = [`iceberg_scan(${sqlText(folder)})`, parquetFile(file)];
    const [differences] = await pythonDuckdb(
      ['avro', 'iceberg'],
      [
        `SELECT (SELECT count(*) FROM ${scan}), (SELECT count(*) FROM (FROM ${scan} EXCEPT FROM ${wanted})),
           (SELECT count(*) FROM (FROM ${wanted} EXCEPT FROM ${scan}))`,
      ],
    );
    expect(differences).toEqual([[all[2].tables.decade_trends?.rows, 0, 0]]);
  });

  it('read earlier versions after a table has other columns, is new, or is gone', async () => {
    const first = await lab.publish();
    await show();
    const second = await lab.publish();
    const { genre_analysis: _, ...rest } = second.tables;
    const [file, extra] = ['decade_trends', 'extra'].map((name) => tableFile(lab.gold, second.id, name)) as [
      string,
      string,
    ];
    const columns = "total_titles, [decade, 2]::INTEGER[] AS added, decade, DATE '2026-01-02' AS day";
    await onDatabase(
      ':memory:',
      `COPY (SELECT ${columns} FROM ${parquetFile(file)}) TO '${extra}' (FORMAT parquet)`,
    );
    cpSync(extra, file);
    const bytes = readFileSync(extra).length;
    const changed = { ...rest.decade_trends, rows: 2, contentHash: '', sha256: '', bytes };
    const later: Manifest = { ...second, tables: { ...rest, decade_trends: changed, extra: changed } };
    writeFileSync(join(snapshotFolder(lab.gold, second.id), 'manifest.json'), JSON.stringify(later));
    await show();
    const third = await lab.publish();
    await show();
    expect(await readBack([first, later, third])).toEqual(allRead([first, later, third]));
    expect(shown()).toMatchObject({ extra: [second.id], genre_analysis: [first.id, third.id] });
    await show(1);
    expect(shown()).toEqual(expected(third));
  });

  it('read gold and tables under a folder with an unusual name', async () => {
    const folder = join(lab.folder, "it's a*[X] b=c");
    lab.gold = join(folder, 'gold');
    path = join(folder, 'lake');
    const manifest = await lab.publish();
    await show();
    expect(await readBack([manifest])).toEqual(allRead([manifest]));
  });

  it('tell what a table and its columns are, and which input a version holds', async () => {
    const { id, input, tables } = await lab.publish();
    await show();
    const program = `
import json, sys
from pyiceberg.table import StaticTable
table = StaticTable.from_metadata(sys.argv[1])
summary = table.current_snapshot().summary
doc = table.schema().find_field("total_titles").doc
keys = ["reelflow.snapshot", "reelflow.content-hash", "reelflow.input"]
print(json.dumps([table.properties["comment"], doc, *[summary[key] for key in keys]]))`;
    const { stdout } = await run(python, ['-c', program, join(path, 'decade_trends')]);
    const [comment, doc, snapshot, contentHash, offsets] = JSON.parse(stdout) as string[];
    expect([comment, doc]).toEqual([expect.stringContaining('decade'), expect.stringContaining('titles')]);
    expect([snapshot, contentHash, offsets]).toEqual([
      id,
      tables.decade_trends?.contentHash,
      JSON.stringify(input),
    ]);
  });
});

describe('Iceberg tables', () => {
  it('of a process that is killed are each of the old or the new snapshot, and the next attempt completes them', async () => {
    const first = await lab.publish();
    await show();
    let before = first;
    for (const at of ['before-iceberg-hint', 'before-iceberg-hint:3', 0, 100]) {
      const next = await lab.publish();
      await lab.showKilled({ kind: 'folder', path }, at, 1);
      for (const [table, snapshots] of Object.entries(shown())) {
        expect([[before.id], [next.id]], `${table} ${at}`).toContainEqual(snapshots);
      }
      await show(1);
      expect(shown(), String(at)).toEqual(expected(next));
      before = next;
    }
    for (const table of Object.keys(before.tables)) {
      const names = readdirSync(join(path, table, 'metadata')).sort();
      // Two files of the version, the metadata that the hint names and the one before, and the hint.
      expect(
        names.filter((name) => !name.startsWith('.')),
        table,
      ).toHaveLength(5);
      expect(names.filter((name) => name.startsWith('.'))).toEqual([]);
    }
  });

  it('of one table that is behind make the whole lake count as behind', async () => {
    const first = await lab.publish();
    await show();
    const second = await lab.publish();
    await lab.showKilled({ kind: 'folder', path }, 'before-iceberg-hint:3', 10);
    const lake = lab.lake({ kind: 'folder', path });
    await lake.open();
    expect(lake.newest).toBe(first.id);
    await show();
    await lake.open();
    expect(lake.newest).toBe(second.id);
    expect(await show()).toMatchObject({ isChanged: false });
  });

  it('name the files where gold is now, after its folder has moved', async () => {
    const manifest = await lab.publish();
    await show();
    const moved = join(lab.folder, 'moved');
    renameSync(lab.gold, moved);
    lab.gold = moved;
    await show();
    expect(shown()).toEqual(expected(manifest));
    const version = versionOf(manifest) + 1;
    const avro = readFileSync(join(path, 'decade_trends', 'metadata', `${version}-manifest.avro`), 'latin1');
    expect(avro).toContain(`file://${moved}/snapshots/${manifest.id}/decade_trends.parquet`);
  });

  it('of another program, of another namespace or damaged are refused and stay as they are', async () => {
    await lab.publish();
    await show();
    await lab.publish();
    const file = join(path, 'decade_trends', 'metadata', 'v1.metadata.json');
    const good = readFileSync(file, 'utf8');
    const spoilt = [
      ['{', 'lakeUnusable'],
      [good.replace('reelflow.cluster-id', 'other'), 'lakeUnusable'],
      [good.replace('"reelflow.namespace": ""', '"reelflow.namespace": "x"'), 'foreignCluster'],
    ] as const;
    for (const [text, kind] of spoilt) {
      writeFileSync(file, text);
      await expect(show(), text.slice(0, 40)).rejects.toMatchObject({ kind });
      await expect(lab.lake({ kind: 'folder', path }).open()).rejects.toMatchObject({ kind });
      expect(readFileSync(file, 'utf8')).toBe(text);
    }
    rmSync(path, { recursive: true });
    writeFileSync(path, 'a file');
    await expect(show()).rejects.toMatchObject({ kind: 'lakeUnusable' });
    rmSync(path);
    mkdirSync(path);
    expect(await show()).toMatchObject({ isChanged: true });
    expect(existsSync(join(path, 'decade_trends'))).toBe(true);
  });

  it('have a place that --lake names', () => {
    expect(lakePlaceOf('ducklake:dir')).toEqual({ kind: 'file', path: 'dir' });
    expect(lakePlaceOf('iceberg:dir')).toEqual({ kind: 'folder', path: 'dir' });
    for (const url of ['iceberg:', 'iceberg:s3://bucket/dir']) {
      expect(() => lakePlaceOf(url), url).toThrow(expect.objectContaining({ kind: 'usage' }));
    }
  });
});
