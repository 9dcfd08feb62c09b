/**
 * The gold commands: list, show, compare, pin, prune, and older snapshots. The real pipeline makes two snapshots,
 * the second of corrected files; tests that change something do it to a copy.
 */

import {
  cpSync,
  existsSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { DuckDBInstance } from '@duckdb/node-api';
import { Ajv2020 } from 'ajv/dist/2020.js';
import addFormats from 'ajv-formats';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { z } from 'zod';
import { withDatabase } from '../../../database/duckdb.ts';
import { exitCodes, type FailureKind } from '../../../runtime/errors.ts';
import { catalogueFile, writeCatalogue } from '../../../sinks/gold/catalogue.ts';
import { withGoldLock } from '../../../sinks/gold/gold-lock.ts';
import { GoldReader, type SnapshotDiff, type TableView } from '../../../sinks/gold/gold-reader.ts';
import { type historyOf, snapshotAt } from '../../../sinks/gold/history.ts';
import {
  listSnapshots,
  type Manifest,
  manifestSchema,
  manifestVersion,
  snapshotFolder,
  tableFile,
} from '../../../sinks/gold/manifest.ts';
import {
  isPinned,
  type Keep,
  keptForAge,
  pinSnapshot,
  retain,
  unpinSnapshot,
} from '../../../sinks/gold/retention.ts';
import { columnNotes, noteOf, notesKey } from '../../../tables/column-notes.ts';
import { goldTables, isOfHistory } from '../../../tables/gold-tables.ts';
import { expectFailure } from '../../support/damage.ts';
import { failureOf } from '../../support/failure.ts';
import {
  type Finished,
  lastJson,
  Place,
  smallDataset,
  textOf,
  writeDatasets,
} from '../../support/harness.ts';

let place: Place;
let first: Manifest;
let second: Manifest;

beforeAll(async () => {
  place = new Place();
  const data = await smallDataset(join(place.folder, 'data'), 400, 11);
  first = await place.pipeline(data);
  const ratings = textOf(data, 'title.ratings').trimEnd().split('\n');
  const corrected = ratings.map((line, i) =>
    i === 1 ? line.replace(/\t[\d.]+\t\d+$/, '\t9.9\t7654321') : line,
  );
  const newer = writeDatasets(join(place.folder, 'newer'), {
    'title.basics': textOf(data, 'title.basics'),
    'title.ratings': `${corrected.join('\n')}\n`,
  });
  second = await place.pipeline(newer, { replay: ['--upsert'] });
}, 240_000);

afterAll(() => place.close(false));

/** Rows of a query, as DuckDB writes values into JSON. */
async function rowsOf(sql: string): Promise<Record<string, unknown>[]> {
  return withDatabase(async (connection) => {
    return (await connection.runAndReadAll(sql)).getRowObjectsJson();
  });
}

describe('a Parquet file of gold', () => {
  it.each(goldTables.map(({ name }) => name))(
    'says what its rows, columns and units are: %s',
    async (table) => {
      const file = tableFile(place.gold, second.id, table);
      const [metadata] = await rowsOf(
        `SELECT decode(value) AS notes FROM parquet_kv_metadata('${file}') WHERE decode(key) = '${notesKey}'`,
      );
      const { about, columns } = JSON.parse(String(metadata?.notes));
      expect(about).toBe(goldTables.find(({ name }) => name === table)?.about);
      const described = await rowsOf(`DESCRIBE SELECT * FROM '${file}'`);
      expect(Object.keys(columns)).toEqual(described.map(({ column_name }) => column_name));
      const { notes } = goldTables.find(({ name }) => name === table) ?? {};
      for (const [column, note] of Object.entries(columns)) expect(note).toEqual(noteOf(column, notes));
      const isNumber = ({ column_type }: Record<string, unknown>) => /INT|DOUBLE/.test(String(column_type));
      for (const column of described.filter(isNumber)) {
        expect(columns[String(column.column_name)], String(column.column_name)).toHaveProperty('unit');
      }
    },
  );

  it('cannot be written while a column has no note', () => {
    expect(() => noteOf('nobody_knows')).toThrow(/nobody_knows has no note/);
  });
});

describe('the manifest', () => {
  /** The published schema: `UPDATE_DOCS=1` writes it. */
  const file = fileURLToPath(new URL('../../../sinks/gold/manifest.schema.json', import.meta.url));
  const validator = () => {
    const ajv = new Ajv2020({ allErrors: true });
    addFormats.default(ajv);
    return ajv.compile(JSON.parse(readFileSync(file, 'utf8')));
  };

  it('has a published JSON Schema that equals the one of the program', () => {
    const { $schema, ...schema } = z.toJSONSchema(manifestSchema, { io: 'input' });
    const wanted = { $schema, $id: `urn:reelflow:manifest:${manifestVersion}`, title: 'Manifest', ...schema };
    if (process.env.UPDATE_DOCS) writeFileSync(file, `${JSON.stringify(wanted, undefined, 2)}\n`);
    expect(JSON.parse(readFileSync(file, 'utf8'))).toEqual(JSON.parse(JSON.stringify(wanted)));
  });

  it('is valid by the published schema for an independent validator', () => {
    const validate = validator();
    for (const { id } of [first, second]) {
      const text = readFileSync(join(snapshotFolder(place.gold, id), 'manifest.json'), 'utf8');
      expect(validate(JSON.parse(text)), JSON.stringify(validate.errors)).toBe(true);
    }
  });

  it.each([
    ['a field is missing', ({ clusterId: _, ...rest }: Manifest) => rest],
    ['an offset is a text', (manifest: Manifest) => ({ ...manifest, deltas: { 0: '7' } })],
    ['a range has no end', (manifest: Manifest) => ({ ...manifest, input: { topic: { 0: [0] } } })],
    ['the id is none', (manifest: Manifest) => ({ ...manifest, id: '../..' })],
  ])('is not valid when %s', (_, spoil) => {
    expect(validator()(spoil(second))).toBe(false);
  });
});

/** `reelflow gold …` on a gold folder. */
const gold = (folder: string, ...args: string[]) => place.run(['gold', ...args, '--gold', folder]);

async function succeeded(run: Promise<Finished>): Promise<Finished> {
  const finished = await run;
  expect(finished, finished.stderr).toMatchObject({ code: 0 });
  return finished;
}

let copies = 0;

/** A gold folder like that of the pipeline, to change. */
function copy(): string {
  const folder = join(place.folder, `gold-${++copies}`);
  cpSync(place.gold, folder, { recursive: true });
  return folder;
}

/** A copy with more snapshots, alike but for their ids and times. @returns all ids, the third is CURRENT */
function longHistory(): { folder: string; ids: string[] } {
  const folder = copy();
  for (const [id, created] of [
    ['20991231_235958_000003', '2099-12-31T23:59:58.000Z'],
    ['20991231_235959_000004', '2099-12-31T23:59:59.000Z'],
  ] as const) {
    cpSync(snapshotFolder(folder, second.id), snapshotFolder(folder, id), { recursive: true });
    const manifest = JSON.stringify({ ...second, id, created });
    writeFileSync(join(snapshotFolder(folder, id), 'manifest.json'), manifest);
  }
  writeFileSync(join(folder, 'CURRENT'), '20991231_235958_000003\n');
  return { folder, ids: listSnapshots(folder) };
}

/** Rewrites a table and updates the manifest. @param replace in terms of the columns and `n`, the row's number */
async function alter(folder: string, id: string, table: string, replace: string): Promise<void> {
  const file = tableFile(folder, id, table);
  const numbered = `SELECT * EXCLUDE file_row_number, file_row_number AS n
    FROM read_parquet('${file}', file_row_number = true)`;
  await rowsOf(
    `COPY (SELECT * EXCLUDE n REPLACE (${replace}) FROM (${numbered}) ORDER BY n) TO '${file}.new' (FORMAT parquet)`,
  );
  renameSync(`${file}.new`, file);
  const path = join(snapshotFolder(folder, id), 'manifest.json');
  const manifest = JSON.parse(readFileSync(path, 'utf8'));
  Object.assign(manifest.tables[table], { bytes: statSync(file).size, contentHash: 'of altered rows' });
  writeFileSync(path, JSON.stringify(manifest));
}

describe('the history', () => {
  it('lists all snapshots, and says which one is CURRENT and which are pinned', async () => {
    const folder = copy();
    pinSnapshot(folder, first.id);
    const listed = lastJson<ReturnType<typeof historyOf>>(await succeeded(gold(folder, 'list', '--json')));
    expect(listed).toMatchObject([
      { id: first.id, created: first.created, isCurrent: false, isPinned: true },
      { id: second.id, created: second.created, isCurrent: true, isPinned: false },
    ]);
    const total = Object.values(second.accounting).reduce((sum, of) => sum + of.applied + of.duplicate, 0);
    expect(listed[1]?.records).toBe(total);
    expect(listed[1]?.rows.decade_trends).toBe(second.tables.decade_trends?.rows);
  });

  it('is empty before the first snapshot', async () => {
    const empty = join(place.folder, 'empty');
    expect((await succeeded(gold(empty, 'list'))).stdout).toBe(`No snapshot in ${empty} yet.\n`);
    expect((await succeeded(gold(empty, 'prune', '--keep', '1'))).stdout).toBe('Nothing to remove.\n');
    expect(existsSync(empty)).toBe(false);
    expectFailure(await gold(empty, 'show', 'decade_trends'), 'goldUnusable');
  });

  it('finds a snapshot by its id and by a time', async () => {
    const ms = (time: string, more: number) => new Date(Date.parse(time) + more).toISOString();
    const at = (time?: string) => snapshotAt(place.gold, time);
    expect(at()).toBe(second.id);
    expect(at(first.id)).toBe(first.id);
    expect(at(first.created)).toBe(first.id);
    expect(at(ms(second.created, -1))).toBe(first.id);
    expect(at(second.created)).toBe(second.id);
    // Without a zone a time is UTC wherever the machine is; with one it is that zone's.
    expect(at(ms(second.created, -1).slice(0, -1))).toBe(first.id);
    const east = ms(second.created, -1 + 2 * 3_600_000).replace('Z', '+02:00');
    expect(at(east)).toBe(first.id);
    expect(at('2999-01-01')).toBe(second.id);
    expect((await failureOf(() => at(ms(first.created, -1)))).detail).toContain(first.id);
  });

  it.each<[string, FailureKind]>([
    ['2026-13-45', 'usage'],
    ['20200101_000000_000001', 'goldUnusable'],
    ['../snapshots', 'goldUnusable'],
    ['yesterday', 'goldUnusable'],
  ])('does not know %s', async (at, kind) => {
    expect((await failureOf(() => snapshotAt(place.gold, at))).kind).toBe(kind);
  });
});

describe('a table', () => {
  it('is shown with its units and a picture', async () => {
    const { stdout } = await succeeded(gold(place.gold, 'show', 'genre_analysis', '--rows', '3'));
    const [top] = await rowsOf(`SELECT * FROM '${tableFile(place.gold, second.id, 'genre_analysis')}'`);
    expect(stdout).toMatch(/^genres +total_titles /m);
    expect(stdout).toMatch(/^ +titles +stars, 1 to 10 /m);
    expect(stdout).toContain(`3 of ${second.tables.genre_analysis?.rows} rows, snapshot ${second.id}`);
    expect(stdout).toMatch(new RegExp(`^ *${top?.genres} █+ ${top?.total_titles}$`, 'm'));
    const years = await succeeded(gold(place.gold, 'show', 'decade_trends'));
    expect(years.stdout).toMatch(/Average rating by decade\n[\s\S]*┤[\s\S]*▶/);
  });

  it('is shown as it was in an older snapshot', async () => {
    const show = async (...more: string[]) =>
      lastJson<TableView>(
        await succeeded(gold(place.gold, 'show', 'decade_trends', '--rows', '99', '--json', ...more)),
      );
    const [was, is] = [await show('--at', first.created), await show()];
    const votes = ({ rows, columns }: TableView) => {
      const at = columns.findIndex(({ name }) => name === 'total_votes');
      return rows.reduce((sum, row) => sum + Number(row[at]), 0);
    };
    expect(was.snapshot).toBe(first.id);
    expect(is.snapshot).toBe(second.id);
    expect(votes(is)).toBeGreaterThan(votes(was) + 7_000_000);
    expect(is.columns[1]).toEqual({ name: 'total_titles', type: 'BIGINT', ...columnNotes.total_titles });
  });

  it('that does not exist is bad usage, with the names of those that do', async () => {
    const text = expectFailure(await gold(place.gold, 'show', 'nothing'), 'usage');
    for (const { name } of goldTables) expect(text).toContain(name);
  });

  it('has points for each of its plots', async () => {
    await GoldReader.open(place.gold, async (reader) => {
      // One day of dumps has no history to draw.
      for (const { name, plots } of goldTables.filter((table) => !isOfHistory(table))) {
        for (const plot of plots) {
          const points = await reader.points(second.id, name, plot);
          expect(points.length, plot.title).toBeGreaterThan(0);
          const [xs, ys] = [points.map(([x]) => x), points.map(([, y]) => y)];
          expect(new Set(xs).size, plot.title).toBe(xs.length);
          if (plot.kind === 'bar') expect(ys).toEqual([...ys].sort((a, b) => b - a));
          else expect(xs).toEqual([...xs].sort((a, b) => Number(a) - Number(b)));
        }
      }
    });
  });
});

describe('a difference of two snapshots', () => {
  it('consists of the rows that a query finds to differ, with the corrected title among them', async () => {
    const diff = lastJson<SnapshotDiff>(
      await succeeded(gold(place.gold, 'diff', first.id, '--rows', '1000', '--json')),
    );
    expect([diff.from, diff.to]).toEqual([first.id, second.id]);
    expect(Object.keys(diff.tables).sort()).toEqual(goldTables.map(({ name }) => name).sort());
    for (const { name } of goldTables) {
      const [old, now] = [first, second].map(({ id }) => `'${tableFile(place.gold, id, name)}'`);
      const [left] = await rowsOf(`SELECT count(*) AS n FROM (FROM ${old} EXCEPT FROM ${now})`);
      const [right] = await rowsOf(`SELECT count(*) AS n FROM (FROM ${now} EXCEPT FROM ${old})`);
      const {
        added,
        removed,
        changed,
        rows,
        first: changes,
      } = diff.tables[name] as SnapshotDiff['tables'][string];
      expect([changed + removed, changed + added], name).toEqual([Number(left?.n), Number(right?.n)]);
      expect(changes, name).toHaveLength(added + removed + changed);
      expect(rows).toEqual([first.tables[name]?.rows, second.tables[name]?.rows]);
    }
    const columns = diff.tables.decade_trends?.first[0]?.columns ?? {};
    const [before, after] = columns.total_votes ?? [];
    expect(Number(after) - Number(before)).toBeGreaterThan(7_000_000);
    expect(Object.keys(columns)).not.toContain('total_titles');
  });

  it('is printed as text', async () => {
    const { stdout } = await succeeded(gold(place.gold, 'diff', first.id, second.id, '--rows', '1'));
    expect(stdout).toMatch(/^decade_trends +\d+ +\d+ +0 +0 +1$/m);
    expect(stdout).toMatch(/^decade_trends: decade=\d+: .*total_votes [\d,]+ → [\d,]+/m);
    expect(stdout).toMatch(/^contributor_analysis: and [\d,]+ more$/m);
  });

  it('identifies a person by the id, so a new name is a change', async () => {
    const { folder, ids } = longHistory();
    const newest = ids.at(-1) as string;
    await alter(
      folder,
      newest,
      'contributor_analysis',
      "if(n = 0, 'Another Name', primaryName) AS primaryName",
    );
    const { tables } = await GoldReader.open(folder, (reader) => reader.diff(second.id, newest, 5));
    expect(tables.contributor_analysis).toMatchObject({ added: 0, removed: 0, changed: 1 });
    expect(tables.contributor_analysis?.first[0]?.columns).toEqual({
      primaryName: [expect.any(String), 'Another Name'],
    });
  });
});

describe('retention', () => {
  it('keeps the newest snapshots, the one that CURRENT names and pinned ones, and reports them', async () => {
    const { folder, ids } = longHistory();
    const [oldest = '', plain = '', current = '', newest = ''] = ids;
    await succeeded(gold(folder, 'pin', oldest));
    const planned = await succeeded(gold(folder, 'prune', '--keep', '1', '--dry-run'));
    expect(planned.stdout).toBe(
      `${oldest} stays: it is pinned.\n${current} stays: CURRENT names it.\n${plain} would be removed.\n`,
    );
    expect(listSnapshots(folder)).toEqual(ids);
    const pruned = lastJson<object>(await succeeded(gold(folder, 'prune', '--keep', '1', '--json')));
    expect(pruned).toMatchObject({ dryRun: false, removed: [plain] });
    expect(listSnapshots(folder)).toEqual([oldest, current, newest]);
    // The sink's own retention is the same.
    expect(retain(folder, { newest: 1 }).removed).toEqual([]);
    await succeeded(gold(folder, 'unpin', oldest));
    expect(retain(folder, { newest: 1 }).removed).toEqual([oldest]);
    expect(listSnapshots(folder)).toEqual([current, newest]);
  });

  it('keeps the last snapshot of days and of months that have some, beside the newest', () => {
    const ids = [
      '20251130_230000_000001',
      '20251231_235959_000002',
      '20260115_080000_000003',
      '20260115_200000_000004',
      '20260201_080000_000005',
      '20260203_080000_000006',
      '20260203_090000_000007',
    ];
    const kept = (keep: Omit<Keep, 'newest'>) => Object.fromEntries(keptForAge(ids, { newest: 1, ...keep }));
    expect(kept({})).toEqual({});
    expect(kept({ daily: 3 })).toEqual({
      '20260115_200000_000004': 'daily',
      '20260201_080000_000005': 'daily',
      '20260203_090000_000007': 'daily',
    });
    expect(kept({ daily: 1, monthly: 3 })).toEqual({
      '20251231_235959_000002': 'monthly',
      '20260115_200000_000004': 'monthly',
      '20260203_090000_000007': 'daily',
    });
    expect(Object.keys(kept({ daily: 100, monthly: 100 }))).toHaveLength(5);
  });

  it('removes what neither number nor age keeps, and says why the others stay', async () => {
    const { folder, ids } = longHistory();
    const [, , current = ''] = ids;
    for (const id of ['20200101_080000_000001', '20200101_090000_000002']) {
      cpSync(snapshotFolder(folder, second.id), snapshotFolder(folder, id), { recursive: true });
      writeFileSync(join(snapshotFolder(folder, id), 'manifest.json'), JSON.stringify({ ...second, id }));
    }
    const pruned = await succeeded(gold(folder, 'prune', '--keep', '1', '--keep-daily', '9', '--dry-run'));
    expect(pruned.stdout).toContain('20200101_080000_000001 would be removed.');
    expect(pruned.stdout).toContain('20200101_090000_000002 stays: it is the last of its day.');
    expect(pruned.stdout).toContain(`${current} stays: CURRENT names it.`);
  });

  it('restores a snapshot that was pinned just before its folder was renamed', () => {
    const { folder, ids } = longHistory();
    const [oldest = ''] = ids;
    pinSnapshot(folder, oldest);
    // As a crash leaves it between the rename and the look for a pin.
    renameSync(snapshotFolder(folder, oldest), snapshotFolder(folder, `.${oldest}`));
    expect(retain(folder, { newest: 4 }).removed).toEqual([]);
    expect(listSnapshots(folder)).toEqual(ids);
    expect(isPinned(folder, oldest)).toBe(true);
  });

  it('removes the remains of crashes', () => {
    const folder = copy();
    renameSync(snapshotFolder(folder, first.id), snapshotFolder(folder, `.${first.id}`));
    retain(folder, { newest: 10 });
    expect(existsSync(snapshotFolder(folder, `.${first.id}`))).toBe(false);
    expect(existsSync(snapshotFolder(folder, first.id))).toBe(false);
  });

  it('keeps at least one', async () => {
    expect(await gold(place.gold, 'prune', '--keep', '0')).toMatchObject({ code: exitCodes.usage });
  });

  it('waits for a running sink, and removes nothing before that has ended', async () => {
    const { folder, ids } = longHistory();
    await withGoldLock(folder, { patienceMs: 0 }, async () => {
      expectFailure(await gold(folder, 'prune', '--keep', '1'), 'busy');
    });
    expect(listSnapshots(folder)).toEqual(ids);
  });

  it('pins a snapshot once, also by time, and refuses one that does not exist', async () => {
    const folder = copy();
    const pinned = await succeeded(gold(folder, 'pin', first.created, '--json'));
    expect(lastJson(pinned)).toEqual({ snapshot: first.id, isPinned: true, changed: true });
    expect(pinSnapshot(folder, first.id)).toBe(false);
    expect(unpinSnapshot(folder, first.id)).toBe(true);
    expect(unpinSnapshot(folder, first.id)).toBe(false);
    expect((await failureOf(() => pinSnapshot(folder, '20200101_000000_000001'))).kind).toBe('goldUnusable');
  });
});

describe('the catalogue', () => {
  /** Rows of a query on the catalogue, opened again like any DuckDB does. */
  async function opened(folder: string, ...sql: string[]): Promise<Record<string, unknown>[]> {
    return withDatabase(
      async (connection) => {
        for (const statement of sql.slice(0, -1)) await connection.run(statement);
        return (await connection.runAndReadAll(String(sql.at(-1)))).getRowObjectsJson();
      },
      catalogueFile(folder),
      { access_mode: 'READ_ONLY' },
    );
  }
  const figures = `SELECT (SELECT id FROM snapshot) AS id, (SELECT sum(total_votes)::BIGINT FROM decade_trends) AS decades,
    (SELECT sum(total_votes)::BIGINT FROM title_ratings_agg) AS years`;

  it('has a commented view of every table of CURRENT', async () => {
    for (const { name, about } of goldTables) {
      const [whole] = await opened(place.gold, `SELECT count(*) AS rows FROM ${name}`);
      expect(Number(whole?.rows), name).toBe(second.tables[name]?.rows);
      const [view] = await opened(
        place.gold,
        `SELECT comment FROM duckdb_views() WHERE view_name = '${name}'`,
      );
      expect(view?.comment).toBe(about);
    }
    const [{ id } = {}] = await opened(place.gold, 'FROM snapshot');
    expect(id).toBe(second.id);
    const columns = `SELECT comment FROM duckdb_columns() WHERE table_name = 'decade_trends' AND column_name = 'avg_runtime'`;
    const [{ comment } = {}] = await opened(place.gold, columns);
    expect(comment).toContain('Unit: minutes.');
  });

  it('reads a folder that has another path for the reader', async () => {
    const folder = copy();
    const elsewhere = join(place.folder, "it's elsewhere");
    await writeCatalogue(folder, second);
    renameSync(folder, elsewhere);
    await expect(opened(elsewhere, 'FROM decade_trends')).rejects.toThrow(/No files found/);
    const rows = await opened(
      elsewhere,
      `SET VARIABLE gold = '${elsewhere.replace("'", "''")}'`,
      'FROM decade_trends',
    );
    expect(rows).toHaveLength(second.tables.decade_trends?.rows ?? 0);
  });

  it('can be opened at any moment of a publication, and always shows one snapshot', async () => {
    const folder = copy();
    const expected = new Map<string, unknown>();
    for (const manifest of [first, second]) {
      await writeCatalogue(folder, manifest);
      const [row] = await opened(folder, figures);
      expect(row?.id).toBe(manifest.id);
      expect(row?.decades).toBe(row?.years);
      expected.set(manifest.id, row);
    }
    expect(new Set([...expected.values()].map((row) => JSON.stringify(row))).size).toBe(2);
    // A reader who has it open from before keeps what was there.
    const kept = await DuckDBInstance.create(catalogueFile(folder), { access_mode: 'READ_ONLY' });
    const connection = await kept.connect();
    let isOver = false;
    const publishing = (async () => {
      for (let i = 0; i < 20; i++) await writeCatalogue(folder, i % 2 === 0 ? first : second);
      isOver = true;
    })();
    const seen = new Set<string>();
    while (!isOver) {
      const [row] = await opened(folder, figures);
      expect(row).toEqual(expected.get(String(row?.id)));
      seen.add(String(row?.id));
    }
    await publishing;
    expect(seen.size).toBeGreaterThan(0);
    const rows = (await connection.runAndReadAll(figures)).getRowObjectsJson();
    expect(rows).toEqual([expected.get(second.id)]);
    connection.closeSync();
    kept.closeSync();
  });
});

describe('gold that is incomplete or foreign', () => {
  it('a missing or truncated file is named, and the other tables can be read', async () => {
    const folder = copy();
    truncateSync(tableFile(folder, second.id, 'genre_analysis'), 100);
    rmSync(tableFile(folder, second.id, 'region_analysis'));
    const text = expectFailure(await gold(folder, 'show', 'genre_analysis'), 'goldUnusable');
    expect(text).toContain(tableFile(folder, second.id, 'genre_analysis'));
    expect(text).toContain(`reelflow verify ${second.id}`);
    await GoldReader.open(folder, async (reader) => {
      const { detail } = await failureOf(() => reader.rows(second.id, 'region_analysis', 1));
      expect(detail).toContain(tableFile(folder, second.id, 'region_analysis'));
      expect((await failureOf(() => reader.diff(first.id, second.id, 1))).kind).toBe('goldUnusable');
      expect((await reader.rows(second.id, 'decade_trends', 1)).rows).toHaveLength(1);
    });
  });

  it('a file of the right size with other bytes is named', async () => {
    const folder = copy();
    const file = tableFile(folder, second.id, 'decade_trends');
    writeFileSync(file, Buffer.alloc(readFileSync(file).length, 0xa5));
    const { detail } = await GoldReader.open(folder, (reader) =>
      failureOf(() => reader.rows(second.id, 'decade_trends', 1)),
    );
    expect(detail).toContain(file);
  });

  it('a newer version is refused, and nothing is removed', async () => {
    const { folder, ids } = longHistory();
    const [oldest = ''] = ids;
    const path = join(snapshotFolder(folder, oldest), 'manifest.json');
    const versions = { ...first.versions, manifest: first.versions.manifest + 1 };
    writeFileSync(path, JSON.stringify({ ...first, versions }));
    for (const args of [['list'], ['show', 'decade_trends', '--at', oldest], ['prune', '--keep', '1']]) {
      expect(expectFailure(await gold(folder, ...args), 'goldUnusable')).toContain('newer version');
    }
    expect(listSnapshots(folder)).toEqual(ids);
  });

  it('a second sink on one gold folder refuses', async () => {
    await withGoldLock(place.gold, { patienceMs: 0 }, async () => {
      const state = join(place.folder, 'other-state');
      const finished = await place.run(place.args('sink', '--state', state, '--interval', '1s'));
      expect(expectFailure(finished, 'busy')).toContain(join(place.gold, '.sink', 'lock'));
    });
  });
});
