/**
 * The store of one shard: a DuckDB database that holds the rows which cubes read, the position they stand at, and the
 * outbox. State and position are only ever written in one transaction (`apply.ts`), so a store is at every moment the
 * pure function of a prefix of its topics.
 *
 * A file is owned by one process (DuckDB's lock) and once per process (this file). A lock that is held means another
 * owner, never damage: the new owner waits, then builds a store of its own beside it. Nothing is overwritten.
 */
import { randomUUID } from 'node:crypto';
import { mkdirSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import type { DuckDBConnection, DuckDBInstance } from '@duckdb/node-api';
import { readNumbers, removeDatabase } from '../database/duckdb.ts';
import { loadDictionary } from '../database/stored-dictionary.ts';
import { isFileError, messageOf, ReelflowError, systemCodeOf } from '../runtime/errors.ts';
import { type Cube, fingerprintOf, projectionOf, relationOf } from '../tables/cubes/cube.ts';
import type { DatasetName } from '../topics/catalog.ts';
import type { DeltaHeader } from '../topics/delta-wire.ts';
import { Dictionary } from '../topics/dictionary.ts';
import { IdSet } from '../topics/id-set.ts';
import type { Gap, Gaps, Position } from '../topics/position.ts';
import type { Fingerprint, StoreMemory } from './micro-batch.ts';
import type { StoreKind } from './plan.ts';

/** Raised when the tables of a store change: a store of another format is rebuilt. */
const formatVersion = 2;

export interface ShardIdentity {
  readonly clusterId: string;
  readonly namespace: string;
  readonly shard: number;
  readonly shards: number;
  readonly generation: number;
  readonly cubeSet: readonly Cube[];
}

/** Where one source topic of the shard stands. */
export interface SourceState {
  readonly topic: string;
  readonly next: number;
  readonly fingerprint: Fingerprint;
  /** Records since offset 0. */
  readonly applied: number;
  readonly duplicate: number;
  readonly rejected: number;
  /** Before `next`. */
  readonly gaps: readonly Gap[];
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
   * Of this opening, for the parts of its deltas: a copy of a store has its id too, but may cut the same delta into
   * parts in another way, and parts of two writers make no delta.
   */
  readonly writerId: string;
  readonly path: string;
  readonly connection: DuckDBConnection;
  /** The name that the database is attached under. */
  readonly catalog: string;
  readonly projection: ReadonlyMap<DatasetName, readonly string[]>;
  readonly present = new Map<DatasetName, IdSet>();
  readonly dictionary = new Dictionary();
  /** Entries of the dictionary that the database holds. */
  dictionaryStored = 0;
  sources = new Map<string, SourceState>();
  /** Number of the next outbox entry. */
  nextEntry = 1;

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
    this.projection = projectionOf(parts.identity.cubeSet);
  }

  get position(): Position {
    return Object.fromEntries([...this.sources.values()].map(({ topic, next }) => [topic, next]));
  }

  get gaps(): Gaps {
    return Object.fromEntries([...this.sources.values()].map(({ topic, gaps }) => [topic, gaps]));
  }

  /** Records that the store has taken in, of whatever fate: how far it is. */
  get recordsSeen(): number {
    let seen = 0;
    for (const { applied, duplicate, rejected } of this.sources.values())
      seen += applied + duplicate + rejected;
    return seen;
  }

  table(dataset: DatasetName): string {
    return `${this.catalog}.${relationOf(dataset)}`;
  }

  get dictionaryTable(): string {
    return `${this.catalog}.dictionary`;
  }

  /** Creates an empty store in a file of its own. @throws ReelflowError stateUnusable */
  static async create(
    instance: DuckDBInstance,
    folder: string,
    identity: ShardIdentity,
  ): Promise<ShardStore> {
    const path = freshStorePath(folder, identity.shard);
    const storeId = storeIdOf(path);
    const store = await ShardStore.#attach(instance, path, identity, storeId);
    const { connection, catalog } = store;
    const statements = [
      `CREATE TABLE ${catalog}.meta (name VARCHAR, value VARCHAR)`,
      `CREATE TABLE ${catalog}.source (topic VARCHAR, next BIGINT, runId VARCHAR, chunk BIGINT, hash VARCHAR,
        applied BIGINT, duplicate BIGINT, rejected BIGINT, gaps VARCHAR)`,
      `CREATE TABLE ${catalog}.outbox (number BIGINT, part INTEGER, header VARCHAR, message BLOB)`,
      `CREATE TABLE ${catalog}.dead_letter (number BIGINT, message BLOB, about VARCHAR)`,
      `CREATE TABLE ${catalog}.dictionary (number INTEGER, value VARCHAR)`,
      ...[...store.projection].map(
        ([dataset, columns]) =>
          `CREATE TABLE ${store.table(dataset)} (${columns.map((column) => `${column} INTEGER`).join(', ')})`,
      ),
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
   * @returns the store, or why it is not one of ours to use: another cube set, generation or format, or never finished
   * @throws ReelflowError foreignCluster, when it belongs to another cluster or namespace; stateUnusable
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
        return { unusable: 'it holds no tables, because whoever created it was killed' };
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
          `The state of shard ${identity.shard} is of a newer version`,
          {
            detail: `${path}: format ${meta.get('format')}, this program knows ${formatVersion}.`,
            hint: 'Use the newer reelflow, or another --state folder.',
          },
        );
      }
      for (const name of ['format', 'shards', 'cubeSet', 'generation'] as const) {
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
      await connection.run(`ATTACH '${path.replaceAll("'", "''")}' AS ${catalog}`);
    } catch (thrown) {
      attached.delete(path);
      connection.closeSync();
      throw asStoreError(thrown, path);
    }
    return new ShardStore({ identity, storeId, path, connection, catalog });
  }

  /** Detaches the file; what is not committed is gone. */
  async close(): Promise<void> {
    if (!attached.delete(this.path)) return;
    await this.connection.run('ROLLBACK').catch(() => undefined);
    await this.connection.run(`DETACH ${this.catalog}`).catch(() => undefined);
    this.connection.closeSync();
  }

  /** Closes the store and deletes its file. */
  async remove(): Promise<void> {
    await this.close();
    removeDatabase(this.path);
  }

  /** Entries of the outbox, oldest first. */
  async readOutbox(): Promise<OutboxEntry[]> {
    const rows = await this.connection.runAndReadAll(
      `SELECT number, header, message FROM ${this.catalog}.outbox ORDER BY number, part`,
    );
    const entries = new Map<number, { header: DeltaHeader; messages: Buffer[] }>();
    for (const [number, header, message] of rows.getRows()) {
      const entry = entries.get(Number(number)) ?? {
        // The first part of an entry carries it.
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

  /** They are sent. */
  async removeDeadLetters(): Promise<void> {
    await this.connection.run(`DELETE FROM ${this.catalog}.dead_letter`);
  }

  /** The file is there before its tables are, which come in one transaction. */
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

  async #load(): Promise<void> {
    const { connection, catalog } = this;
    const sources = await connection.runAndReadAll(
      `SELECT topic, next, runId, chunk, hash, applied, duplicate, rejected, gaps FROM ${catalog}.source`,
    );
    for (const [topic, next, runId, chunk, hash, applied, duplicate, rejected, gaps] of sources.getRows()) {
      this.sources.set(String(topic), {
        topic: String(topic),
        next: Number(next),
        fingerprint: { runId: String(runId), chunk: Number(chunk), hash: String(hash) },
        applied: Number(applied),
        duplicate: Number(duplicate),
        rejected: Number(rejected),
        gaps: JSON.parse(String(gaps)) as Gap[],
      });
    }
    const entries = await connection.runAndReadAll(`SELECT coalesce(max(number), 0) FROM ${catalog}.outbox`);
    this.nextEntry = Number(entries.getRows()[0]?.[0]) + 1;
    await loadDictionary(connection, this.dictionaryTable, this.dictionary);
    this.dictionaryStored = this.dictionary.size;
    for (const [dataset, [title]] of this.projection) {
      const titles = new IdSet();
      const found = await readNumbers(connection, `SELECT DISTINCT ${title} FROM ${this.table(dataset)}`);
      const ids = found.columns[0] as Int32Array;
      for (let row = 0; row < found.length; row++) titles.add(ids[row] as number);
      this.present.set(dataset, titles);
    }
  }
}

/** Paths that this process has attached: DuckDB itself lets one process open a file twice. */
const attached = new Set<string>();

/** Another owner holds the file. */
export class StoreLocked extends Error {
  constructor(path: string) {
    super(`${path} is in use`);
    this.name = 'StoreLocked';
  }
}

/** What a store of this identity is of. */
export function kindOf({ cubeSet, ...identity }: ShardIdentity): StoreKind {
  return { format: formatVersion, ...identity, cubeSet: fingerprintOf(cubeSet) };
}

function metaOf(identity: ShardIdentity, storeId: string): Record<string, string> {
  const kind = Object.entries(kindOf(identity)).map(([name, value]) => [name, String(value)]);
  return { storeId, ...Object.fromEntries(kind) };
}

const storePrefix = (shard: number) => `shard-${shard}.`;
/** A path for a new store, with an id of its own. */
export const freshStorePath = (folder: string, shard: number) =>
  join(folder, `${storePrefix(shard)}${randomUUID().slice(0, 8)}.duckdb`);
const storeIdOf = (path: string) => path.replace(/^.*\.([0-9a-f]+)\.duckdb$/, '$1');

/** The files of a shard's stores. */
export function storeFiles(folder: string, shard: number): string[] {
  return readdirSync(folder)
    .filter((name) => name.startsWith(storePrefix(shard)) && name.endsWith('.duckdb'))
    .map((name) => join(folder, name));
}

/**
 * Opens the store of a shard that has come furthest, waiting for a lock up to `patienceMs`; stores that it has left
 * behind and stores of another cube set, generation or format are deleted. Creates one when there is none to be had.
 * @param restore puts a store that is further than one with so many records into the folder, if there is any
 * @throws ReelflowError stateUnusable, foreignCluster
 */
export async function openFurthest(
  instance: DuckDBInstance,
  folder: string,
  identity: ShardIdentity,
  patienceMs: number,
  tell: (what: string) => void,
  restore: (storeRecords: number | undefined) => Promise<string | undefined> = async () => undefined,
): Promise<ShardStore> {
  try {
    mkdirSync(folder, { recursive: true });
  } catch (thrown) {
    throw asStoreError(thrown, folder);
  }
  const started = Date.now();
  for (;;) {
    let best: ShardStore | undefined;
    let locked = false;
    for (const path of storeFiles(folder, identity.shard)) {
      try {
        const found = await ShardStore.open(instance, path, identity);
        if (!(found instanceof ShardStore)) {
          tell(`store ${path} is rebuilt: ${found.unusable}`);
          removeDatabase(path);
        } else if (best === undefined || found.recordsSeen > best.recordsSeen) {
          await best?.remove();
          best = found;
        } else {
          await found.remove();
        }
      } catch (thrown) {
        if (!(thrown instanceof StoreLocked)) {
          await best?.close();
          throw thrown;
        }
        locked = true;
      }
    }
    if (best === undefined && locked && Date.now() - started <= patienceMs) {
      await sleep(100);
      continue;
    }
    const path = await restore(best?.recordsSeen);
    const restored = path === undefined ? undefined : await openRestored(instance, path, identity, tell);
    if (restored !== undefined) await best?.remove();
    const store = restored ?? best;
    if (store !== undefined) return store;
    if (locked) {
      tell(`the store of shard ${identity.shard} is held by another owner: a new one is built beside it`);
    }
    return ShardStore.create(instance, folder, identity);
  }
}

/** A store that was restored is a copy: whatever is wrong with it, it goes, and what there was without it remains. */
async function openRestored(
  instance: DuckDBInstance,
  path: string,
  identity: ShardIdentity,
  tell: (what: string) => void,
): Promise<ShardStore | undefined> {
  let why: string;
  try {
    const store = await ShardStore.open(instance, path, identity);
    if (store instanceof ShardStore) return store;
    why = store.unusable;
  } catch (thrown) {
    why = thrown instanceof ReelflowError ? `${thrown.message}: ${thrown.detail}` : messageOf(thrown);
  }
  tell(`the restored store ${path} is not used: ${why}`);
  removeDatabase(path);
  return undefined;
}

/**
 * How far the stores in a folder are, by shard, in records; stores that somebody holds or that cannot be read say
 * nothing. For the assigner, which gives a shard to the member whose store is furthest.
 */
export async function surveyStores(
  instance: DuckDBInstance,
  folder: string,
  shards: number,
): Promise<Map<number, number>> {
  const survey = new Map<number, number>();
  const connection = await instance.connect();
  for (let shard = 0; shard < shards; shard++) {
    for (const path of storeFiles(folder, shard)) {
      if (attached.has(path)) continue;
      try {
        await connection.run(`ATTACH '${path.replaceAll("'", "''")}' AS survey (READ_ONLY)`);
        const rows = await connection.runAndReadAll(
          'SELECT coalesce(sum(applied + duplicate + rejected), 0) FROM survey.source',
        );
        survey.set(shard, Math.max(survey.get(shard) ?? 0, Number(rows.getRows()[0]?.[0])));
      } catch {
        // Held or damaged: whoever opens it in earnest reports it.
      }
      await connection.run('DETACH survey').catch(() => undefined);
    }
  }
  connection.closeSync();
  return survey;
}

/** What went wrong in the middle of work: the disk and the file have errors for people, a defect stays one. */
export function asWorkError(thrown: unknown, path: string): unknown {
  const isOfFile = /no space left|IO Error|corrupt|serializ|checksum|invalidated|permission|read-only/i;
  return isFileError(thrown) || isOfFile.test(messageOf(thrown)) ? asStoreError(thrown, path) : thrown;
}

/** What went wrong with a file, as an error for people; a lock that is held becomes StoreLocked. */
export function asStoreError(thrown: unknown, path: string): unknown {
  if (thrown instanceof ReelflowError || thrown instanceof StoreLocked) return thrown;
  const message = messageOf(thrown);
  if (/conflicting lock|could not set lock|already attached|being used by another process/i.test(message)) {
    return new StoreLocked(path);
  }
  if (/no space left/i.test(message) || systemCodeOf(thrown) === 'ENOSPC') {
    return new ReelflowError('diskFull', 'The disk under the state folder is full', {
      detail: `${path}: ${message}`,
      hint: 'Make room and start again; nothing is lost.',
      cause: thrown,
    });
  }
  return new ReelflowError('stateUnusable', 'The state of a shard cannot be used', {
    detail: `${path}: ${message}`,
    hint: 'If the file is damaged, move it away: the shard is rebuilt from its topics.',
    cause: thrown,
  });
}
