/**
 * The messages of `reelflow.deltas`: a header that names the source range of a delta, then the rows of its cubes. A delta
 * that is larger than one message is cut into parts.
 */

import { MalformedRows, readBlockCount, readLong, readString } from './avro-reader.ts';
import { AvroWriter } from './avro-writer.ts';
import { messageBytesMax } from './catalog.ts';
import { RejectedMessage, schemaIdOf, wireHeaderBytes } from './chunk.ts';
import { type CubeRows, decodeCubes, encodeCubes } from './cube-rows.ts';
import { Dictionary } from './dictionary.ts';
import type { Gap, Gaps, Position } from './position.ts';
import type { RecordCounts } from './record-counts.ts';

export type DeltaKind = 'delta' | 'base' | 'reset';
const kinds: readonly DeltaKind[] = ['delta', 'base', 'reset'];

/** The offsets [from, to) of one source topic, and the fate of the records in them. */
interface SourceRange extends RecordCounts {
  readonly topic: string;
  readonly from: number;
  readonly to: number;
  /** All below `to`. */
  readonly gaps: readonly Gap[];
}

export interface DeltaHeader {
  readonly shard: number;
  readonly shards: number;
  readonly generation: number;
  /** The cubes and their versions (`cube-versions.ts`). */
  readonly cubeSet: string;
  /**
   * Cubes that a base leaves as they are. It holds all others of its set, and ends those that are not in its set. It counts
   * only at exactly the position of the chain, because nothing else of the chain may belong to another position.
   */
  readonly keeps?: readonly string[];
  readonly storeId: string;
  readonly kind: DeltaKind;
  readonly range: readonly SourceRange[];
  /** Timestamp of the newest source message, milliseconds since 1970. */
  readonly recordTimeMs: number;
}

export interface DeltaPart extends DeltaHeader {
  /** 1 ≤ part ≤ parts */
  readonly part: number;
  readonly parts: number;
}

/** The position before a delta: exclusive ends of what its shard had applied. */
export const fromOf = (header: DeltaHeader): Position =>
  Object.fromEntries(header.range.map(({ topic, from }) => [topic, from]));
/** The position after a delta. */
export const toOf = (header: DeltaHeader): Position =>
  Object.fromEntries(header.range.map(({ topic, to }) => [topic, to]));

/** What the shard has skipped up to the position after a delta, by topic. */
export const gapsOf = (header: DeltaHeader): Gaps =>
  Object.fromEntries(header.range.map(({ topic, gaps }) => [topic, gaps]));

/**
 * The messages of one delta, each at most `messageBytesMax` bytes long.
 * @param cubes rows of each cube; without rows a cube may be left out
 * @param dictionary of the strings in them
 */
export function encodeDelta(
  schemaId: number,
  header: DeltaHeader,
  cubes: readonly CubeRows[] = [],
  dictionary = new Dictionary(),
): Buffer[] {
  const headerBytes = encodeDeltaHeader(schemaId, { ...header, part: 1, parts: 1 }).length + partBytesMax;
  const bodies = encodeCubes(cubes, dictionary, messageBytesMax - headerBytes);
  return bodies.map((bytes, i) =>
    Buffer.concat([encodeDeltaHeader(schemaId, { ...header, part: i + 1, parts: bodies.length }), bytes]),
  );
}

/** Between the cubes of a base and those that it keeps: the schema has one text for both, so it stays the same. */
const keepsMark = ' keeps ';

/** What the numbers of a part and of all parts take at most. */
const partBytesMax = 10;

/** The bytes of a part before its rows. */
export function encodeDeltaHeader(schemaId: number, header: DeltaPart): Buffer {
  const wire = Buffer.alloc(wireHeaderBytes);
  wire.writeInt32BE(schemaId, 1);
  const writer = new AvroWriter();
  writer.raw(wire);
  writer.long(header.shard);
  writer.long(header.shards);
  writer.long(header.generation);
  const { cubeSet, keeps = [] } = header;
  writer.string(keeps.length === 0 ? cubeSet : `${cubeSet}${keepsMark}${keeps.join(' ')}`);
  writer.string(header.storeId);
  writer.long(kinds.indexOf(header.kind));
  if (header.range.length > 0) writer.long(header.range.length);
  for (const { topic, from, to, applied, duplicate, rejected, gaps, removed } of header.range) {
    writer.string(topic);
    for (const value of [from, to, applied, duplicate, rejected]) writer.long(value);
    if (gaps.length > 0) writer.long(gaps.length);
    for (const value of gaps.flat()) writer.long(value);
    writer.byte(0);
    writer.long(removed);
  }
  writer.byte(0);
  writer.long(header.recordTimeMs);
  writer.long(header.part);
  writer.long(header.parts);
  return writer.take();
}

/**
 * Decodes the header of a delta message.
 * @returns the header and the position of the array of cubes
 * @throws RejectedMessage for anything that is not a delta in our schema
 */
export function decodeDeltaHeader(value: Buffer | null, schemaId: number): { header: DeltaPart; at: number } {
  const id = schemaIdOf(value);
  if (id !== schemaId || value === null) {
    throw new RejectedMessage('value_of_another_topic', `schema ${id} instead of ${schemaId}`);
  }
  try {
    let at = wireHeaderBytes;
    const long = (): number => {
      const [number, next] = readLong(value, at);
      at = next;
      return number;
    };
    const string = (): string => {
      const [text, next] = readString(value, at);
      at = next;
      return text;
    };
    const shard = long();
    const shards = long();
    const generation = long();
    const [cubeSet = '', kept] = string().split(keepsMark, 2);
    const storeId = string();
    const kind = kinds[long()];
    if (kind === undefined) throw new MalformedRows('undecodable', 'unknown kind');
    const list = <Item>(item: () => Item): Item[] => {
      const items: Item[] = [];
      for (;;) {
        const [count, next] = readBlockCount(value, at);
        at = next;
        if (count === 0) return items;
        for (let i = 0; i < count; i++) items.push(item());
      }
    };
    const range = list(
      (): SourceRange => ({
        topic: string(),
        from: long(),
        to: long(),
        applied: long(),
        duplicate: long(),
        rejected: long(),
        gaps: list((): Gap => [long(), long()]),
        removed: long(),
      }),
    );
    const keeps = kept === undefined ? {} : { keeps: kept.split(' ') };
    const header = { shard, shards, generation, cubeSet, ...keeps, storeId, kind, range };
    return { header: { ...header, recordTimeMs: long(), part: long(), parts: long() }, at };
  } catch (thrown) {
    if (thrown instanceof MalformedRows) throw new RejectedMessage('undecodable', thrown.message);
    throw thrown;
  }
}

/**
 * Decodes the rows after a header.
 * @param dictionary for the strings in them
 * @throws RejectedMessage undecodable, invalid_value
 */
export function decodeDeltaRows(value: Buffer, start: number, dictionary: Dictionary): CubeRows[] {
  try {
    const { cubes, at } = decodeCubes(value, start, dictionary);
    if (at !== value.length) throw new MalformedRows('undecodable', 'bytes after the end');
    return cubes;
  } catch (thrown) {
    if (thrown instanceof MalformedRows) throw new RejectedMessage('undecodable', thrown.message);
    throw thrown;
  }
}

/** Checks that the rows after a header can be decoded. @throws RejectedMessage undecodable */
export function checkDeltaRows(value: Buffer, at: number): void {
  decodeDeltaRows(value, at, new Dictionary());
}
