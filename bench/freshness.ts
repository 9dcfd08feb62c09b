/**
 * The time from sending a message until the sink's cube holds it, measured from outside. After each transaction the sink
 * commits the offsets of the deltas with the time of the commit; the header of a delta names the messages of the source
 * topics that it holds; each of these has its time stamp. A commit between two observations counts with the next one, so a
 * figure is at most one observation too long, never too short.
 */

import { setTimeout as sleep } from 'node:timers/promises';
import type { Admin } from 'kafkajs';
import type { Context } from '../cli/context.ts';
import { logBounds } from '../kafka/bounds.ts';
import { type Broker, withAdmin } from '../kafka/client.ts';
import { type LogMessage, LogReader } from '../kafka/log.ts';
import { scanTopic } from '../kafka/scan.ts';
import { partitionCounts } from '../kafka/topics.ts';
import { datasetNames } from '../topics/catalog.ts';
import { schemaIdOf } from '../topics/chunk.ts';
import { decodeDeltaHeader } from '../topics/delta-wire.ts';
import { wholePipeline } from './stages.ts';

const lookEveryMs = 50;

interface Freshness {
  readonly records: number;
  /** Chunks of the title topics. */
  readonly messages: number;
  /** Seconds. */
  readonly p50: number;
  readonly p99: number;
  readonly max: number;
}

/** A commit of the sink: everything before `next` in a partition of the deltas was in its cube at this time. */
interface Commit {
  readonly next: number;
  readonly atMs: number;
}

/** The last part of a delta, and which messages of the source topics it holds. */
interface Delta {
  readonly shard: number;
  readonly offset: number;
  readonly range: ReturnType<typeof decodeDeltaHeader>['header']['range'];
}

/** Replays at a steady rate with processor and sink running, then looks up when each message had arrived. */
export async function freshnessOf(options: {
  readonly context: Context;
  readonly data: string;
  readonly folder: string;
  readonly rate: number;
  readonly shards: number;
  readonly signal: AbortSignal;
}): Promise<Freshness> {
  const { context } = options;
  const { broker, names } = context;
  const commits = new Map<number, Commit[]>();
  const ended = new AbortController();
  const deltas: Delta[] = [];
  const watching = Promise.all([
    withAdmin(broker, (admin) => watchCommits(admin, context, commits, ended.signal)),
    followDeltas(context, deltas, ended.signal),
  ]);
  let run: Awaited<ReturnType<typeof wholePipeline>>;
  try {
    run = await wholePipeline(options);
  } finally {
    ended.abort();
    await watching;
  }
  // Without their values, which would be the whole dataset.
  const sent = ({ offset, timestampMs }: LogMessage) => ({ offset, timestampMs });
  const sources = new Map<string, Map<number, ReturnType<typeof sent>[]>>();
  for (const dataset of datasetNames.filter((name) => name.startsWith('title.'))) {
    sources.set(names.source(dataset), await messagesOf(broker, names.source(dataset), sent));
  }
  const delays: number[] = [];
  for (const { shard, offset, range } of deltas) {
    const commit = commits.get(shard)?.find(({ next }) => next > offset);
    if (commit === undefined) throw new Error(`the commit of delta ${offset} of shard ${shard} was not seen`);
    for (const { topic, from, to } of range) {
      for (const message of sources.get(topic)?.get(shard) ?? []) {
        if (message.offset >= from && message.offset < to) delays.push(commit.atMs - message.timestampMs);
      }
    }
  }
  delays.sort((a, b) => a - b);
  const at = (share: number) =>
    (delays[Math.min(delays.length - 1, Math.floor(share * delays.length))] ?? Number.NaN) / 1000;
  return { records: run.records, messages: delays.length, p50: at(0.5), p99: at(0.99), max: at(1) };
}

async function watchCommits(
  admin: Admin,
  { names }: Context,
  commits: Map<number, Commit[]>,
  ended: AbortSignal,
): Promise<void> {
  const look = async () => {
    const offsets = await admin
      .fetchOffsets({ groupId: names.sinkGroup, topics: [names.deltas] })
      .catch(() => []); // no such topic yet
    for (const { partition, offset, metadata } of offsets.flatMap(({ partitions }) => partitions)) {
      const next = Number(offset);
      const seen = commits.get(partition) ?? [];
      if (next <= (seen.at(-1)?.next ?? 0)) continue;
      const { committedAt } = JSON.parse(metadata ?? '{}') as { committedAt: number };
      commits.set(partition, [...seen, { next, atMs: committedAt }]);
    }
  };
  while (!ended.aborted) {
    await look();
    await sleep(lookEveryMs);
  }
  await look();
}

/**
 * Reads the deltas as they come: the sink trims those that its first snapshot holds.
 * @throws OutsideLog, when they were trimmed before they were seen
 */
async function followDeltas({ broker, names }: Context, deltas: Delta[], ended: AbortSignal): Promise<void> {
  const topic = names.deltas;
  while ((await partitionCounts(broker, [topic])).size === 0 && !ended.aborted) await sleep(lookEveryMs);
  const wants = [...((await logBounds(broker, [topic])).get(topic)?.keys() ?? [])].map((partition) => ({
    topic,
    partition,
    next: 0,
  }));
  const reader = new LogReader(broker);
  try {
    for (let isDone = false; !isDone; ) {
      const hasEnded = ended.aborted;
      const fetched = await reader.fetch(wants, { waitMs: lookEveryMs });
      isDone = hasEnded && fetched.every(({ messages }) => messages.length === 0);
      for (const { partition, messages } of fetched) {
        for (const { offset, value } of messages) {
          for (const want of wants) if (want.partition === partition) want.next = offset + 1;
          if (value === null) continue;
          const { header } = decodeDeltaHeader(value, schemaIdOf(value));
          if (header.part === header.parts) deltas.push({ shard: partition, offset, range: header.range });
        }
      }
    }
  } finally {
    await reader.close();
  }
}

/** What `of` keeps of each message of a topic, by partition. */
async function messagesOf<T>(
  broker: Broker,
  topic: string,
  of: (message: LogMessage) => T,
): Promise<Map<number, T[]>> {
  const kept = new Map<number, T[]>();
  for await (const { partition, messages } of scanTopic(broker, topic)) {
    const own = kept.get(partition) ?? [];
    own.push(...messages.map(of));
    kept.set(partition, own);
  }
  return kept;
}
