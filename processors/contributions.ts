/**
 * The change of the cubes that a micro-batch causes: the contribution of the affected titles after it minus their
 * contribution before it.
 */
import { readNumbers } from '../database/duckdb.ts';
import { type Cube, relationOf, rowsOf } from '../tables/cubes/cube.ts';
import { type DatasetName, datasets } from '../topics/catalog.ts';
import type { CubeRows } from '../topics/cube-rows.ts';
import { type Changes, changeTable, freshTable } from './changes.ts';
import type { ShardStore } from './shard-store.ts';

export const datasetsOf = (cube: Cube) => Object.keys(cube.reads) as DatasetName[];
const beforeTable = (cube: Cube) => `before_${cube.name}`;

/** The title column of a dataset: the first of its key. */
const titleOf = (dataset: DatasetName) => datasets[dataset].columns[0]?.name as string;

/** Queries for the titles whose known rows change: only these can have contributed before. */
function changedTitles(cube: Cube, changes: ReadonlyMap<DatasetName, Changes>): string[] {
  return datasetsOf(cube)
    .filter((dataset) => (changes.get(dataset)?.changed ?? 0) > 0)
    .map((dataset) => `SELECT ${titleOf(dataset)} AS title FROM ${changeTable(dataset)}`);
}

/** Queries for the rated titles that are new to the store. */
function freshTitles(cube: Cube, changes: ReadonlyMap<DatasetName, Changes>): string[] {
  return datasetsOf(cube)
    .filter((dataset) => (changes.get(dataset)?.freshRated ?? 0) > 0)
    .map((dataset) => `SELECT ${titleOf(dataset)} AS title FROM ${freshTable(dataset)}`);
}

/**
 * Computes the contribution of the changed titles before the changes are written, into a table `before_<cube>`.
 * @returns the cubes with such a table
 */
export async function contributionsBefore(
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

/** Contribution after minus contribution before, for every cube that the micro-batch affects, without zero rows. */
export async function cubeChanges(
  store: ShardStore,
  changes: ReadonlyMap<DatasetName, Changes>,
  befores: readonly Cube[],
): Promise<CubeRows[]> {
  const rows: CubeRows[] = [];
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
      // Fresh rows are all rows of their titles: the query reads only the other titles from the store.
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
    if (length > 0) rows.push(rowsOf(cube, columns, length));
  }
  return rows;
}
