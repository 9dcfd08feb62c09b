/**
 * A dead letter holds a row or message that a stage refused, with the reason and the source. A long original is cut, so
 * that every broker accepts the letter.
 */
import { deadLetterBytesMax } from './catalog.ts';

type Stage = 'producer' | 'processor' | 'sink';

type DeadLetterSource =
  /** `line` counts from 1, the header included. */
  | { readonly file: string; readonly line: number }
  | { readonly topic: string; readonly partition: number; readonly offset: string | bigint };

export interface DeadLetter {
  readonly stage: Stage;
  /** A short code; `detail` holds the values of the case. */
  readonly reason: string;
  readonly detail: string;
  /** The raw bytes, or the beginning that was kept. */
  readonly original: Uint8Array;
  /** Length of the original in bytes, when `original` holds only its beginning. */
  readonly originalBytes?: number;
  readonly source: DeadLetterSource;
  readonly time: Date;
  /** Key of the source message or block key of the row; null or absent when there is none. */
  readonly key?: string | Buffer | null;
  /** Columns of the row's file in its order, unless they are the official ones in their order. */
  readonly columns?: readonly string[];
}

interface DeadLetterMessage {
  readonly key: Buffer | null;
  readonly value: Buffer;
  readonly headers: Record<string, string>;
}

/**
 * The Kafka message of a dead letter: the original cut at `deadLetterBytesMax`, and the headers reason, detail, stage,
 * time (ISO 8601), originalBytes, and file and line (and columns) or topic, partition and offset.
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
      ...(letter.columns !== undefined && { columns: letter.columns.join('\t') }),
    },
  };
}

const detailLengthMax = 1_000;

type Headers = Readonly<Record<string, Uint8Array | undefined>>;

/** A dead letter read from its topic. */
export interface FoundLetter {
  /** Partition of the dead-letter topic; `offset` is within it. */
  readonly partition: number;
  readonly offset: number;
  readonly stage: string;
  readonly reason: string;
  readonly detail: string;
  /** Time of the refusal, in milliseconds since 1970. */
  readonly timeMs: number;
  readonly source:
    | { readonly file: string; readonly line: number }
    | { readonly topic: string; readonly partition: number; readonly offset: number };
  readonly originalBytes: number;
  readonly columns?: readonly string[];
  readonly value: Buffer;
}

/** The result of `reelflow dlq replay` for a letter; see `markMessage`. */
const fates = ['replayed', 'superseded'] as const;
export type Fate = (typeof fates)[number];

/** A message of the dead-letter topic: a letter, a mark on earlier letters of its partition, or a foreign message. */
type DeadLetterEntry =
  | { readonly kind: 'letter'; readonly letter: FoundLetter }
  | { readonly kind: 'mark'; readonly fate: Fate; readonly offsets: readonly number[] }
  | { readonly kind: 'foreign' };

/** The message that marks letters of a partition, by offset, as settled. */
export function markMessage(fate: Fate, offsets: readonly number[], time: Date): DeadLetterMessage {
  return {
    key: null,
    value: Buffer.from(JSON.stringify(offsets)),
    headers: { mark: fate, time: time.toISOString() },
  };
}

/** Reads what `deadLetterMessage` and `markMessage` wrote; any other message is foreign. */
export function readDeadLetter(message: {
  readonly partition: number;
  readonly offset: number;
  readonly timestampMs: number;
  readonly value: Buffer | null;
  readonly headers?: Headers;
}): DeadLetterEntry {
  const { partition, offset, value } = message;
  const headers = message.headers ?? {};
  const text = (name: string) =>
    headers[name] === undefined ? undefined : Buffer.from(headers[name]).toString();
  const fate = fates.find((known) => known === text('mark'));
  if (fate !== undefined) return { kind: 'mark', fate, offsets: offsetsIn(value) };
  const [stage, reason] = [text('stage'), text('reason')];
  const source = sourceOf(text);
  if (stage === undefined || reason === undefined || source === undefined) return { kind: 'foreign' };
  const columns = text('columns')?.split('\t');
  return {
    kind: 'letter',
    letter: {
      partition,
      offset,
      stage,
      reason,
      source,
      detail: text('detail') ?? '',
      timeMs: Date.parse(text('time') ?? '') || message.timestampMs,
      originalBytes: wholeNumber(text('originalBytes')) ?? value?.length ?? 0,
      value: value ?? Buffer.alloc(0),
      ...(columns !== undefined && { columns }),
    },
  };
}

/** The letters that no mark has settled. It takes the messages of each partition in order. */
export class OpenLetters<T> {
  /** By partition of the topic and offset. */
  readonly byPartition = new Map<number, Map<number, T>>();
  readonly #keptOf: (letter: FoundLetter) => T | undefined;

  /** @param keptOf what to keep of a letter; undefined if it does not matter */
  constructor(keptOf: (letter: FoundLetter) => T | undefined) {
    this.#keptOf = keptOf;
  }

  take(message: Parameters<typeof readDeadLetter>[0]): void {
    const { partition, offset } = message;
    const own = this.byPartition.get(partition) ?? new Map<number, T>();
    this.byPartition.set(partition, own);
    const entry = readDeadLetter(message);
    if (entry.kind === 'mark') for (const settled of entry.offsets) own.delete(settled);
    if (entry.kind !== 'letter') return;
    const kept = this.#keptOf(entry.letter);
    if (kept !== undefined) own.set(offset, kept);
  }
}

function sourceOf(text: (name: string) => string | undefined): FoundLetter['source'] | undefined {
  const [file, line] = [text('file'), wholeNumber(text('line'))];
  if (file !== undefined && line !== undefined) return { file, line };
  const [topic, partition, offset] = [
    text('topic'),
    wholeNumber(text('partition')),
    wholeNumber(text('offset')),
  ];
  if (topic === undefined || partition === undefined || offset === undefined) return undefined;
  return { topic, partition, offset };
}

function wholeNumber(text: string | undefined): number | undefined {
  return text !== undefined && /^\d{1,15}$/.test(text) ? Number(text) : undefined;
}

function offsetsIn(value: Buffer | null): number[] {
  try {
    const offsets: unknown = JSON.parse(value?.toString() ?? '');
    return Array.isArray(offsets) ? offsets.filter((offset) => Number.isInteger(offset)) : [];
  } catch {
    return [];
  }
}
