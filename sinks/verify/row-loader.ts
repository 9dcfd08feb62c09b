/**
 * Loads the rows of one dataset's chunks into a DuckDB table, every version of every key in the order in which it was read.
 * Columns of few distinct texts are dictionary numbers. A second table holds the replaced groups of ids, each with the
 * number of rows that were read before the replacement: these rows do not count.
 */
import type { DuckDBConnection } from '@duckdb/node-api';
import { type AppendedColumn, appendColumns } from '../../database/duckdb.ts';
import { type DatasetName, datasets } from '../../topics/catalog.ts';
import { type ChunkDecoder, deleteColumns, formOf, type Owner, recordColumns } from '../../topics/chunk.ts';
import { dayOf } from '../../topics/day.ts';
import type { Dictionary } from '../../topics/dictionary.ts';
import { nullInt } from '../../topics/row-plan.ts';
import type { Columns } from '../../topics/rows.ts';

interface ReadColumns {
  readonly columns: readonly string[];
  /** Columns of many distinct texts. Other strings are dictionary numbers. */
  readonly texts?: readonly string[];
}

/**
 * The columns that gold needs, the key first. Only their values can make a message invalid, as in the stream. Other datasets
 * are read for their counts.
 */
const readColumns: Readonly<Partial<Record<DatasetName, ReadColumns>>> = {
  'title.ratings': { columns: ['tconst', 'averageRating', 'numVotes'] },
  'title.basics': {
    columns: [
      ...['tconst', 'titleType', 'isAdult', 'startYear', 'runtimeMinutes', 'genres'],
      ...['primaryTitle', 'originalTitle'],
    ],
    texts: ['primaryTitle', 'originalTitle'],
  },
  'title.principals': { columns: ['tconst', 'ordering', 'nconst'] },
  'title.akas': { columns: ['titleId', 'ordering', 'region', 'language'] },
  'title.crew': { columns: ['tconst', 'directors', 'writers'] },
  'title.episode': { columns: ['tconst', 'parentTconst', 'seasonNumber'] },
  'name.basics': { columns: ['nconst', 'primaryName'], texts: ['primaryName'] },
};

const columnsOf = (dataset: DatasetName, more: readonly string[]): ReadColumns => {
  const { columns, ...of } = readColumns[dataset] ?? { columns: keyColumnsOf(dataset) };
  return { columns: [...columns, ...more], ...of };
};

export const keyColumnsOf = (dataset: DatasetName) =>
  datasets[dataset].columns.slice(0, datasets[dataset].keyColumns).map(({ name }) => name);

/** The rows, with `deleted` = 1 for a delete: only its key has values. */
export const rowTable = (dataset: DatasetName) => `rows_${dataset.replace('.', '_')}`;
/** The messages, with their first row and the day of their dump. Only ratings have such a table: it makes their history. */
export const messageTable = (dataset: DatasetName) => `messages_${dataset.replace('.', '_')}`;
/** The replaced groups, with the number of rows before each replacement. */
export const replacedTable = (dataset: DatasetName) => `replaced_${dataset.replace('.', '_')}`;

const flushRows = 100_000;
export const datasetWithHistory: DatasetName = 'title.ratings';

interface Message {
  readonly partition: number;
  readonly firstRow: number;
  readonly rowCount: number;
  /** In days since 1970-01-01. */
  readonly day: number;
}

export class RowLoader {
  readonly #connection: DuckDBConnection;
  readonly #catalog: string;
  readonly #dataset: DatasetName;
  readonly #records: Columns;
  readonly #deletes: Columns;
  readonly #replaced: { group: number; rowsBefore: number; message: number }[] = [];
  readonly #messages: Message[] = [];
  /** Messages before those of `#messages`. */
  #messagesFlushed = 0;
  readonly #width: number;
  /** Rows in the table. */
  #flushed = 0;

  private constructor(
    connection: DuckDBConnection,
    catalog: string,
    dataset: DatasetName,
    dictionary: Dictionary,
    more: readonly string[],
  ) {
    const { columns, texts } = columnsOf(dataset, more);
    const dictionaries = Object.fromEntries(columns.map((column) => [column, dictionary]));
    this.#connection = connection;
    this.#catalog = catalog;
    this.#dataset = dataset;
    this.#records = recordColumns(dataset, columns, dictionaries, texts);
    this.#deletes = deleteColumns(dataset);
    this.#width = columns.length;
  }

  /**
   * Creates the tables of a dataset.
   * @param catalog the name of the connection's database
   * @param more columns besides those of reelflow's tables
   */
  static async create(
    connection: DuckDBConnection,
    catalog: string,
    dataset: DatasetName,
    dictionary: Dictionary,
    more: readonly string[] = [],
  ): Promise<RowLoader> {
    const { columns, texts = [] } = columnsOf(dataset, more);
    const typeOf = (name: string) => {
      if (texts.includes(name)) return 'VARCHAR';
      return formOf(datasets[dataset], name) === 'people' ? 'INTEGER[]' : 'INTEGER';
    };
    const definitions = columns.map((name) => `${name} ${typeOf(name)}`);
    await connection.run(`CREATE TABLE ${rowTable(dataset)} (${definitions.join(', ')}, deleted INTEGER)`);
    await connection.run(
      `CREATE TABLE ${replacedTable(dataset)} (idGroup INTEGER, rowsBefore DOUBLE, message INTEGER)`,
    );
    if (dataset === datasetWithHistory) {
      await connection.run(
        `CREATE OR REPLACE TABLE ${messageTable(dataset)} (message INTEGER, partition INTEGER, firstRow DOUBLE, rowCount INTEGER, day INTEGER)`,
      );
    }
    return new RowLoader(connection, catalog, dataset, dictionary, more);
  }

  /** True while deletes are pending, so that no later upsert can precede them in the table. */
  get isFull(): boolean {
    const pending = Math.max(this.#records.length, this.#replaced.length);
    return pending >= flushRows || this.#deletes.length > 0;
  }

  /**
   * Decodes a chunk. Flush before the next one if the loader is full then.
   * @returns the number of records in the chunk
   * @throws RejectedMessage, after it restored the rows
   */
  decode(value: Buffer, decoder: ChunkDecoder, owner: Owner): number {
    const { length } = this.#records;
    const header = decoder.decode(value, this.#records, this.#deletes, owner);
    const { replaces } = header;
    const records = header.records + header.deletes;
    const rowsBefore = this.#flushed + length;
    const message = this.#messagesFlushed + this.#messages.length;
    for (const group of replaces) this.#replaced.push({ group, rowsBefore, message });
    const { partition } = owner;
    this.#messages.push({ partition, firstRow: rowsBefore, rowCount: records, day: dayOf(header.asOfMs) });
    return records;
  }

  async flush(): Promise<void> {
    await this.#appendRows();
    await appendColumns(
      this.#connection,
      { catalog: this.#catalog, name: replacedTable(this.#dataset) },
      [
        Int32Array.from(this.#replaced, ({ group }) => group),
        Float64Array.from(this.#replaced, ({ rowsBefore }) => rowsBefore),
        Int32Array.from(this.#replaced, ({ message }) => message),
      ],
      this.#replaced.length,
      [false, false, false],
    );
    if (this.#dataset === datasetWithHistory) await this.#appendMessages();
    this.#messagesFlushed += this.#messages.length;
    this.#messages.length = 0;
    this.#flushed += this.#records.length + this.#deletes.length;
    this.#records.clear();
    this.#deletes.clear();
    this.#replaced.length = 0;
  }

  async #appendMessages(): Promise<void> {
    const messages = this.#messages;
    const before = this.#messagesFlushed;
    await appendColumns(
      this.#connection,
      { catalog: this.#catalog, name: messageTable(this.#dataset) },
      [
        Int32Array.from(messages, (_, at) => before + at),
        Int32Array.from(messages, ({ partition }) => partition),
        Float64Array.from(messages, ({ firstRow }) => firstRow),
        Int32Array.from(messages, ({ rowCount }) => rowCount),
        Int32Array.from(messages, ({ day }) => day),
      ],
      messages.length,
      [false, false, false, false, false],
    );
  }

  get #table(): { catalog: string; name: string } {
    return { catalog: this.#catalog, name: rowTable(this.#dataset) };
  }

  async #appendRows(): Promise<void> {
    const nullable = new Array<boolean>(this.#width).fill(true);
    for (const [rows, deleted] of [
      [this.#records, 0],
      [this.#deletes, 1],
    ] as const) {
      if (rows.length === 0) continue;
      const columns = appendedColumns(rows);
      // A delete has only its key.
      while (columns.length < this.#width) columns.push(this.#noValues(columns.length, rows.length));
      columns.push(new Int32Array(rows.length).fill(deleted));
      await appendColumns(this.#connection, this.#table, columns, rows.length, [...nullable, false]);
    }
  }

  #noValues(column: number, length: number): AppendedColumn {
    const nulls = new Int32Array(length).fill(nullInt);
    const none = new Int32Array(0);
    const form = this.#records.plan.forms[column];
    if (form === 'text') return { bytes: new Uint8Array(0), starts: none, ends: nulls };
    return form === 'people' ? { places: nulls, items: none } : nulls;
  }
}

/** Columns with their lists and texts. */
function appendedColumns(rows: Columns): AppendedColumn[] {
  const { plan, lists, text, ints } = rows;
  const starts = rows.textStarts().values();
  return plan.forms.map((form, c) => {
    const column = ints[c] as Int32Array;
    if (form === 'text') return { bytes: text, starts: starts.next().value as Int32Array, ends: column };
    return form === 'people' ? { places: column, items: lists } : column;
  });
}
