/** Reads snapshots: the rows of a table, the points of its plots, the differences of two snapshots. */
import { existsSync, statSync } from 'node:fs';
import type { DuckDBConnection } from '@duckdb/node-api';
import { confine, withDatabase } from '../../database/duckdb.ts';
import { parquetFile, sqlText } from '../../database/sql.ts';
import { storageFaultOf } from '../../database/storage-errors.ts';
import { messageOf, ReelflowError } from '../../runtime/errors.ts';
import { hasUserDeclarations } from '../../tables/built-in.ts';
import { type ColumnNote, columnNotes } from '../../tables/column-notes.ts';
import type { GoldTable, Plot } from '../../tables/gold-table.ts';
import { goldTables } from '../../tables/gold-tables.ts';
import { type Manifest, readManifest, tableFile } from './manifest.ts';

export interface ViewColumn extends ColumnNote {
  readonly name: string;
  /** As DuckDB writes it. */
  readonly type: string;
}

/** A value of a row: whole numbers are numbers, lists are arrays, dates are texts. */
export type Cell = string | number | boolean | null | readonly Cell[];

export interface TableView {
  readonly snapshot: string;
  readonly table: string;
  readonly about: string;
  readonly columns: readonly ViewColumn[];
  readonly rowsTotal: number;
  /** The first rows. */
  readonly rows: readonly (readonly Cell[])[];
}

/** x and y of a plot; x is a text for bars and for dates. */
export type Point = readonly [x: string | number, y: number];

/** A row that differs between two snapshots. */
interface RowChange {
  readonly kind: 'added' | 'removed' | 'changed';
  /** For example `genres=Drama`. */
  readonly key: string;
  /** Of a changed row: the values of the differing columns, before and after. */
  readonly columns: Readonly<Record<string, readonly [before: Cell, after: Cell]>>;
}

interface TableDiff {
  /** Before and after; null if the snapshot has no such table. */
  readonly rows: readonly [number | null, number | null];
  readonly added: number;
  readonly removed: number;
  readonly changed: number;
  /** The first of these rows, in the table's order. */
  readonly first: readonly RowChange[];
}

export interface SnapshotDiff {
  readonly from: string;
  readonly to: string;
  /** By table. */
  readonly tables: Readonly<Record<string, TableDiff>>;
}

/** Maximum number of bars of a plot. */
const barsMax = 15;

/** Reads the snapshots of one gold folder over one database in memory, which `open` closes again. */
export class GoldReader {
  readonly #gold: string;
  readonly #connection: DuckDBConnection;
  readonly #tables: readonly GoldTable[];

  private constructor(gold: string, connection: DuckDBConnection, tables: readonly GoldTable[]) {
    this.#tables = tables;
    this.#gold = gold;
    this.#connection = connection;
  }

  /** @param tables declarations of the tables; default the built-in ones */
  static async open<T>(
    gold: string,
    work: (reader: GoldReader) => Promise<T>,
    tables = goldTables,
  ): Promise<T> {
    return withDatabase(async (connection) => {
      if (hasUserDeclarations({ cubes: [], tables })) await confine(connection, [gold], 'locked');
      return work(new GoldReader(gold, connection, tables));
    });
  }

  /**
   * The first rows of a table.
   * @param title restricts them to one title, by its id
   * @throws ReelflowError usage, for a table that the snapshot does not have, or has no titles; goldUnusable
   */
  async rows(id: string, table: string, rowsMax: number, title?: string): Promise<TableView> {
    const manifest = readManifest(this.#gold, id);
    const file = this.#file(manifest, table);
    return this.#reading(manifest, table, async () => {
      const described = await this.#all(`DESCRIBE SELECT * FROM ${file}`);
      const declared = this.#tables.find(({ name }) => name === table);
      const columns = described.map(([name, type]): ViewColumn => {
        const note = declared?.notes?.[String(name)] ?? columnNotes[String(name)] ?? { about: '' };
        return { name: String(name), type: String(type), ...note };
      });
      const about = declared?.about ?? '';
      const view = { snapshot: id, table, about, columns };
      if (title === undefined) {
        const rows = await this.#all(`SELECT * FROM ${file} LIMIT ${rowsMax}`);
        return { ...view, rowsTotal: manifest.tables[table]?.rows ?? 0, rows };
      }
      if (!columns.some(({ name }) => name === 'tconst')) throw withoutTitles(table);
      const from = `FROM ${file} WHERE tconst = ${sqlText(title)}`;
      const [[rowsTotal] = []] = await this.#all(`SELECT count(*) ${from}`);
      const rows = await this.#all(`SELECT * ${from} LIMIT ${rowsMax}`);
      return { ...view, rowsTotal: Number(rowsTotal), rows };
    });
  }

  /**
   * The points of a plot: the highest bars, or all points of a line.
   * @param like restricts the result to the x of these points
   * @throws ReelflowError usage, goldUnusable
   */
  async points(id: string, table: string, { kind, x, y }: Plot, like?: readonly Point[]): Promise<Point[]> {
    const among = like?.map(([at]) => (typeof at === 'string' ? sqlText(at) : String(at)));
    if (among?.length === 0) return [];
    const manifest = readManifest(this.#gold, id);
    const file = this.#file(manifest, table);
    return this.#reading(manifest, table, async () => {
      const rows = await this.#all(`
        SELECT x${kind === 'bar' ? '::VARCHAR' : ''}, (${y})::DOUBLE AS y FROM (SELECT *, ${x} AS x FROM ${file})
        WHERE ${among === undefined ? 'x IS NOT NULL' : `x IN (${among.join(', ')})`} GROUP BY x HAVING y IS NOT NULL
        ORDER BY ${kind === 'bar' ? `y DESC, x LIMIT ${barsMax}` : 'x'}`);
      return rows.map(([at, height]) => [at as string | number, height as number] as const);
    });
  }

  /** The difference between two snapshots. @throws ReelflowError goldUnusable */
  async diff(from: string, to: string, rowsMax: number): Promise<SnapshotDiff> {
    const before = readManifest(this.#gold, from);
    const after = readManifest(this.#gold, to);
    const tables: Record<string, TableDiff> = {};
    for (const table of new Set([...Object.keys(before.tables), ...Object.keys(after.tables)])) {
      tables[table] = await this.#diffTable(before, after, table, rowsMax);
    }
    return { from, to, tables };
  }

  async #diffTable(before: Manifest, after: Manifest, table: string, rowsMax: number): Promise<TableDiff> {
    const [was, is] = [before.tables[table], after.tables[table]];
    const rows = [was?.rows ?? null, is?.rows ?? null] as const;
    const none = { rows, added: 0, removed: 0, changed: 0, first: [] };
    const key = this.#tables.find(({ name }) => name === table)?.key;
    if (was === undefined || is === undefined || key === undefined) {
      return {
        ...none,
        added: was === undefined ? (is?.rows ?? 0) : 0,
        removed: is === undefined ? (was?.rows ?? 0) : 0,
      };
    }
    if (was.contentHash === is.contentHash) return none;
    const columns = await this.#reading(before, table, () => this.#columns(this.#file(before, table)));
    const columnsNow = new Set(
      await this.#reading(after, table, () => this.#columns(this.#file(after, table))),
    );
    const common = columns.filter((column) => columnsNow.has(column) && !key.includes(column));
    const struct = `{${[...key, ...common].map((column) => `'${column}': "${column}"`).join(', ')}}`;
    const keyText = key.map((c) => `'${c}=' || coalesce(coalesce(a.v, b.v)."${c}"::VARCHAR, 'null')`);
    const rowsOf = (manifest: Manifest) =>
      `(SELECT ${struct} AS v, file_row_number AS place FROM ${this.#file(manifest, table, 'file_row_number = true')})`;
    await this.#reading(after, table, () =>
      this.#connection.run(`
        CREATE OR REPLACE TEMP TABLE changes AS
        SELECT CASE WHEN b.v IS NULL THEN 'added' WHEN a.v IS NULL THEN 'removed' ELSE 'changed' END AS kind,
          ${keyText.join(" || ', ' || ")} AS key, b.v AS before, a.v AS after, coalesce(a.place, b.place) AS place
        FROM ${rowsOf(before)} AS b FULL JOIN ${rowsOf(after)} AS a
        ON ${key.map((c) => `a.v."${c}" IS NOT DISTINCT FROM b.v."${c}"`).join(' AND ')}
        WHERE a.v IS DISTINCT FROM b.v`),
    );
    const counted = new Map(
      (await this.#all('SELECT kind, count(*) FROM changes GROUP BY kind')).map(([kind, n]) => [
        kind,
        Number(n),
      ]),
    );
    const pairs = common.map((c) => `before."${c}", after."${c}"`);
    const found = await this.#all(
      `SELECT kind, key, ${pairs.join(', ')} FROM changes ORDER BY place, kind LIMIT ${rowsMax}`,
    );
    const first = found.map(([kind, text, ...cells]) => {
      const change: RowChange = { kind: kind as RowChange['kind'], key: String(text), columns: {} };
      if (kind !== 'changed') return change;
      const of = common.map((c, i) => [c, [cells[2 * i] ?? null, cells[2 * i + 1] ?? null]] as const);
      const different = of.filter(([, [b, a]]) => JSON.stringify(b) !== JSON.stringify(a));
      return { ...change, columns: Object.fromEntries(different) };
    });
    await this.#connection.run('DROP TABLE changes');
    const of = (kind: string) => counted.get(kind) ?? 0;
    return { rows, added: of('added'), removed: of('removed'), changed: of('changed'), first };
  }

  async #columns(file: string): Promise<string[]> {
    return (await this.#all(`DESCRIBE SELECT * FROM ${file}`)).map(([name]) => String(name));
  }

  /** A table's file as SQL. Checks that the file exists and has its original length. */
  #file({ id, tables }: Manifest, table: string, options = ''): string {
    const claimed = tables[table];
    if (claimed === undefined) {
      throw new ReelflowError('usage', `There is no table ${table} in snapshot ${id}`, {
        detail: `It has ${Object.keys(tables).join(', ')}.`,
        hint: 'Name one of these.',
      });
    }
    const path = tableFile(this.#gold, id, table);
    const bytes = existsSync(path) ? statSync(path).size : undefined;
    if (bytes === claimed.bytes) return parquetFile(path, options);
    throw damaged(
      id,
      `${path}: ${bytes === undefined ? 'no file' : `${bytes} bytes`}, the manifest says ${claimed.bytes}.`,
    );
  }

  async #reading<T>({ id }: Manifest, table: string, read: () => Promise<T>): Promise<T> {
    try {
      return await read();
    } catch (thrown) {
      if (storageFaultOf(thrown) !== 'file') throw thrown;
      throw damaged(id, `${tableFile(this.#gold, id, table)}: ${messageOf(thrown)}`, thrown);
    }
  }

  async #all(sql: string): Promise<Cell[][]> {
    const reader = await this.#connection.runAndReadAll(sql);
    return reader.getRowsJS().map((row) => row.map((value) => cellOf(value)));
  }
}

/** A value of DuckDB: a date as its day, a count as a number. */
export function cellOf(value: unknown): Cell {
  if (typeof value === 'bigint') return Number(value);
  if (Array.isArray(value)) return value.map(cellOf);
  if (value instanceof Date) return value.toISOString().slice(0, 10);
  return (value ?? null) as Cell;
}

const withoutTitles = (table: string) =>
  new ReelflowError('usage', `${table} has no rows of single titles`, {
    detail: 'It has no column tconst.',
    hint: 'Omit --title, or name a table such as rating_history.',
  });

const damaged = (id: string, detail: string, cause?: unknown) =>
  new ReelflowError('goldUnusable', `A file of snapshot ${id} is missing or was altered`, {
    detail,
    hint: `Run \`reelflow verify ${id}\` to see everything that is wrong with it. Other snapshots are not affected.`,
    cause,
  });
