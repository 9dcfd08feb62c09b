/**
 * Rows of exactly the input that a manifest names, read from the topics for the batch computation: every partition of every
 * source topic from `start` to `end`. The rules that refuse a message are those of the stream. The last version of each key
 * counts, in the order of its partition.
 *
 * Memory is bounded: the rows go to DuckDB, which spills, a hundred thousand at a time.
 */
import type { DuckDBConnection } from '@duckdb/node-api';
import { logBounds } from '../../kafka/bounds.ts';
import type { Broker } from '../../kafka/client.ts';
import { type LogMessage, LogReader } from '../../kafka/log.ts';
import { ReelflowError } from '../../runtime/errors.ts';
import { builtIn, type Declarations } from '../../tables/built-in.ts';
import { type DatasetName, datasetNames, datasets, type TopicNames } from '../../topics/catalog.ts';
import { ChunkDecoder, RejectedMessage } from '../../topics/chunk.ts';
import { Dictionary } from '../../topics/dictionary.ts';
import { Ownership } from '../../topics/ownership.ts';
import type { Registry } from '../../topics/registry.ts';
import type { Manifest } from '../gold/manifest.ts';
import { historyDaysDefault, historyFromRows } from './batch-history.ts';
import { keepLastVersions } from './last-versions.ts';
import { moreColumnsOf } from './more-columns.ts';
import { datasetWithHistory, RowLoader } from './row-loader.ts';
import { readRanges, requireRanges, type TopicRanges } from './topic-ranges.ts';

/** The pipeline whose topics hold the input. */
export interface InputTopics {
  readonly broker: Broker;
  readonly registry: Registry;
  readonly names: TopicNames;
}

/** What the input range of a topic holds. */
export interface InputCount {
  /** Upserts and deletes, including those of rejected messages. */
  records: number;
  rejected: number;
}

interface TopicRows {
  /** By topic. */
  readonly counts: Map<string, InputCount>;
  /** Whether the log holds every version of the ratings that the history was made from. */
  readonly hasHistory: boolean;
}

export interface ReadProgress {
  readonly topic: string;
  /** Messages of all topics that were read. */
  readonly messages: number;
  /** Messages of all ranges. */
  readonly messagesTotal: number;
  readonly records: number;
}

interface ReadOptions {
  /** What the rows are for. Default: reelflow's tables. */
  readonly declarations?: Declarations;
  readonly signal: AbortSignal;
  /** Record batches that cannot be decoded and count as rejected, as in the stream: `topic:partition:offset`. */
  readonly skipBatches?: readonly string[];
  readonly onProgress?: (progress: ReadProgress) => void;
}

/**
 * Loads the input of a snapshot into the relations that `computeGold` reads.
 * @param catalog the name of the connection's database
 * @throws ReelflowError sourceLost or sourceReplaced, when a topic does not hold its range; goldUnusable, when the manifest
 *   names a topic without a dataset; undecodableBatch; brokerUnreachable
 */
export async function loadTopicRows(
  connection: DuckDBConnection,
  catalog: string,
  manifest: Manifest,
  { broker, registry, names }: InputTopics,
  { signal, skipBatches, onProgress, declarations = builtIn }: ReadOptions,
): Promise<TopicRows> {
  const inputs = inputsOf(manifest, names);
  const earlier = await earlierRatings(broker, inputs, names.source(datasetWithHistory), manifest);
  const partitions = await requireRanges(broker, inputs);
  const dictionary = new Dictionary();
  const more = moreColumnsOf(declarations.cubes);
  const loaders = new Map<DatasetName, RowLoader>();
  for (const dataset of datasetNames) {
    loaders.set(dataset, await RowLoader.create(connection, catalog, dataset, dictionary, more.get(dataset)));
  }
  const messagesTotal = inputs
    .flatMap(({ ranges }) => ranges)
    .reduce((sum, { start, end }) => sum + end - start, 0);
  const counts = new Map<string, InputCount>();
  let messagesRead = 0;
  let recordsRead = 0;
  const reader = new LogReader(broker, skipBatches);
  try {
    for (const input of inputs) {
      const { topic, dataset } = input;
      const rows = loaders.get(dataset) as RowLoader;
      const decoder = new ChunkDecoder(dataset, await registry.register(topic, `imdb.${dataset}`), registry);
      const ownership = new Ownership(datasets[dataset].idPrefix, partitions.get(topic) ?? 1);
      const count = { records: 0, rejected: 0 };
      counts.set(topic, count);
      const ranges = (topic === earlier?.topic ? earlier : input).ranges;
      for await (const { partition, messages } of readRanges(reader, { ...input, ranges }, signal)) {
        for (const message of messages) {
          if (message.isMarker) continue;
          const taken = await take(message, partition, { decoder, ownership, rows });
          // The history begins before the input if the topic has a base.
          if (message.offset < (input.ranges.find((one) => one.partition === partition)?.start ?? 0))
            continue;
          count.records += taken.records;
          count.rejected += taken.rejected;
          recordsRead += taken.records;
        }
        messagesRead += messages.length;
        onProgress?.({ topic, messages: messagesRead, messagesTotal, records: recordsRead });
      }
      await rows.flush();
    }
  } finally {
    await reader.close();
  }
  const hasHistory = earlier !== undefined;
  if (hasHistory) await historyFromRows(connection, manifest.history?.days ?? historyDaysDefault);
  await keepLastVersions(connection, dictionary, more, declarations);
  return { counts, hasHistory };
}

/**
 * The range of title.ratings that the history was made from: it begins before the input if that starts at a base.
 * @returns undefined if the log does not hold it any more
 */
async function earlierRatings(
  broker: Broker,
  inputs: readonly TopicRanges[],
  topic: string,
  { history }: Manifest,
): Promise<TopicRanges | undefined> {
  const input = inputs.find((one) => one.topic === topic);
  if (input === undefined || input.ranges.every(({ start }) => start === 0)) {
    return input ?? { topic, dataset: datasetWithHistory, ranges: [] };
  }
  const logs = (await logBounds(broker, [topic])).get(topic);
  const ranges = input.ranges.map((range) => {
    const [from, to] = history?.gaps[range.partition]?.[0] ?? [0, 0];
    return { ...range, start: Math.min(range.start, from === 0 ? to : 0) };
  });
  const isHeld = ranges.every(({ partition, start }) => (logs?.get(partition)?.start ?? 0) <= start);
  return isHeld ? { ...input, ranges } : undefined;
}

function inputsOf(manifest: Manifest, names: TopicNames): TopicRanges[] {
  const changed = (message: string, detail: string) =>
    new ReelflowError('goldUnusable', message, {
      detail: `Snapshot ${manifest.id}: ${detail}.`,
      hint: 'The manifest was changed after it was written. Verify another snapshot.',
    });
  return Object.entries(manifest.input).map(([topic, partitions]) => {
    const dataset = datasetNames.find((name) => names.source(name) === topic);
    if (dataset === undefined) throw changed('The manifest names a topic without a dataset', topic);
    const ranges = Object.entries(partitions).map(([partition, [start, end]]) => {
      if (start < 0 || end < start) {
        throw changed(
          'The manifest names an impossible range',
          `${topic}/${partition} from ${start} to ${end}`,
        );
      }
      return { partition: Number(partition), start, end };
    });
    return { topic, dataset, ranges };
  });
}

interface Receiver {
  readonly decoder: ChunkDecoder;
  readonly ownership: Ownership;
  readonly rows: RowLoader;
}

/** Decodes a message into the loader, or counts its records as rejected. */
async function take(
  message: LogMessage,
  partition: number,
  { decoder, ownership, rows }: Receiver,
): Promise<InputCount> {
  let records: number;
  try {
    if (message.isUndecodable) throw new RejectedMessage('undecodable_batch', 'skipped on demand');
    records = rows.decode(await decoder.asOwn(message.value), decoder, { ownership, partition });
  } catch (thrown) {
    if (!(thrown instanceof RejectedMessage)) throw thrown;
    return { records: thrown.records, rejected: thrown.records };
  }
  if (rows.isFull) await rows.flush();
  return { records, rejected: 0 };
}
