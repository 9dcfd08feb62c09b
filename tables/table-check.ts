/**
 * Checks gold tables of users against sample rows of the cubes, in a database of its own without files and network. What
 * passes has one row for each key, integer measures, the declared columns, a place for each row, and equal content whatever the
 * order of the rows.
 */
import type { DuckDBConnection } from '@duckdb/node-api';
import { sqlText } from '../database/sql.ts';
import { messageOf } from '../runtime/errors.ts';
import { columnNotes } from './column-notes.ts';
import { contentHash } from './content-hash.ts';
import { type Cube, columnsOf } from './cubes/cube.ts';
import type { DeclarationFile, MetadataPath } from './declaration-file.ts';
import type { DeclarationProblem } from './declaration-problem.ts';
import type { GoldTable } from './gold-table.ts';
import { repeatedKey } from './repeated-key.ts';
import { type Relations, statementProblem } from './statement-check.ts';

/** Relation → column → DuckDB type. */
type TypedRelations = Readonly<Record<string, Readonly<Record<string, string>>>>;

/** Names of columns and relations are letters, digits and _. */
const sqlName = (name: string) => `"${name}"`;

const cubeTypes = { int: 'INTEGER', string: 'VARCHAR', long: 'BIGINT' } as const;

/** What a gold table of a user may read: the cubes with texts in place of dictionary numbers, the names of people and titles. */
export function goldRelations(cubes: readonly Cube[]): TypedRelations {
  return {
    ...Object.fromEntries(
      cubes.map((cube) => [
        cube.name,
        Object.fromEntries(columnsOf(cube).map(({ name, kind }) => [name, cubeTypes[kind]])),
      ]),
    ),
    names: { nconst: 'INTEGER', primaryName: 'VARCHAR' },
    title_names: { tconst: 'INTEGER', primaryTitle: 'VARCHAR', originalTitle: 'VARCHAR' },
  };
}

/** Relations with one row for each id. */
const named = new Set(['names', 'title_names']);
const sampleRows = 400;
const integerTypes = new Set(['TINYINT', 'SMALLINT', 'INTEGER', 'BIGINT', 'HUGEINT']);
const texts = ['Drama', 'Comedy,Drama', 'Action', 'Short,Film-Noir,Crime', ''];

/** Creates the relations with sample rows: few distinct values, so that groups and ties occur. */
export async function createSamples(connection: DuckDBConnection, relations: TypedRelations): Promise<void> {
  for (const [name, columns] of Object.entries(relations)) {
    const key = Object.keys(columns).filter((column) => columns[column] !== 'BIGINT');
    const values = Object.entries(columns).map(([column, type]) => {
      const number = `hash(row, ${sqlText(`${name}.${column}`)})`;
      if (type === 'BIGINT') return `sum(${number} % 1000)::BIGINT AS ${sqlName(column)}`;
      const value =
        type === 'VARCHAR'
          ? `[${texts.map(sqlText).join(', ')}][1 + (${number} % ${texts.length})::INTEGER]`
          : `(1 + ${number} % 12)::INTEGER`;
      // Ids and ratings are never null.
      const isKnown = /^(rating|tconst|nconst|parentTconst)$/.test(column);
      return `${isKnown ? value : `CASE WHEN ${number} % 11 > 0 THEN ${value} END`} AS ${sqlName(column)}`;
    });
    // An id has one name.
    const [id = '', ...others] = Object.keys(columns).map(sqlName);
    const once = named.has(name)
      ? `QUALIFY row_number() OVER (PARTITION BY ${id} ORDER BY ${others.join(', ')}) = 1`
      : '';
    await connection.run(
      `CREATE OR REPLACE TABLE ${sqlName(name)} AS FROM (
         SELECT ${values.join(', ')} FROM range(${sampleRows}) AS rows(row) GROUP BY ${key.length > 0 ? 'ALL' : 'row'}
       ) ${once}`,
    );
  }
}

/** @throws DeclarationProblem for the first thing that is wrong */
export async function checkTable(
  connection: DuckDBConnection,
  file: DeclarationFile,
  table: GoldTable,
  relations: TypedRelations,
): Promise<void> {
  await new TableCheck(connection, file, table, relations).run();
}

class TableCheck {
  readonly #connection: DuckDBConnection;
  readonly #file: DeclarationFile;
  readonly #table: GoldTable;
  readonly #relations: TypedRelations;

  constructor(
    connection: DuckDBConnection,
    file: DeclarationFile,
    table: GoldTable,
    relations: TypedRelations,
  ) {
    this.#connection = connection;
    this.#file = file;
    this.#table = table;
    this.#relations = relations;
  }

  async run(): Promise<void> {
    this.#checkMetadata();
    await this.#checkStatements();
    await this.#checkColumns();
    await this.#checkRows();
    await this.#checkPlots();
  }

  #checkMetadata(): void {
    const { reads, key, attributes = [], measures, columns, notes, ...of } = this.#table;
    const { rowsBy, standardised, constants } = of;
    for (const [i, name] of reads.entries()) {
      if (name in this.#relations) continue;
      throw this.#problem(
        ['reads', i],
        `there is no cube ${name}`,
        `Read ${Object.keys(this.#relations).join(', ')}.`,
      );
    }
    for (const [property, value] of Object.entries({ standardised, constants })) {
      if (value === undefined) continue;
      throw this.#problem([property], `only built-in tables have ${property}`, 'Remove it.');
    }
    if (rowsBy !== undefined) {
      throw this.#problem(['rowsBy'], 'only built-in tables are kept by id', 'Remove the line.');
    }
    const seen = new Set<string>();
    for (const [property, names] of Object.entries({ key, attributes, measures })) {
      for (const [i, name] of names.entries()) {
        if (seen.has(name.toLowerCase())) {
          throw this.#problem([property, i], `${name} occurs twice`, 'Name each column once.');
        }
        seen.add(name.toLowerCase());
      }
    }
    for (const column of Object.keys(columns)) {
      if (notes?.[column] !== undefined || columnNotes[column] !== undefined) continue;
      throw this.#problem(
        ['columns', column],
        `the column ${column} has no note`,
        'Write `NAME: { type: TYPE, about: What it means., unit: UNIT }`.',
      );
    }
    for (const [i, name] of key.entries()) {
      if (name in columns) continue;
      throw this.#problem(
        ['key', i],
        `the key ${name} is not a column of the table`,
        'List it under columns.',
      );
    }
  }

  /** Nothing has run before this has passed. */
  async #checkStatements(): Promise<void> {
    const { reads, columns, order, plots } = this.#table;
    const read: Relations = Object.fromEntries(
      reads.map((name) => [name, Object.keys(this.#relations[name] ?? {})]),
    );
    const found = await statementProblem(this.#connection, this.#file.sql, read);
    if (found !== undefined) throw this.#file.problem(this.#lineAt(found.at), found.reason, found.hint);
    const own = { [this.#table.name]: Object.keys(columns) };
    const check = async (path: MetadataPath, sql: string) => {
      const problem = await statementProblem(this.#connection, sql, own, ['any_value']);
      if (problem !== undefined)
        throw this.#problem(path, `${String(path[0])}: ${problem.reason}`, problem.hint);
    };
    await check(['order'], `SELECT 1 FROM ${this.#table.name} ORDER BY ${order}`);
    for (const [i, { x, y }] of plots.entries()) {
      for (const [axis, sql] of Object.entries({ x, y })) {
        await check(['plots', i, axis], `SELECT ${sql} FROM ${this.#table.name}`);
      }
    }
  }

  /** Creates the relation of the table and `integers`. */
  async #checkColumns(): Promise<void> {
    const { name, integers, select, beside = '', columns, key, attributes = [], measures } = this.#table;
    await this.#describe(this.#file.sql);
    await this.#run(['kind'], `CREATE OR REPLACE TEMP TABLE integers AS ${integers}`);
    const given = await this.#describe('FROM integers');
    for (const [property, names] of Object.entries({ key, attributes, measures })) {
      for (const [i, column] of names.entries()) {
        const type = given.get(column);
        if (type === undefined) {
          const inner = [...given.keys()].join(', ');
          throw this.#problem(
            [property, i],
            `the SELECT has no column ${column}`,
            `Its columns are ${inner}.`,
          );
        }
        if (property !== 'measures' || integerTypes.has(type)) continue;
        throw this.#problem(
          [property, i],
          `the measure ${column} is ${type}, no integer`,
          'CAST it to BIGINT; compute fractions in the last SELECT, after WITH integers AS (…).',
        );
      }
    }
    const final = `SELECT ${select} FROM integers ${beside}`;
    const described = await this.#describe(final);
    const wanted = Object.entries(columns);
    for (const [column, type] of wanted) {
      if (described.get(column) === type) continue;
      const is = described.get(column);
      throw this.#problem(
        ['columns', column],
        is === undefined ? `the SELECT has no column ${column}` : `${column} is ${is}, declared as ${type}`,
        is === undefined ? 'Name it with AS.' : `Declare it as ${is}, or CAST it to ${type}.`,
      );
    }
    const names = [...described.keys()];
    if (names.join() !== wanted.map(([column]) => column).join()) {
      throw this.#problem(
        ['columns'],
        `the SELECT has the columns ${names.join(', ')}`,
        'List them in this order.',
      );
    }
    await this.#run(['kind'], `CREATE OR REPLACE TEMP TABLE ${name} AS ${final}`);
  }

  async #checkRows(): Promise<void> {
    const { name, key, order, integers } = this.#table;
    const twice = await repeatedKey(this.#connection, key, 'integers');
    if (twice !== undefined) {
      throw this.#problem(
        ['key'],
        `the key does not identify a row: ${twice}`,
        'GROUP BY the key, or add the other columns to it.',
      );
    }
    const tied = await this.#rows(
      ['order'],
      `SELECT 1 FROM (SELECT rank() OVER (ORDER BY ${order}) AS place FROM ${name}) GROUP BY place HAVING count(*) > 1 LIMIT 1`,
    );
    if (tied.length > 0) {
      throw this.#problem(['order'], 'the order leaves the place of equal rows open', 'End it with the key.');
    }
    const expected = await contentHash(this.#connection, this.#table, 'integers');
    const isSameWith = async (relationOf: (relation: string) => string) => {
      const relations = this.#table.reads.map((relation) => `${relation} AS (${relationOf(relation)})`);
      await this.#run(
        ['kind'],
        `CREATE OR REPLACE TEMP TABLE integers AS WITH ${relations.join(', ')} SELECT * FROM (${integers}\n)`,
      );
      return (await contentHash(this.#connection, this.#table, 'integers')) === expected;
    };
    if (!(await isSameWith((relation) => `FROM main.${relation} AS r ORDER BY hash(r) DESC`))) {
      throw this.#file.problem(
        this.#file.sqlLine,
        'the rows of the table depend on the order of the rows that it reads',
        'Use sums of integers, and min and max in place of other choices.',
      );
    }
    if (!(await isSameWith((relation) => this.#onTwoShards(relation)))) {
      throw this.#file.problem(
        this.#file.sqlLine,
        'the rows of the table depend on how many shards there are: a cube has a row for each key and shard',
        'GROUP BY the key, and sum the measures of a cube; do not count its rows or compare its measures before.',
      );
    }
  }

  /** The rows of a cube with their measures divided between two shards. */
  #onTwoShards(relation: string): string {
    const measures = Object.entries(this.#relations[relation] ?? {})
      .filter(([, type]) => type === 'BIGINT')
      .map(([column]) => sqlName(column));
    if (measures.length === 0) return `FROM main.${relation}`;
    const share = (of: (measure: string) => string) =>
      `SELECT * REPLACE (${measures.map((measure) => `${of(measure)} AS ${measure}`).join(', ')}) FROM main.${relation}`;
    return `${share((measure) => `${measure} - ${measure} // 3`)} UNION ALL ${share((measure) => `${measure} // 3`)}`;
  }

  async #checkPlots(): Promise<void> {
    for (const [i, { x, y }] of this.#table.plots.entries()) {
      const points = `SELECT x, (${y})::DOUBLE AS y FROM (SELECT *, ${x} AS x FROM ${this.#table.name}) GROUP BY x`;
      await this.#rows(['plots', i], points);
    }
  }

  /** Column → type. Errors get the line of the file that DuckDB names. */
  async #describe(sql: string): Promise<Map<string, string>> {
    try {
      const reader = await this.#connection.runAndReadAll(`DESCRIBE ${sql}`);
      return new Map(reader.getRows().map(([name, type]) => [String(name), String(type)]));
    } catch (thrown) {
      throw this.#failed(thrown, this.#file.sqlLine);
    }
  }

  async #run(path: MetadataPath, sql: string): Promise<void> {
    await this.#rows(path, sql);
  }

  async #rows(path: MetadataPath, sql: string): Promise<unknown[][]> {
    try {
      return (await this.#connection.runAndReadAll(sql)).getRowsJson() as unknown[][];
    } catch (thrown) {
      const line = path[0] === 'kind' ? this.#file.sqlLine : this.#file.lineOf(path);
      throw this.#file.problem(line, firstLine(thrown), 'Correct the SQL.');
    }
  }

  #failed(thrown: unknown, line: number): DeclarationProblem {
    const [, inStatement] = /\bLINE (\d+):/.exec(messageOf(thrown)) ?? [];
    return this.#file.problem(line + Number(inStatement ?? 1) - 1, firstLine(thrown), 'Correct the SQL.');
  }

  #lineAt(offset: number): number {
    return this.#file.sqlLine + this.#file.sql.slice(0, offset).split('\n').length - 1;
  }

  #problem(path: MetadataPath, reason: string, hint: string): DeclarationProblem {
    return this.#file.problem(this.#file.lineOf(path), reason, hint);
  }
}

const firstLine = (thrown: unknown) => messageOf(thrown).split('\n')[0] ?? '';
