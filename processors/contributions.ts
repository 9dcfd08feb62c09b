/**
 * The change of the cubes that a micro-batch causes: the contribution of the affected titles after it minus their
 * contribution before it.
 */
import { appendColumns, readNumbers } from '../database/duckdb.ts';
import { type Cube, gateOf, relationOf, rowsOf } from '../tables/cubes/cube.ts';
import { gatesOf } from '../tables/cubes/cube-set.ts';
import { DeclarationFailure, ofDeclaration } from '../tables/declaration-failure.ts';
import { type DatasetName, datasets } from '../topics/catalog.ts';
import type { CubeRows } from '../topics/cube-rows.ts';
import { IdSet } from '../topics/id-set.ts';
import { type Changes, changeTable, freshTable } from './changes.ts';
import type { ShardStore } from './shard-store.ts';

export const datasetsOf = (cube: Cube) => Object.keys(cube.reads) as DatasetName[];
const affectedTable = 'affected_titles';
/** The stored rows of affected titles as they were before the micro-batch, with their row ids. */
const touchedTable = (dataset: DatasetName) => `touched_${relationOf(dataset)}`;

/** The title column of a dataset: the first of its key. */
const titleOf = (dataset: DatasetName) => datasets[dataset].columns[0]?.name as string;

/** Whether rows of titles change that the store knows: only these can have contributed before. */
const hasChanged = (cube: Cube, changes: ReadonlyMap<DatasetName, Changes>) =>
  datasetsOf(cube).some((dataset) => (changes.get(dataset)?.changed ?? 0) > 0);

const noTitles = new Int32Array(0);

/** The titles that pass a gate and whose rows in a dataset are new to the store. */
const freshTitlesOf = (dataset: DatasetName, gate: DatasetName, changes: ReadonlyMap<DatasetName, Changes>) =>
  changes.get(dataset)?.freshTitles.get(gate) ?? noTitles;

/**
 * Copies the stored rows of all titles whose contribution may change, before the changes are written: one look at each dataset,
 * whatever the number of cubes. The contributions before and after come from these copies.
 */
export async function touchRows(
  store: ShardStore,
  changes: ReadonlyMap<DatasetName, Changes>,
): Promise<void> {
  const cubes = store.identity.cubeSet.filter((cube) => hasChanged(cube, changes));
  if (cubes.length === 0) return;
  const { connection, projection } = store;
  const titles = Int32Array.from(await affectedTitles(store, cubes, changes));
  await connection.run(`CREATE OR REPLACE TEMP TABLE ${affectedTable} (title INTEGER)`);
  await appendColumns(connection, { catalog: 'temp', name: affectedTable }, [titles], titles.length, [false]);
  for (const dataset of new Set(cubes.flatMap(datasetsOf))) {
    const columns = (projection.get(dataset) ?? []).join(', ');
    await connection.run(`
      CREATE OR REPLACE TEMP TABLE ${touchedTable(dataset)} AS
      SELECT rowid AS storedRow, ${columns} FROM ${store.table(dataset)}
      WHERE ${titleOf(dataset)} IN (FROM ${affectedTable})`);
  }
}

/** Titles with changed or fresh rows that pass a gate; one that passes none contributes neither before nor after. */
async function affectedTitles(
  store: ShardStore,
  cubes: readonly Cube[],
  changes: ReadonlyMap<DatasetName, Changes>,
): Promise<number[]> {
  const seen = new IdSet();
  const affected: number[] = [];
  const add = (title: number) => {
    if (seen.has(title)) return;
    seen.add(title);
    affected.push(title);
  };
  for (const dataset of new Set(cubes.flatMap(datasetsOf))) {
    const gates = [...gatesOf(cubes, dataset)];
    for (const gate of gates) for (const title of freshTitlesOf(dataset, gate, changes)) add(title);
    if ((changes.get(dataset)?.changed ?? 0) === 0) continue;
    const { columns, length } = await readNumbers(
      store.connection,
      `SELECT DISTINCT ${titleOf(dataset)} FROM ${changeTable(dataset)}`,
    );
    for (let row = 0; row < length; row++) {
      const title = columns[0]?.[row] as number;
      if (gates.some((gate) => store.present.get(gate)?.has(title) === true)) add(title);
    }
  }
  return affected;
}

/**
 * Contribution after minus contribution before, for every cube that the micro-batch affects, without zero rows. `touchRows` has
 * copied the rows before.
 */
export async function cubeChanges(
  store: ShardStore,
  changes: ReadonlyMap<DatasetName, Changes>,
): Promise<CubeRows[]> {
  const { cubeSet } = store.identity;
  const fresh = await FreshRelations.of(
    cubeSet.filter((cube) => !hasChanged(cube, changes)),
    store,
    changes,
  );
  const rows: CubeRows[] = [];
  for (const cube of cubeSet) {
    const query = hasChanged(cube, changes)
      ? differenceQuery(store, cube, changes)
      : additionQuery(cube, fresh);
    if (query === undefined) continue;
    const cubeRows = await readCubeRows(store, cube, query);
    if (cubeRows.length > 0) rows.push(cubeRows);
  }
  return rows;
}

/**
 * Runs a query for rows of a cube.
 * @param query gives the key as INTEGER, then the measures as DOUBLE
 * @throws DeclarationFailure if values of the rows are too large for the declaration
 */
export async function readCubeRows({ connection }: ShardStore, cube: Cube, query: string): Promise<CubeRows> {
  const { columns, length } = await ofDeclaration(cube.name, readNumbers(connection, query));
  cube.measures.forEach((measure, m) => {
    const values = columns[cube.key.length + m]?.subarray(0, length);
    if (!values?.every(Number.isSafeInteger))
      throw new DeclarationFailure(cube.name, `${measure} exceeds 53 bits`);
  });
  return rowsOf(cube, columns, length);
}

const notZero = (measures: readonly string[]) => measures.map((measure) => `${measure} <> 0`).join(' OR ');

/**
 * The contribution of titles of which only fresh rows came: there is none before, and so no second sum.
 * @returns undefined if nothing is added
 */
function additionQuery(cube: Cube, fresh: FreshRelations): string | undefined {
  const relations = fresh.of(cube);
  if (relations === undefined) return undefined;
  const { key, measures } = cube;
  return `WITH ${relations.join(', ')}, after AS (${cube.contribution})
    SELECT ${key.map((name) => `${name}::INTEGER`).join(', ')},
      ${measures.map((name) => `${name}::DOUBLE`).join(', ')}
    FROM after WHERE ${notZero(measures)}`;
}

/** The contribution of titles with changed rows, after the micro-batch minus before it. */
function differenceQuery(store: ShardStore, cube: Cube, changes: ReadonlyMap<DatasetName, Changes>): string {
  const gate = gateOf(cube);
  const before: string[] = [];
  const after: string[] = [];
  for (const dataset of datasetsOf(cube)) {
    const columns = (store.projection.get(dataset) ?? []).join(', ');
    const touched = `SELECT ${columns} FROM ${touchedTable(dataset)}`;
    const rows = [touched];
    if ((changes.get(dataset)?.changed ?? 0) > 0) {
      const change = changeTable(dataset);
      rows[0] = `${touched} ANTI JOIN ${change} USING (storedRow)`;
      rows.push(`SELECT ${columns} FROM ${change} WHERE isDelete = 0`);
    }
    if (freshTitlesOf(dataset, gate, changes).length > 0) {
      rows.push(`SELECT ${columns} FROM ${freshTable(dataset, gate)}`);
    }
    before.push(`${relationOf(dataset)} AS (${touched})`);
    after.push(`${relationOf(dataset)} AS (${rows.join(' UNION ALL ')})`);
  }
  const { key, measures, contribution } = cube;
  return `WITH before AS (WITH ${before.join(', ')} FROM (${contribution})),
    after AS (WITH ${after.join(', ')} FROM (${contribution}))
    SELECT ${key.map((name) => `${name}::INTEGER`).join(', ')},
      ${measures.map((name) => `sum(${name})::DOUBLE AS ${name}`).join(', ')}
    FROM (
      SELECT ${[...key, ...measures].join(', ')} FROM after
      UNION ALL
      SELECT ${[...key, ...measures.map((name) => `-${name}`)].join(', ')} FROM before
    ) AS signed
    GROUP BY ${key.join(', ')}
    HAVING ${notZero(measures.map((name) => `sum(${name})`))}`;
}

/** Titles that the store is asked for, in parts. */
const askedTable = 'asked_titles';

/** Cubes of one gate and the same datasets share their relations. */
const placeOf = (cube: Cube) => [gateOf(cube), ...datasetsOf(cube)].join();

/** Rows of titles in one dataset, for a query. */
interface FreshRelation {
  readonly dataset: DatasetName;
  readonly isFresh: boolean;
  /** Titles whose rows lie in the store. */
  readonly asked: Int32Array;
  /** Their part of the table. */
  readonly part: number;
}

/**
 * The relations with all rows of the titles of which only fresh rows came, by the datasets of a cube. The titles are in memory,
 * so no query has to find out for which of them the store must be read.
 */
class FreshRelations {
  readonly #store: ShardStore;
  readonly #changes: ReadonlyMap<DatasetName, Changes>;
  readonly #relations = new Map<string, FreshRelation[]>();
  #parts = 0;

  private constructor(store: ShardStore, changes: ReadonlyMap<DatasetName, Changes>) {
    this.#store = store;
    this.#changes = changes;
  }

  static async of(
    cubes: readonly Cube[],
    store: ShardStore,
    changes: ReadonlyMap<DatasetName, Changes>,
  ): Promise<FreshRelations> {
    const fresh = new FreshRelations(store, changes);
    for (const cube of cubes) fresh.#add(cube);
    await fresh.#storeAsked();
    return fresh;
  }

  /** @returns undefined if the titles have no rows in one of the datasets: then they contribute nothing */
  of(cube: Cube): string[] | undefined {
    const gate = gateOf(cube);
    const relations = this.#relations.get(placeOf(cube));
    return relations?.map(({ dataset, isFresh, asked, part }) => {
      const columns = (this.#store.projection.get(dataset) ?? []).join(', ');
      const selects = isFresh ? [`SELECT ${columns} FROM ${freshTable(dataset, gate)}`] : [];
      if (asked.length > 0) {
        const titles = `SELECT title FROM ${askedTable} WHERE part = ${part}`;
        const stored = `SELECT ${columns} FROM ${this.#store.table(dataset)}`;
        selects.push(`${stored} WHERE ${titleOf(dataset)} IN (${titles})`);
      }
      return `${relationOf(dataset)} AS (${selects.join(' UNION ALL ')})`;
    });
  }

  #add(cube: Cube): void {
    const place = placeOf(cube);
    if (this.#relations.has(place)) return;
    const datasets = datasetsOf(cube);
    const gate = gateOf(cube);
    const relations = datasets.map((dataset) => ({
      dataset,
      isFresh: freshTitlesOf(dataset, gate, this.#changes).length > 0,
      asked: this.#titlesToAsk(dataset, datasets, gate),
      part: this.#parts++,
    }));
    if (relations.every(({ isFresh, asked }) => isFresh || asked.length > 0)) {
      this.#relations.set(place, relations);
    }
  }

  /** Titles with fresh rows in another dataset, whose rows in this one can lie only in the store. */
  #titlesToAsk(dataset: DatasetName, datasets: readonly DatasetName[], gate: DatasetName): Int32Array {
    const present = this.#store.present.get(dataset);
    const seen = new IdSet();
    for (const title of freshTitlesOf(dataset, gate, this.#changes)) seen.add(title);
    const asked: number[] = [];
    for (const other of datasets) {
      if (other === dataset) continue;
      for (const title of freshTitlesOf(other, gate, this.#changes)) {
        if (seen.has(title) || present?.has(title) !== true) continue;
        seen.add(title);
        asked.push(title);
      }
    }
    return Int32Array.from(asked);
  }

  /** One table for all of them, because a table costs as much as many rows. */
  async #storeAsked(): Promise<void> {
    const asked = [...this.#relations.values()].flat().filter((relation) => relation.asked.length > 0);
    if (asked.length === 0) return;
    const length = asked.reduce((sum, relation) => sum + relation.asked.length, 0);
    const parts = new Int32Array(length);
    const titles = new Int32Array(length);
    let at = 0;
    for (const relation of asked) {
      titles.set(relation.asked, at);
      parts.fill(relation.part, at, at + relation.asked.length);
      at += relation.asked.length;
    }
    const { connection } = this.#store;
    await connection.run(`CREATE OR REPLACE TEMP TABLE ${askedTable} (part INTEGER, title INTEGER)`);
    await appendColumns(connection, { catalog: 'temp', name: askedTable }, [parts, titles], length, [
      false,
      false,
    ]);
  }
}
