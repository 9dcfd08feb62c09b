/**
 * The sink's state: one DuckDB file with the cubes of every shard, the names, and the positions they stand at. Cubes
 * are kept as the signed rows that arrived and summed when they are read; `compact` sums them in place when the sum
 * would be much smaller. State and positions are written in one transaction.
 */
import { existsSync, mkdirSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import { join } from 'node:path';
import { type DuckDBConnection, DuckDBInstance } from '@duckdb/node-api';
import { appendNumbers, memoryBytesOf, readNumbers } from '../database/duckdb.ts';
import { parquetFile, sqlPath } from '../database/sql.ts';
import { asOpeningError, asStorageError, type Storage } from '../database/storage-errors.ts';
import { loadDictionary, storeDictionary } from '../database/stored-dictionary.ts';
import { ReelflowError } from '../runtime/errors.ts';
import type { ChainState } from '../topics/delta-chain.ts';
import { type CubeWire, cubesOnTheWire, type RecordCounts } from '../topics/delta-wire.ts';
import { Dictionary } from '../topics/dictionary.ts';
import { IdSet } from '../topics/id-set.ts';
import type { Position } from '../topics/position.ts';
import type { Columns } from '../topics/rows.ts';

const formatVersion = 3;
/** A cube of so few rows is not worth summing. */
const compactedRowsMin = 100_000;

/** One shard as the sink holds it. */
export interface ShardState {
  readonly shard: number;
  /** Partition count of the sources. */
  readonly shards: number;
  readonly chain: ChainState;
  /** Next offset of the shard's delta partition; never inside the parts of one delta. */
  readonly next: number;
  /** First offset of the last delta that was applied, -1 before the first. */
  readonly lastDelta: number;
  /** By source topic. */
  readonly counts: Readonly<Record<string, RecordCounts>>;
  /** After a reset: no snapshot before the shard and the names have come here again, by topic. */
  readonly heldUntil: Position;
}

/** One partition of the names. */
export interface PeopleState extends RecordCounts {
  readonly partition: number;
  readonly next: number;
  /** SHA-256 of the message before `next`: proves on reading it again that the topic is still the same one. */
  readonly lastHash: string;
}

/** Names to write, in the order in which they came. */
export interface PeopleRows {
  readonly length: number;
  /** `<nconst>US<name>RS` …, with `SOH` for a null name; US, RS and SOH are the control characters. */
  readonly text: string;
  /** Rows whose name holds one of these marks: id, name, and place from 1; in `text` an empty line stands for each. */
  readonly odd: readonly (readonly [number, string, number])[];
  /** Whether some of them may be stored already. */
  readonly mayExist: boolean;
  /** Whether a person may be in it more than once: the last one counts. */
  readonly mayRepeat: boolean;
  readonly deletes: readonly number[];
}

/** Of COPY: a higher level of zstd takes up to twice the time for a few per cent of the bytes. */
export const parquetOptions = 'FORMAT parquet, COMPRESSION zstd, COMPRESSION_LEVEL 1';

export const unitSeparator = 0x1f;
export const recordSeparator = 0x1e;
export const nullMark = 0x01;

const cubeTable = ({ name }: CubeWire) => `cube_${name}`;
const isText = (type: CubeWire['fields'][number]['type']) =>
  (Array.isArray(type) ? type[1] : type) === 'string';
const isLong = (type: CubeWire['fields'][number]['type']) => type === 'long';

/** SELECT of a cube's rows summed per shard, without those that sum to nothing. */
function selectSums(wire: CubeWire, type: 'BIGINT' | 'DOUBLE'): string {
  const names = (ofMeasures: boolean) =>
    wire.fields.filter((field) => isLong(field.type) === ofMeasures).map(({ name }) => name);
  const key = ['shard', ...names(false)].join(', ');
  const measures = names(true);
  return `
    SELECT ${key}, ${measures.map((name) => `sum(${name})::${type} AS ${name}`).join(', ')}
    FROM sink.${cubeTable(wire)} GROUP BY ${key}
    HAVING ${measures.map((name) => `sum(${name}) <> 0`).join(' OR ')}`;
}

export class CubeStore {
  readonly connection: DuckDBConnection;
  readonly path: string;
  readonly dictionary = new Dictionary();
  readonly people = new IdSet();
  readonly shards = new Map<number, ShardState>();
  readonly names = new Map<number, PeopleState>();
  readonly #instance: DuckDBInstance;
  #dictionaryStored = 0;
  readonly #closed = new AbortController();
  #interrupting: NodeJS.Timeout | undefined;
  /** Rows of each cube when it was last exported: what compacting would leave. */
  readonly #exportedRows = new Map<string, number>();

  private constructor(instance: DuckDBInstance, connection: DuckDBConnection, path: string) {
    this.#instance = instance;
    this.connection = connection;
    this.path = path;
  }

  /**
   * Opens the sink's state, or creates it.
   * @throws ReelflowError busy, when another sink holds it; foreignCluster; stateUnusable
   */
  static async open(
    folder: string,
    identity: { clusterId: string; namespace: string },
    memoryLimit: string,
  ): Promise<CubeStore> {
    const path = join(folder, 'sink.duckdb');
    try {
      mkdirSync(folder, { recursive: true });
      const instance = await DuckDBInstance.create(path, {
        memory_limit: memoryLimit,
        temp_directory: join(folder, 'spill-sink'),
        threads: '1',
      });
      const store = new CubeStore(instance, await instance.connect(), path);
      await store.#prepare(identity);
      await store.#load();
      return store;
    } catch (thrown) {
      throw asOpeningError(thrown, storageOf(path));
    }
  }

  /**
   * From `graceMs` after the abort of `signal` on every statement is interrupted, and so what it is part of fails: a
   * transaction is rolled back, a snapshot is not published.
   */
  interruptAfter(signal: AbortSignal, graceMs: number): void {
    // Again and again: an interrupt is of the statement that runs at that moment.
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

  /** Memory that DuckDB holds. */
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
    return this.shards.size === 0 && this.names.size === 0;
  }

  /** Runs `work` in one transaction; in-memory state is the caller's to change only after it. */
  async transaction(work: () => Promise<void>): Promise<void> {
    await this.connection.run('BEGIN');
    try {
      await work();
      const words = await this.#storeDictionary();
      await this.connection.run('COMMIT');
      this.#dictionaryStored = words;
    } catch (thrown) {
      await this.connection.run('ROLLBACK').catch(() => undefined);
      throw asStorageError(thrown, storageOf(this.path));
    }
  }

  /** Runs statements over everything, on all processors. For the small ones between, threads cost more than they give. */
  async onAllThreads<T>(work: () => Promise<T>): Promise<T> {
    await this.connection.run(`SET threads = ${availableParallelism()}`);
    try {
      return await work();
    } finally {
      await this.connection.run('SET threads = 1');
    }
  }

  /** Appends rows of one cube of one shard. */
  async addCubeRows(shard: number, wire: CubeWire, rows: Columns): Promise<void> {
    if (rows.length === 0) return;
    const columns = [new Int32Array(rows.length).fill(shard), ...wire.fields.map((_, c) => rows.column(c))];
    const nullable = [false, ...wire.fields.map(({ type }) => Array.isArray(type))];
    const table = { catalog: 'sink', name: cubeTable(wire) };
    await appendNumbers(this.connection, table, columns, rows.length, nullable);
  }

  /** Forgets a shard's cubes: a base or a reset begins anew. */
  async clearShard(shard: number): Promise<void> {
    for (const wire of cubesOnTheWire) {
      await this.connection.run(`DELETE FROM ${cubeTable(wire)} WHERE shard = ${shard}`);
    }
  }

  /** Upserts and deletes names. @returns how many rows of the table changed */
  async writeNames({ length, text, odd, mayExist, mayRepeat, deletes }: PeopleRows): Promise<number> {
    const { connection } = this;
    let changed = 0;
    const place = mayRepeat ? ', place' : '';
    const all = `
      SELECT split_part(line, chr(${unitSeparator}), 1)::INTEGER AS nconst,
        nullif(split_part(line, chr(${unitSeparator}), 2), chr(${nullMark})) AS primaryName${place}
      FROM (
        SELECT unnest(lines) AS line${mayRepeat ? ', generate_subscripts(lines, 1) AS place' : ''}
        FROM (SELECT string_split($1, chr(${recordSeparator})) AS lines)
      ) WHERE line <> ''
      ${odd.map(([id, , at], i) => `UNION ALL SELECT ${id}, $${i + 2}::VARCHAR${mayRepeat ? `, ${at}` : ''}`).join(' ')}`;
    const lines = mayRepeat
      ? `SELECT nconst, primaryName FROM (${all}) QUALIFY row_number() OVER (PARTITION BY nconst ORDER BY place DESC) = 1`
      : all;
    const values = [text, ...odd.map(([, name]) => name)];
    if (length > 0 && !mayExist) {
      await connection.run(`INSERT INTO names ${lines}`, values);
      changed += length;
    } else if (length > 0) {
      await connection.run(
        `CREATE OR REPLACE TEMP TABLE changed_names AS
        SELECT latest.*, stored.rowid AS storedRow
        FROM (${lines}) AS latest LEFT JOIN names AS stored USING (nconst)
        WHERE stored.rowid IS NULL OR latest.primaryName IS DISTINCT FROM stored.primaryName`,
        values,
      );
      await connection.run('DELETE FROM names WHERE rowid IN (SELECT storedRow FROM changed_names)');
      await connection.run('INSERT INTO names SELECT nconst, primaryName FROM changed_names');
      changed += await this.#count('changed_names');
    }
    if (deletes.length > 0) {
      const ids = deletes.join(', ');
      const found = await connection.runAndReadAll(`SELECT count(*) FROM names WHERE nconst IN (${ids})`);
      changed += Number(found.getRows()[0]?.[0]);
      await connection.run(`DELETE FROM names WHERE nconst IN (${ids})`);
    }
    return changed;
  }

  async putShard(state: ShardState): Promise<void> {
    const { connection } = this;
    await connection.run(`DELETE FROM shard WHERE shard = ${state.shard}`);
    await connection.run('INSERT INTO shard VALUES ($1, $2)', [state.shard, JSON.stringify(state)]);
  }

  /** Forgets all names: they are read again from their start. In `people` they stay, which costs only look-ups. */
  async clearNames(): Promise<void> {
    await this.connection.run('DELETE FROM names');
    await this.connection.run('DELETE FROM name_source');
  }

  async putNames(state: PeopleState): Promise<void> {
    await this.connection.run(`DELETE FROM name_source WHERE partition = ${state.partition}`);
    await this.connection.run('INSERT INTO name_source VALUES ($1, $2)', [
      state.partition,
      JSON.stringify(state),
    ]);
  }

  /**
   * Creates what the gold tables read: the relations `title`, `contributor`, `region` and `feature`, summed per shard,
   * with texts in place of dictionary numbers, rows that sum to nothing dropped. `<cube>_sums` is the same with the numbers.
   */
  async sumCubes(): Promise<void> {
    for (const wire of cubesOnTheWire) {
      const texts = wire.fields.filter(({ type }) => isText(type)).map(({ name }) => name);
      const sums = `${wire.name}_sums`;
      await this.connection.run(`CREATE OR REPLACE TEMP TABLE ${sums} AS ${selectSums(wire, 'BIGINT')}`);
      const columns = ['shard', ...wire.fields.map(({ name }) => name)].map((name) =>
        texts.includes(name) ? `${name}_text.value AS ${name}` : `${sums}.${name}`,
      );
      const dictionaries = texts.map(
        (name) => `LEFT JOIN sink.dictionary AS ${name}_text ON ${name}_text.number = ${sums}.${name}`,
      );
      await this.connection.run(`
        CREATE OR REPLACE TEMP VIEW ${wire.name} AS
        SELECT ${columns.join(', ')} FROM ${sums} ${dictionaries.join(' ')}`);
    }
  }

  /**
   * Sums the rows of each cube in place when more than half of them would go; how many would stay, the last export has
   * told. @returns rows before and after
   */
  async compact(): Promise<{ before: number; after: number }> {
    let before = 0;
    let after = 0;
    for (const wire of cubesOnTheWire) {
      const rows = await this.#count(`sink.${cubeTable(wire)}`);
      const least = this.#exportedRows.get(wire.name) ?? rows;
      before += rows;
      if (rows <= compactedRowsMin || rows <= least * 2) {
        after += rows;
        continue;
      }
      await this.transaction(async () => {
        await this.connection.run(`CREATE TABLE sink.compacted AS ${selectSums(wire, 'DOUBLE')}`);
        await this.connection.run(`DROP TABLE sink.${cubeTable(wire)}`);
        await this.connection.run(`ALTER TABLE sink.compacted RENAME TO ${cubeTable(wire)}`);
      });
      after += await this.#count(`sink.${cubeTable(wire)}`);
    }
    return { before, after };
  }

  /** Writes what `sumCubes` has made to `<folder>/<cube>.parquet`, for `restore`. */
  async exportCubes(folder: string): Promise<void> {
    mkdirSync(folder, { recursive: true });
    for (const { name } of cubesOnTheWire) {
      const path = sqlPath(join(folder, `${name}.parquet`));
      const copied = await this.connection.runAndReadAll(`COPY ${name} TO ${path} (${parquetOptions})`);
      this.#exportedRows.set(name, Number(copied.getRows()[0]?.[0]));
    }
  }

  /**
   * Takes the cubes and positions of a snapshot into an empty store.
   * @throws ReelflowError goldUnusable, when the snapshot lacks a cube
   */
  async restore(folder: string, shards: readonly ShardState[]): Promise<void> {
    const { connection, dictionary } = this;
    const lacking = cubesOnTheWire.find(({ name }) => !existsSync(join(folder, `${name}.parquet`)));
    if (lacking !== undefined) {
      throw new ReelflowError('goldUnusable', 'The newest snapshot lacks a cube', {
        detail: `${folder} has no ${lacking.name}.parquet: the file is lost, or the snapshot is of an earlier version.`,
        hint: 'Use another --gold folder and --namespace, and replay the datasets.',
      });
    }
    await this.transaction(async () => {
      for (const wire of cubesOnTheWire) {
        const file = parquetFile(join(folder, `${wire.name}.parquet`));
        const texts = wire.fields.filter(({ type }) => isText(type)).map(({ name }) => name);
        for (const name of texts) {
          const words = await connection.runAndReadAll(
            `SELECT DISTINCT ${name} FROM ${file} WHERE ${name} IS NOT NULL`,
          );
          for (const [word] of words.getRows()) dictionary.numberOfText(String(word));
        }
        this.#dictionaryStored = await this.#storeDictionary();
        const columns = wire.fields.map(({ name }) =>
          texts.includes(name) ? `(SELECT number FROM dictionary WHERE value = ${name})` : name,
        );
        await connection.run(
          `INSERT INTO ${cubeTable(wire)} SELECT shard, ${columns.join(', ')} FROM ${file}`,
        );
      }
      for (const state of shards) await this.putShard(state);
    });
    for (const state of shards) this.shards.set(state.shard, state);
  }

  async #prepare(identity: { clusterId: string; namespace: string }): Promise<void> {
    const { connection } = this;
    const columnOf = ({ name, type }: CubeWire['fields'][number]) =>
      `${name} ${isLong(type) ? 'DOUBLE' : 'INTEGER'}`;
    for (const statement of [
      'CREATE TABLE IF NOT EXISTS meta (name VARCHAR, value VARCHAR)',
      'CREATE TABLE IF NOT EXISTS shard (shard INTEGER, state VARCHAR)',
      'CREATE TABLE IF NOT EXISTS name_source (partition INTEGER, state VARCHAR)',
      'CREATE TABLE IF NOT EXISTS names (nconst INTEGER, primaryName VARCHAR)',
      'CREATE TABLE IF NOT EXISTS dictionary (number INTEGER, value VARCHAR)',
      // Measures are integers below 2^53 in DOUBLE columns: sums of them are exact in any order.
      ...cubesOnTheWire.map(
        (wire) =>
          `CREATE TABLE IF NOT EXISTS ${cubeTable(wire)} (shard INTEGER, ${wire.fields.map(columnOf).join(', ')})`,
      ),
    ]) {
      await connection.run(statement);
    }
    const wanted = { format: String(formatVersion), ...identity };
    const rows = await connection.runAndReadAll('SELECT name, value FROM meta');
    const meta = new Map(rows.getRows().map(([name, value]) => [String(name), String(value)]));
    if (meta.size === 0) {
      // All or nothing: half of it would be taken for the state of another cluster.
      const rows = Object.keys(wanted).map((_, i) => `($${2 * i + 1}, $${2 * i + 2})`);
      await connection.run(`INSERT INTO meta VALUES ${rows.join(', ')}`, Object.entries(wanted).flat());
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

  async #load(): Promise<void> {
    const { connection } = this;
    for (const [state] of (await connection.runAndReadAll('SELECT state FROM shard')).getRows()) {
      const shard = JSON.parse(String(state)) as ShardState;
      this.shards.set(shard.shard, shard);
    }
    for (const [state] of (await connection.runAndReadAll('SELECT state FROM name_source')).getRows()) {
      const names = JSON.parse(String(state)) as PeopleState;
      this.names.set(names.partition, names);
    }
    await loadDictionary(connection, 'dictionary', this.dictionary);
    this.#dictionaryStored = this.dictionary.size;
    const people = await readNumbers(connection, 'SELECT nconst FROM names');
    const ids = people.columns[0] as Int32Array;
    for (let row = 0; row < people.length; row++) this.people.add(ids[row] as number);
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
  hintWhenFull: 'Make room and start again; nothing is lost, CURRENT still names a complete snapshot.',
  busy: {
    what: 'Another sink is at work on this state',
    hint: 'One sink serves a namespace; end the other one first.',
  },
});
