/** Reads the first unread message: when it was sent, and which offsets before it hold only markers. */
import type { LogReader, Want } from '../kafka/log.ts';

export interface FirstUnread {
  /** From the requested offset up to this one the log holds only transaction markers and aborted messages. */
  readonly readableFrom: number;
  /** When the message there was sent, in milliseconds since 1970; null without a message or without its time. */
  readonly sentMs: number | null;
}

/** Bound of the batches without a message that one call reads. */
const batchesMax = 20;

/** @param end where the readable log ends @returns null when the log cannot be read */
export async function readFirstUnread(
  reader: LogReader,
  { topic, partition, next }: Want,
  end: number,
): Promise<FirstUnread | null> {
  let from = next;
  try {
    for (let batch = 0; from < end && batch < batchesMax; batch++) {
      const want = { topic, partition, next: from };
      const [fetched] = await reader.fetch([want], { waitMs: 0, partitionBytesMax: 1 });
      const messages = fetched?.messages ?? [];
      const first = messages.find(({ isMarker }) => !isMarker);
      if (first !== undefined) {
        return { readableFrom: first.offset, sentMs: first.timestampMs > 0 ? first.timestampMs : null };
      }
      const last = messages.at(-1);
      if (last === undefined) break;
      from = last.offset + 1;
    }
    return { readableFrom: from, sentMs: null };
  } catch {
    return null;
  }
}
