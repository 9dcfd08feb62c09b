/**
 * `gold export delta` of snapshots of the real pipeline, read back by another engine: DuckDB with its delta extension,
 * which has delta-kernel where delta-rs wrote. Needs Python with `test/support/lake-requirements.txt`, in `.venv` or where
 * REELFLOW_PYTHON says; without it these tests are skipped, and say so.
 */
import { execFile } from 'node:child_process';
import { appendFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest';
import { exitCodes } from '../../../runtime/errors.ts';
import type { DeltaExport } from '../../../sinks/gold/export.ts';
import { type Manifest, tableFile } from '../../../sinks/gold/manifest.ts';
import { noteOf } from '../../../tables/column-notes.ts';
import { goldTables } from '../../../tables/gold-tables.ts';
import { expectFailure } from '../../support/damage.ts';
import { lastJson, Place, smallDataset, textOf, writeDatasets } from '../../support/harness.ts';
import { hasPackages, python } from '../../support/python.ts';
import { pythonDuckdb } from '../../support/python-duckdb.ts';

const run = promisify(execFile);
vi.setConfig({ testTimeout: 240_000 });

const isThere = await hasPackages('deltalake, pyarrow, duckdb_extension_delta');

/** Queries by DuckDB of Python, with its delta extension. @returns rows of each */
const query = (...sql: string[]) => pythonDuckdb(['delta'], sql);

let place: Place;
let delta: string;
let first: Manifest;
let second: Manifest;

beforeAll(async () => {
  place = new Place();
  delta = join(place.folder, 'delta');
  const data = await smallDataset(join(place.folder, 'data'), 300, 13);
  first = await place.pipeline(data);
  const [header = '', row = '', ...rest] = textOf(data, 'title.ratings').trimEnd().split('\n');
  const ratings = [header, row.replace(/\d+$/, '7654321'), ...rest, ''].join('\n');
  const basics = textOf(data, 'title.basics');
  const newer = { 'title.basics': basics, 'title.ratings': ratings };
  second = await place.pipeline(writeDatasets(join(place.folder, 'newer'), newer), {
    replay: ['--upsert'],
  });
}, 240_000);

afterAll(() => place.close(false));

const exported = (...more: string[]) =>
  place.run(['gold', 'export', 'delta', delta, '--gold', place.gold, '--json', ...more]);

async function succeeded(...more: string[]): Promise<DeltaExport> {
  const finished = await exported('--python', python, ...more);
  expect(finished, finished.stderr).toMatchObject({ code: 0 });
  return lastJson(finished);
}

describe.skipIf(!isThere)('Delta tables (Python: test/support/lake-requirements.txt)', () => {
  it('hold the rows of the snapshot for another engine, one version per snapshot', async () => {
    const before = await succeeded('--at', first.id);
    for (const { name } of goldTables)
      expect(before.tables[name]).toMatchObject({ version: 0, written: true });
    const after = await succeeded();
    expect(after.snapshot).toBe(second.id);
    for (const { name } of goldTables) {
      const isSame = first.tables[name]?.contentHash === second.tables[name]?.contentHash;
      expect(after.tables[name], name).toMatchObject({ version: isSame ? 0 : 1, written: !isSame });
    }
    const files = `
import deltalake, json, sys
print(json.dumps([deltalake.DeltaTable(path, version=0).file_uris() for path in sys.argv[1:]]))`;
    const { stdout } = await run(python, ['-c', files, ...goldTables.map(({ name }) => join(delta, name))]);
    const oldFiles = JSON.parse(stdout) as string[][];
    const compare = (left: string, right: string) => `SELECT (SELECT count(*) FROM ${left}),
      (SELECT count(*) FROM (FROM ${left} EXCEPT FROM ${right})), (SELECT count(*) FROM (FROM ${right} EXCEPT FROM ${left}))`;
    const found = await query(
      ...goldTables.flatMap(({ name }, i) => [
        compare(`delta_scan('${join(delta, name)}')`, `'${tableFile(place.gold, second.id, name)}'`),
        compare(
          `read_parquet([${oldFiles[i]?.map((file) => `'${file}'`).join(', ')}])`,
          `'${tableFile(place.gold, first.id, name)}'`,
        ),
      ]),
    );
    const wanted = goldTables.flatMap(({ name }) => [
      [[second.tables[name]?.rows, 0, 0]],
      [[first.tables[name]?.rows, 0, 0]],
    ]);
    expect(found).toEqual(wanted);
  });

  it('get no new version when the same snapshot is exported again', async () => {
    await succeeded();
    const again = await succeeded();
    expect(Object.values(again.tables).map(({ written }) => written)).toEqual(goldTables.map(() => false));
  });

  it('name their snapshot and describe their columns', async () => {
    await succeeded();
    const program = `
import deltalake, json, sys
table = deltalake.DeltaTable(sys.argv[1])
comments = {field.name: field.metadata.get("comment") for field in table.schema().fields}
print(json.dumps([table.history(1)[0]["reelflow.snapshot"], table.metadata().description, comments]))`;
    const changed = goldTables.filter(
      ({ name }) => first.tables[name]?.contentHash !== second.tables[name]?.contentHash,
    );
    expect(changed).not.toEqual([]);
    for (const table of changed) {
      const { stdout } = await run(python, ['-c', program, join(delta, table.name)]);
      const [snapshot, description, comments] = JSON.parse(stdout);
      expect([snapshot, description]).toEqual([second.id, table.about]);
      for (const [column, comment] of Object.entries(comments)) {
        const { about, unit } = noteOf(column);
        expect(comment).toBe(unit === undefined ? about : `${about} Unit: ${unit}.`);
      }
    }
  });

  it('that cannot be written are a clear error', async () => {
    const args = ['gold', 'export', 'delta', '/dev/null/delta', '--gold', place.gold, '--python', python];
    expect(expectFailure(await place.run(args), 'usage')).toContain('The tables were not exported');
  });
});

it('without Python or its packages the export says what to install', async () => {
  const text = expectFailure(await exported('--python', '/nowhere/python'), 'usage');
  expect(text).toContain('pip install deltalake pyarrow');
});

it('another format is bad usage', async () => {
  const finished = await place.run(['gold', 'export', 'iceberg', delta, '--gold', place.gold]);
  expect(finished.code).toBe(exitCodes.usage);
});

it('a snapshot with an altered or missing file is not exported', async () => {
  const file = tableFile(place.gold, first.id, 'region_analysis');
  appendFileSync(file, 'x');
  expect(expectFailure(await exported('--at', first.id), 'goldUnusable')).toContain(file);
  rmSync(file);
  expect(expectFailure(await exported('--at', first.id), 'goldUnusable')).toContain(file);
});
