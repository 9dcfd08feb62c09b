/** Reads ranges of a topic's partitions once, from start to end, and waits while brokers do not answer, up to a bound. */
import { setTimeout as sleep } from 'node:timers/promises';
import { ReelflowError } from '../runtime/errors.ts';
import { logBounds } from './bounds.ts';
import type { Broker } from './client.ts';
import { LogInterrupted } from './failures.ts';
import { type Fetched, type LogMessage, LogReader } from './log.ts';

export interface Range {
  readonly partition: number;
  readonly start: number;
  /** Exclusive. */
  readonly end: number;
}

export interface Scanned {
  readonly partition: number;
  readonly messages: readonly LogMessage[];
}

interface ScanOptions {
  readonly signal?: AbortSignal | undefined;
  /** Also yields control and aborted records, for a caller that accounts for every offset. */
  readonly withMarkers?: boolean;
  /** The topic is compacted. */
  readonly isCompacted?: boolean;
}

const fetchLimits = { waitMs: 500, bytesMax: 8 * 1024 * 1024, partitionBytesMax: 2 * 1024 * 1024 };
/** How long a scan waits for the next message. */
const patienceMs = 30_000;

/**
 * The messages of the ranges, those of one partition in order. The next fetch runs while the caller works.
 * @throws OutsideLog, ReelflowError undecodableBatch, brokerUnreachable, stuck; the reason of `signal`
 */
export async function* scan(
  reader: LogReader,
  topic: string,
  ranges: readonly Range[],
  { signal, withMarkers = false, isCompacted = false }: ScanOptions = {},
): AsyncGenerator<Scanned> {
  const open = new Map(
    ranges
      .filter(({ start, end }) => end > start)
      .map(({ partition, start, end }) => [partition, { next: start, end }]),
  );
  // For a single message the broker need not send any later one.
  const [only] = ranges;
  const isSingle = only !== undefined && ranges.length === 1 && only.end - only.start <= 1;
  const limits = { ...fetchLimits, isCompacted, ...(isSingle && { partitionBytesMax: 1 }) };
  const request = () => {
    const wants = [...open].map(([partition, { next }]) => ({ topic, partition, next }));
    const answer = reader.fetch(wants, limits);
    // It may fail before the loop awaits it, which must not count as unhandled.
    answer.catch(() => undefined);
    return answer;
  };
  let lastMessageMs = performance.now();
  let underWay: Promise<Fetched[]> | undefined;
  try {
    while (open.size > 0) {
      signal?.throwIfAborted();
      let fetched: Fetched[] = [];
      let interruption: unknown;
      try {
        fetched = await (underWay ?? request());
      } catch (thrown) {
        if (!(thrown instanceof LogInterrupted)) throw thrown;
        interruption = thrown.cause;
        await sleep(250);
      }
      underWay = undefined;
      const scanned = fetched.flatMap((part) => advance(open, part));
      if (scanned.length === 0) {
        if (performance.now() - lastMessageMs > patienceMs) throw gaveUp(topic, interruption);
        continue;
      }
      if (open.size > 0) underWay = request();
      for (const { partition, messages } of scanned) {
        const wanted = withMarkers ? messages : messages.filter(({ isMarker }) => !isMarker);
        if (wanted.length > 0) yield { partition, messages: wanted };
      }
      lastMessageMs = performance.now();
    }
  } finally {
    // A request under way would open the reader's connections again after the caller has closed it.
    await underWay?.catch(() => undefined);
  }
}

/** Cuts the fetched messages of a partition to its range, and advances the range. */
function advance(
  open: Map<number, { next: number; end: number }>,
  { partition, messages }: Fetched,
): Scanned[] {
  const range = open.get(partition);
  const last = messages.at(-1);
  if (range === undefined || last === undefined) return [];
  const within = messages.filter(({ offset }) => offset >= range.next && offset < range.end);
  range.next = last.offset + 1;
  if (range.next >= range.end) open.delete(partition);
  return [{ partition, messages: within }];
}

function gaveUp(topic: string, interruption: unknown): ReelflowError {
  if (interruption instanceof ReelflowError) return interruption;
  return new ReelflowError('stuck', 'A topic cannot be read to the end', {
    detail: `${topic}: no message arrived for ${patienceMs / 1000} s.`,
    hint: 'Check the broker and try again.',
  });
}

/** Reads all that a topic holds at this moment, like `scan`. @throws UnknownTopic and what `scan` throws */
export async function* scanTopic(
  broker: Broker,
  topic: string,
  options: ScanOptions = {},
): AsyncGenerator<Scanned> {
  const bounds = (await logBounds(broker, [topic])).get(topic) ?? new Map();
  const ranges = [...bounds].map(([partition, { start, end }]) => ({ partition, start, end }));
  yield* scanAlone(broker, topic, ranges, options);
}

/** Like `scan`, with a reader of its own. */
export async function* scanAlone(
  broker: Broker,
  topic: string,
  ranges: readonly Range[],
  options: ScanOptions = {},
): AsyncGenerator<Scanned> {
  const reader = new LogReader(broker);
  try {
    yield* scan(reader, topic, ranges, options);
  } finally {
    await reader.close();
  }
}
