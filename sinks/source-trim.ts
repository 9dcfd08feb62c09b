/**
 * Deletes the messages of source topics that a base has made useless. The input of a published snapshot starts at the begin of a
 * base only if the shard, or the names, have read the base to its end. So the deltas in the topic and this sink need nothing
 * before it; stores and backups that are behind it begin at the base. Other readers are asked: a Flink job of ours by its
 * group, the history of ratings by its length. The next refresh reads a message that a consumer refused, to send its groups
 * again: it stays while its dead letter is open. What is held back now is deleted at a later interval.
 *
 * Topics that no cube reads are in no snapshot. The dump index says where their bases begin, and their log that they are whole.
 */
import { type BoundsByTopic, type LogBounds, logBounds } from '../kafka/bounds.ts';
import type { Broker } from '../kafka/client.ts';
import { type Group, readGroups } from '../kafka/groups.ts';
import { LogReader } from '../kafka/log.ts';
import { scanTopic } from '../kafka/scan.ts';
import { deleteBefore, partitionCounts } from '../kafka/topics.ts';
import { reasonOf } from '../runtime/errors.ts';
import { findBase } from '../topics/base.ts';
import { type DatasetName, datasetNames, type TopicNames } from '../topics/catalog.ts';
import { OpenLetters } from '../topics/dead-letter.ts';
import type { Manifest } from './gold/manifest.ts';
import { DumpDirectories } from './held-dumps.ts';
import type { SinkMetrics } from './sink-metrics.ts';

/** `delete` the messages before a base, only `report` them, or keep them and stay silent (`off`). */
export type TrimMode = 'delete' | 'report' | 'off';

/** Offsets [from, to) of one partition that lie before a base. */
interface Trimmed {
  readonly topic: string;
  readonly partition: number;
  readonly from: number;
  readonly to: number;
  /** The reader that still needs them; undefined if they can be deleted. */
  readonly neededBy?: 'Flink' | 'history' | 'dead letter';
}

export interface TrimInput {
  readonly input: Manifest['input'];
  readonly bounds: BoundsByTopic<LogBounds>;
  /** The group of our Flink jobs. */
  readonly flink: Pick<Group, 'committed' | 'problem'> | undefined;
  /** The topic of the ratings, and from which offset on the history needs it, by partition. */
  readonly ratings: { readonly topic: string; readonly keptFrom: (partition: number) => number };
  /** Messages with an open dead letter. */
  readonly refused: readonly SourcePlace[];
}

interface SourcePlace {
  readonly topic: string;
  readonly partition: number;
  readonly offset: number;
}

/** The messages before the bases at which the input of a snapshot starts. Pure. */
export function planTrim({ input, bounds, flink, ratings, refused }: TrimInput): Trimmed[] {
  return Object.entries(input).flatMap(([topic, partitions]) =>
    Object.entries(partitions).flatMap(([key, [begin, end]]): Trimmed[] => {
      const partition = Number(key);
      const from = bounds.get(topic)?.get(partition)?.start ?? begin;
      const keptFrom = topic === ratings.topic ? ratings.keptFrom(partition) : begin;
      const refusedFrom = refused
        .filter((place) => place.topic === topic && place.partition === partition && place.offset >= from)
        .reduce((first, { offset }) => Math.min(first, offset), begin);
      const to = Math.min(keptFrom, refusedFrom);
      if (needsOfFlink(flink, topic, partition, end)) {
        return from < begin ? [{ topic, partition, from, to: begin, neededBy: 'Flink' }] : [];
      }
      const kept = Math.max(from, to);
      const neededBy: Trimmed['neededBy'] = refusedFrom < keptFrom ? 'dead letter' : 'history';
      return [
        ...(from < to ? [{ topic, partition, from, to }] : []),
        ...(kept < begin ? [{ topic, partition, from: kept, to: begin, neededBy }] : []),
      ];
    }),
  );
}

/** A job that has committed offsets of the topic must be as far as the snapshot, and so past the end of the base. */
function needsOfFlink(flink: TrimInput['flink'], topic: string, partition: number, end: number): boolean {
  if (flink === undefined) return false;
  if (flink.problem !== null) return true;
  const committed = flink.committed.get(topic);
  return committed !== undefined && (committed.get(partition)?.next ?? 0) < end;
}

interface SourceTrimOptions {
  readonly broker: Broker;
  readonly names: TopicNames;
  readonly mode: TrimMode;
  readonly ratingsKeptFrom: (partition: number) => number;
  readonly metrics?: SinkMetrics | undefined;
}

/** How often at most the dump index is read for the topics that no cube reads. */
const indexEveryMs = 3_600_000;

export class SourceTrim {
  readonly #options: SourceTrimOptions;
  readonly #directories: DumpDirectories;
  /** Messages deleted since the start; in mode `report` those that could be. */
  deleted = 0;
  #reported = '';
  /** The ranges from the begin of their last base on, of topics that no cube reads. */
  #unread: Manifest['input'] = {};
  /** The snapshot after which the index was read last, and when. */
  #indexRead: { readonly id: string; readonly atMs: number } | undefined;

  constructor(options: SourceTrimOptions) {
    this.#options = options;
    this.#directories = new DumpDirectories(options.broker, options.names);
  }

  /** @param manifest of CURRENT, to which the state of the sink is not behind */
  async run({ id, input }: Pick<Manifest, 'id' | 'input'>): Promise<void> {
    const { broker, mode } = this.#options;
    if (mode === 'off') return;
    try {
      await this.#readIndex(id, input);
      const all = { ...this.#unread, ...input };
      const isBased = Object.values(all).some((of) => Object.values(of).some(([begin]) => begin > 0));
      if (!isBased) return;
      const plan = await this.#plan(all);
      const free = plan.filter(({ neededBy }) => neededBy === undefined);
      const text = JSON.stringify(plan);
      if (text !== this.#reported) {
        this.#reported = text;
        for (const topic of new Set(plan.map((one) => one.topic))) {
          const own = plan.filter((one) => one.topic === topic);
          const needed = own.filter(({ neededBy }) => neededBy !== undefined);
          const counts = { messages: countOf(own) - countOf(needed), stillNeeded: countOf(needed) };
          const what = counts.messages > 0 ? whatOf[mode] : 'messages before a base are still needed';
          broker.logger.info({ topic, ...counts, neededBy: needed[0]?.neededBy }, what);
        }
        if (mode === 'report') this.deleted = countOf(free);
      }
      if (mode === 'delete') await this.#delete(free);
    } catch (thrown) {
      // The next interval tries again; until then the messages only take room.
      broker.logger.warn({ reason: reasonOf(thrown) }, 'messages before a base not deleted');
    }
  }

  async #readIndex(id: string, input: Manifest['input']): Promise<void> {
    const { broker, names } = this.#options;
    const last = this.#indexRead;
    const nowMs = performance.now();
    if (last !== undefined && (last.id === id || nowMs - last.atMs < indexEveryMs)) return;
    const unread = datasetNames.filter((dataset) => input[names.source(dataset)] === undefined);
    const existing = await partitionCounts(
      broker,
      unread.map((dataset) => names.source(dataset)),
    );
    this.#unread = await this.#basesOf(
      unread.filter((dataset) => existing.has(names.source(dataset))),
      await this.#directories.read(),
    );
    this.#indexRead = { id, atMs: nowMs };
  }

  async #basesOf(
    unread: readonly DatasetName[],
    directories: Awaited<ReturnType<DumpDirectories['read']>>,
  ): Promise<Manifest['input']> {
    const { broker, names } = this.#options;
    const bases: Manifest['input'] = {};
    const reader = new LogReader(broker);
    try {
      for (const dataset of unread) {
        const topic = names.source(dataset);
        const marks = directories.get(dataset)?.marks;
        if (marks === undefined) continue;
        const bounds = (await logBounds(broker, [topic])).get(topic);
        for (const [partition, { base = 0 }] of marks.entries()) {
          const log = bounds?.get(partition);
          if (log === undefined || log.start >= base || log.end < base) continue;
          const whole = await findBase(reader, { topic, partition }, { start: base, end: log.end });
          if (whole !== undefined) bases[topic] = { ...bases[topic], [partition]: [whole.begin, whole.end] };
        }
      }
    } finally {
      await reader.close();
    }
    return bases;
  }

  async #plan(input: Manifest['input']): Promise<Trimmed[]> {
    const { broker, names, ratingsKeptFrom } = this.#options;
    const existing = await partitionCounts(broker, Object.keys(input));
    const bounds = await logBounds(broker, [...existing.keys()]);
    const groups = await readGroups(broker, [names.flinkGroup]);
    return planTrim({
      input,
      bounds,
      flink: groups.get(names.flinkGroup),
      ratings: { topic: names.source('title.ratings'), keptFrom: ratingsKeptFrom },
      refused: await this.#refused(),
    });
  }

  async #refused(): Promise<SourcePlace[]> {
    const { broker, names } = this.#options;
    const existing = await partitionCounts(broker, [names.deadLetter]);
    if (existing.size === 0) return [];
    const open = new OpenLetters(({ source }) => ('topic' in source ? source : undefined));
    for await (const { partition, messages } of scanTopic(broker, names.deadLetter)) {
      for (const message of messages) open.take({ ...message, partition });
    }
    return [...open.byPartition.values()].flatMap((letters) => [...letters.values()]);
  }

  async #delete(free: readonly Trimmed[]): Promise<void> {
    const { broker, metrics } = this.#options;
    for (const topic of new Set(free.map((one) => one.topic))) {
      const own = free.filter((one) => one.topic === topic);
      await deleteBefore(
        broker,
        topic,
        own.map(({ partition, to }) => ({ partition, offset: to })),
      );
      this.deleted += countOf(own);
      metrics?.sourcesDeleted(countOf(own));
    }
  }
}

const countOf = (trimmed: readonly Trimmed[]) => trimmed.reduce((sum, { from, to }) => sum + to - from, 0);

const whatOf = {
  delete: 'deleting messages before a base',
  report: 'messages before a base could be deleted',
} as const;
