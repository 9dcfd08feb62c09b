/**
 * The integer forms of large gold tables, kept in the sink's state with the sums of their content hashes. A row of such a
 * table is computed from the rows of its relations with one id (`rowsBy`). So the rows of ids that changed since are computed
 * again, and all others stay. What is kept is a function of the cubes and names of its transaction, whether or not a snapshot
 * of it was published.
 */
import type { DuckDBConnection } from '@duckdb/node-api';
import { countOf, rowsOf } from '../database/duckdb.ts';
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

/** The cubes, as kept tables read them. */
interface KeptCubes {
  /** By name. */
  readonly revisions: Readonly<Record<string, number>>;
  /** A SELECT of the ids of the rows that a cube got after a revision. @param id column of its key */
  changedIds(cube: string, id: string, revision: number): string;
  /** A SELECT of the sums, and one of them with texts, by the names of the relations: of the rows that meet a condition on the key. */
  whereIds(cube: string, condition: string): [name: string, select: string][];
}

/** How a table is brought up to date: from `before` by its changed ids, or as a whole. */
interface KeptPlan {
  readonly table: GoldTable;
  readonly before?: Kept;
  /** Of the cubes, by name. */
  readonly revisions: Readonly<Record<string, number>>;
}

/** The temporary table with the changed ids of a table. */
const changedOf = ({ name }: GoldTable) => `changed_ids_${name}`;

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
    this.#recordsNames = (await rowsOf(this.#connection, 'SELECT 1 FROM kept LIMIT 1')).length > 0;
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
   * Finds the ids that changed since tables were brought up to date. All that are out of date must be among them, because `update`
   * forgets the recorded names.
   * @param cubes that the tables read
   */
  async plan(tables: readonly GoldTable[], maker: string, cubes: KeptCubes): Promise<KeptPlan[]> {
    const plans: KeptPlan[] = [];
    for (const table of tables) {
      const before = await this.#stateOf(table);
      const revisions = Object.fromEntries(
        table.reads.flatMap((name) => {
          const revision = cubes.revisions[name];
          return revision === undefined ? [] : [[name, revision]];
        }),
      );
      const plan = { table, revisions };
      const isNear = before?.maker === maker && (await this.#findChanged(table, before, plan, cubes));
      plans.push(isNear ? { ...plan, before } : plan);
    }
    return plans;
  }

  /** @returns false if so much changed that all rows must be computed again */
  async #findChanged(
    table: GoldTable,
    before: Kept,
    { revisions }: Pick<KeptPlan, 'revisions'>,
    cubes: KeptCubes,
  ): Promise<boolean> {
    const id = table.rowsBy as string;
    const changed = [
      ...Object.keys(revisions).map((cube) => cubes.changedIds(cube, id, before.revisions[cube] ?? 0)),
      ...(table.reads.includes('names') ? ['SELECT nconst FROM changed_names'] : []),
      ...(table.reads.includes('title_names') ? ['SELECT tconst FROM changed_titles'] : []),
    ];
    await this.#connection.run(
      `CREATE OR REPLACE TEMP TABLE ${changedOf(table)} AS SELECT DISTINCT ${id} FROM (${changed.join(' UNION ALL ')}) AS ids(${id})`,
    );
    const ids = await countOf(this.#connection, changedOf(table));
    return ids <= Number(before.rows) * changedShareMax;
  }

  /** Carries plans out, as part of the open transaction. The cubes of those without `before` must be summed. */
  async update(plans: readonly KeptPlan[], maker: string, cubes: KeptCubes): Promise<void> {
    await this.#dropOthers(maker);
    for (const { table, before, revisions } of plans) {
      const sum = await (before === undefined
        ? this.#computeAll(table)
        : this.#updateChanged(table, before, cubes));
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
    for (const [name, state] of await rowsOf(this.#connection, 'SELECT name, state FROM kept')) {
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

  async #updateChanged(table: GoldTable, before: Kept, cubes: KeptCubes): Promise<ContentSum> {
    const connection = this.#connection;
    const kept = keptRelation(table);
    await connection.run(`
      CREATE OR REPLACE TEMP TABLE rows_before AS SELECT rowid AS place, *
      FROM ${kept} WHERE substr(${table.rowsBy}, 3)::INTEGER IN (FROM ${changedOf(table)})`);
    await connection.run(`CREATE OR REPLACE TEMP TABLE rows_after AS ${ofChangedIds(table, cubes)}`);
    const gone = await contentSum(connection, table, 'rows_before');
    const come = await contentSum(connection, table, 'rows_after');
    await connection.run(`DELETE FROM ${kept} WHERE rowid IN (SELECT place FROM rows_before)`);
    await connection.run(`INSERT INTO ${kept} FROM rows_after`);
    for (const temporary of [changedOf(table), 'rows_before', 'rows_after']) {
      await connection.run(`DROP TABLE ${temporary}`);
    }
    return {
      rows: BigInt(before.rows) - gone.rows + come.rows,
      hashes: BigInt(before.hashes) - gone.hashes + come.hashes,
    };
  }

  async #stateOf({ name }: GoldTable): Promise<Kept | undefined> {
    const [row] = await rowsOf(this.#connection, `SELECT state FROM kept WHERE name = '${name}'`);
    return row && (JSON.parse(String(row[0])) as Kept);
  }
}

/**
 * The integer form over the rows of changed ids: each relation that the SELECT names is hidden by these rows of it. Those of a cube are
 * summed here, so the whole cube need not be.
 */
function ofChangedIds(table: GoldTable, cubes: KeptCubes): string {
  const { integers, reads, rowsBy } = table;
  const words = new Set(integers.match(/\w+/g));
  const condition = `${rowsBy} IN (FROM ${changedOf(table)})`;
  const rowsIn = (name: string): [name: string, select: string][] => {
    if (cubes.revisions[name] !== undefined) return cubes.whereIds(name, condition);
    const place = name === 'names' ? 'sink.main' : 'temp.main';
    return [[name, `SELECT * FROM ${place}.${name} WHERE ${condition}`]];
  };
  const relations = reads
    .filter((name) => name !== 'dictionary')
    .map(rowsIn)
    .filter((own) => own.some(([name]) => words.has(name)))
    .flat()
    .map(([name, select]) => `${name} AS NOT MATERIALIZED (${select})`);
  return `WITH ${relations.join(', ')} SELECT * FROM (${integers})`;
}
