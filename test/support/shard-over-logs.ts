/**
 * Whole shards (`processors/shard.ts`) without a broker: real stores in a folder, over logs of chunks and deltas that are
 * kept in memory and can be exchanged for others under the same names. Importing this registers the hooks that close them.
 */
import type { DuckDBInstance } from '@duckdb/node-api';
import pino from 'pino';
import { afterAll, afterEach, beforeAll, expect } from 'vitest';
import { openInstance } from '../../database/duckdb.ts';
import type { LogBounds } from '../../kafka/bounds.ts';
import type { LogMessage, LogReader } from '../../kafka/log.ts';
import { OutageMonitor } from '../../kafka/outage.ts';
import { Shard } from '../../processors/shard.ts';
import type { ShardContext } from '../../processors/shard-context.ts';
import type { Cube } from '../../tables/cubes/cube.ts';
import { cubes } from '../../tables/cubes/cube-set.ts';
import { type TopicNames, topicNamesIn } from '../../topics/catalog.ts';
import type { Position } from '../../topics/position.ts';
import type { Registry } from '../../topics/registry.ts';
import { basics, type Chunk, cubeDatasets, encodeChunk, rating, schemaIdOf } from './chunks.ts';
import { addDeltas, type Cubes, Rows } from './cube-model.ts';
import { temporaryFolder } from './temporary-folder.ts';

export const deltaSchemaId = 99;
const names: TopicNames = topicNamesIn('');

/** Holds the stores of all shards of a test file. */
export let instance: DuckDBInstance;
const shards: Shard[] = [];

beforeAll(async () => {
  instance = await openInstance({ memoryLimit: '500MB', threads: 1, spillFolder: temporaryFolder() });
});
afterEach(async () => {
  // The newest first: a test may have opened the store of a closed shard again.
  for (const shard of shards.splice(0).reverse()) await shard.close(0);
});
afterAll(() => instance.closeSync());

/** The logs of one shard: partition 0 of every topic, each message at the offset that it has here. */
export class Logs {
  readonly messages = new Map<string, Buffer[]>();
  /** First offset of the topics that are trimmed. */
  readonly starts = new Map<string, number>();
  /** What the chunks leave behind. */
  readonly rows = new Rows();

  of(topic: string): Buffer[] {
    const log = this.messages.get(topic) ?? [];
    this.messages.set(topic, log);
    return log;
  }

  produce(...chunks: readonly Chunk[]): void {
    for (const chunk of chunks) {
      this.of(names.source(chunk.dataset)).push(encodeChunk(chunk));
      this.rows.apply(chunk);
    }
  }

  /** A title with a rating. */
  produceTitle(title: number): void {
    this.produce(
      { dataset: 'title.basics', records: [basics(title, 'Drama')], deletes: [] },
      { dataset: 'title.ratings', records: [rating(title, 7)], deletes: [] },
    );
  }

  /** The deltas add up to the cubes of all rows. */
  expectExact(): void {
    const cubes: Cubes = new Map();
    addDeltas(cubes, this.deltas, deltaSchemaId);
    expect(cubes).toEqual(this.rows.cubes());
  }

  get deltas(): Buffer[] {
    return this.of(names.deltas);
  }

  /** Ends of the sources. */
  get ends(): Position {
    return Object.fromEntries(
      cubeDatasets.map((dataset) => [names.source(dataset), this.of(names.source(dataset)).length]),
    );
  }

  async bounds(topics: readonly string[]): Promise<Map<string, Map<number, LogBounds>>> {
    return new Map(
      topics.map((topic) => {
        const end = this.of(topic).length;
        return [topic, new Map([[0, { start: this.starts.get(topic) ?? 0, end }]])];
      }),
    );
  }

  read(topic: string, next: number): LogMessage[] {
    return this.of(topic)
      .slice(next)
      .map((value, i) => ({
        offset: next + i,
        timestampMs: 1_000,
        key: null,
        value,
        isMarker: false,
        isUndecodable: false,
      }));
  }
}

export interface ShardOverLogs {
  readonly shard: Shard;
  /** Resolves with the next failure. */
  readonly failed: Promise<unknown>;
  /** One fetch of everything that the shard wants. */
  fetch(): Promise<void>;
  /** Fetches until the shard has published up to `target`. */
  until(target: Position): Promise<void>;
}

/** A shard that is not open yet. @param said takes the messages of its log; `cubeSet` what this version declares */
export function shardOver(
  logs: Logs,
  folder: string,
  changes: Partial<ShardContext> = {},
  said: string[] = [],
  cubeSet: readonly Cube[] = cubes,
): ShardOverLogs {
  const stream = { write: (line: string) => said.push((JSON.parse(line) as { msg: string }).msg) };
  const failure = Promise.withResolvers<unknown>();
  let published = Promise.withResolvers<void>();
  const context: ShardContext = {
    instance,
    producer: {
      send: async ({ topic, messages }: { topic: string; messages: { value: Buffer }[] }) => {
        const baseOffset = String(logs.of(topic).length);
        logs.of(topic).push(...messages.map(({ value }) => value));
        return [{ topicName: topic, partition: 0, errorCode: 0, baseOffset }];
      },
    } as unknown as ShardContext['producer'],
    reader: {
      fetch: async ([want]: Parameters<LogReader['fetch']>[0]) => [
        { ...want, end: 0, messages: logs.read(want?.topic ?? '', want?.next ?? 0) },
      ],
    } as unknown as LogReader,
    endpoints: { brokers: ['test:9092'] },
    outages: new OutageMonitor(pino({ level: 'silent' }), 'Kafka broker'),
    signal: new AbortController().signal,
    registry: { writer: async () => undefined } as unknown as Registry,
    names,
    folder,
    window: { periodMs: 10, recordsMax: 1_000, bytesMax: 1_000_000 },
    logger: pino({}, stream),
    schemaIds: new Map(cubeDatasets.map((dataset) => [dataset, schemaIdOf(dataset)])),
    deltaSchemaId,
    lockPatienceMs: 0,
    bounds: (topics) => logs.bounds(topics),
    acceptLoss: false,
    backups: undefined,
    onPublished: () => {
      published.resolve();
      published = Promise.withResolvers();
    },
    onFailure: (_, reason) => failure.resolve(reason),
    ...changes,
  };
  const shard = new Shard({ clusterId: 'cluster', namespace: '', shard: 0, shards: 1, cubeSet }, context);
  shards.push(shard);
  const fetch = async () => {
    for (const { topic, partition, next } of shard.wants()) {
      const messages = logs.read(topic, next);
      await shard.receive({ topic, partition, next, highWatermark: logs.of(topic).length, messages });
    }
  };
  const until = async (target: Position) => {
    while (!shard.hasPublished(target)) {
      const next = published.promise;
      await fetch();
      if (shard.hasPublished(target)) return;
      await Promise.race([
        next,
        failure.promise.then((reason) => {
          throw reason;
        }),
      ]);
    }
  };
  return { shard, failed: failure.promise, fetch, until };
}
