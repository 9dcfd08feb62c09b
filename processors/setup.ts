/** Everything that the shards of a member share: topics, schemas, the state folder, DuckDB and the producer. */
import { join } from 'node:path';
import type { DuckDBInstance } from '@duckdb/node-api';
import type { Producer } from 'kafkajs';
import { confine, openInstance } from '../database/duckdb.ts';
import { type Broker, clusterTopics } from '../kafka/client.ts';
import type { Freshness } from '../kafka/shard-assignment.ts';
import { commonCount, ensureRetainedTopics } from '../kafka/topics.ts';
import { makeFolder } from '../runtime/files.ts';
import { hasUserDeclarations } from '../tables/built-in.ts';
import {
  type DatasetName,
  datasetNames,
  deadLetterBytesMax,
  messageBytesMax,
  namespaceFolder,
  type TopicNames,
} from '../topics/catalog.ts';
import type { Registry } from '../topics/registry.ts';
import type { Backups } from './backup.ts';
import type { ProcessorOptions } from './processor-options.ts';
import { asStoreError } from './store-errors.ts';
import { surveyStores } from './store-folder.ts';

export interface Setup {
  readonly clusterId: string;
  /** Partition count of the source topics. */
  readonly shards: number;
  readonly schemaIds: ReadonlyMap<DatasetName, number>;
  readonly deltaSchemaId: number;
  /** The folder of the stores. */
  readonly folder: string;
  readonly instance: DuckDBInstance;
  /** The stores that the folder holds when the member starts. */
  readonly survey: Freshness;
  readonly producer: Producer;
  readonly backups: Backups | undefined;
}

/** The deltas are trimmed by whole segments: with segments of the default size, a gigabyte, that would free nothing for long. */
const deltaSegmentBytes = 64 * 1024 * 1024;

/**
 * @param sources topics that the member reads
 * @param onClose takes what must be closed, also if the set-up fails later
 */
export async function setUp(
  options: ProcessorOptions,
  sources: readonly string[],
  onClose: (close: () => Promise<void>) => void,
): Promise<Setup> {
  const { broker, registry, names } = options;
  // One after the other: where neither broker nor registry answers, the error is about the broker, and nothing waits on.
  const { clusterId, shards } = await ensureTopics(broker, names, sources, options.shards);
  const schemas = await registerSchemas(registry, names, sources);

  const place = join(clusterId, namespaceFolder(names.namespace));
  const folder = join(options.state, place);
  try {
    makeFolder(folder);
  } catch (thrown) {
    throw asStoreError(thrown, folder);
  }
  const instance = await openInstance({
    memoryLimit: options.memoryLimit,
    // Statements of one shard run one after the other, and shards run beside each other, each statement on the thread that
    // calls DuckDB. More threads of its own would only spin between statements.
    threads: 1,
    spillFolder: join(folder, 'spill'),
  });
  onClose(async () => instance.closeSync());
  if (hasUserDeclarations({ cubes: options.cubeSet ?? [], tables: [] })) {
    const connection = await instance.connect();
    const { backups } = options;
    await confine(connection, [folder, ...(backups === undefined ? [] : [backups.folder])], 'locked');
    connection.closeSync();
  }

  const survey = await surveyStores(instance, folder, shards);
  // Few retries: requests are repeated by `ShardRequests`, which an ending member can interrupt.
  const retry = { initialRetryTime: 100, maxRetryTime: 1_000, retries: 2 };
  const producer = broker.kafka.producer({ allowAutoTopicCreation: false, retry });
  await producer.connect();
  onClose(() => producer.disconnect());

  const backups = options.backups && (await backupsIn(instance, join(options.backups.folder, place)));
  return { clusterId, shards, ...schemas, folder, instance, survey, producer, backups };
}

async function backupsIn(instance: DuckDBInstance, folder: string): Promise<Backups> {
  return new (await import('./backup.ts')).Backups(instance, folder);
}

async function registerSchemas(
  registry: Registry,
  names: TopicNames,
  sources: readonly string[],
): Promise<Pick<Setup, 'schemaIds' | 'deltaSchemaId'>> {
  const read = datasetNames.filter((dataset) => sources.includes(names.source(dataset)));
  const [deltaSchemaId, ...ids] = await Promise.all([
    registry.register(names.deltas, 'reelflow.deltas'),
    ...read.map((dataset) => registry.register(names.source(dataset), `imdb.${dataset}`)),
  ]);
  return { schemaIds: new Map(read.map((dataset, i) => [dataset, ids[i] as number])), deltaSchemaId };
}

/** @returns the cluster's id, and the partition count of the source topics */
async function ensureTopics(
  broker: Broker,
  names: TopicNames,
  sources: readonly string[],
  shardsWanted: number,
): Promise<{ clusterId: string; shards: number }> {
  const { clusterId, partitions } = await clusterTopics(broker);
  const all = [...sources, names.deltas, names.deadLetter];
  const shards = commonCount(partitions, all) ?? shardsWanted;
  await ensureRetainedTopics(broker, [
    ...sources.map((topic) => ({ topic, partitions: shards })),
    {
      topic: names.deltas,
      partitions: shards,
      segmentBytes: deltaSegmentBytes,
      valueBytesMax: messageBytesMax,
    },
    { topic: names.deadLetter, partitions: shards, valueBytesMax: deadLetterBytesMax },
  ]);
  return { clusterId, shards };
}
