/**
 * Which rows of a store a micro-batch changes. Of the known rows the last version of each key counts, and it is dropped if
 * it equals the stored row. The order matters: a row that changes and changes back within the micro-batch must not be
 * applied halfway.
 */
import { type AppendedColumn, appendColumns, readNumbers } from '../database/duckdb.ts';
import { relationOf } from '../tables/cubes/cube.ts';
import { gatesOf } from '../tables/cubes/cube-set.ts';
import { type DatasetName, datasets } from '../topics/catalog.ts';
import { firstIdOf, groupSize } from '../topics/id-groups.ts';
import { type ShardStore, storedType } from './shard-store.ts';
import type { StagedRows } from './staged-rows.ts';

/** The effect of a micro-batch on one dataset, as columns and as temporary tables of the store's connection. */
export interface Changes {
  readonly staged: StagedRows;
  /** Rows of titles that the store does not hold. */
  readonly fresh: readonly Int32Array[];
  readonly freshCount: number;
  /**
   * By the gates of the cubes that read the dataset: the titles among them that pass it, each once. `freshTable` holds their rows,
   * if there are any.
   */
  readonly freshTitles: ReadonlyMap<DatasetName, Int32Array>;
  /** Rows of `change_<relation>`: known keys whose row will differ, and stored rows that a replacement removes. */
  readonly changed: number;
  /** How many of them a replacement removes. */
  readonly removed: number;
}

export const freshTable = (dataset: DatasetName, gate: DatasetName) =>
  `fresh_${relationOf(dataset)}_by_${relationOf(gate)}`;
/** Ids of the replaced groups of which the store may hold rows. */
const replacedTable = (dataset: DatasetName) => `replaced_${relationOf(dataset)}`;
const knownTable = (dataset: DatasetName) => `known_${relationOf(dataset)}`;
export const changeTable = (dataset: DatasetName) => `change_${relationOf(dataset)}`;

/** Which columns of a store's table may be null. */
function nullability(store: ShardStore, dataset: DatasetName): boolean[] {
  const columns = store.projection.get(dataset) ?? [];
  return columns.map((name) => {
    const type = datasets[dataset].columns.find((column) => column.name === name)?.type;
    return type?.startsWith('nullable') === true;
  });
}

/** Columns of a dataset with their lists, to append. */
function withLists(
  store: ShardStore,
  { dataset, records }: StagedRows,
  columns: readonly Int32Array[],
): AppendedColumn[] {
  const names = store.projection.get(dataset) ?? [];
  return columns.map((column, c) =>
    storedType(dataset, names[c] ?? '') === 'INTEGER' ? column : { places: column, items: records.lists },
  );
}

/** Compares the rows of a dataset with the store, and creates the temporary tables that `Changes` describes. */
export async function findChanges(store: ShardStore, staged: StagedRows): Promise<Changes> {
  const { dataset, records, deletes, known, knownCount } = staged;
  const columns = (store.projection.get(dataset) ?? []).map((_, c) => records.column(c) as Int32Array);
  const freshCount = records.length - knownCount;
  const fresh =
    knownCount === 0 ? columns : gather(columns, records.length, freshCount, (row) => known[row] === 0);

  const freshTitles = new Map<DatasetName, Int32Array>();
  for (const gate of gatesOf(store.identity.cubeSet, dataset)) {
    freshTitles.set(gate, await stageFresh(store, staged, gate, fresh, freshCount));
  }

  const replaced = await stageReplaced(store, staged);
  let changed = 0;
  let removed = 0;
  if (knownCount + deletes.length + replaced > 0) {
    await stageKnown(store, staged, columns);
    changed = await selectChanges(store, dataset, staged.mayRepeat);
    if (replaced > 0) removed = await selectRemoved(store, dataset);
  }
  return {
    staged,
    fresh,
    freshCount,
    freshTitles,
    changed: changed + removed,
    removed,
  };
}

/**
 * Fills the table of the fresh rows that pass a gate. Most titles are not rated, and an unrated title contributes nothing to a cube that
 * title.ratings gates: only fresh rows of rated titles go to it.
 * @returns their titles, each once
 */
async function stageFresh(
  store: ShardStore,
  staged: StagedRows,
  gate: DatasetName,
  fresh: readonly Int32Array[],
  count: number,
): Promise<Int32Array> {
  const gated = store.present.get(gate);
  const titles = fresh[0] as Int32Array;
  let passing = 0;
  const passes = new Uint8Array(count);
  const distinct: number[] = [];
  for (let row = 0; row < count; row++) {
    const title = titles[row] as number;
    if (gated?.has(title) === true) {
      passes[row] = 1;
      passing += 1;
      // The rows of a fresh title follow each other.
      if (title !== distinct.at(-1)) distinct.push(title);
    }
  }
  if (passing > 0) {
    const rows = passing === count ? fresh : gather(fresh, count, passing, (row) => passes[row] === 1);
    const { dataset } = staged;
    await fillTemporary(
      store,
      freshTable(dataset, gate),
      dataset,
      [],
      withLists(store, staged, rows),
      passing,
    );
  }
  return Int32Array.from(distinct);
}

/** @returns how many ids the table of replaced ids holds; it exists if there are any */
async function stageReplaced(store: ShardStore, { dataset, replacedAt }: StagedRows): Promise<number> {
  const present = store.present.get(dataset);
  const ids: number[] = [];
  for (const group of replacedAt.keys()) {
    const first = firstIdOf(group);
    for (let id = first; id < first + groupSize; id++) if (present?.has(id) === true) ids.push(id);
  }
  if (ids.length === 0) return 0;
  const table = replacedTable(dataset);
  await store.connection.run(`CREATE OR REPLACE TEMP TABLE ${table} (id INTEGER)`);
  await appendColumns(
    store.connection,
    { catalog: 'temp', name: table },
    [Int32Array.from(ids)],
    ids.length,
    [false],
  );
  return ids.length;
}

function gather(
  columns: readonly Int32Array[],
  length: number,
  count: number,
  keep: (row: number) => boolean,
): Int32Array[] {
  const picked = new Int32Array(count);
  for (let row = 0, to = 0; row < length; row++) if (keep(row)) picked[to++] = row;
  return columns.map((column) => {
    const out = new Int32Array(count);
    for (let i = 0; i < count; i++) out[i] = column[picked[i] as number] as number;
    return out;
  });
}

async function fillTemporary(
  store: ShardStore,
  table: string,
  dataset: DatasetName,
  extraNames: readonly string[],
  columns: readonly AppendedColumn[],
  length: number,
): Promise<void> {
  const definitions = [
    ...extraNames.map((name) => `${name} INTEGER`),
    ...(store.projection.get(dataset) ?? []).map((name) => `${name} ${storedType(dataset, name)}`),
  ];
  await store.connection.run(`CREATE OR REPLACE TEMP TABLE ${table} (${definitions.join(', ')})`);
  const nullable = [...extraNames.map(() => false), ...nullability(store, dataset)];
  await appendColumns(store.connection, { catalog: 'temp', name: table }, columns, length, nullable);
}

/** `known_<relation>`: place in the order of the partition, whether the row is a delete, then the row. */
async function stageKnown(
  store: ShardStore,
  staged: StagedRows,
  columns: readonly Int32Array[],
): Promise<void> {
  const { dataset, records, deletes, deletePlaces, known, knownCount } = staged;
  const titles = records.int(0);
  const count = knownCount + deletes.length;
  const place = new Int32Array(count);
  const isDelete = new Int32Array(count);
  const rows = columns.map(() => new Int32Array(count));
  let to = 0;
  for (let row = 0; row < records.length; row++) {
    if (known[row] === 0 || staged.isReplaced(titles[row] as number, row)) continue;
    place[to] = row * 2 + 1;
    for (let c = 0; c < columns.length; c++) {
      (rows[c] as Int32Array)[to] = (columns[c] as Int32Array)[row] as number;
    }
    to += 1;
  }
  const { keyColumns } = datasets[dataset];
  for (let row = 0; row < deletes.length; row++) {
    place[to] = (deletePlaces[row] as number) * 2;
    isDelete[to] = 1;
    for (let c = 0; c < keyColumns; c++) (rows[c] as Int32Array)[to] = deletes.int(c)[row] as number;
    to += 1;
  }
  await fillTemporary(
    store,
    knownTable(dataset),
    dataset,
    ['place', 'isDelete'],
    [place, isDelete, ...withLists(store, staged, rows)],
    to,
  );
}

/** `change_<relation>`: the last version of each key that differs from the store, with the id of the row it replaces. */
async function selectChanges(store: ShardStore, dataset: DatasetName, mayRepeat: boolean): Promise<number> {
  const columns = store.projection.get(dataset) ?? [];
  const { keyColumns } = datasets[dataset];
  const key = columns.slice(0, keyColumns);
  const values = columns.slice(keyColumns);
  const on = key.map((name) => `latest.${name} = stored.${name}`).join(' AND ');
  const latest = mayRepeat
    ? `(FROM ${knownTable(dataset)} QUALIFY row_number() OVER (PARTITION BY ${key.join(', ')} ORDER BY place DESC) = 1)`
    : knownTable(dataset);
  const differs =
    values.length === 0
      ? 'false'
      : values.map((name) => `latest.${name} IS DISTINCT FROM stored.${name}`).join(' OR ');
  await store.connection.run(`
    CREATE OR REPLACE TEMP TABLE ${changeTable(dataset)} AS
    SELECT latest.*, stored.rowid AS storedRow
    FROM ${latest} AS latest LEFT JOIN ${store.table(dataset)} AS stored ON ${on}
    WHERE CASE WHEN latest.isDelete = 1 THEN stored.rowid IS NOT NULL ELSE stored.rowid IS NULL OR ${differs} END`);
  const { columns: counted } = await readNumbers(
    store.connection,
    `SELECT count(*)::INTEGER FROM ${changeTable(dataset)}`,
  );
  return counted[0]?.[0] ?? 0;
}

/**
 * Adds to `change_<relation>` the stored rows of replaced groups whose key has no later version.
 * @returns how many
 */
async function selectRemoved(store: ShardStore, dataset: DatasetName): Promise<number> {
  const columns = store.projection.get(dataset) ?? [];
  const key = columns.slice(0, datasets[dataset].keyColumns);
  const on = key.map((name) => `known.${name} = stored.${name}`).join(' AND ');
  const { rowsChanged } = await store.connection.run(
    `INSERT INTO ${changeTable(dataset)}
    SELECT 0, 1, ${columns.map((name) => `stored.${name}`).join(', ')}, stored.rowid
    FROM ${store.table(dataset)} AS stored
    WHERE stored.${key[0]} IN (SELECT id FROM ${replacedTable(dataset)})
      AND NOT EXISTS (FROM ${knownTable(dataset)} AS known WHERE ${on})`,
  );
  return rowsChanged;
}

/** Writes the changes of a dataset to the store, as part of the open transaction. */
export async function writeChanges(store: ShardStore, dataset: DatasetName, change: Changes): Promise<void> {
  const { connection } = store;
  const columns = (store.projection.get(dataset) ?? []).join(', ');
  if (change.changed > 0) {
    await connection.run(`
      DELETE FROM ${store.table(dataset)} WHERE rowid IN
        (SELECT storedRow FROM ${changeTable(dataset)} WHERE storedRow IS NOT NULL)`);
    await connection.run(`
      INSERT INTO ${store.table(dataset)}
      SELECT ${columns} FROM ${changeTable(dataset)} WHERE isDelete = 0`);
  }
  if (change.freshCount > 0) {
    await appendColumns(
      connection,
      { catalog: store.catalog, name: relationOf(dataset) },
      withLists(store, change.staged, change.fresh),
      change.freshCount,
      nullability(store, dataset),
    );
  }
}
