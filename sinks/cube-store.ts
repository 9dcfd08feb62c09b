/**
 * The sink's state: one DuckDB file with the cubes of every shard, the names of people, the history of ratings, and the
 * positions that they have reached. A transaction writes rows and positions together. Cubes are kept as the signed rows that
 * arrived and are summed when they are read; `compact` sums them in place when the sum is much smaller. Every cube that a delta
 * brings is kept, also one that this version does not declare: a newer one then finds it complete.
 */
import { mkdirSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import { join } from 'node:path';
import { type DuckDBConnection, DuckDBInstance } from '@duckdb/node-api';
import { appendNumbers, memoryBytesOf, readNumbers } from '../database/duckdb.ts';
import { databasePath, parquetFile, sqlPath } from '../database/sql.ts';
import { asOpeningError, asStorageError, type Storage } from '../database/storage-errors.ts';
import { loadDictionary, storeDictionary } from '../database/stored-dictionary.ts';
import { ReelflowError } from '../runtime/errors.ts';
import { columnsOf } from '../tables/cubes/cube.ts';
import { cubes } from '../tables/cubes/cube-set.ts';
import type { CubeRows } from '../topics/cube-rows.ts';
import { Dictionary } from '../topics/dictionary.ts';
import { IdSet } from '../topics/id-set.ts';
import { type CubeShape, cubeTable, definitionsOf, selectSums, textsOf } from './cube-sql.ts';
import { type PeopleRows, type WrittenPeople, writePeople } from './people-table.ts';
import { RatingHistory } from './rating-history.ts';
import type { PeopleState, ShardState } from './shard-state.ts';

const formatVersion = 5;
/** A smaller cube is not worth summing. */
const compactedRowsMin = 100_000;
/** Of COPY. Higher levels of zstd take up to twice the time for a few per cent of the bytes. */
export const parquetOptions = 'FORMAT parquet, COMPRESSION zstd, COMPRESSION_LEVEL 1';

const declaredShapes: readonly CubeShape[] = cubes.map((cube) => ({
  name: cube.name,
  columns: columnsOf(cube),
}));
const declaredTables = new Set(declaredShapes.map(cubeTable));

export class CubeStore {
  readonly connection: DuckDBConnection;
  readonly path: string;
  readonly dictionary = new Dictionary();
  /** Ids of all people whose name the store may hold. */
  readonly personIds = new IdSet();
  readonly shards = new Map<number, ShardState>();
  /** By partition of name.basics. */
  readonly peopleStates = new Map<number, PeopleState>();
  readonly ratings: RatingHistory;
  readonly #instance: DuckDBInstance;
  #dictionaryStored = 0;
  readonly #closed = new AbortController();
  #interrupting: NodeJS.Timeout | undefined;
  /** By table: the cubes that the database holds. */
  readonly #tables = new Map<string, CubeShape>();
  /** Tables that the open transaction creates. */
  readonly #created = new Map<string, CubeShape>();
  /** Rows of each cube at its last export: what compacting it would leave. */
  readonly #exportedRows = new Map<string, number>();

  private constructor(instance: DuckDBInstance, connection: DuckDBConnection, path: string) {
    this.#instance = instance;
    this.connection = connection;
    this.path = path;
    this.ratings = new RatingHistory(connection);
  }

  /**
   * Opens the sink's state, or creates it.
   * @throws ReelflowError busy, if another sink holds it; foreignCluster; stateUnusable
   */
  static async open(
    folder: string,
    identity: { clusterId: string; namespace: string },
    memoryLimit: string,
  ): Promise<CubeStore> {
    const path = join(folder, 'sink.duckdb');
    try {
      mkdirSync(folder, { recursive: true });
      const instance = await DuckDBInstance.create(databasePath(path), {
        memory_limit: memoryLimit,
        temp_directory: join(folder, 'spill-sink'),
        threads: '1',
      });
      const store = new CubeStore(instance, await instance.connect(), path);
      await store.#prepare(identity);
      await store.#load();
      await store.ratings.open();
      return store;
    } catch (thrown) {
      throw asOpeningError(thrown, storageOf(path));
    }
  }

  /**
   * Interrupts every statement from `graceMs` after the abort of `signal` on. The work that it belongs to fails: a transaction
   * is rolled back, a snapshot is not published.
   */
  interruptAfter(signal: AbortSignal, graceMs: number): void {
    // Repeatedly, because an interrupt ends only the statement that runs at that moment.
    const interrupt = () => {
      this.connection.interrupt();
      this.#interrupting = setTimeout(interrupt, 100);
    };
    const begin = () => {
      this.#interrupting = setTimeout(interrupt, graceMs);
    };
    if (signal.aborted) begin();
    else signal.addEventListener('abort', begin, { once: true, signal: this.#closed.signal });
  }

  /** Memory that DuckDB uses. */
  memoryBytes(): Promise<number> {
    return memoryBytesOf(this.#instance);
  }

  close(): void {
    this.#closed.abort();
    clearTimeout(this.#interrupting);
    this.connection.closeSync();
    this.#instance.closeSync();
  }

  get isEmpty(): boolean {
    return this.shards.size === 0 && this.peopleStates.size === 0;
  }

  /** Runs `work` in one transaction. The caller changes its state in memory only after the commit. */
  async transaction(work: () => Promise<void>): Promise<void> {
    await this.connection.run('BEGIN');
    try {
      await work();
      const words = await this.#storeDictionary();
      await this.connection.run('COMMIT');
      this.#dictionaryStored = words;
      for (const [table, shape] of this.#created) this.#tables.set(table, shape);
    } catch (thrown) {
      await this.connection.run('ROLLBACK').catch(() => undefined);
      throw asStorageError(thrown, storageOf(this.path));
    } finally {
      this.#created.clear();
    }
  }

  /** Runs statements over the whole state on all processors. For small statements, threads cost more than they save. */
  async onAllThreads<T>(work: () => Promise<T>): Promise<T> {
    await this.connection.run(`SET threads = ${availableParallelism()}`);
    try {
      return await work();
    } finally {
      await this.connection.run('SET threads = 1');
    }
  }

  /** Appends rows of one cube of one shard. */
  async addCubeRows(shard: number, { cube, columns, length }: CubeRows): Promise<void> {
    if (length === 0) return;
    const name = await this.#provideTable({ name: cube, columns });
    const values = [new Int32Array(length).fill(shard), ...columns.map((column) => column.values)];
    const nullable = [false, ...columns.map(({ kind }) => kind !== 'long')];
    await appendNumbers(this.connection, { catalog: 'sink', name }, values, length, nullable);
  }

  /** The table of a cube, which the open transaction creates if there is none. */
  async #provideTable({ name, columns }: CubeShape): Promise<string> {
    const shape = { name, columns: columns.map((column) => ({ name: column.name, kind: column.kind })) };
    const table = cubeTable(shape);
    if (this.#tables.has(table) || this.#created.has(table)) return table;
    await this.connection.run(`CREATE TABLE ${table} (shard INTEGER, ${definitionsOf(shape)})`);
    await this.connection.run('INSERT INTO cube VALUES ($1)', [JSON.stringify(shape)]);
    this.#created.set(table, shape);
    return table;
  }

  /** Deletes the cubes of a shard: a base or a reset starts without them. */
  async clearShard(shard: number): Promise<void> {
    for (const table of [...this.#tables.keys(), ...this.#created.keys()]) {
      await this.connection.run(`DELETE FROM ${table} WHERE shard = ${shard}`);
    }
  }

  /** Upserts and deletes rows of name.basics. @returns how many rows of the table changed */
  writePeople(rows: PeopleRows): Promise<WrittenPeople> {
    return writePeople(this.connection, rows);
  }

  async putShard(state: ShardState): Promise<void> {
    const { connection } = this;
    await connection.run(`DELETE FROM shard WHERE shard = ${state.shard}`);
    await connection.run('INSERT INTO shard VALUES ($1, $2)', [state.shard, JSON.stringify(state)]);
  }

  /** Deletes all names, so that the topic is read again from its start. `personIds` keeps them, which costs only look-ups. */
  async clearPeople(): Promise<void> {
    await this.connection.run('DELETE FROM names');
    await this.connection.run('DELETE FROM name_source');
  }

  async putPeople(state: PeopleState): Promise<void> {
    await this.connection.run(`DELETE FROM name_source WHERE partition = ${state.partition}`);
    await this.connection.run('INSERT INTO name_source VALUES ($1, $2)', [
      state.partition,
      JSON.stringify(state),
    ]);
  }

  /**
   * Creates the relations that the gold tables read, one for each declared cube and with its name. They hold sums per shard,
   * with texts in place of dictionary numbers and without rows that sum to 0. `<cube>_sums` is the same with the numbers.
   */
  async sumCubes(): Promise<void> {
    for (const shape of declaredShapes) {
      const texts = textsOf(shape);
      const sums = `${shape.name}_sums`;
      await this.connection.run(`CREATE OR REPLACE TEMP TABLE ${sums} AS ${selectSums(shape, 'BIGINT')}`);
      const columns = ['shard', ...shape.columns.map(({ name }) => name)].map((name) =>
        texts.includes(name) ? `${name}_text.value AS ${name}` : `${sums}.${name}`,
      );
      const dictionaries = texts.map(
        (name) => `LEFT JOIN sink.dictionary AS ${name}_text ON ${name}_text.number = ${sums}.${name}`,
      );
      await this.connection.run(`
        CREATE OR REPLACE TEMP VIEW ${shape.name} AS
        SELECT ${columns.join(', ')} FROM ${sums} ${dictionaries.join(' ')}`);
    }
  }

  /**
   * Sums the rows of each cube in place if that removes more than half of them. The last export has shown how many would stay.
   * @returns rows before and after
   */
  async compact(): Promise<{ before: number; after: number }> {
    let before = 0;
    let after = 0;
    for (const [table, shape] of [...this.#tables]) {
      const rows = await this.#count(`sink.${table}`);
      if (rows === 0 && !declaredTables.has(table)) {
        await this.#drop(table, shape);
        continue;
      }
      const least = this.#exportedRows.get(table) ?? rows;
      before += rows;
      if (rows <= compactedRowsMin || rows <= least * 2) {
        after += rows;
        continue;
      }
      await this.transaction(async () => {
        await this.connection.run(`CREATE TABLE sink.compacted AS ${selectSums(shape, 'DOUBLE')}`);
        await this.connection.run(`DROP TABLE sink.${table}`);
        await this.connection.run(`ALTER TABLE sink.compacted RENAME TO ${table}`);
      });
      after += await this.#count(`sink.${table}`);
    }
    return { before, after };
  }

  /** Drops the table of a cube that no shard sends any longer and that this version does not declare. */
  async #drop(table: string, shape: CubeShape): Promise<void> {
    await this.transaction(async () => {
      await this.connection.run(`DROP TABLE ${table}`);
      await this.connection.run('DELETE FROM cube WHERE shape = $1', [JSON.stringify(shape)]);
    });
    this.#tables.delete(table);
  }

  /** Writes the relations of `sumCubes` to `<folder>/<cube>.parquet`, for `restore`. */
  async exportCubes(folder: string): Promise<void> {
    mkdirSync(folder, { recursive: true });
    for (const shape of declaredShapes) {
      const path = sqlPath(join(folder, `${shape.name}.parquet`));
      const copied = await this.connection.runAndReadAll(`COPY ${shape.name} TO ${path} (${parquetOptions})`);
      this.#exportedRows.set(cubeTable(shape), Number(copied.getRows()[0]?.[0]));
    }
  }

  /**
   * Loads the cubes and positions of a snapshot into an empty store.
   * @param folder holds a file for each declared cube
   */
  async restore(folder: string, shards: readonly ShardState[]): Promise<void> {
    const { connection, dictionary } = this;
    await this.transaction(async () => {
      for (const shape of declaredShapes) {
        const file = parquetFile(join(folder, `${shape.name}.parquet`));
        const texts = textsOf(shape);
        for (const name of texts) {
          const words = await connection.runAndReadAll(
            `SELECT DISTINCT ${name} FROM ${file} WHERE ${name} IS NOT NULL`,
          );
          for (const [word] of words.getRows()) dictionary.numberOfText(String(word));
        }
        this.#dictionaryStored = await this.#storeDictionary();
        const columns = shape.columns.map(({ name }) =>
          texts.includes(name) ? `(SELECT number FROM dictionary WHERE value = ${name})` : name,
        );
        await connection.run(
          `INSERT INTO ${cubeTable(shape)} SELECT shard, ${columns.join(', ')} FROM ${file}`,
        );
      }
      for (const state of shards) await this.putShard(state);
    });
    for (const state of shards) this.shards.set(state.shard, state);
  }

  async #prepare(identity: { clusterId: string; namespace: string }): Promise<void> {
    const { connection } = this;
    await connection.run('CREATE TABLE IF NOT EXISTS meta (name VARCHAR, value VARCHAR)');
    const wanted = { format: String(formatVersion), ...identity };
    const rows = await connection.runAndReadAll('SELECT name, value FROM meta');
    const meta = new Map(rows.getRows().map(([name, value]) => [String(name), String(value)]));
    if (meta.size === 0) {
      await this.#create(wanted);
      return;
    }
    for (const [name, value] of Object.entries(wanted)) {
      if (meta.get(name) === value) continue;
      throw new ReelflowError(
        name === 'format' ? 'stateUnusable' : 'foreignCluster',
        `The sink's state has another ${name}`,
        {
          detail: `${this.path}: ${meta.get(name)}, expected ${value}.`,
          hint:
            name === 'format'
              ? 'Move the file away: the sink restores from CURRENT.'
              : 'Use another --state folder.',
        },
      );
    }
  }

  /** Creates the tables, and after them the identity: a crash in between leaves a state that is created again. */
  async #create(identity: Readonly<Record<string, string>>): Promise<void> {
    const { connection } = this;
    for (const statement of [
      'CREATE TABLE IF NOT EXISTS shard (shard INTEGER, state VARCHAR)',
      'CREATE TABLE IF NOT EXISTS name_source (partition INTEGER, state VARCHAR)',
      'CREATE TABLE IF NOT EXISTS names (nconst INTEGER, primaryName VARCHAR)',
      'CREATE TABLE IF NOT EXISTS dictionary (number INTEGER, value VARCHAR)',
      'CREATE TABLE IF NOT EXISTS cube (shape VARCHAR)',
    ]) {
      await connection.run(statement);
    }
    // In one statement: a crash between two would leave a state that seems to belong to another cluster.
    const rows = Object.keys(identity).map((_, i) => `($${2 * i + 1}, $${2 * i + 2})`);
    await connection.run(`INSERT INTO meta VALUES ${rows.join(', ')}`, Object.entries(identity).flat());
  }

  async #load(): Promise<void> {
    const { connection } = this;
    for (const [text] of (await connection.runAndReadAll('SELECT shape FROM cube')).getRows()) {
      const shape = JSON.parse(String(text)) as CubeShape;
      this.#tables.set(cubeTable(shape), shape);
    }
    await this.transaction(async () => {
      for (const shape of declaredShapes) await this.#provideTable(shape);
    });
    for (const [state] of (await connection.runAndReadAll('SELECT state FROM shard')).getRows()) {
      const shard = JSON.parse(String(state)) as ShardState;
      this.shards.set(shard.shard, shard);
    }
    for (const [state] of (await connection.runAndReadAll('SELECT state FROM name_source')).getRows()) {
      const people = JSON.parse(String(state)) as PeopleState;
      this.peopleStates.set(people.partition, people);
    }
    await loadDictionary(connection, 'dictionary', this.dictionary);
    this.#dictionaryStored = this.dictionary.size;
    const { columns, length } = await readNumbers(connection, 'SELECT nconst FROM names');
    const ids = columns[0] as Int32Array;
    for (let row = 0; row < length; row++) this.personIds.add(ids[row] as number);
  }

  async #storeDictionary(): Promise<number> {
    return storeDictionary(this.connection, 'dictionary', this.dictionary, this.#dictionaryStored);
  }

  async #count(relation: string): Promise<number> {
    const rows = await this.connection.runAndReadAll(`SELECT count(*) FROM ${relation}`);
    return Number(rows.getRows()[0]?.[0]);
  }
}

const storageOf = (path: string): Storage => ({
  path,
  folder: 'the state folder',
  kind: 'stateUnusable',
  unusable: "The sink's state cannot be used",
  hint: 'If the file is damaged, move it away: the sink restores from CURRENT and reads on.',
  hintWhenFull: 'Free disk space and start again; nothing is lost, CURRENT still names a complete snapshot.',
  busy: {
    what: 'Another sink uses this state',
    hint: 'One sink serves a namespace. End the other one first.',
  },
});
