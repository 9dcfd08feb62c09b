/**
 * The store of one shard: a DuckDB database with the rows that cubes read, the position that they stand for, and the
 * outbox. Rows and position are only ever written in one transaction (`apply.ts`), so a store is at every moment a pure
 * function of a prefix of its topics.
 *
 * DuckDB's lock gives a file to one process, and `attached` gives it to one owner within the process. A held lock means
 * another owner, never damage: the new owner waits, then builds a second store beside it. Nothing is overwritten.
 */
import { randomUUID } from 'node:crypto';
import { DuckDBBlobValue, type DuckDBConnection, type DuckDBInstance } from '@duckdb/node-api';
import { readIds, removeDatabase } from '../database/duckdb.ts';
import { databasePath, sqlText } from '../database/sql.ts';
import { loadDictionary } from '../database/stored-dictionary.ts';
import { ReelflowError } from '../runtime/errors.ts';
import { type Cube, relationOf } from '../tables/cubes/cube.ts';
import { datasetsIn, projectionOf } from '../tables/cubes/cube-set.ts';
import type { OpenBase } from '../topics/base.ts';
import { type DatasetName, datasetNames, datasets, topicNamesIn } from '../topics/catalog.ts';
import { formOf } from '../topics/chunk.ts';
import type { DeltaHeader } from '../topics/delta-wire.ts';
import { Dictionary } from '../topics/dictionary.ts';
import { IdSet } from '../topics/id-set.ts';
import { type Gap, type Gaps, messagesBefore, type Position } from '../topics/position.ts';
import type { RecordCounts } from '../topics/record-counts.ts';
import type { LastMessage, StoreMemory } from './micro-batch.ts';
import type { StoreKind } from './restore-plan.ts';
import { asStoreError, asWorkError, StoreLocked } from './store-errors.ts';

/**
 * Raised when the tables of a store change, or the rule by which chunks become rows. A store of another format is rebuilt. The cubes
 * are not part of it: rows are the same for any of them.
 */
const formatVersion = 5;

/** The type of a column in a store. */
export function storedType(dataset: DatasetName, column: string): 'INTEGER' | 'INTEGER[]' {
  return formOf(datasets[dataset], column) === 'people' ? 'INTEGER[]' : 'INTEGER';
}

export interface ShardIdentity {
  readonly clusterId: string;
  readonly namespace: string;
  readonly shard: number;
  readonly shards: number;
  readonly generation: number;
  readonly cubeSet: readonly Cube[];
}

/** A base that has begun, with the counts before its begin. */
interface CountedBase extends OpenBase {
  readonly before: RecordCounts;
}

/** One source topic of the shard; the counts are of all records since its start: offset 0, or the last whole base. */
export interface SourceState extends RecordCounts {
  readonly topic: string;
  /** First offset that is not applied. */
  readonly next: number;
  /** The message before `next`. */
  readonly last: LastMessage;
  /** All before `next`. */
  readonly gaps: readonly Gap[];
  readonly openBase: CountedBase | undefined;
}

/** A delta that is committed and may not be published yet. */
export interface OutboxEntry {
  readonly number: number;
  readonly header: DeltaHeader;
  readonly messages: readonly Buffer[];
}

export class ShardStore implements StoreMemory {
  readonly identity: ShardIdentity;
  readonly storeId: string;
  /**
   * New each time the store is opened, and named in the parts of its deltas. A copy of a store has the same store id but
   * may cut the same delta into other parts, and parts of two writers do not make one delta.
   */
  readonly writerId: string;
  readonly path: string;
  readonly connection: DuckDBConnection;
  /** The name under which the database is attached. */
  readonly catalog: string;
  /** Source topics that the cubes read. */
  readonly topics: readonly string[];
  /** The columns that it keeps of each dataset: at least those that the cubes read, once it is adapted to them. */
  projection: ReadonlyMap<DatasetName, readonly string[]>;
  readonly present = new Map<DatasetName, IdSet>();
  readonly dictionary = new Dictionary();
  /** How many words of the dictionary the database holds. */
  dictionaryStored = 0;
  sources = new Map<string, SourceState>();
  /** Number of the next outbox entry. */
  nextEntry = 1;
  #closed: Promise<void> | undefined;

  private constructor(parts: {
    identity: ShardIdentity;
    storeId: string;
    path: string;
    connection: DuckDBConnection;
    catalog: string;
  }) {
    this.identity = parts.identity;
    this.storeId = parts.storeId;
    this.writerId = `${parts.storeId}.${randomUUID().slice(0, 8)}`;
    this.path = parts.path;
    this.connection = parts.connection;
    this.catalog = parts.catalog;
    const { cubeSet, namespace } = parts.identity;
    this.projection = projectionOf(cubeSet);
    this.topics = datasetsIn(cubeSet).map(topicNamesIn(namespace).source);
  }

  get position(): Position {
    return Object.fromEntries([...this.sources.values()].map(({ topic, next }) => [topic, next]));
  }

  get gaps(): Gaps {
    return Object.fromEntries([...this.sources.values()].map(({ topic, gaps }) => [topic, gaps]));
  }

  /** The measure by which stores are compared. Records are none, because a base takes those before it out of the counts. */
  get messagesSeen(): number {
    return messagesBefore(this.position);
  }

  /** Whether it keeps every column that its cubes read, and no dataset that none of them reads. */
  get fitsCubes(): boolean {
    const wanted = projectionOf(this.identity.cubeSet);
    return (
      this.#lacking(wanted).length === 0 && [...this.projection.keys()].every((name) => wanted.has(name))
    );
  }

  /** The datasets of which it lacks a column. */
  #lacking(wanted: ReadonlyMap<DatasetName, readonly string[]>): DatasetName[] {
    return [...wanted].flatMap(([dataset, columns]) => {
      const kept = this.projection.get(dataset);
      return columns.every((column) => kept?.includes(column)) ? [] : [dataset];
    });
  }

  /**
   * Makes the store fit its cubes, and drops its outbox: what it had to tell is published. A dataset of which it lacks a column
   * begins again, without rows, at the start of its topic. Columns that no cube reads any more stay, and serve a cube that comes back.
   * @returns the datasets that begin again, and those that are dropped
   */
  async adapt(): Promise<{ again: readonly DatasetName[]; dropped: readonly DatasetName[] }> {
    const { connection, catalog } = this;
    const wanted = projectionOf(this.identity.cubeSet);
    const again = this.#lacking(wanted);
    const dropped = [...this.projection.keys()].filter((dataset) => !wanted.has(dataset));
    const topics = [...again, ...dropped].map(topicNamesIn(this.identity.namespace).source);
    await connection.run('BEGIN');
    for (const dataset of [...again, ...dropped])
      await connection.run(`DROP TABLE IF EXISTS ${this.table(dataset)}`);
    for (const dataset of again)
      await connection.run(this.#definition(dataset, wanted.get(dataset) as readonly string[]));
    for (const topic of topics)
      await connection.run(`DELETE FROM ${catalog}.source WHERE topic = $1`, [topic]);
    await connection.run(`DELETE FROM ${catalog}.outbox`);
    await connection.run('COMMIT');
    for (const topic of topics) this.sources.delete(topic);
    const kept = new Map([...this.projection].filter(([dataset]) => wanted.has(dataset)));
    for (const dataset of again) {
      kept.set(dataset, wanted.get(dataset) as readonly string[]);
      this.present.set(dataset, new IdSet());
    }
    for (const dataset of dropped) this.present.delete(dataset);
    this.projection = kept;
    return { again, dropped };
  }

  #definition(dataset: DatasetName, columns: readonly string[]): string {
    return `CREATE TABLE ${this.table(dataset)} (${columns.map((column) => `${column} ${storedType(dataset, column)}`).join(', ')})`;
  }

  table(dataset: DatasetName): string {
    return `${this.catalog}.${relationOf(dataset)}`;
  }

  get dictionaryTable(): string {
    return `${this.catalog}.dictionary`;
  }

  /** Creates an empty store in a new file. @throws ReelflowError stateUnusable */
  static async create(instance: DuckDBInstance, path: string, identity: ShardIdentity): Promise<ShardStore> {
    const storeId = storeIdOf(path);
    const store = await ShardStore.#attach(instance, path, identity, storeId);
    const { connection, catalog } = store;
    const statements = [
      `CREATE TABLE ${catalog}.meta (name VARCHAR, value VARCHAR)`,
      `CREATE TABLE ${catalog}.source (topic VARCHAR, next BIGINT, runId VARCHAR, chunk BIGINT, hash VARCHAR,
        applied BIGINT, duplicate BIGINT, rejected BIGINT, gaps VARCHAR, removed BIGINT, openBase VARCHAR)`,
      `CREATE TABLE ${catalog}.outbox (number BIGINT, part INTEGER, header VARCHAR, message BLOB)`,
      `CREATE TABLE ${catalog}.dead_letter (number BIGINT, message BLOB, about VARCHAR)`,
      `CREATE TABLE ${store.dictionaryTable} (number INTEGER, value VARCHAR)`,
      ...[...store.projection].map(([dataset, columns]) => store.#definition(dataset, columns)),
    ];
    await connection.run('BEGIN');
    for (const statement of statements) await connection.run(statement);
    for (const [name, value] of Object.entries(metaOf(identity, storeId))) {
      await connection.run(`INSERT INTO ${catalog}.meta VALUES ($1, $2)`, [name, value]);
    }
    await connection.run('COMMIT');
    for (const dataset of store.projection.keys()) store.present.set(dataset, new IdSet());
    return store;
  }

  /**
   * Opens a store.
   * @returns the store, or the reason why this member cannot use it: another generation or format, or no tables
   * @throws ReelflowError foreignCluster, if it belongs to another cluster or namespace; stateUnusable
   */
  static async open(
    instance: DuckDBInstance,
    path: string,
    identity: ShardIdentity,
  ): Promise<ShardStore | { unusable: string }> {
    const store = await ShardStore.#attach(instance, path, identity, storeIdOf(path));
    try {
      if (await store.#isEmpty()) {
        await store.close();
        return { unusable: 'it holds no tables: the member that created it was killed' };
      }
      const meta = await store.#readMeta();
      const wanted = metaOf(identity, store.storeId);
      for (const name of ['clusterId', 'namespace'] as const) {
        if (meta.get(name) !== wanted[name]) {
          throw new ReelflowError(
            'foreignCluster',
            `The state of shard ${identity.shard} belongs to another ${name}`,
            {
              detail: `${path}: ${meta.get(name)}, expected ${wanted[name]}.`,
              hint: 'Use another --state folder.',
            },
          );
        }
      }
      if (Number(meta.get('format')) > formatVersion) {
        throw new ReelflowError(
          'stateUnusable',
          `The state of shard ${identity.shard} was written by a newer version`,
          {
            detail: `${path}: format ${meta.get('format')}, this program knows ${formatVersion}.`,
            hint: 'Use the newer reelflow, or another --state folder.',
          },
        );
      }
      for (const name of ['format', 'shards', 'generation'] as const) {
        if (meta.get(name) !== wanted[name]) {
          await store.close();
          return { unusable: `its ${name} is ${meta.get(name)}, not ${wanted[name]}` };
        }
      }
      await store.#load();
      return store;
    } catch (thrown) {
      await store.close();
      throw asWorkError(thrown, path);
    }
  }

  static async #attach(
    instance: DuckDBInstance,
    path: string,
    identity: ShardIdentity,
    storeId: string,
  ): Promise<ShardStore> {
    if (attached.has(path)) throw new StoreLocked(path);
    attached.add(path);
    const catalog = `shard_${identity.shard}_${storeId.replaceAll('-', '_')}`;
    const connection = await instance.connect();
    try {
      await connection.run(`ATTACH ${sqlText(databasePath(path))} AS ${catalog}`);
    } catch (thrown) {
      attached.delete(path);
      connection.closeSync();
      throw asStoreError(thrown, path);
    }
    return new ShardStore({ identity, storeId, path, connection, catalog });
  }

  /** Detaches the file. An open transaction is rolled back. Each caller waits until the file is detached. */
  close(): Promise<void> {
    this.#closed ??= this.#detach();
    return this.#closed;
  }

  async #detach(): Promise<void> {
    await this.connection.run('ROLLBACK').catch(() => undefined);
    await this.connection.run(`DETACH ${this.catalog}`).catch(() => undefined);
    this.connection.closeSync();
    attached.delete(this.path);
  }

  /** Closes the store and deletes its file. */
  async remove(): Promise<void> {
    await this.close();
    removeDatabase(this.path);
  }

  /** Adds a delta to the outbox, as part of the open transaction. */
  async writeOutbox({ number, header, messages }: OutboxEntry): Promise<void> {
    for (const [part, message] of messages.entries()) {
      await this.connection.run(
        `INSERT INTO ${this.catalog}.outbox VALUES (${number}, ${part + 1}, $1, $2)`,
        [part === 0 ? JSON.stringify(header) : '', new DuckDBBlobValue(message)],
      );
    }
  }

  /** Entries of the outbox, oldest first. */
  async readOutbox(): Promise<OutboxEntry[]> {
    const rows = await this.connection.runAndReadAll(
      `SELECT number, header, message FROM ${this.catalog}.outbox ORDER BY number, part`,
    );
    const entries = new Map<number, { header: DeltaHeader; messages: Buffer[] }>();
    for (const [number, header, message] of rows.getRows()) {
      const entry = entries.get(Number(number)) ?? {
        // Only the first part of an entry has the header.
        header: JSON.parse(String(header)) as DeltaHeader,
        messages: [] as Buffer[],
      };
      entry.messages.push(Buffer.from((message as { bytes: Uint8Array }).bytes));
      entries.set(Number(number), entry);
    }
    return [...entries].map(([number, entry]) => ({ number, ...entry }));
  }

  /** Dead letters that are committed and may not be sent yet, oldest first. */
  async readDeadLetters(): Promise<{ number: number; value: Buffer; about: string }[]> {
    const rows = await this.connection.runAndReadAll(
      `SELECT number, message, about FROM ${this.catalog}.dead_letter ORDER BY number`,
    );
    return rows.getRows().map(([number, message, about]) => ({
      number: Number(number),
      value: Buffer.from((message as { bytes: Uint8Array }).bytes),
      about: String(about),
    }));
  }

  async removeDeadLetters(): Promise<void> {
    await this.connection.run(`DELETE FROM ${this.catalog}.dead_letter`);
  }

  /** The file exists before its tables, which are created in one transaction. */
  async #isEmpty(): Promise<boolean> {
    try {
      const rows = await this.connection.runAndReadAll(
        `SELECT count(*) FROM duckdb_tables() WHERE database_name = '${this.catalog}'`,
      );
      return Number(rows.getRows()[0]?.[0]) === 0;
    } catch (thrown) {
      throw asStoreError(thrown, this.path);
    }
  }

  async #readMeta(): Promise<Map<string, string>> {
    try {
      const rows = await this.connection.runAndReadAll(`SELECT name, value FROM ${this.catalog}.meta`);
      return new Map(rows.getRows().map(([name, value]) => [String(name), String(value)]));
    } catch (thrown) {
      throw asStoreError(thrown, this.path);
    }
  }

  /** The columns of the tables of datasets, in their order. */
  async #columnsKept(): Promise<Map<DatasetName, string[]>> {
    const rows = await this.connection.runAndReadAll(
      `SELECT table_name, column_name FROM duckdb_columns() WHERE database_name = '${this.catalog}' ORDER BY column_index`,
    );
    const kept = new Map<DatasetName, string[]>();
    for (const [table, column] of rows.getRows()) {
      const dataset = datasetNames.find((name) => relationOf(name) === table);
      if (dataset !== undefined) kept.set(dataset, [...(kept.get(dataset) ?? []), String(column)]);
    }
    return kept;
  }

  async #load(): Promise<void> {
    const { connection, catalog } = this;
    const sources = await connection.runAndReadAll(
      `SELECT topic, next, runId, chunk, hash, applied, duplicate, rejected, gaps, removed, openBase FROM ${catalog}.source`,
    );
    for (const [
      topic,
      next,
      runId,
      chunk,
      hash,
      applied,
      duplicate,
      rejected,
      gaps,
      removed,
      openBase,
    ] of sources.getRows()) {
      this.sources.set(String(topic), {
        topic: String(topic),
        next: Number(next),
        last: { runId: String(runId), chunk: Number(chunk), hash: String(hash) },
        applied: Number(applied),
        duplicate: Number(duplicate),
        rejected: Number(rejected),
        gaps: JSON.parse(String(gaps)) as Gap[],
        removed: Number(removed),
        openBase: openBase === null ? undefined : (JSON.parse(String(openBase)) as CountedBase),
      });
    }
    const entries = await connection.runAndReadAll(`SELECT coalesce(max(number), 0) FROM ${catalog}.outbox`);
    this.nextEntry = Number(entries.getRows()[0]?.[0]) + 1;
    this.projection = await this.#columnsKept();
    await loadDictionary(connection, this.dictionaryTable, this.dictionary);
    this.dictionaryStored = this.dictionary.size;
    for (const [dataset, [title]] of this.projection) {
      const titles = `SELECT DISTINCT ${title} FROM ${this.table(dataset)}`;
      this.present.set(dataset, await readIds(connection, titles));
    }
  }
}

/** Paths that this process has attached: DuckDB itself lets one process open a file twice. */
const attached = new Set<string>();

export const isAttached = (path: string) => attached.has(path);

/** Everything that must agree before one store may replace another. */
export function kindOf({ cubeSet: _, ...identity }: ShardIdentity): StoreKind {
  return { format: formatVersion, ...identity };
}

function metaOf(identity: ShardIdentity, storeId: string): Record<string, string> {
  const kind = Object.entries(kindOf(identity)).map(([name, value]) => [name, String(value)]);
  return { storeId, ...Object.fromEntries(kind) };
}

const storeIdOf = (path: string) => path.replace(/^.*\.([0-9a-f]+)\.duckdb$/, '$1');
