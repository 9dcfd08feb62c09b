/**
 * How long a message takes until the sink's cube holds it, seen from outside. The sink tells its group, after each
 * transaction, how far it has read the deltas and when it committed; each delta says in its header which messages of the
 * source topics it holds; each of these says when it was sent. Commits that come between two looks are not seen: the
 * next one counts for what they held, so that a figure is at most a look too long, never too short.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import type { Admin } from 'kafkajs';
import type { Context } from '../cli/context.ts';
import { type Broker, withAdmin } from '../kafka/client.ts';
import { type LogMessage, LogReader, logBounds } from '../kafka/log.ts';
import { datasetNames } from '../topics/catalog.ts';
import { schemaIdOf } from '../topics/chunk.ts';
import { decodeDeltaHeader } from '../topics/deltas.ts';
import { wholePipeline } from './stages.ts';

const lookEveryMs = 50;

export interface Freshness {
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
  const watching = withAdmin(broker, (admin) => watchCommits(admin, context, commits, ended.signal));
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
  for (const [partition, deltas] of await messagesOf(broker, names.deltas, (message) => message)) {
    for (const { offset, value } of deltas) {
      if (value === null) continue;
      const { header } = decodeDeltaHeader(value, schemaIdOf(value));
      if (header.part !== header.parts) continue;
      const commit = commits.get(partition)?.find(({ next }) => next > offset);
      if (commit === undefined)
        throw new Error(`the commit of delta ${offset} of shard ${partition} was not seen`);
      for (const { topic, from, to } of header.range) {
        for (const message of sources.get(topic)?.get(header.shard) ?? []) {
          if (message.offset >= from && message.offset < to) delays.push(commit.atMs - message.timestampMs);
        }
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

/** What `of` keeps of each message of a topic, by partition. */
async function messagesOf<T>(
  broker: Broker,
  topic: string,
  of: (message: LogMessage) => T,
): Promise<Map<number, T[]>> {
  const messages = new Map<number, T[]>();
  const reader = new LogReader(broker);
  try {
    for (const [partition, { start, end }] of (await logBounds(broker, [topic])).get(topic) ?? []) {
      const own: T[] = [];
      for (let next = start; next < end; ) {
        for (const fetched of await reader.fetch([{ topic, partition, next }], { waitMs: 100 })) {
          next = (fetched.messages.at(-1)?.offset ?? next - 1) + 1;
          own.push(...fetched.messages.map(of));
        }
      }
      messages.set(partition, own);
    }
  } finally {
    await reader.close();
  }
  return messages;
}
