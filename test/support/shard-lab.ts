/**
 * One shard without a broker: a real store in a temporary folder, fed with chunks by hand, next to what a reader of its
 * deltas and a batch computation over the same rows make of them. Importing this registers the hooks that clean up.
 */
import { join } from 'node:path';
import type { DuckDBInstance } from '@duckdb/node-api';
import { afterAll, afterEach, beforeAll, expect, vi } from 'vitest';
import { openInstance } from '../../database/duckdb.ts';
import { type AppliedBatch, applyMicroBatch } from '../../processors/apply.ts';
import { MicroBatch } from '../../processors/micro-batch.ts';
import { type ShardIdentity, ShardStore } from '../../processors/shard-store.ts';
import { createStore as createStoreIn } from '../../processors/store-folder.ts';
import { cubes as cubeSet } from '../../tables/cubes/cube-set.ts';
import { RejectedMessage } from '../../topics/chunk.ts';
import { fromOf, toOf } from '../../topics/delta-wire.ts';
import { Ownership } from '../../topics/ownership.ts';
import { samePosition } from '../../topics/position.ts';
import {
  type Chunk,
  type CubeDataset,
  cubeDatasets,
  decoderOf,
  encodeChunk,
  titleNumbers,
} from './chunks.ts';
import { addDeltas, type Cubes, Rows } from './cube-model.ts';
import { temporaryFolder } from './temporary-folder.ts';

export const deltaSchemaId = 99;
export const identity: ShardIdentity = {
  clusterId: 'cluster',
  namespace: '',
  shard: 0,
  shards: 1,
  generation: 0,
  cubeSet,
};
export const decoders = Object.fromEntries(cubeDatasets.map((dataset) => [dataset, decoderOf(dataset)]));
const topicOf = (dataset: CubeDataset) => `imdb.${dataset}`;

const folder = temporaryFolder();
let instance: DuckDBInstance;
const stores = new Set<ShardStore>();

/** Creates an empty store that is removed when its test ends. */
export async function createStore(of: ShardIdentity = identity): Promise<ShardStore> {
  const store = await createStoreIn(instance, folder, of);
  stores.add(store);
  return store;
}

beforeAll(async () => {
  instance = await openInstance({ memoryLimit: '500MB', threads: 1, spillFolder: join(folder, 'spill') });
});
afterEach(async () => {
  for (const store of stores) await store.remove();
  stores.clear();
});
afterAll(() => instance.closeSync());

/** A message of the log: a chunk, or bytes that are none. */
export type Message = Chunk | { readonly dataset: CubeDataset; readonly garbage: Buffer };

const bytesOf = (message: Message) => ('garbage' in message ? message.garbage : encodeChunk(message));
const recordsOf = (message: Message) =>
  'garbage' in message ? 1 : message.records.length + message.deletes.length;

/** One shard: a store, the log that it reads, and what a reader of its deltas and a batch computation make of it. */
export class Lab {
  store!: ShardStore;
  readonly rows = new Rows();
  readonly cubes: Cubes = new Map();
  /** Deltas that were not empty. */
  moves = 0;
  batch!: MicroBatch;
  #staged: Message[] = [];
  #log: Message[] = [];
  #offsets = new Map<CubeDataset, number>();
  readonly #allKnown: boolean;

  private constructor(allKnown: boolean) {
    this.#allKnown = allKnown;
  }

  static async open(options: { allKnown?: boolean } = {}): Promise<Lab> {
    const lab = new Lab(options.allKnown === true);
    await lab.#use(await createStore());
    return lab;
  }

  async #use(store: ShardStore): Promise<void> {
    stores.add(store);
    this.store = store;
    if (this.#allKnown) {
      for (const present of store.present.values()) for (const title of titleNumbers) present.add(title);
    }
    this.#begin();
  }

  #begin(): void {
    this.batch = new MicroBatch(
      identity.shard,
      this.store,
      this.store.projection,
      new Ownership('tt', identity.shards),
    );
    this.#staged = [];
  }

  stage(message: Message): void {
    const { dataset } = message;
    const offset = this.#offsets.get(dataset) ?? 0;
    this.#offsets.set(dataset, offset + 1);
    const value = bytesOf(message);
    const source = { topic: topicOf(dataset), dataset, offset, timestampMs: 1_000 + offset, value };
    const decoder = decoders[dataset] as (typeof decoders)[string];
    try {
      decoder.isOwn(value);
      this.batch.add(source, decoder, value);
    } catch (thrown) {
      if (!(thrown instanceof RejectedMessage)) throw thrown;
      this.batch.reject(source, thrown);
    }
    this.#staged.push(message);
    this.#log.push(message);
  }

  /** Applies what is staged and checks what has to hold after every micro-batch. */
  async commit(meanwhile: () => Promise<void> = async () => undefined): Promise<AppliedBatch> {
    const { batch } = this;
    const staged = this.#staged;
    const before = this.store.position;
    this.#begin();
    const applying = this.apply(batch);
    await meanwhile();
    const applied = await applying;
    for (const message of staged) if (!('garbage' in message)) this.rows.apply(message);

    const { entry } = applied;
    expect(applied.applied + applied.duplicate + applied.rejected).toBe(
      staged.reduce((sum, message) => sum + recordsOf(message), 0),
    );
    if (entry === undefined) throw new Error('a micro-batch gave no delta');
    for (const { topic, applied: did, duplicate, rejected } of entry.header.range) {
      const own = staged.filter(({ dataset }) => topicOf(dataset) === topic);
      expect(did + duplicate + rejected).toBe(own.reduce((sum, message) => sum + recordsOf(message), 0));
      expect(Math.min(did, duplicate, rejected)).toBeGreaterThanOrEqual(0);
      expect(rejected).toBe(own.filter((message) => 'garbage' in message).length);
    }
    expect(samePosition(fromOf(entry.header), before)).toBe(true);
    expect(samePosition(toOf(entry.header), this.store.position)).toBe(true);
    if (addDeltas(this.cubes, entry.messages, deltaSchemaId) > 0) this.moves += 1;
    expect(this.cubes).toEqual(this.rows.cubes());
    return applied;
  }

  apply(batch: MicroBatch, silently = false): Promise<AppliedBatch> {
    return applyMicroBatch(this.store, batch, {
      deltaSchemaId,
      silently,
      deadLetterOf: ({ message }) => ({ value: message.value ?? Buffer.alloc(0), about: '{}' }),
      publishedEntry: this.store.nextEntry - 1,
    });
  }

  async reopen(): Promise<void> {
    const { store } = this;
    await store.close();
    stores.delete(store);
    const opened = await ShardStore.open(instance, store.path, identity);
    if (!(opened instanceof ShardStore)) throw new Error(opened.unusable);
    expect(opened.position).toEqual(store.position);
    expect(opened.sources).toEqual(store.sources);
    await this.#use(opened);
  }

  /** The transaction fails at its very end; the same messages are staged again in the reopened store. */
  async crash(): Promise<void> {
    const staged = this.#staged;
    const { connection } = this.store;
    const run = connection.run.bind(connection);
    vi.spyOn(connection, 'run').mockImplementation(async (sql, ...rest) => {
      if (sql === 'COMMIT') throw new Error('power cut');
      return run(sql, ...rest);
    });
    await expect(this.apply(this.batch)).rejects.toThrow('power cut');
    await this.reopen();
    for (const { dataset } of staged) this.skip(dataset, -1);
    this.#log.splice(-staged.length);
    for (const message of staged) this.stage(message);
  }

  /** A store of its own, brought to the position of this one without publishing. @param cut after each message */
  async replace(cut: () => boolean): Promise<void> {
    const log = this.#log.splice(0);
    await this.close();
    this.#offsets.clear();
    await this.#use(await createStore());
    for (const message of log) {
      this.stage(message);
      if (!cut()) continue;
      expect((await this.apply(this.batch, true)).entry).toBeUndefined();
      this.#begin();
    }
    if (!this.batch.isEmpty) expect((await this.apply(this.batch, true)).entry).toBeUndefined();
    expect(await this.store.readOutbox()).toEqual([]);
    this.#begin();
  }

  /** The log loses `count` messages, or brings some once more. */
  skip(dataset: CubeDataset, count: number): void {
    this.#offsets.set(dataset, (this.#offsets.get(dataset) ?? 0) + count);
  }

  async close(): Promise<void> {
    await this.store.remove();
    stores.delete(this.store);
  }
}
