/**
 * Rows of exactly the input that a manifest names, read from the topics again, for the batch computation: every partition
 * of every source topic from `start` to `end`, decoded, refused by the same rules as in the stream, the last version of
 * each key in the order of its partition.
 *
 * Memory is bounded: rows go to DuckDB, which spills, a hundred thousand at a time.
 */
import type { DuckDBConnection } from '@duckdb/node-api';
import type { Broker } from '../../kafka/client.ts';
import { type LogMessage, LogReader } from '../../kafka/log.ts';
import { partitionCounts } from '../../kafka/topics.ts';
import { ReelflowError } from '../../runtime/errors.ts';
import { datasetNames, datasets, type TopicNames } from '../../topics/catalog.ts';
import { ChunkDecoder, RejectedMessage } from '../../topics/chunk.ts';
import { Ownership } from '../../topics/ownership.ts';
import type { Registry } from '../../topics/registry.ts';
import type { Manifest } from '../gold/manifest.ts';
import { type LoadedRows, RowLoader } from './row-loader.ts';
import { readRanges, requireRanges, type Source } from './source-ranges.ts';

export interface Sources {
  readonly broker: Broker;
  readonly registry: Registry;
  readonly names: TopicNames;
}

/** What lies in the named range of a topic. */
export interface SourceCount {
  messages: number;
  /** Upserts and deletes, those of rejected messages included. */
  records: number;
  rejected: number;
}

export interface ReadProgress {
  readonly topic: string;
  /** Messages of all topics, read and to be read. */
  readonly messages: number;
  readonly messagesTotal: number;
  readonly records: number;
}

/**
 * Loads what `manifest.input` names into the relations that `computeGold` reads.
 * @param catalog the name of the connection's database
 * @returns what lies there, by topic
 * @throws ReelflowError sourceLost or sourceReplaced, when a topic does not hold its range; goldUnusable, for a topic
 *   that is none of ours; undecodableBatch; brokerUnreachable
 */
export async function loadSourceRows(
  connection: DuckDBConnection,
  catalog: string,
  manifest: Manifest,
  { broker, registry, names }: Sources,
  options: {
    readonly signal: AbortSignal;
    /** Record batches that cannot be decoded and count as rejected, as they did in the stream. */
    readonly skipBatches?: readonly string[];
    readonly onProgress?: (progress: ReadProgress) => void;
  },
): Promise<Map<string, SourceCount>> {
  const sources = sourcesOf(manifest, names);
  await requireRanges(broker, sources);
  const partitions = await partitionCounts(
    broker,
    sources.map(({ topic }) => topic),
  );
  const loader = await RowLoader.create(connection, catalog);
  const messagesTotal = sources
    .flatMap(({ ranges }) => ranges)
    .reduce((sum, { start, end }) => sum + end - start, 0);
  const counts = new Map<string, SourceCount>();
  let before = { messages: 0, records: 0 };
  const reader = new LogReader(broker, options.skipBatches);
  try {
    for (const source of sources) {
      const { topic, dataset } = source;
      const decoder = new ChunkDecoder(dataset, await registry.register(topic, `imdb.${dataset}`), registry);
      const ownership = new Ownership(datasets[dataset].idPrefix, partitions.get(topic) ?? 1);
      const rows = loader.rowsOf(dataset);
      const count = { messages: 0, records: 0, rejected: 0 };
      counts.set(topic, count);
      for await (const { partition, messages } of readRanges(reader, source, options.signal)) {
        for (const message of messages) {
          if (!message.isMarker) await take(message, partition, { decoder, ownership, rows, count });
        }
        count.messages += messages.length;
        options.onProgress?.({
          topic,
          messages: before.messages + count.messages,
          messagesTotal,
          records: before.records + count.records,
        });
      }
      await rows.flush();
      before = { messages: before.messages + count.messages, records: before.records + count.records };
    }
  } finally {
    await reader.close();
  }
  await loader.keepLastVersions();
  return counts;
}

function sourcesOf(manifest: Manifest, names: TopicNames): Source[] {
  return Object.entries(manifest.input).map(([topic, partitions]) => {
    const dataset = datasetNames.find((name) => names.source(name) === topic);
    if (dataset === undefined) {
      throw new ReelflowError('goldUnusable', 'The manifest names a topic that holds no dataset', {
        detail: `Snapshot ${manifest.id}: ${topic}.`,
        hint: 'The manifest was changed after it was written.',
      });
    }
    const ranges = Object.entries(partitions).map(([partition, [start, end]]) => {
      if (start < 0 || end < start) {
        throw new ReelflowError('goldUnusable', 'The manifest names a range that cannot be', {
          detail: `Snapshot ${manifest.id}: ${topic}/${partition} from ${start} to ${end}.`,
          hint: 'The manifest was changed after it was written.',
        });
      }
      return { partition: Number(partition), start, end };
    });
    return { topic, dataset, ranges };
  });
}

interface Taking {
  readonly decoder: ChunkDecoder;
  /** Absent where any partition may hold any record: the sink takes names from wherever they lie. */
  readonly ownership: Ownership;
  readonly rows: LoadedRows;
  readonly count: SourceCount;
}

/** Decodes a message onto the rows, or counts it as rejected. */
async function take(message: LogMessage, partition: number, taking: Taking): Promise<void> {
  const { decoder, ownership, rows, count } = taking;
  try {
    if (message.isUndecodable) throw new RejectedMessage('undecodable_batch', 'skipped on demand');
    const value = message.value as Buffer;
    const own = decoder.isOwn(value) ? value : await decoder.resolve(value);
    count.records += rows.decode(own, decoder, (columns, from, records) =>
      ownership.check(columns, from, partition, records),
    );
  } catch (thrown) {
    if (!(thrown instanceof RejectedMessage)) throw thrown;
    count.records += thrown.records;
    count.rejected += thrown.records;
    return;
  }
  if (rows.isFull) await rows.flush();
}
