/**
 * The messages of `reelflow.deltas`: a header that names the source range of a delta, then the rows of its cubes. A delta
 * that is larger than one message is cut into parts.
 */

import { MalformedRows, readBlockCount, readLong, readString } from './avro-reader.ts';
import { AvroWriter } from './avro-writer.ts';
import { messageBytesMax } from './catalog.ts';
import { RejectedMessage, schemaIdOf, wireHeaderBytes } from './chunk.ts';
import { Dictionary } from './dictionary.ts';
import type { Gap, Gaps, Position } from './position.ts';
import type { RecordCounts } from './record-counts.ts';
import { schemaText } from './registry.ts';
import { type AvroField, planRows, type RowPlan } from './row-plan.ts';
import { Columns, decodeRows } from './rows.ts';

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
  /** Fingerprint of the cube declarations. */
  readonly cubeSet: string;
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

export const fromOf = (header: DeltaHeader): Position =>
  Object.fromEntries(header.range.map(({ topic, from }) => [topic, from]));
export const toOf = (header: DeltaHeader): Position =>
  Object.fromEntries(header.range.map(({ topic, to }) => [topic, to]));

export const gapsOf = (header: DeltaHeader): Gaps =>
  Object.fromEntries(header.range.map(({ topic, gaps }) => [topic, gaps]));

/** The array of one or more cubes in the delta schema. */
export interface CubeWire {
  readonly name: string;
  readonly fields: readonly AvroField[];
}

/** The arrays of the delta schema, in its order. */
export const cubesOnTheWire: readonly CubeWire[] = readCubes();

function readCubes(): CubeWire[] {
  const schema = JSON.parse(schemaText('reelflow.deltas')) as {
    fields: { name: string; type: { type?: string; items?: { fields: AvroField[] } } }[];
  };
  return schema.fields
    .filter(({ name, type }) => name !== 'range' && type.type === 'array')
    .map(({ name, type }) => ({ name, fields: type.items?.fields ?? [] }));
}

/** A plan that keeps every field of a cube's rows. @param dictionary for the string fields */
export function cubePlan(cube: CubeWire, dictionary: Dictionary): RowPlan {
  const baseOf = (field: AvroField) => (Array.isArray(field.type) ? field.type[1] : field.type);
  return planRows(
    cube.fields,
    cube.fields.map((field) => ({
      name: field.name,
      form: baseOf(field) === 'string' ? 'dictionary' : baseOf(field) === 'long' ? 'long' : 'int',
    })),
    Object.fromEntries(cube.fields.map(({ name }) => [name, dictionary])),
  );
}

/** Rows of one cube for the encoder: columns in the order of the schema's fields. */
export interface CubeRows {
  readonly plan: RowPlan;
  readonly columns: readonly ArrayLike<number>[];
  readonly length: number;
}

/**
 * The messages of one delta, each at most `messageBytesMax` bytes long.
 * @param cubes by name; a missing cube has no rows
 */
export function encodeDelta(
  schemaId: number,
  header: DeltaHeader,
  cubes: Readonly<Record<string, CubeRows>>,
): Buffer[] {
  const bodyBytesMax =
    messageBytesMax - encodeDeltaHeader(schemaId, { ...header, part: 1, parts: 1 }).length - 64;
  const bodies: Buffer[] = [];
  let body = new AvroWriter();
  const rows = new AvroWriter();
  // A body ends after a row: the rest of this cube and all later cubes continue in the next body.
  cubesOnTheWire.forEach((wire, index) => {
    const cube = cubes[wire.name];
    let first = 0;
    const closeArray = (end: number) => {
      if (end > first) {
        body.long(end - first);
        body.raw(rows.bytes.subarray(0, rows.length));
      }
      body.byte(0);
      rows.length = 0;
      first = end;
    };
    for (let row = 0; cube !== undefined && row < cube.length; row++) {
      const length = rows.length;
      rows.row(cube.plan, cube.columns, row);
      if (body.length + rows.length > bodyBytesMax && (row > first || body.length > cubesOnTheWire.length)) {
        rows.length = length;
        closeArray(row);
        for (let rest = index + 1; rest < cubesOnTheWire.length; rest++) body.byte(0);
        bodies.push(body.take());
        body = new AvroWriter();
        for (let done = 0; done < index; done++) body.byte(0);
        rows.row(cube.plan, cube.columns, row);
      }
    }
    closeArray(cube?.length ?? 0);
  });
  bodies.push(body.take());
  return bodies.map((bytes, i) =>
    Buffer.concat([encodeDeltaHeader(schemaId, { ...header, part: i + 1, parts: bodies.length }), bytes]),
  );
}

/** The bytes of a part before its rows. */
export function encodeDeltaHeader(schemaId: number, header: DeltaPart): Buffer {
  const wire = Buffer.alloc(wireHeaderBytes);
  wire.writeInt32BE(schemaId, 1);
  const writer = new AvroWriter();
  writer.raw(wire);
  writer.long(header.shard);
  writer.long(header.shards);
  writer.long(header.generation);
  writer.string(header.cubeSet);
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
 * @returns the header and the position of the first cube's array
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
    const cubeSet = string();
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
    const header = { shard, shards, generation, cubeSet, storeId, kind, range };
    return { header: { ...header, recordTimeMs: long(), part: long(), parts: long() }, at };
  } catch (thrown) {
    if (thrown instanceof MalformedRows) throw new RejectedMessage('undecodable', thrown.message);
    throw thrown;
  }
}

/** Empty columns for the rows of each cube. @param dictionary for the strings in them */
export function emptyCubes(dictionary: Dictionary): Record<string, Columns> {
  return Object.fromEntries(
    cubesOnTheWire.map((wire) => [wire.name, new Columns(cubePlan(wire, dictionary))]),
  );
}

/** Appends the rows after a header to `cubes` (by name). @throws RejectedMessage undecodable */
export function decodeDeltaRows(value: Buffer, at: number, cubes: Readonly<Record<string, Columns>>): void {
  try {
    let next = at;
    for (const { name } of cubesOnTheWire) next = decodeRows(value, next, cubes[name] as Columns);
    if (next !== value.length) throw new MalformedRows('undecodable', 'bytes after the end');
  } catch (thrown) {
    if (thrown instanceof MalformedRows) throw new RejectedMessage('undecodable', thrown.message);
    throw thrown;
  }
}

/** Checks that the rows after a header can be decoded. @throws RejectedMessage undecodable */
export function checkDeltaRows(value: Buffer, at: number): void {
  decodeDeltaRows(value, at, emptyCubes(new Dictionary()));
}
