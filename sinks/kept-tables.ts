/**
 * The integer forms of large gold tables, kept in the sink's state with the sums of their content hashes. A row of such a
 * table is computed from the rows of its relations with one id (`rowsBy`). So the rows of ids that changed since are computed
 * again, and all others stay. What is kept is a function of the cubes and names of its transaction, whether or not a snapshot
 * of it was published.
 */
import type { DuckDBConnection } from '@duckdb/node-api';
import { type ContentSum, contentSum } from '../tables/content-hash.ts';
import type { GoldTable } from '../tables/gold-table.ts';

/** With more changed ids than this share of the rows, all are computed again. */
const changedShareMax = 0.5;

interface Kept {
  /** Of the declarations and versions that computed it. */
  readonly maker: string;
  /** Of the cubes, by name. */
  readonly revisions: Readonly<Record<string, number>>;
  readonly rows: string;
  readonly hashes: string;
}

/** The table with the kept integer form. */
export const keptRelation = ({ name }: GoldTable) => `sink.kept_${name}`;

export class KeptTables {
  readonly #connection: DuckDBConnection;
  /** Whether names that change are recorded. The first load, without a kept table, changes all of them. */
  #recordsNames = false;

  constructor(connection: DuckDBConnection) {
    this.#connection = connection;
  }

  static readonly definitions: readonly string[] = [
    'CREATE TABLE IF NOT EXISTS kept (name VARCHAR, state VARCHAR)',
    'CREATE TABLE IF NOT EXISTS changed_names (nconst INTEGER)',
  ];

  async load(): Promise<void> {
    this.#recordsNames = (await this.#rows('SELECT 1 FROM kept LIMIT 1')).length > 0;
  }

  /** Forgets what is kept, as part of the open transaction: rows are about to vanish without a trace. */
  async drop(): Promise<void> {
    await this.#connection.run('DELETE FROM kept');
  }

  /** Records names that change, as part of the open transaction. @param ids a SELECT or VALUES of one column */
  async changeNames(table: 'changed_names' | 'changed_titles', ids: string): Promise<void> {
    if (this.#recordsNames) await this.#connection.run(`INSERT INTO ${table} ${ids}`);
  }

  /**
   * Brings tables up to date, as part of the open transaction. All that are out of date must be among them, because the
   * recorded names are forgotten.
   * @param changedIds a SELECT of the ids of the rows that a cube got after a revision
   * @param cubes with their revisions, up to which the relations that the tables read are summed
   */
  async update(
    tables: readonly GoldTable[],
    maker: string,
    cubes: Readonly<Record<string, number>>,
    changedIds: (cube: string, id: string, revision: number) => string,
  ): Promise<void> {
    await this.#dropOthers(maker);
    for (const table of tables) {
      const before = await this.#stateOf(table);
      const revisions = Object.fromEntries(
        table.reads.flatMap((name) => (cubes[name] === undefined ? [] : [[name, cubes[name]]])),
      );
      const changed = [
        ...Object.keys(revisions).map((cube) =>
          changedIds(cube, table.rowsBy as string, before?.revisions[cube] ?? 0),
        ),
        ...(table.reads.includes('names') ? ['SELECT nconst FROM changed_names'] : []),
        ...(table.reads.includes('title_names') ? ['SELECT tconst FROM changed_titles'] : []),
      ];
      const sum =
        (before && (await this.#updateChanged(table, before, changed))) ?? (await this.#computeAll(table));
      const state: Kept = { maker, revisions, rows: String(sum.rows), hashes: String(sum.hashes) };
      await this.#connection.run('DELETE FROM kept WHERE name = $1', [table.name]);
      await this.#connection.run('INSERT INTO kept VALUES ($1, $2)', [table.name, JSON.stringify(state)]);
    }
    await this.#connection.run('DELETE FROM changed_names');
    await this.#connection.run('DELETE FROM changed_titles');
    this.#recordsNames = true;
  }

  /**
   * Forgets what other declarations or versions have computed. Among them may be tables that are not declared now: when they are
   * declared again, the names that changed meanwhile are forgotten, and rows that sum to 0 may be compacted away.
   */
  async #dropOthers(maker: string): Promise<void> {
    for (const [name, state] of await this.#rows('SELECT name, state FROM kept')) {
      if ((JSON.parse(String(state)) as Kept).maker !== maker)
        await this.#connection.run('DELETE FROM kept WHERE name = $1', [String(name)]);
    }
  }

  /** The content of a table that was brought up to date. */
  async contentOf(table: GoldTable): Promise<ContentSum> {
    const { rows = '0', hashes = '0' } = (await this.#stateOf(table)) ?? {};
    return { rows: BigInt(rows), hashes: BigInt(hashes) };
  }

  async #computeAll(table: GoldTable): Promise<ContentSum> {
    const kept = keptRelation(table);
    await this.#connection.run(`CREATE OR REPLACE TABLE ${kept} AS ${table.integers}`);
    return contentSum(this.#connection, table, kept);
  }

  /** @returns undefined if so much changed that all rows must be computed again */
  async #updateChanged(table: GoldTable, before: Kept, changed: string[]): Promise<ContentSum | undefined> {
    const connection = this.#connection;
    const kept = keptRelation(table);
    const id = table.rowsBy as string;
    await connection.run(
      `CREATE OR REPLACE TEMP TABLE changed_ids AS SELECT DISTINCT ${id} FROM (${changed.join(' UNION ALL ')}) AS ids(${id})`,
    );
    const [ids] = (await this.#rows('SELECT count(*) FROM changed_ids'))[0] ?? [];
    if (Number(ids) > Number(before.rows) * changedShareMax) return undefined;
    await connection.run(`
      CREATE OR REPLACE TEMP TABLE rows_before AS SELECT rowid AS place, *
      FROM ${kept} WHERE substr(${id}, 3)::INTEGER IN (FROM changed_ids)`);
    await connection.run(`CREATE OR REPLACE TEMP TABLE rows_after AS ${ofChangedIds(table)}`);
    const gone = await contentSum(connection, table, 'rows_before');
    const come = await contentSum(connection, table, 'rows_after');
    await connection.run(`DELETE FROM ${kept} WHERE rowid IN (SELECT place FROM rows_before)`);
    await connection.run(`INSERT INTO ${kept} FROM rows_after`);
    for (const temporary of ['changed_ids', 'rows_before', 'rows_after']) {
      await connection.run(`DROP TABLE ${temporary}`);
    }
    return {
      rows: BigInt(before.rows) - gone.rows + come.rows,
      hashes: BigInt(before.hashes) - gone.hashes + come.hashes,
    };
  }

  async #stateOf({ name }: GoldTable): Promise<Kept | undefined> {
    const [row] = await this.#rows(`SELECT state FROM kept WHERE name = '${name}'`);
    return row && (JSON.parse(String(row[0])) as Kept);
  }

  async #rows(sql: string): Promise<unknown[][]> {
    return (await this.#connection.runAndReadAll(sql)).getRows();
  }
}

/** The integer form over the rows of changed ids: each relation that the SELECT names is hidden by these rows of it. */
function ofChangedIds({ integers, reads, rowsBy }: GoldTable): string {
  const words = new Set(integers.match(/\w+/g));
  const relations = reads
    .filter((name) => name !== 'dictionary')
    .flatMap((name) =>
      name === 'names'
        ? [['names', 'sink.main']]
        : [
            [name, 'temp.main'],
            [`${name}_sums`, 'temp.main'],
          ],
    )
    .filter(([name]) => words.has(name as string))
    .map(
      ([name, place]) =>
        `${name} AS NOT MATERIALIZED (SELECT * FROM ${place}.${name} WHERE ${rowsBy} IN (FROM changed_ids))`,
    );
  return `WITH ${relations.join(', ')} SELECT * FROM (${integers})`;
}
