/**
 * Publishes a snapshot:
 *
 * 1. sum the cubes, write every table and the cubes per shard into `snapshots/.<id>`, and sync each file; a file whose cubes
 *    have not changed since the snapshot before is linked;
 * 2. write the manifest last, sync the folder;
 * 3. rename the folder to `snapshots/<id>`, sync its parent;
 * 4. swap the catalogue by rename: after a crash from here on CURRENT is older, so the next run publishes both again;
 * 5. swap CURRENT by rename, sync the gold folder.
 *
 * A reader that follows CURRENT finds a complete snapshot at every moment. A crash leaves a folder whose name starts with a
 * dot, which the next run removes, or a complete snapshot that CURRENT does not name, which counts as any other for
 * retention. A failure leaves nothing.
 * What a snapshot was made from is recorded last.
 */
import { existsSync, mkdirSync, renameSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { type DuckDBConnection, version as duckdbVersion } from '@duckdb/node-api';
import { sqlPath, sqlText } from '../../database/sql.ts';
import { asStorageError, storageFaultOf } from '../../database/storage-errors.ts';
import { crashPoint } from '../../runtime/crash-points.ts';
import { messageOf, ReelflowError } from '../../runtime/errors.ts';
import { fileSha256, makeFolder, syncPath } from '../../runtime/files.ts';
import { noteOf, notesKey } from '../../tables/column-notes.ts';
import { contentHashVersion, contentSum, hashOfSum } from '../../tables/content-hash.ts';
import { type GoldTable, tableFingerprint } from '../../tables/gold-table.ts';
import { goldTables } from '../../tables/gold-tables.ts';
import { repeatedKey } from '../../tables/repeated-key.ts';
import { scalesOf } from '../../tables/scales.ts';
import { startAfter } from '../../topics/position.ts';
import { noRecords, type RecordCounts, sumOf } from '../../topics/record-counts.ts';
import type { CubeStore } from '../cube-store.ts';
import { parquetOptions } from '../cube-tables.ts';
import { keptRelation } from '../kept-tables.ts';
import { writeCatalogue } from './catalogue.ts';
import { EarlierFiles, makerOf, relationsOf } from './earlier-files.ts';
import { goldStorage } from './gold-storage.ts';
import {
  currentSnapshot,
  type Manifest,
  manifestVersion,
  newestId,
  nextSnapshotId,
  type Scales,
  snapshotFolder,
  snapshotsFolder,
} from './manifest.ts';

interface SnapshotContext {
  readonly gold: string;
  readonly namespace: string;
  readonly clusterId: string;
  /** subject → registry id */
  readonly schemas: Readonly<Record<string, number>>;
  readonly peopleTopic: string;
  readonly reelflowVersion: string;
  /** Decides, once the tables are computed, whether they are published. Default: they are. */
  readonly isWorthIt?: (manifest: Manifest) => boolean;
  /** Which dumps an input is. */
  readonly dumpsIn?: (input: Manifest['input']) => Manifest['dumps'];
  /** Length of the history of ratings, in days before the newest dump. */
  readonly historyDays: number;
  /** Default: the built-in ones. */
  readonly tables?: readonly GoldTable[];
  /** How long the SQL of a user's table may take, in milliseconds: the others wait for it. */
  readonly userTableMs?: number;
  /** Tables that are left out because their cubes are not complete, with the reason. */
  readonly waiting?: ReadonlyMap<string, string>;
}

/** Writes and publishes a snapshot of the store, unless it is not worth it. @throws ReelflowError diskFull, goldUnusable */
export async function publishSnapshot(store: CubeStore, context: SnapshotContext): Promise<Manifest> {
  const {
    gold,
    tables: declared = goldTables,
    waiting = new Map<string, string>(),
    userTableMs = 60_000,
  } = context;
  const created = new Date();
  const id = nextSnapshotId(newestId(gold), created);
  const building = join(snapshotsFolder(gold), `.${id}`);
  try {
    makeFolder(building);
    mkdirSync(join(building, 'cubes'));
    const maker = makerOf(context.reelflowVersion, store.cubeSet, declared);
    const earlier = EarlierFiles.of(store, gold, maker);
    const files = await writeFiles(store, building, { declared, waiting, maker, userTableMs }, earlier);
    const manifest = manifestOf(store, context, id, created, files);
    if (context.isWorthIt?.(manifest) === false) {
      removeQuietly(building);
      return manifest;
    }
    crashPoint('after-parquet-before-manifest');

    writeFileSync(join(building, 'manifest.json'), `${JSON.stringify(manifest, undefined, 2)}\n`);
    syncPath(join(building, 'manifest.json'));
    syncPath(building);

    await putInPlace(gold, building, manifest, declared);
    // After a crash before this line, the next snapshot takes over no file.
    await store.recordPublished({ snapshot: id, maker, revisions: store.revisions });
    return manifest;
  } catch (thrown) {
    removeQuietly(building);
    throw asStorageError(thrown, goldStorage(gold));
  }
}

/** Steps 3 to 5: makes a complete folder the newest snapshot. After a failure the folder has its old name again. */
export async function putInPlace(
  gold: string,
  building: string,
  manifest: Manifest,
  tables: readonly GoldTable[] = goldTables,
): Promise<void> {
  const folder = snapshotFolder(gold, manifest.id);
  renameSync(building, folder);
  try {
    syncPath(snapshotsFolder(gold));
    await writeCatalogue(gold, manifest, tables);
    crashPoint('after-manifest-before-current');

    const next = join(gold, '.CURRENT');
    writeFileSync(next, `${manifest.id}\n`);
    syncPath(next);
    renameSync(next, join(gold, 'CURRENT'));
    syncPath(gold);
  } catch (thrown) {
    if (currentSnapshot(gold) !== manifest.id) renameSync(folder, building);
    throw thrown;
  }
}

/** The failure that made a folder useless matters more than one of its removal; the next retention removes the rest. */
function removeQuietly(folder: string): void {
  try {
    rmSync(folder, { recursive: true, force: true });
  } catch {
    // The next retention tries again.
  }
}

interface MadeFrom {
  readonly declared: readonly GoldTable[];
  readonly waiting: ReadonlyMap<string, string>;
  readonly maker: string;
  readonly userTableMs: number;
}

/** Writes all tables and cubes, or takes over what has not changed since the snapshot before. */
async function writeFiles(
  store: CubeStore,
  building: string,
  { declared: all, waiting, maker, userTableMs }: MadeFrom,
  earlier: EarlierFiles | undefined,
): Promise<Pick<Manifest, 'tables' | 'leftOut' | 'cubes'>> {
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
      if (!isOwnFault(table, thrown)) throw thrown;
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
  let isLate = false;
  // Repeatedly, because an interrupt ends only the statement that runs at that moment.
  const interrupt = () => {
    isLate = true;
    connection.interrupt();
    timer = setTimeout(interrupt, 100);
  };
  let timer = setTimeout(interrupt, limitMs);
  try {
    return await work();
  } catch (thrown) {
    if (isLate) throw new TooSlow(`its SQL did not end within ${limitMs / 1000} s`);
    throw thrown;
  } finally {
    clearTimeout(timer);
  }
}

/** Whether the SQL of a user's table failed, rather than the disk or this process. */
function isOwnFault({ file }: GoldTable, thrown: unknown): boolean {
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

/** Checks the cubes of a snapshot against its manifest. @throws ReelflowError goldUnusable */
export async function requireCubes(gold: string, { id, cubes = {} }: Manifest): Promise<void> {
  for (const [name, { sha256 }] of Object.entries(cubes)) {
    const path = join(snapshotFolder(gold, id), 'cubes', `${name}.parquet`);
    if (existsSync(path) && (await fileSha256(path)) === sha256) continue;
    throw new ReelflowError('goldUnusable', `A cube of snapshot ${id} is missing or was altered`, {
      detail: path,
      hint: 'Write the id of an earlier snapshot into CURRENT; or run `reelflow reset` and use another --gold folder.',
    });
  }
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
  const rows = await connection.runAndReadAll(`SELECT ${Object.values(constants).join(', ')} FROM integers`);
  const values = rows.getRows()[0] ?? [];
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
  const rows = await connection.runAndReadAll('SELECT name, known, mean, deviation FROM scales');
  const number = (value: unknown) => (value === null ? null : Number(value));
  return Object.fromEntries(
    rows
      .getRows()
      .map(([name, known, mean, deviation]) => [
        String(name),
        { known: Number(known), mean: number(mean), deviation: number(deviation) },
      ]),
  );
}

function manifestOf(
  store: CubeStore,
  context: SnapshotContext,
  id: string,
  created: Date,
  files: Pick<Manifest, 'tables' | 'leftOut' | 'cubes'>,
): Manifest {
  const input: Manifest['input'] = {};
  const accounting: Record<string, RecordCounts> = {};
  const count = (topic: string, counts: RecordCounts) => {
    accounting[topic] = sumOf(accounting[topic] ?? noRecords, counts);
  };
  const shards: Manifest['shards'] = {};
  const deltas: Manifest['deltas'] = {};
  for (const { shard, shards: all, chain, next, lastDelta, counts } of store.shards.values()) {
    deltas[shard] = next;
    shards[shard] = {
      generation: chain.generation,
      cubeSet: chain.cubeSet,
      shards: all,
      lastDelta,
      sources: Object.fromEntries(
        Object.entries(counts).map(([topic, of]) => [
          topic,
          {
            ...of,
            next: chain.position[topic] ?? 0,
            gaps: (chain.gaps[topic] ?? []).map(([from, to]) => [from, to]),
          },
        ]),
      ),
    };
    for (const [topic, to] of Object.entries(chain.position)) {
      input[topic] = { ...input[topic], [shard]: [startAfter(chain.gaps[topic] ?? []), to] };
    }
    for (const [topic, of] of Object.entries(counts)) count(topic, of);
  }
  const names: Manifest['names'] = {};
  for (const state of store.peopleStates.values()) {
    names[state.partition] = sumOf(noRecords, state);
    input[context.peopleTopic] = {
      ...input[context.peopleTopic],
      [state.partition]: [state.start ?? 0, state.next],
    };
    count(context.peopleTopic, state);
  }
  return {
    id,
    created: created.toISOString(),
    namespace: context.namespace,
    clusterId: context.clusterId,
    ...files,
    input,
    ...(context.dumpsIn !== undefined && { dumps: context.dumpsIn(input) }),
    accounting,
    deltas,
    shards,
    names,
    history: store.ratings.summary(context.historyDays),
    ...(store.titles.isRead && { titleNames: { gaps: store.titles.lacking(store.shards) } }),
    schemas: { ...context.schemas },
    versions: {
      reelflow: context.reelflowVersion,
      duckdb: duckdbVersion(),
      contentHash: contentHashVersion,
      manifest: manifestVersion,
    },
  };
}
