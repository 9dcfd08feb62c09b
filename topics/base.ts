/**
 * A base: the whole dump again, between two marks in every partition of a dataset's topic. Its messages replace every
 * group of ids that the partition has ever held, so the messages before the begin no longer count: a log that starts at a
 * begin whose end it holds is whole. A base without an end, of a run that was killed, is none.
 *
 * A mark is a message of its own, an empty chunk, and its id is that of the run. So it is recognised by its bytes, also by a
 * reader without a registry.
 */
import { MalformedRows, readLong, readString } from './avro-reader.ts';
import type { Gap, NextOffset } from './position.ts';

export interface BaseMark {
  /** The run that sends the base. */
  readonly id: string;
  readonly mark: 'begin' | 'end';
}

/** Offsets [begin, end) of one partition, the marks included. */
export interface Base {
  readonly begin: NextOffset;
  readonly end: NextOffset;
}

const wireHeaderBytes = 5;
/** Branches of the union, as Avro writes them. */
const noMark = 0;
const isMarked = 2;

/** The optional mark at the end of a chunk. @returns [mark, position behind] @throws MalformedRows */
export function readBaseMark(from: Uint8Array, start: number): [BaseMark | undefined, number] {
  if (from[start] === noMark) return [undefined, start + 1];
  if (from[start] !== isMarked) throw new MalformedRows('undecodable', `base of branch ${from[start]}`);
  const [id, at] = readString(from, start + 1);
  const [boundary, end] = readLong(from, at);
  if (boundary !== 0 && boundary !== 1) throw new MalformedRows('undecodable', `base mark ${boundary}`);
  return [{ id, mark: boundary === 0 ? 'begin' : 'end' }, end];
}

/** Writes what `readBaseMark` reads. */
export function baseMarkBytes({ id, mark }: BaseMark): Buffer {
  const text = Buffer.from(id);
  const head = [isMarked];
  for (let rest = text.length * 2; ; rest >>>= 7) {
    if (rest <= 0x7f) {
      head.push(rest);
      break;
    }
    head.push((rest & 0x7f) | 0x80);
  }
  return Buffer.concat([Buffer.from(head), text, Buffer.of(mark === 'begin' ? 0 : 2)]);
}

/** The mark that a message is, with the date of its dump; undefined for every other message. */
export function baseMarkOf(value: Buffer | null): (BaseMark & { readonly asOfMs: number }) | undefined {
  if (value === null || value[0] !== 0) return undefined;
  try {
    const [runId, afterRunId] = readString(value, wireHeaderBytes);
    const [, afterChunk] = readLong(value, afterRunId);
    const [asOfMs, afterAsOf] = readLong(value, afterChunk);
    let at = afterAsOf;
    // No records, no deletes, no groups.
    for (let array = 0; array < 3; array++) if (value[at++] !== 0) return undefined;
    const [mark, end] = readBaseMark(value, at);
    return end === value.length && mark?.id === runId ? { ...mark, asOfMs } : undefined;
  } catch (thrown) {
    if (thrown instanceof MalformedRows) return undefined;
    throw thrown;
  }
}

/** The begin of a base whose end has not come yet. */
export interface OpenBase {
  readonly id: string;
  readonly begin: NextOffset;
}

/** What a mark at `offset` makes of the open base of its partition. */
export function followBase(
  open: OpenBase | undefined,
  { id, mark }: BaseMark,
  offset: number,
): { readonly open: OpenBase | undefined; readonly whole?: Base } {
  if (mark === 'begin') return { open: { id, begin: offset } };
  // An end without its begin: of a run that lost its base to another one, or from before the log's start.
  if (open?.id !== id) return { open };
  return { open: undefined, whole: { begin: open.begin, end: offset + 1 } };
}

/** What `findBase` needs of a reader of the log. */
export interface BaseReader {
  fetch(
    wants: readonly { readonly topic: string; readonly partition: number; readonly next: number }[],
    bounds: typeof fetchBounds,
  ): Promise<
    readonly { readonly messages: readonly { readonly offset: number; readonly value: Buffer | null }[] }[]
  >;
}

const fetchBounds = { waitMs: 500, bytesMax: 8 * 1024 * 1024, partitionBytesMax: 8 * 1024 * 1024 };

/**
 * The base at which the log of a partition starts. It reads the partition up to the end of the base, which is what a reader that begins there
 * reads anyway; a log that starts with something else costs one fetch.
 * @returns undefined if the log does not start at a begin, or does not hold its end
 */
export async function findBase(
  reader: BaseReader,
  { topic, partition }: { readonly topic: string; readonly partition: number },
  { start, end }: { readonly start: number; readonly end: number },
): Promise<Base | undefined> {
  let open: OpenBase | undefined;
  for (let next = start; next < end; ) {
    const messages = (await reader.fetch([{ topic, partition, next }], fetchBounds)).flatMap(
      (fetched) => fetched.messages,
    );
    if (messages.length === 0) return undefined;
    for (const { offset, value } of messages) {
      if (offset < next) continue;
      next = offset + 1;
      const mark = baseMarkOf(value);
      if (open === undefined && (mark?.mark !== 'begin' || offset !== start)) return undefined;
      if (mark === undefined) continue;
      // A second begin takes nothing from the first: its own end may be missing.
      if (open !== undefined && mark.mark === 'begin') continue;
      const followed = followBase(open, mark, offset);
      if (followed.whole !== undefined) return followed.whole;
      open = followed.open;
    }
  }
  return undefined;
}

/**
 * Gaps of a reader that is past the end of a base: what was lost before the begin does not count any more, and the input
 * starts at the begin.
 * @returns undefined if the reader lacks a part of the base itself: then the base makes nothing whole
 */
export function gapsAfterBase(gaps: readonly Gap[], { begin, end }: Base): readonly Gap[] | undefined {
  if (gaps.some(([from, to]) => from < end && to > begin)) return undefined;
  const behind = gaps.filter(([from]) => from >= end);
  return begin === 0 ? behind : [[0, begin], ...behind];
}
