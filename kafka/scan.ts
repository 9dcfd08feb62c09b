/** Reads ranges of a topic's partitions once, from their start to their end, for those who look back. */
import { setTimeout as sleep } from 'node:timers/promises';
import { ReelflowError } from '../runtime/errors.ts';
import type { Broker } from './client.ts';
import { type LogBounds, LogInterrupted, type LogMessage, LogReader, logBounds } from './log.ts';

export interface Range {
  readonly partition: number;
  readonly start: number;
  /** Exclusive. */
  readonly end: number;
}

const fetchBounds = { waitMs: 500, bytesMax: 8 * 1024 * 1024, partitionBytesMax: 2 * 1024 * 1024 };
/** How long a broker that is away, or a log that says nothing, is waited for. */
const patienceMs = 30_000;

/**
 * The messages of the ranges, those of one partition in order. Markers are left out.
 * @throws OutsideLog, ReelflowError undecodableBatch, brokerUnreachable, stuck; the reason of `signal`
 */
export async function* scan(
  reader: LogReader,
  topic: string,
  ranges: readonly Range[],
  signal?: AbortSignal,
): AsyncGenerator<{ readonly partition: number; readonly messages: readonly LogMessage[] }> {
  const open = new Map(
    ranges
      .filter(({ start, end }) => end > start)
      .map(({ partition, start, end }) => [partition, { next: start, end }]),
  );
  let heardAtMs = Date.now();
  while (open.size > 0) {
    signal?.throwIfAborted();
    const wants = [...open].map(([partition, { next }]) => ({ topic, partition, next }));
    let interrupted: unknown;
    const fetched = await reader.fetch(wants, fetchBounds).catch(async (thrown) => {
      if (!(thrown instanceof LogInterrupted)) throw thrown;
      interrupted = thrown.cause;
      await sleep(250);
      return [];
    });
    for (const { partition, messages } of fetched) {
      const range = open.get(partition);
      const last = messages.at(-1);
      if (range === undefined || last === undefined) continue;
      heardAtMs = Date.now();
      const from = range.next;
      range.next = last.offset + 1;
      if (range.next >= range.end) open.delete(partition);
      const within = messages.filter(
        ({ offset, isMarker }) => offset >= from && offset < range.end && !isMarker,
      );
      if (within.length > 0) yield { partition, messages: within };
    }
    if (Date.now() - heardAtMs < patienceMs) continue;
    if (interrupted instanceof ReelflowError) throw interrupted;
    throw new ReelflowError('stuck', 'A topic cannot be read to the end', {
      detail: `${topic}: no message came for ${patienceMs / 1000} s.`,
      hint: 'See to the broker and try again.',
    });
  }
}

/** All that a topic holds at this moment, as `scan` gives it. @throws UnknownTopic and what `scan` throws */
export async function* scanTopic(broker: Broker, topic: string): ReturnType<typeof scan> {
  const bounds = (await logBounds(broker, [topic])).get(topic) ?? new Map<number, LogBounds>();
  const ranges = [...bounds].map(([partition, { start, end }]) => ({ partition, start, end }));
  const reader = new LogReader(broker);
  try {
    yield* scan(reader, topic, ranges);
  } finally {
    await reader.close();
  }
}
