/**
 * The tables of the cubes in the sink's state, and their sums. A row carries the revision of its cube that brought it. So a sum is brought
 * up to date from the rows that came since, and a cube whose revision is that of the last snapshot has not changed since.
 */
import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import type { DuckDBConnection } from '@duckdb/node-api';
import { appendColumns, countOf, rowsOf } from '../database/duckdb.ts';
import { parquetFile, sqlPath } from '../database/sql.ts';
import { type Cube, columnsOf } from '../tables/cubes/cube.ts';
import type { CubeRows } from '../topics/cube-rows.ts';
import {
  addRecent,
  type CubeShape,
  cubeTable,
  definitionsOf,
  kindOfType,
  revisionColumn,
  selectRecent,
  selectSums,
  selectSumsWhere,
  selectWithTexts,
  sumsTable,
  textsOf,
  undeclaredFile,
} from './cube-sql.ts';

/** A smaller cube is not worth summing in place. */
const compactedRowsMin = 100_000;
/** With more new rows than this share of a sum, a new sum is cheaper. */
const recentShareMax = 0.2;
/**
 * Of COPY. Higher levels of zstd take up to twice the time for a few per cent of the bytes. A dictionary of more values is seldom
 * used in the end, and a table has so few row groups that no reader skips one by a bloom filter: both together take a fifth of the time.
 */
export const parquetOptions =
  'FORMAT parquet, COMPRESSION zstd, COMPRESSION_LEVEL 1, DICTIONARY_SIZE_LIMIT 2000, WRITE_BLOOM_FILTER false';

/** A sum in a temporary table. */
interface Sum {
  /** Of the cube, when it was summed. */
  readonly revision: number;
  readonly rows: number;
  /** New rows that were added to it: rows that they replaced take room until all are summed again. */
  readonly added: number;
}

export class CubeTables {
  readonly #connection: DuckDBConnection;
  readonly #declared: readonly CubeShape[];
  /** By table: the cubes that the database holds. */
  readonly #shapes = new Map<string, CubeShape>();
  /** Tables that the open transaction creates. */
  readonly #created = new Map<string, CubeShape>();
  /** By table, as committed. */
  readonly #revisions = new Map<string, number>();
  /** Tables that the open transaction changes, and those of which it deletes rows. */
  readonly #changed = new Set<string>();
  readonly #cleared = new Set<string>();
  /** By table: the sums of this process. */
  readonly #sums = new Map<string, Sum>();

  constructor(connection: DuckDBConnection, declared: readonly Cube[]) {
    this.#connection = connection;
    this.#declared = declared.map((cube) => ({ name: cube.name, columns: columnsOf(cube) }));
  }

  static readonly definitions: readonly string[] = [
    'CREATE TABLE IF NOT EXISTS cube (shape VARCHAR)',
    'CREATE TABLE IF NOT EXISTS cube_revision (name VARCHAR, revision INTEGER)',
  ];

  /** Reads which cubes the database holds. */
  async load(): Promise<void> {
    for (const [text] of await rowsOf(this.#connection, 'SELECT shape FROM cube')) {
      const shape = JSON.parse(String(text)) as CubeShape;
      this.#shapes.set(cubeTable(shape), shape);
    }
    for (const [table, revision] of await rowsOf(
      this.#connection,
      'SELECT name, revision FROM cube_revision',
    )) {
      this.#revisions.set(String(table), Number(revision));
    }
  }

  /** Names of the declared cubes. */
  get names(): string[] {
    return this.#declared.map(({ name }) => name);
  }

  /** Creates the tables of the declared cubes, as part of the open transaction. */
  async provideDeclared(): Promise<void> {
    for (const shape of this.#declared) await this.#provide(shape);
  }

  /** A SELECT of the ids of the rows that a declared cube got after a revision. @param id column of its key */
  changedIds(cube: string, id: string, revision: number): string {
    const shape = this.#declared.find(({ name }) => name === cube) as CubeShape;
    return `SELECT ${id} FROM sink.${cubeTable(shape)} WHERE ${revisionColumn} > ${revision}`;
  }

  /** SELECTs of what `sum` makes of a declared cube, but only of the rows that meet a condition on the key. */
  whereIds(cube: string, condition: string): [name: string, select: string][] {
    const shape = this.#declared.find(({ name }) => name === cube) as CubeShape;
    const sums = sumsTable(shape);
    return [
      [sums, selectSumsWhere(shape, condition)],
      [cube, selectWithTexts(shape, sums, sums)],
    ];
  }

  /** The cubes that are not declared, by the name of their file. */
  get #undeclared(): Map<string, CubeShape> {
    const declared = new Set(this.#declared.map(cubeTable));
    const others = [...this.#shapes].filter(([table]) => !declared.has(table));
    return new Map(others.map(([, shape]) => [undeclaredFile(shape), shape]));
  }

  /** Names of the declared cubes, and of the files of others that have rows. */
  async held(): Promise<string[]> {
    const held = this.names;
    for (const [name, shape] of this.#undeclared) {
      if ((await countOf(this.#connection, `sink.${cubeTable(shape)}`)) > 0) held.push(name);
    }
    return held;
  }

  /** Revisions of the cubes, by the name of their file. */
  get revisions(): Readonly<Record<string, number>> {
    const declared = this.#declared.map((shape) => [shape.name, shape] as const);
    return Object.fromEntries(
      [...declared, ...this.#undeclared].map(([name, shape]) => [name, this.#revisionOf(cubeTable(shape))]),
    );
  }

  #revisionOf(table: string): number {
    return this.#revisions.get(table) ?? 0;
  }

  /** Appends rows of one cube of one shard, as part of the open transaction. */
  async add(shard: number, { cube, columns, length }: CubeRows): Promise<void> {
    if (length === 0) return;
    const name = await this.#provide({ name: cube, columns });
    this.#changed.add(name);
    const constant = (value: number) => new Int32Array(length).fill(value);
    const values = [
      constant(shard),
      constant(this.#revisionOf(name) + 1),
      ...columns.map((column) => column.values),
    ];
    const nullable = [false, false, ...columns.map(({ kind }) => kind !== 'long')];
    await appendColumns(this.#connection, { catalog: 'sink', name }, values, length, nullable);
  }

  async #provide({ name, columns }: CubeShape): Promise<string> {
    const shape = { name, columns: columns.map((column) => ({ name: column.name, kind: column.kind })) };
    const table = cubeTable(shape);
    if (this.#shapes.has(table) || this.#created.has(table)) return table;
    await this.#connection.run(`CREATE TABLE ${table} (${definitionsOf(shape)})`);
    await this.#connection.run('INSERT INTO cube VALUES ($1)', [JSON.stringify(shape)]);
    this.#created.set(table, shape);
    return table;
  }

  /** Deletes the rows of a shard, as part of the open transaction, but for the cubes of these names. */
  async clear(shard: number, keeps: readonly string[]): Promise<void> {
    for (const [table, { name }] of [...this.#shapes, ...this.#created]) {
      if (keeps.includes(name)) continue;
      await this.#connection.run(`DELETE FROM ${table} WHERE shard = ${shard}`);
      this.#changed.add(table);
      this.#cleared.add(table);
    }
  }

  /** The last statements of a transaction. */
  async writeRevisions(): Promise<void> {
    if (this.#changed.size === 0) return;
    const changed = [...this.#changed];
    await this.#connection.run(
      `DELETE FROM cube_revision WHERE name IN (${changed.map((table) => `'${table}'`).join(', ')})`,
    );
    await this.#connection.run(
      `INSERT INTO cube_revision VALUES ${changed.map((table) => `('${table}', ${this.#revisionOf(table) + 1})`).join(', ')}`,
    );
  }

  /** Call it after the commit. */
  committed(): void {
    for (const [table, shape] of this.#created) this.#shapes.set(table, shape);
    for (const table of this.#changed) this.#revisions.set(table, this.#revisionOf(table) + 1);
    for (const table of this.#cleared) this.#sums.delete(table);
    this.ended();
  }

  /** Call it after a rollback. */
  ended(): void {
    this.#created.clear();
    this.#changed.clear();
    this.#cleared.clear();
  }

  /**
   * Brings the relations up to date that the gold tables read, one for each declared cube and with its name. They hold sums per
   * shard, with texts in place of dictionary numbers and without rows that sum to 0. `<cube>_sums` is the same with the numbers.
   * @param names of the cubes
   * @returns how many cubes were summed as a whole, and how many only where rows came since
   */
  async sum(names: ReadonlySet<string>): Promise<{ whole: number; recent: number }> {
    const summed = { whole: 0, recent: 0 };
    for (const shape of this.#declared.filter(({ name }) => names.has(name))) {
      const table = cubeTable(shape);
      const revision = this.#revisionOf(table);
      const before = this.#sums.get(table);
      if (before?.revision === revision) continue;
      // Without this a failure in between would leave a sum that is neither old nor new.
      this.#sums.delete(table);
      const added = before === undefined ? undefined : await this.#addRecent(shape, before);
      if (added !== undefined) {
        summed.recent += 1;
      } else {
        await this.#connection.run(
          `CREATE OR REPLACE TEMP TABLE ${sumsTable(shape)} AS ${selectSums(shape, 'BIGINT')}`,
        );
        summed.whole += 1;
      }
      await this.#createView(shape);
      const rows = await countOf(this.#connection, sumsTable(shape));
      this.#sums.set(table, {
        revision,
        rows,
        added: added === undefined ? 0 : (before?.added ?? 0) + added,
      });
    }
    return summed;
  }

  /** @returns how many rows were added, undefined if a new sum is cheaper */
  async #addRecent(shape: CubeShape, { revision, rows, added }: Sum): Promise<number | undefined> {
    const recent = await countOf(
      this.#connection,
      `sink.${cubeTable(shape)} WHERE ${revisionColumn} > ${revision}`,
    );
    if (recent > rows * recentShareMax || added + recent > rows) return undefined;
    for (const statement of addRecent(shape, revision)) await this.#connection.run(statement);
    return recent;
  }

  async #createView(shape: CubeShape): Promise<void> {
    const sums = sumsTable(shape);
    await this.#connection.run(
      `CREATE OR REPLACE TEMP VIEW ${shape.name} AS ${selectWithTexts(shape, sums, sums)}`,
    );
  }

  /**
   * Sums the rows of each cube in place if that removes more than half of them. The last sum has shown how many would stay.
   * @param transaction runs statements in one transaction
   * @returns rows before and after
   */
  async compact(
    transaction: (work: () => Promise<void>) => Promise<void>,
  ): Promise<{ before: number; after: number }> {
    let before = 0;
    let after = 0;
    const declaredTables = new Set(this.#declared.map(cubeTable));
    for (const [table, shape] of [...this.#shapes]) {
      const rows = await countOf(this.#connection, `sink.${table}`);
      if (rows === 0 && !declaredTables.has(table)) {
        await this.#drop(table, shape, transaction);
        continue;
      }
      const sum = this.#sums.get(table);
      const least = sum?.rows ?? rows;
      before += rows;
      if (rows <= compactedRowsMin || rows <= least * 2) {
        after += rows;
        continue;
      }
      // Its rows all get the newest revision, so a sum of an older one could not be brought up to date.
      if (sum?.revision !== this.#revisionOf(table)) this.#sums.delete(table);
      await transaction(async () => {
        await this.#connection.run(
          `CREATE TABLE sink.compacted AS ${selectSums(shape, 'DOUBLE', this.#revisionOf(table))}`,
        );
        await this.#connection.run(`DROP TABLE sink.${table}`);
        await this.#connection.run(`ALTER TABLE sink.compacted RENAME TO ${table}`);
      });
      after += await countOf(this.#connection, `sink.${table}`);
    }
    return { before, after };
  }

  /** Drops the table of a cube that no shard sends any longer and that this version does not declare. */
  async #drop(
    table: string,
    shape: CubeShape,
    transaction: (work: () => Promise<void>) => Promise<void>,
  ): Promise<void> {
    await transaction(async () => {
      await this.#connection.run(`DROP TABLE ${table}`);
      await this.#connection.run('DELETE FROM cube WHERE shape = $1', [JSON.stringify(shape)]);
      await this.#connection.run(`DELETE FROM cube_revision WHERE name = '${table}'`);
    });
    this.#shapes.delete(table);
    this.#revisions.delete(table);
  }

  /**
   * Writes a cube to a file, for `restore`: its sums, or the rows after a revision as they came. For the sums, the relation of a
   * declared cube must be up to date.
   */
  async export(path: string, cube: string, after?: number): Promise<void> {
    const other = this.#undeclared.get(cube);
    const shape = other ?? this.#declared.find(({ name }) => name === cube);
    let relation = cube;
    if (after !== undefined) relation = `(${selectRecent(shape as CubeShape, after)})`;
    else if (other !== undefined)
      relation = `(${selectWithTexts(other, `(${selectSums(other, 'BIGINT')})`, 'held')})`;
    await this.#connection.run(`COPY ${relation} TO ${sqlPath(path)} (${parquetOptions})`);
  }

  /**
   * Loads cubes from the files that `export` has written, as part of the open transaction: the rows of all files of a cube
   * together. The name of a file begins with that of the cube, and a point follows it.
   * @param numbered stores the texts of a SELECT in the dictionary
   */
  async restore(folder: string, numbered: (texts: string) => Promise<void>): Promise<void> {
    for (const path of readdirSync(folder).filter((name) => name.endsWith('.parquet'))) {
      const file = parquetFile(join(folder, path));
      const described = await rowsOf(this.#connection, `DESCRIBE FROM ${file}`);
      const shape: CubeShape = {
        name: path.replace(/\..*/, ''),
        columns: described.slice(1).map(([column, type]) => ({
          name: String(column),
          kind: kindOfType[String(type)] ?? 'long',
        })),
      };
      const texts = textsOf(shape);
      for (const text of texts)
        await numbered(`SELECT DISTINCT ${text} FROM ${file} WHERE ${text} IS NOT NULL`);
      const columns = shape.columns.map((column) =>
        texts.includes(column.name)
          ? `(SELECT number FROM dictionary WHERE value = ${column.name})`
          : column.name,
      );
      const table = await this.#provide(shape);
      this.#changed.add(table);
      await this.#connection.run(
        `INSERT INTO ${table} SELECT shard, ${this.#revisionOf(table) + 1}, ${columns.join(', ')} FROM ${file}`,
      );
    }
  }
}
