/**
 * Rows of chunks on their way into the relations of the batch computation: every version of every key lands in a table in
 * the order in which it was read, then the last ones are kept. Texts of few values are numbers until then.
 */
import { type DuckDBConnection, DuckDBDataChunk, INTEGER, VARCHAR } from '@duckdb/node-api';
import { appendNumbers } from '../../database/duckdb.ts';
import { type DatasetName, datasetNames, datasets } from '../../topics/catalog.ts';
import { type ChunkDecoder, deleteColumns, recordColumns } from '../../topics/chunk.ts';
import { Dictionary } from '../../topics/dictionary.ts';
import { nullInt } from '../../topics/row-plan.ts';
import type { Columns } from '../../topics/rows.ts';
import { type BatchRelation, lastOfEachKey } from './batch-gold.ts';

interface Wanted {
  readonly columns: readonly string[];
  /** The column that is text; others are numbers, dictionary numbers where they are strings. */
  readonly text?: string;
}

/** The columns that gold is made of, the key first. A message is refused for what these hold, as in the stream. */
const wantedOf: Readonly<Partial<Record<DatasetName, Wanted>>> = {
  'title.ratings': { columns: ['tconst', 'averageRating', 'numVotes'] },
  'title.basics': {
    columns: ['tconst', 'titleType', 'isAdult', 'startYear', 'runtimeMinutes', 'genres'],
  },
  'title.principals': { columns: ['tconst', 'ordering', 'nconst'] },
  'title.akas': { columns: ['titleId', 'ordering', 'region'] },
  'name.basics': { columns: ['nconst', 'primaryName'], text: 'primaryName' },
};

const keyOf = (dataset: DatasetName) =>
  datasets[dataset].columns.slice(0, datasets[dataset].keyColumns).map(({ name }) => name);

const word = (column: string) => `(SELECT value FROM words WHERE number = ${column}) AS ${column}`;
/** Relation, dataset, columns, and which rows gold needs; each may read the ones before it. */
const relationSteps: readonly [BatchRelation, DatasetName, string, string][] = [
  [
    'batch_ratings',
    'title.ratings',
    'tconst, averageRating / 10.0::DOUBLE AS rating, numVotes::BIGINT AS votes',
    '',
  ],
  [
    'batch_basics',
    'title.basics',
    `tconst, ${word('titleType')}, isAdult = 1 AS isAdult, startYear, runtimeMinutes, ${word('genres')}`,
    'WHERE tconst IN (SELECT tconst FROM batch_ratings)',
  ],
  [
    'batch_principals',
    'title.principals',
    'tconst, ordering, nconst',
    'WHERE tconst IN (SELECT tconst FROM batch_ratings)',
  ],
  [
    'batch_akas',
    'title.akas',
    `titleId, ordering, ${word('region')}`,
    'WHERE titleId IN (SELECT tconst FROM batch_ratings)',
  ],
  [
    'batch_names',
    'name.basics',
    'nconst, primaryName',
    'WHERE nconst IN (SELECT nconst FROM batch_principals)',
  ],
];

const flushRows = 100_000;

const loadedTable = (dataset: DatasetName) => `loaded_${dataset.replace('.', '_')}`;

/** The tables of all datasets in an empty database. */
export class RowLoader {
  readonly #connection: DuckDBConnection;
  readonly #catalog: string;
  readonly #dictionary = new Dictionary();

  private constructor(connection: DuckDBConnection, catalog: string) {
    this.#connection = connection;
    this.#catalog = catalog;
  }

  /** @param catalog the name of the connection's database */
  static async create(connection: DuckDBConnection, catalog: string): Promise<RowLoader> {
    for (const dataset of datasetNames) {
      const { columns, text } = wantedOf[dataset] ?? { columns: keyOf(dataset) };
      const definitions = columns.map((name) => `${name} ${name === text ? 'VARCHAR' : 'INTEGER'}`);
      await connection.run(
        `CREATE TABLE ${loadedTable(dataset)} (${definitions.join(', ')}, deleted INTEGER)`,
      );
    }
    return new RowLoader(connection, catalog);
  }

  rowsOf(dataset: DatasetName): LoadedRows {
    return new LoadedRows(this.#connection, this.#catalog, dataset, this.#dictionary);
  }

  /** Makes the relations that `computeGold` reads of the last versions, and drops the tables that they come from. */
  async keepLastVersions(): Promise<void> {
    const connection = this.#connection;
    await connection.run('CREATE TABLE words (number INTEGER, value VARCHAR)');
    const numbers = Array.from({ length: this.#dictionary.size }, (_, number) => number);
    await appendValues(
      connection,
      { catalog: this.#catalog, name: 'words' },
      [INTEGER, VARCHAR],
      [numbers, numbers.map((number) => this.#dictionary.textOf(number))],
    );
    for (const [relation, dataset, columns, only] of relationSteps) {
      const last = lastOfEachKey(loadedTable(dataset), keyOf(dataset), only);
      await connection.run(
        `CREATE OR REPLACE TEMP TABLE ${relation} AS SELECT ${columns} FROM (${last}) WHERE deleted = 0`,
      );
      await connection.run(`DROP TABLE ${loadedTable(dataset)}`);
    }
  }
}

/** Rows of one dataset on their way into its table, in order: `deleted` is 1 for a delete, whose key is all it has. */
export class LoadedRows {
  readonly #connection: DuckDBConnection;
  readonly #table: { catalog: string; name: string };
  readonly #records: Columns;
  readonly #deletes: Columns;
  readonly #isText: boolean;
  readonly #width: number;

  constructor(connection: DuckDBConnection, catalog: string, dataset: DatasetName, dictionary: Dictionary) {
    const { columns, text } = wantedOf[dataset] ?? { columns: keyOf(dataset) };
    const dictionaries = Object.fromEntries(columns.map((column) => [column, dictionary]));
    this.#connection = connection;
    this.#table = { catalog, name: loadedTable(dataset) };
    this.#records = recordColumns(dataset, columns, dictionaries, text);
    this.#deletes = deleteColumns(dataset);
    this.#isText = text !== undefined;
    this.#width = columns.length;
  }

  /** A delete that waits makes the rows full, so that no later upsert can come before it. */
  get isFull(): boolean {
    return this.#records.length >= flushRows || this.#deletes.length > 0;
  }

  /**
   * @param check called with the rows of the chunk; what it throws leaves the rows as they were
   * @returns how many records the chunk holds
   */
  decode(
    value: Buffer,
    decoder: ChunkDecoder,
    check: (columns: Columns, from: number, records: number) => void,
  ): number {
    const { length, textLength } = this.#records;
    const deletes = this.#deletes.length;
    const header = decoder.decode(value, this.#records, this.#deletes);
    const records = header.records + header.deletes;
    try {
      check(this.#records, length, records);
      check(this.#deletes, deletes, records);
    } catch (thrown) {
      this.#records.length = length;
      this.#records.textLength = textLength;
      this.#deletes.length = deletes;
      throw thrown;
    }
    return records;
  }

  async flush(): Promise<void> {
    await (this.#isText ? this.#appendTexts() : this.#appendNumbers());
    this.#records.clear();
    this.#deletes.clear();
  }

  async #appendNumbers(): Promise<void> {
    const records = this.#records;
    const deletes = this.#deletes;
    const nullable = new Array<boolean>(this.#width).fill(true);
    for (const [rows, deleted] of [
      [records, 0],
      [deletes, 1],
    ] as const) {
      if (rows.length === 0) continue;
      const columns = Array.from({ length: this.#width }, (_, c) =>
        c < rows.plan.forms.length ? rows.int(c) : new Int32Array(rows.length).fill(nullInt),
      );
      columns.push(new Int32Array(rows.length).fill(deleted));
      await appendNumbers(this.#connection, this.#table, columns, rows.length, [...nullable, false]);
    }
  }

  async #appendTexts(): Promise<void> {
    const records = this.#records;
    const ids = [...records.int(0).subarray(0, records.length)];
    const text = Buffer.from(records.text.buffer, records.text.byteOffset, records.textLength);
    let start = 0;
    const names = Array.from(records.int(1).subarray(0, records.length), (end) => {
      if (end < 0) return null;
      const from = start;
      start = end;
      return text.toString('utf8', from, end);
    });
    const deleted = [...this.#deletes.int(0).subarray(0, this.#deletes.length)];
    await appendValues(
      this.#connection,
      this.#table,
      [INTEGER, VARCHAR, INTEGER],
      [
        [...ids, ...deleted],
        [...names, ...deleted.map(() => null)],
        [...ids.map(() => 0), ...deleted.map(() => 1)],
      ],
    );
  }
}

const vectorRows = 2048;

async function appendValues(
  connection: DuckDBConnection,
  table: { catalog: string; name: string },
  types: (typeof INTEGER | typeof VARCHAR)[],
  columns: readonly (readonly (number | string | null)[])[],
): Promise<void> {
  const appender = await connection.createAppender(table.name, 'main', table.catalog);
  const length = columns[0]?.length ?? 0;
  try {
    for (let from = 0; from < length; from += vectorRows) {
      const chunk = DuckDBDataChunk.create(types);
      chunk.setColumns(columns.map((column) => column.slice(from, from + vectorRows)));
      appender.appendDataChunk(chunk);
    }
    appender.flushSync();
  } finally {
    appender.closeSync();
  }
}
