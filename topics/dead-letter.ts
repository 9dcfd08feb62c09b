/**
 * A dead letter is what a stage could not take, with the reason and the place where it was found: nothing that was
 * refused is lost, and a huge one is cut so that it passes any broker.
 */
import { deadLetterBytesMax } from './catalog.ts';

export type Stage = 'producer' | 'processor' | 'sink';

export type DeadLetterSource =
  /** `line` counts from 1, the header included. */
  | { readonly file: string; readonly line: number }
  | { readonly topic: string; readonly partition: number; readonly offset: string | bigint };

export interface DeadLetter {
  readonly stage: Stage;
  /** A short code; the figures of the case belong into `detail`. */
  readonly reason: string;
  readonly detail: string;
  /** The raw bytes, or as many of them as were kept. */
  readonly original: Uint8Array;
  /** Length of the original in bytes, when `original` holds only its beginning. */
  readonly originalBytes?: number;
  readonly source: DeadLetterSource;
  readonly time: Date;
  /** Key of the source message or block key of the row; null or absent when there is none. */
  readonly key?: string | Buffer | null;
}

export interface DeadLetterMessage {
  readonly key: Buffer | null;
  readonly value: Buffer;
  readonly headers: Record<string, string>;
}

/**
 * The Kafka message of a dead letter: the original cut at `deadLetterBytesMax`, and the headers reason, detail, stage,
 * time (ISO 8601), originalBytes, and file and line or topic, partition and offset.
 */
export function deadLetterMessage(letter: DeadLetter): DeadLetterMessage {
  const { original, source, key } = letter;
  const kept = Math.min(original.length, deadLetterBytesMax);
  const place: Record<string, string> =
    'file' in source
      ? { file: source.file, line: String(source.line) }
      : { topic: source.topic, partition: String(source.partition), offset: String(source.offset) };
  return {
    key: key === undefined || key === null ? null : Buffer.from(key),
    value: Buffer.from(original.buffer, original.byteOffset, kept),
    headers: {
      reason: letter.reason,
      detail: letter.detail.slice(0, detailLengthMax),
      stage: letter.stage,
      time: letter.time.toISOString(),
      originalBytes: String(letter.originalBytes ?? original.length),
      ...place,
    },
  };
}

const detailLengthMax = 1_000;
