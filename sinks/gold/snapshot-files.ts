/**
 * The files of a snapshot: a Parquet file for each table, and the cubes by shard. A file whose cubes have not changed since the
 * snapshot before is taken over from it. A user's table whose SQL fails or takes too long is left out, with the reason.
 */
import { rmSync, statSync } from 'node:fs';
import { join } from 'node:path';
import type { DuckDBConnection } from '@duckdb/node-api';
import { interruptOn, rowsOf } from '../../database/duckdb.ts';
import { sqlPath, sqlText } from '../../database/sql.ts';
import { storageFaultOf } from '../../database/storage-errors.ts';
import { messageOf } from '../../runtime/errors.ts';
import { fileSha256, syncPath } from '../../runtime/files.ts';
import { noteOf, notesKey } from '../../tables/column-notes.ts';
import { contentSum, hashOfSum } from '../../tables/content-hash.ts';
import { type GoldTable, tableFingerprint } from '../../tables/gold-table.ts';
import { repeatedKey } from '../../tables/repeated-key.ts';
import { scalesOf } from '../../tables/scales.ts';
import type { CubeStore } from '../cube-store.ts';
import { parquetOptions } from '../cube-tables.ts';
import { keptRelation } from '../kept-tables.ts';
import { type EarlierFiles, relationsOf } from './earlier-files.ts';
import type { Manifest, Scales } from './manifest.ts';

/** The entries of the manifest that list the files. */
export type SnapshotFiles = Pick<Manifest, 'tables' | 'leftOut' | 'cubes'>;

interface MadeFrom {
  readonly declared: readonly GoldTable[];
  readonly waiting: ReadonlyMap<string, string>;
  readonly maker: string;
  readonly userTableMs: number;
}

/** Writes all tables and cubes, or takes over what has not changed since the snapshot before. */
export async function writeFiles(
  store: CubeStore,
  building: string,
  { declared: all, waiting, maker, userTableMs }: MadeFrom,
  earlier: EarlierFiles | undefined,
): Promise<SnapshotFiles> {
  const declared = all.filter(({ name }) => !waiting.has(name));
  const taken = new Map<GoldTable, Manifest['tables'][string] | undefined>();
  for (const table of declared) taken.set(table, await earlier?.table(table, building));
  const takenCubes = new Map<string, Awaited<ReturnType<EarlierFiles['cube']>>>();
  for (const name of await store.heldCubes()) takenCubes.set(name, await earlier?.cube(name, building));

  const missing = declared.filter((table) => taken.get(table) === undefined);
  const known = new Set(store.declaredCubes);
  const wholeCubes = [...takenCubes.keys()].filter((name) => takenCubes.get(name) === undefined);
  await store.sumCubes(new Set([...wholeCubes, ...missing.flatMap((table) => summedFor(table, known))]));
  await store.ratings.createViews();
  await store.keep(
    missing.filter(({ rowsBy }) => rowsBy !== undefined),
    maker,
  );
  const tables: Manifest['tables'] = {};
  const leftOut: Record<string, string> = Object.fromEntries(waiting);
  for (const [table, entry] of taken) {
    try {
      const write = () => writeTable(store, table, building);
      tables[table.name] = entry ?? (await within(store, table, userTableMs, write));
    } catch (thrown) {
      if (!isFaultOfTable(table, thrown)) throw thrown;
      // A user's table must not stop the others.
      rmSync(join(building, `${table.name}.parquet`), { force: true });
      leftOut[table.name] = messageOf(thrown);
    }
  }
  const cubes: NonNullable<Manifest['cubes']> = {};
  for (const [name, earlierCube] of takenCubes) {
    const { files, next } = earlierCube ?? { files: {}, next: { file: name } };
    Object.assign(cubes, files);
    if (next !== undefined) cubes[next.file] = await writeCube(store, name, building, next);
  }
  syncPath(join(building, 'cubes'));
  return { tables, ...(Object.keys(leftOut).length > 0 && { leftOut }), cubes };
}

/** The cubes that must be summed for a table. The integer form of a kept one reads its relations for the changed ids alone. */
function summedFor(table: GoldTable, known: ReadonlySet<string>): string[] {
  if (table.rowsBy === undefined) return relationsOf(table, known);
  const undeclared = relationsOf({ ...table, select: '', beside: '' }, known).filter(
    (name) => !table.reads.includes(name),
  );
  return [...undeclared, ...relationsOf({ ...table, reads: [], integers: '' }, known)];
}

/** The SQL of a user's table took too long. */
class TooSlow extends Error {}

/** Interrupts the work on a user's table that takes too long. @throws TooSlow */
async function within<T>(
  { connection }: CubeStore,
  { file }: GoldTable,
  limitMs: number,
  work: () => Promise<T>,
): Promise<T> {
  if (file === undefined) return work();
  const limit = AbortSignal.timeout(limitMs);
  const stopInterrupting = interruptOn(limit, connection);
  try {
    return await work();
  } catch (thrown) {
    if (limit.aborted) throw new TooSlow(`its SQL did not end within ${limitMs / 1000} s`);
    throw thrown;
  } finally {
    stopInterrupting();
  }
}

/** Whether the SQL of a user's table failed, rather than the disk or this process. */
function isFaultOfTable({ file }: GoldTable, thrown: unknown): boolean {
  // A file that `confine` keeps from it is not a fault of the disk.
  if (thrown instanceof TooSlow || messageOf(thrown).includes('disabled by configuration'))
    return file !== undefined;
  const fault = storageFaultOf(thrown);
  return file !== undefined && (fault === undefined || fault === 'outOfMemory');
}

async function writeCube(
  store: CubeStore,
  name: string,
  building: string,
  { file, after }: { readonly file: string; readonly after?: number },
): Promise<NonNullable<Manifest['cubes']>[string]> {
  const path = join(building, 'cubes', `${file}.parquet`);
  await store.exportCube(path, name, after);
  syncPath(path);
  return { bytes: statSync(path).size, sha256: await fileSha256(path) };
}

async function writeTable(
  store: CubeStore,
  table: GoldTable,
  folder: string,
): Promise<Manifest['tables'][string]> {
  const { connection } = store;
  let rows = keptRelation(table);
  if (table.rowsBy === undefined) {
    rows = 'computed';
    await connection.run(`CREATE OR REPLACE TEMP TABLE ${rows} AS ${table.integers}`);
  }
  // The check of declarations knows sample rows only.
  const twice = table.file && (await repeatedKey(connection, table.key, rows));
  if (twice) throw new Error(`its key does not identify a row: ${twice}`);
  await connection.run(`CREATE OR REPLACE TEMP VIEW integers AS FROM ${rows}`);
  const scales =
    table.standardised === undefined ? undefined : await readScales(connection, table.standardised);
  const path = join(folder, `${table.name}.parquet`);
  const select = `SELECT ${table.select} FROM integers ${table.beside ?? ''}`;
  const notes = sqlText(JSON.stringify(notesOf(table)));
  await connection.run(
    `COPY (${select} ORDER BY ${table.order}) TO ${sqlPath(path)}
    (${parquetOptions}, KV_METADATA { ${notesKey}: ${notes} })`,
  );
  syncPath(path);
  const sum =
    table.rowsBy === undefined
      ? await contentSum(connection, table, rows)
      : await store.kept.contentOf(table);

  return {
    rows: Number(sum.rows),
    bytes: statSync(path).size,
    sha256: await fileSha256(path),
    contentHash: hashOfSum(sum),
    ...(scales === undefined ? {} : { scales }),
    ...(table.constants && { constants: await readConstants(connection, table.constants) }),
    declaration: tableFingerprint(table),
  };
}

async function readConstants(
  connection: DuckDBConnection,
  constants: NonNullable<GoldTable['constants']>,
): Promise<Record<string, number | null>> {
  const [values = []] = await rowsOf(
    connection,
    `SELECT ${Object.values(constants).join(', ')} FROM integers`,
  );
  return Object.fromEntries(
    Object.keys(constants).map((name, i) => [name, values[i] === null ? null : Number(values[i])]),
  );
}

/** The notes in a table's file: what a row is, and the meaning and unit of each column. */
function notesOf({ about, notes, columns }: GoldTable) {
  const all = Object.keys(columns).map((name) => [name, noteOf(name, notes)]);
  return { about, columns: Object.fromEntries(all) };
}

/** Creates the relation `scales` from the table `integers`. */
async function readScales(connection: DuckDBConnection, columns: readonly string[]): Promise<Scales> {
  await connection.run(`CREATE OR REPLACE TEMP TABLE scales AS ${scalesOf(columns, 'integers')}`);
  const rows = await rowsOf(connection, 'SELECT name, known, mean, deviation FROM scales');
  const number = (value: unknown) => (value === null ? null : Number(value));
  return Object.fromEntries(
    rows.map(([name, known, mean, deviation]) => [
      String(name),
      { known: Number(known), mean: number(mean), deviation: number(deviation) },
    ]),
  );
}
