/**
 * Applies one micro-batch to a store, in one DuckDB transaction:
 *
 * 1. guard: each source goes on exactly at the store's next offset;
 * 2. of the known rows keep the last version of each key, then drop what equals the store (in this order: a row that
 *    changes and changes back within the batch must not be applied halfway);
 * 3. contribution of the affected titles before; delete and insert; contribution after; delta = after − before;
 * 4. delta to the outbox as final bytes, with position, fingerprints, counts and dead letters;
 * 5. commit.
 *
 * Publishing is not done here and may fail or be repeated: a delta is known by its source range.
 */
import { DuckDBBlobValue } from '@duckdb/node-api';
import { appendNumbers, readNumbers } from '../database/duckdb.ts';
import { storeDictionary } from '../database/stored-dictionary.ts';
import { crashPoint } from '../runtime/crash-points.ts';
import { ReelflowError } from '../runtime/errors.ts';
import { type Cube, fingerprintOf as cubeSetOf, relationOf } from '../tables/cubes/cube.ts';
import { type DatasetName, datasets } from '../topics/catalog.ts';
import {
  type CubeRows,
  cubePlan,
  cubesOnTheWire,
  type DeltaHeader,
  encodeDelta,
} from '../topics/delta-wire.ts';
import { withGap } from '../topics/position.ts';
import { nullInt } from '../topics/row-plan.ts';
import { fingerprintOf, type MicroBatch, type StagedRows } from './micro-batch.ts';
import type { OutboxEntry, ShardStore, SourceState } from './store.ts';

export interface AppliedBatch {
  /** Undefined while the store catches up silently: others have published this range. */
  readonly entry: OutboxEntry | undefined;
  readonly applied: number;
  readonly duplicate: number;
  readonly rejected: number;
  readonly deltaRows: number;
}

export interface ApplyOptions {
  /** Registry id of the delta schema. */
  readonly deltaSchemaId: number;
  /** Without deltas, to reach a position that is already published. */
  readonly silently: boolean;
  /** The dead letter of a rejected message as stored bytes and a description. */
  readonly deadLetterOf: (rejected: MicroBatch['rejected'][number]) => { value: Buffer; about: string };
  /** Oldest outbox entries up to this number are published. */
  readonly publishedEntry: number;
}

/**
 * @throws ReelflowError stateUnusable when a source does not go on at the next offset; whatever DuckDB throws, with
 *   the transaction rolled back
 */
export async function applyMicroBatch(
  store: ShardStore,
  batch: MicroBatch,
  options: ApplyOptions,
): Promise<AppliedBatch> {
  guard(store, batch);
  batch.seal();
  const { connection } = store;
  await connection.run('BEGIN');
  try {
    const changes = new Map<DatasetName, Changes>();
    for (const staged of batch.staged.values()) {
      changes.set(staged.dataset, await findChanges(store, staged));
    }
    const befores = options.silently ? [] : await contributionsBefore(store, changes);
    for (const [dataset, change] of changes) await write(store, dataset, change);
    crashPoint('after-append');
    const cubeRows = options.silently ? undefined : await deltas(store, changes, befores);

    const counts = countSources(store, batch, changes);
    const header = headerOf(store, batch, counts);
    const messages = cubeRows === undefined ? [] : encodeDelta(options.deltaSchemaId, header, cubeRows);
    const entry = cubeRows === undefined ? undefined : { number: store.nextEntry, header, messages };
    const words = await record(store, batch, counts, entry, options);
    crashPoint('before-commit');
    await connection.run('COMMIT');

    store.sources = new Map([...store.sources, ...counts.map(({ state }) => [state.topic, state] as const)]);
    // Not all that the dictionary holds by now: the next micro-batch has been filling meanwhile.
    store.dictionaryStored = words;
    if (entry !== undefined) store.nextEntry += 1;
    const total = (of: (count: SourceCount) => number) => counts.reduce((sum, count) => sum + of(count), 0);
    return {
      entry,
      applied: total(({ applied }) => applied),
      duplicate: total(({ duplicate }) => duplicate),
      rejected: total(({ rejected }) => rejected),
      deltaRows: Object.values(cubeRows ?? {}).reduce((sum, { length }) => sum + length, 0),
    };
  } catch (thrown) {
    await connection.run('ROLLBACK').catch(() => undefined);
    throw thrown;
  }
}

// 1. guard

function guard(store: ShardStore, batch: MicroBatch): void {
  for (const { topic, from } of batch.sources.values()) {
    const next = store.sources.get(topic)?.next ?? 0;
    if (from !== next) {
      throw new ReelflowError('stateUnusable', 'A micro-batch does not go on where the store stands', {
        detail: `${topic}: offset ${from} came, ${next} is next.`,
        hint: 'Start the processor again: it reads on from the position of its store.',
      });
    }
  }
}

// 2. changes

/** What a micro-batch does to one dataset, as temporary tables of the store's connection. */
interface Changes {
  readonly staged: StagedRows;
  /** Rows of titles that the store certainly does not hold. */
  readonly fresh: readonly Int32Array[];
  readonly freshCount: number;
  /** How many fresh rows are of rated titles; they stand in the table `fresh_<relation>`. */
  readonly freshRated: number;
  /** Rows of `change_<relation>`: known keys whose row will differ. */
  readonly changed: number;
}

const freshTable = (dataset: DatasetName) => `fresh_${relationOf(dataset)}`;
const knownTable = (dataset: DatasetName) => `known_${relationOf(dataset)}`;
const changeTable = (dataset: DatasetName) => `change_${relationOf(dataset)}`;

/** Columns behind the key may be null, except in ratings; saying so of all costs little. */
function nullability(store: ShardStore, dataset: DatasetName): boolean[] {
  const columns = store.projection.get(dataset) ?? [];
  return columns.map((name) => {
    const type = datasets[dataset].columns.find((column) => column.name === name)?.type;
    return type?.startsWith('nullable') === true;
  });
}

async function findChanges(store: ShardStore, staged: StagedRows): Promise<Changes> {
  const { dataset, records, deletes, known, knownCount } = staged;
  const columns = (store.projection.get(dataset) ?? []).map((_, c) => records.column(c) as Int32Array);
  const freshCount = records.length - knownCount;
  const fresh =
    knownCount === 0 ? columns : gather(columns, records.length, freshCount, (row) => known[row] === 0);

  // A title that is not rated contributes nothing, and most are not: only fresh rows of rated titles go on.
  const rated = store.present.get('title.ratings');
  const titles = fresh[0] as Int32Array;
  let freshRated = 0;
  const isRated = new Uint8Array(freshCount);
  for (let row = 0; row < freshCount; row++) {
    if (rated?.has(titles[row] as number) === true) {
      isRated[row] = 1;
      freshRated += 1;
    }
  }
  if (freshRated > 0) {
    const rows =
      freshRated === freshCount ? fresh : gather(fresh, freshCount, freshRated, (row) => isRated[row] === 1);
    await fillTemporary(store, freshTable(dataset), dataset, [], rows, freshRated);
  }

  let changed = 0;
  if (knownCount + deletes.length > 0) {
    await stageKnown(store, staged, columns);
    changed = await selectChanges(store, dataset, staged.mayRepeat);
  }
  return { staged, fresh, freshCount, freshRated, changed };
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
  columns: readonly Int32Array[],
  length: number,
): Promise<void> {
  const names = [...extraNames, ...(store.projection.get(dataset) ?? [])];
  await store.connection.run(
    `CREATE OR REPLACE TEMP TABLE ${table} (${names.map((name) => `${name} INTEGER`).join(', ')})`,
  );
  const nullable = [...extraNames.map(() => false), ...nullability(store, dataset)];
  await appendNumbers(store.connection, { catalog: 'temp', name: table }, columns, length, nullable);
}

/** `known_<relation>`: place in the partition's order, whether it deletes, then the row. */
async function stageKnown(
  store: ShardStore,
  staged: StagedRows,
  columns: readonly Int32Array[],
): Promise<void> {
  const { dataset, records, deletes, deletePlaces, known, knownCount } = staged;
  const count = knownCount + deletes.length;
  const place = new Int32Array(count);
  const isDelete = new Int32Array(count);
  const rows = columns.map(() => new Int32Array(count));
  let to = 0;
  for (let row = 0; row < records.length; row++) {
    if (known[row] === 0) continue;
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
    [place, isDelete, ...rows],
    count,
  );
}

/** `change_<relation>`: the last version of each key that differs from the store, with the row that it replaces. */
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

// 3. contributions

const datasetsOf = (cube: Cube) => Object.keys(cube.reads) as DatasetName[];
const beforeTable = (cube: Cube) => `before_${cube.name}`;

/** The title column of a dataset: the first of its key. */
const titleOf = (dataset: DatasetName) => datasets[dataset].columns[0]?.name as string;

/** Titles of a cube whose known rows change; only they can have contributed before. */
function changedTitles(cube: Cube, changes: ReadonlyMap<DatasetName, Changes>): string[] {
  return datasetsOf(cube)
    .filter((dataset) => (changes.get(dataset)?.changed ?? 0) > 0)
    .map((dataset) => `SELECT ${titleOf(dataset)} AS title FROM ${changeTable(dataset)}`);
}

function freshTitles(cube: Cube, changes: ReadonlyMap<DatasetName, Changes>): string[] {
  return datasetsOf(cube)
    .filter((dataset) => (changes.get(dataset)?.freshRated ?? 0) > 0)
    .map((dataset) => `SELECT ${titleOf(dataset)} AS title FROM ${freshTable(dataset)}`);
}

/** @returns the cubes that have a table `before_<cube>` */
async function contributionsBefore(
  store: ShardStore,
  changes: ReadonlyMap<DatasetName, Changes>,
): Promise<Cube[]> {
  const affected: Cube[] = [];
  for (const cube of store.identity.cubeSet) {
    const changed = changedTitles(cube, changes);
    if (changed.length === 0) continue;
    const relations = datasetsOf(cube).map(
      (dataset) =>
        `${relationOf(dataset)} AS (SELECT * FROM ${store.table(dataset)}
          WHERE ${titleOf(dataset)} IN (SELECT title FROM affected))`,
    );
    await store.connection.run(`
      CREATE OR REPLACE TEMP TABLE ${beforeTable(cube)} AS
      WITH affected AS MATERIALIZED (SELECT DISTINCT title FROM (${changed.join(' UNION ALL ')})),
      ${relations.join(', ')}
      ${cube.contribution}`);
    affected.push(cube);
  }
  return affected;
}

async function write(store: ShardStore, dataset: DatasetName, change: Changes): Promise<void> {
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
    await appendNumbers(
      connection,
      { catalog: store.catalog, name: relationOf(dataset) },
      change.fresh,
      change.freshCount,
      nullability(store, dataset),
    );
  }
}

/** after − before of every cube that this micro-batch touches, zero rows dropped. */
async function deltas(
  store: ShardStore,
  changes: ReadonlyMap<DatasetName, Changes>,
  befores: readonly Cube[],
): Promise<Record<string, CubeRows>> {
  const rows: Record<string, CubeRows> = {};
  for (const cube of store.identity.cubeSet) {
    const changed = changedTitles(cube, changes);
    const fresh = freshTitles(cube, changes);
    if (changed.length + fresh.length === 0) continue;
    const touched = datasetsOf(cube).filter((dataset) => {
      const change = changes.get(dataset);
      return (change?.changed ?? 0) + (change?.freshRated ?? 0) > 0;
    });
    const relations = datasetsOf(cube).map((dataset) => {
      const columns = (store.projection.get(dataset) ?? []).join(', ');
      const isFresh = (changes.get(dataset)?.freshRated ?? 0) > 0;
      const title = titleOf(dataset);
      const freshRows = `SELECT ${columns} FROM ${freshTable(dataset)}`;
      // The fresh rows are all rows of their titles: the store is asked only for the others.
      const isAsked = !isFresh || touched.length > 1 || (changes.get(dataset)?.changed ?? 0) > 0;
      const others = isFresh
        ? `SELECT title FROM affected EXCEPT SELECT ${title} FROM ${freshTable(dataset)}`
        : 'SELECT title FROM affected';
      const stored = `SELECT ${columns} FROM ${store.table(dataset)} WHERE ${title} IN (${others})`;
      const parts = [...(isFresh ? [freshRows] : []), ...(isAsked ? [stored] : [])];
      return `${relationOf(dataset)} AS (${parts.join(' UNION ALL ')})`;
    });
    const { key, measures } = cube;
    const signed = befores.includes(cube)
      ? `SELECT ${[...key, ...measures].join(', ')} FROM after
         UNION ALL
         SELECT ${[...key, ...measures.map((name) => `-${name}`)].join(', ')} FROM ${beforeTable(cube)}`
      : 'FROM after';
    const { columns, length } = await readNumbers(
      store.connection,
      `WITH affected AS MATERIALIZED (SELECT DISTINCT title FROM (${[...changed, ...fresh].join(' UNION ALL ')})),
      ${relations.join(', ')},
      after AS (${cube.contribution})
      SELECT ${key.map((name) => `${name}::INTEGER`).join(', ')},
        ${measures.map((name) => `sum(${name})::DOUBLE AS ${name}`).join(', ')}
      FROM (${signed}) AS signed
      GROUP BY ${key.join(', ')}
      HAVING ${measures.map((name) => `sum(${name}) <> 0`).join(' OR ')}`,
    );
    if (length > 0) rows[cube.array] = withRows(rows[cube.array], store, cube, columns, length);
  }
  return rows;
}

/**
 * The rows of a cube behind those that its array holds already.
 * @param columns of the cube's key and measures
 */
function withRows(
  before: CubeRows | undefined,
  store: ShardStore,
  cube: Cube,
  columns: readonly (Int32Array | Float64Array)[],
  length: number,
): CubeRows {
  const wire = cubesOnTheWire.find(({ name }) => name === cube.array);
  if (wire === undefined) throw new RangeError(`the delta schema has no array for cube ${cube.name}`);
  const plan = before?.plan ?? cubePlan(wire, store.dictionary);
  const own = [...cube.key, ...cube.measures];
  const inOrder = plan.names.map((name, c) => {
    const column = columns[own.indexOf(name)];
    if (column !== undefined) return column.subarray(0, length);
    return plan.forms[c] === 'long' ? new Float64Array(length) : new Int32Array(length).fill(nullInt);
  });
  if (before === undefined) return { plan, columns: inOrder, length };
  const joined = inOrder.map((column, c) => {
    const both = new (column.constructor as Float64ArrayConstructor)(before.length + length);
    both.set(before.columns[c] as ArrayLike<number>);
    both.set(column, before.length);
    return both;
  });
  return { plan, columns: joined, length: before.length + length };
}

// 4. record

interface SourceCount {
  readonly from: number;
  readonly applied: number;
  readonly duplicate: number;
  readonly rejected: number;
  /** The source's state after this micro-batch. */
  readonly state: SourceState;
}

function countSources(
  store: ShardStore,
  batch: MicroBatch,
  changes: ReadonlyMap<DatasetName, Changes>,
): SourceCount[] {
  return [...batch.sources.values()].map(({ topic, dataset, from, to, gap, records, rejected, last }) => {
    const change = changes.get(dataset);
    const applied = (change?.freshCount ?? 0) + (change?.changed ?? 0);
    const duplicate = records - rejected - applied;
    const before = store.sources.get(topic);
    const gaps = before?.gaps ?? [];
    return {
      from,
      applied,
      duplicate,
      rejected,
      state: {
        topic,
        next: to,
        fingerprint: fingerprintOf(last),
        applied: (before?.applied ?? 0) + applied,
        duplicate: (before?.duplicate ?? 0) + duplicate,
        rejected: (before?.rejected ?? 0) + rejected,
        gaps: gap === undefined ? gaps : withGap(gaps, gap),
      },
    };
  });
}

/** The range names every source of the shard, also those that did not move: it is a whole position. */
function headerOf(store: ShardStore, batch: MicroBatch, counts: readonly SourceCount[]): DeltaHeader {
  const { identity } = store;
  const moved = new Map(counts.map((count) => [count.state.topic, count]));
  const topics = new Set([...store.sources.keys(), ...moved.keys()]);
  return {
    shard: identity.shard,
    shards: identity.shards,
    generation: identity.generation,
    cubeSet: cubeSetOf(identity.cubeSet),
    storeId: store.writerId,
    kind: 'delta',
    range: [...topics].sort().map((topic) => {
      const count = moved.get(topic);
      const next = store.sources.get(topic)?.next ?? 0;
      return {
        topic,
        from: next,
        to: count?.state.next ?? next,
        applied: count?.applied ?? 0,
        duplicate: count?.duplicate ?? 0,
        rejected: count?.rejected ?? 0,
        gaps: (count?.state ?? store.sources.get(topic))?.gaps ?? [],
      };
    }),
    recordTimeMs: batch.recordTimeMs,
  };
}

/** @returns how many words of the dictionary the database now holds */
async function record(
  store: ShardStore,
  batch: MicroBatch,
  counts: readonly SourceCount[],
  entry: OutboxEntry | undefined,
  options: ApplyOptions,
): Promise<number> {
  const { connection, catalog } = store;
  for (const { state } of counts) {
    const { topic, next, fingerprint, applied, duplicate, rejected, gaps } = state;
    if (store.sources.has(topic))
      await connection.run(`DELETE FROM ${catalog}.source WHERE topic = $1`, [topic]);
    await connection.run(
      `INSERT INTO ${catalog}.source VALUES ($1, ${next}, $2, ${fingerprint.chunk}, $3, ${applied}, ${duplicate}, ${rejected}, $4)`,
      [topic, fingerprint.runId, fingerprint.hash, JSON.stringify(gaps)],
    );
  }
  if (options.publishedEntry > 0) {
    await connection.run(`DELETE FROM ${catalog}.outbox WHERE number <= ${options.publishedEntry}`);
    await connection.run(`DELETE FROM ${catalog}.dead_letter WHERE number <= ${options.publishedEntry}`);
  }
  const words = await storeDictionary(
    connection,
    store.dictionaryTable,
    store.dictionary,
    store.dictionaryStored,
  );
  const number = entry?.number ?? store.nextEntry;
  if (entry !== undefined) await storeMessages(store, entry);
  if (!options.silently) {
    for (const rejected of batch.rejected) {
      const { value, about } = options.deadLetterOf(rejected);
      await connection.run(`INSERT INTO ${catalog}.dead_letter VALUES (${number}, $1, $2)`, [
        blobOf(value),
        about,
      ]);
    }
  }
  return words;
}

/** Puts the final messages of an entry into the outbox. */
async function storeMessages(store: ShardStore, { number, header, messages }: OutboxEntry): Promise<void> {
  for (const [part, message] of messages.entries()) {
    await store.connection.run(
      `INSERT INTO ${store.catalog}.outbox VALUES (${number}, ${part + 1}, $1, $2)`,
      [part === 0 ? JSON.stringify(header) : '', blobOf(message)],
    );
  }
}

const blobOf = (bytes: Uint8Array) => new DuckDBBlobValue(bytes);

// A base

/**
 * Puts the whole cubes of the store into the outbox, for readers that have no history of deltas to build on.
 * @returns the entry, committed
 */
export async function writeBase(store: ShardStore, deltaSchemaId: number): Promise<OutboxEntry> {
  const { connection, identity } = store;
  const rows: Record<string, CubeRows> = {};
  for (const cube of identity.cubeSet) {
    const relations = datasetsOf(cube).map(
      (dataset) => `${relationOf(dataset)} AS (FROM ${store.table(dataset)})`,
    );
    const { columns, length } = await readNumbers(
      connection,
      `WITH ${relations.join(', ')}, cube AS (${cube.contribution})
      SELECT ${cube.key.map((name) => `${name}::INTEGER`).join(', ')},
        ${cube.measures.map((name) => `${name}::DOUBLE`).join(', ')}
      FROM cube`,
    );
    rows[cube.array] = withRows(rows[cube.array], store, cube, columns, length);
  }
  const header: DeltaHeader = {
    shard: identity.shard,
    shards: identity.shards,
    generation: identity.generation,
    cubeSet: cubeSetOf(identity.cubeSet),
    storeId: store.writerId,
    kind: 'base',
    range: [...store.sources.values()].map(({ topic, next, applied, duplicate, rejected, gaps }) => ({
      topic,
      from: 0,
      to: next,
      applied,
      duplicate,
      rejected,
      gaps,
    })),
    recordTimeMs: Date.now(),
  };
  const entry = { number: store.nextEntry, header, messages: encodeDelta(deltaSchemaId, header, rows) };
  await connection.run('BEGIN');
  await connection.run(`DELETE FROM ${store.catalog}.outbox`);
  await storeMessages(store, entry);
  await connection.run('COMMIT');
  store.nextEntry += 1;
  return entry;
}
