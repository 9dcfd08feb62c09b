/**
 * The ranges of the source topics that a snapshot was made from: that the logs still hold them, and their messages.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import type { Broker } from '../../kafka/client.ts';
import {
  type Fetched,
  LogInterrupted,
  type LogMessage,
  type LogReader,
  logBounds,
  OutsideLog,
} from '../../kafka/log.ts';
import { partitionCounts } from '../../kafka/topics.ts';
import { messageOf, ReelflowError } from '../../runtime/errors.ts';
import type { DatasetName } from '../../topics/catalog.ts';

export interface Source {
  readonly topic: string;
  readonly dataset: DatasetName;
  readonly ranges: readonly { partition: number; start: number; end: number }[];
}

const fetchBounds = { waitMs: 500, bytesMax: 8 * 1024 * 1024, partitionBytesMax: 2 * 1024 * 1024 };
/** How long a log that says nothing is waited for, in milliseconds. */
const patienceMs = 30_000;

/**
 * What is gone cannot be computed again: said before anything is read.
 * @throws ReelflowError sourceLost or sourceReplaced
 */
export async function requireRanges(broker: Broker, sources: readonly Source[]): Promise<void> {
  const existing = await partitionCounts(
    broker,
    sources.map(({ topic }) => topic),
  );
  const bounds = await logBounds(broker, [...existing.keys()]);
  for (const { topic, ranges } of sources) {
    for (const { partition, start, end } of ranges) {
      if (start === end) continue;
      const log = bounds.get(topic)?.get(partition);
      const needs = `The snapshot holds offsets ${start} to ${end}.`;
      if (log === undefined) {
        const what = existing.has(topic)
          ? `${topic}/${partition} does not exist.`
          : `${topic} does not exist.`;
        throw new ReelflowError('sourceLost', 'A topic that the snapshot was made from is gone', {
          detail: `${what} ${needs}`,
          hint: 'Compare with the files instead: --data DIR.',
        });
      }
      if (log.start > start) throw trimmed(`${topic}/${partition} starts at offset ${log.start}. ${needs}`);
      if (log.end < end) {
        throw new ReelflowError('sourceReplaced', 'A topic is shorter than what the snapshot was made from', {
          detail: `${topic}/${partition} ends at offset ${log.end}. ${needs} The topic was recreated, or lost its tail.`,
          hint: 'Compare with the files instead: --data DIR.',
        });
      }
    }
  }
}

const trimmed = (detail: string) =>
  new ReelflowError('sourceLost', 'A topic no longer holds what the snapshot was made from', {
    detail,
    hint: 'Source topics must keep every message. Compare with the files instead: --data DIR.',
  });

/**
 * Messages of all ranges of a topic; those of one partition in order, without a gap.
 * @throws ReelflowError sourceLost, undecodableBatch, brokerUnreachable, stuck; the reason of `signal`
 */
export async function* readRanges(
  reader: LogReader,
  { topic, ranges }: Source,
  signal: AbortSignal,
): AsyncGenerator<{ partition: number; messages: LogMessage[] }> {
  const open = new Map(
    ranges
      .filter(({ start, end }) => end > start)
      .map(({ partition, start, end }) => [partition, { next: start, end }]),
  );
  const request = () => {
    const wants = [...open].map(([partition, { next }]) => ({ topic, partition, next }));
    const answer = reader.fetch(wants, fetchBounds);
    // It may fail before anybody waits for it.
    answer.catch(() => undefined);
    return answer;
  };
  let heardAtMs = Date.now();
  let underWay: Promise<Fetched[]> | undefined;
  try {
    while (open.size > 0) {
      signal.throwIfAborted();
      let fetched: Fetched[] = [];
      try {
        fetched = await (underWay ?? request());
      } catch (thrown) {
        if (thrown instanceof OutsideLog) throw trimmed(`${thrown.message}, while it was read.`);
        if (!(thrown instanceof LogInterrupted)) throw thrown;
        if (Date.now() - heardAtMs > patienceMs) {
          if (thrown.cause instanceof ReelflowError) throw thrown.cause;
          throw silent(topic, messageOf(thrown));
        }
        await sleep(250);
      }
      underWay = undefined;
      const parts = fetched.flatMap((part) => advance(topic, part, open));
      if (parts.length > 0) heardAtMs = Date.now();
      else if (Date.now() - heardAtMs > patienceMs) throw silent(topic, 'no message came');
      if (open.size > 0 && parts.length > 0) underWay = request();
      yield* parts;
    }
  } finally {
    // A request that is under way would open the reader's connections again after it is closed.
    await underWay?.catch(() => undefined);
  }
}

/** Cuts what was fetched of a partition to its range, and moves on in it. */
function advance(
  topic: string,
  { partition, messages }: Fetched,
  open: Map<number, { next: number; end: number }>,
): { partition: number; messages: LogMessage[] }[] {
  const range = open.get(partition);
  if (range === undefined) return [];
  const within = messages.filter(({ offset }) => offset >= range.next && offset < range.end);
  const last = within.at(-1);
  if (last === undefined) return [];
  if (last.offset - range.next !== within.length - 1) {
    throw trimmed(`${topic}/${partition} has a gap between offsets ${range.next} and ${last.offset}.`);
  }
  range.next = last.offset + 1;
  if (range.next >= range.end) open.delete(partition);
  return [{ partition, messages: within }];
}

const silent = (topic: string, detail: string) =>
  new ReelflowError('stuck', 'A topic cannot be read to the end', {
    detail: `${topic}: ${detail} for ${patienceMs / 1000} s.`,
    hint: 'See to the broker and try again.',
  });
