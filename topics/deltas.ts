/**
 * `reelflow.deltas` on the wire, and the chain that its messages form. A delta is known by its source range: whoever
 * reads the topic (the sink, or a processor that looks for the published position) folds the same headers with the
 * same rule, so all of them agree on what counts, whatever was sent twice, late, or by a member that had no right to.
 */
import { messageBytesMax } from './catalog.ts';
import { RejectedMessage, schemaIdOf, wireHeaderBytes } from './chunk.ts';
import { Dictionary } from './dictionary.ts';
import {
  type Gap,
  type Gaps,
  gapsBefore,
  nextIn,
  notAfter,
  type Position,
  sameGaps,
  samePosition,
} from './position.ts';
import { schemaText } from './registry.ts';
import {
  type AvroField,
  AvroWriter,
  Columns,
  decodeRows,
  MalformedRows,
  planRows,
  type RowPlan,
  readBlockCount,
  readLong,
  readString,
} from './rows.ts';

export type DeltaKind = 'delta' | 'base' | 'reset';
const kinds: readonly DeltaKind[] = ['delta', 'base', 'reset'];

/** How the records of one source topic in [from, to) count. */
export interface SourceRange {
  readonly topic: string;
  readonly from: number;
  readonly to: number;
  readonly applied: number;
  readonly duplicate: number;
  readonly rejected: number;
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

/** One cube's array in the delta schema. */
export interface CubeWire {
  readonly name: string;
  readonly fields: readonly AvroField[];
}

/** The cubes of the delta schema, in its order. */
export const cubesOnTheWire: readonly CubeWire[] = readCubes();

function readCubes(): CubeWire[] {
  const schema = JSON.parse(schemaText('reelflow.deltas')) as {
    fields: { name: string; type: { type?: string; items?: { fields: AvroField[] } } }[];
  };
  return schema.fields
    .filter(({ name, type }) => name !== 'range' && type.type === 'array')
    .map(({ name, type }) => ({ name, fields: type.items?.fields ?? [] }));
}

/** A plan that keeps every field of a cube's rows. @param dictionary for its string fields */
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
 * The messages of one delta, each at most `messageBytesMax` long.
 * @param cubes by name; a cube that is missing has no rows
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
  // A body closes at a row's end: what is left of this cube and of those behind it goes on in the next one.
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
  for (const { topic, from, to, applied, duplicate, rejected, gaps } of header.range) {
    writer.string(topic);
    for (const value of [from, to, applied, duplicate, rejected]) writer.long(value);
    if (gaps.length > 0) writer.long(gaps.length);
    for (const value of gaps.flat()) writer.long(value);
    writer.byte(0);
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
 * @throws RejectedMessage for anything that is not a delta of our schema
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

/** Decodes the cubes behind a header onto the end of `cubes` (by name). @throws RejectedMessage undecodable */
export function decodeDeltaRows(value: Buffer, at: number, cubes: Readonly<Record<string, Columns>>): void {
  try {
    let next = at;
    for (const { name } of cubesOnTheWire) next = decodeRows(value, next, cubes[name] as Columns);
    if (next !== value.length) throw new MalformedRows('undecodable', 'bytes behind the end');
  } catch (thrown) {
    if (thrown instanceof MalformedRows) throw new RejectedMessage('undecodable', thrown.message);
    throw thrown;
  }
}

/** That the rows behind a header can be decoded. @throws RejectedMessage undecodable */
export function checkDeltaRows(value: Buffer, at: number): void {
  decodeDeltaRows(value, at, emptyCubes(new Dictionary()));
}

/**
 * What a reader does with a message: `collect` its part and wait for the rest, `apply` the delta that it completes,
 * `skip` what is already contained, forget what belongs to a `dead` generation, or `refuse` it: its range does not
 * go on where the shard stands, and somebody has to heal.
 */
export const verdicts = ['collect', 'apply', 'skip', 'dead', 'refuse'] as const;

export type Verdict = (typeof verdicts)[number];

/** Where one shard stands in the chain of its deltas. */
export interface ChainState {
  readonly generation: number;
  readonly position: Position;
  /** Before the position. */
  readonly gaps: Gaps;
  /** Fingerprint of the cubes; '' before the first delta. */
  readonly cubeSet: string;
}

/** Where a generation begins. */
const startOf = (generation: number): ChainState => ({ generation, position: {}, gaps: {}, cubeSet: '' });

export const chainStart = startOf(0);

/** The state that a delta goes on from, taken for granted where what was before it is trimmed. */
const stateBefore = (part: DeltaPart): ChainState =>
  part.kind === 'delta'
    ? {
        generation: part.generation,
        position: fromOf(part),
        gaps: gapsBefore(gapsOf(part), fromOf(part)),
        cubeSet: part.cubeSet,
      }
    : startOf(part.generation - (part.kind === 'reset' ? 1 : 0));

/**
 * Folds one shard's deltas in the order of their partition.
 * Parts belong together when store, kind and range agree and they follow each other from 1 to `parts`; parts of
 * another store may lie between them.
 */
export class DeltaChain {
  #state: ChainState;
  /** Whether what came before is unknown: the first delta that is whole then tells. */
  #isTrimmed: boolean;
  /** Next part expected, by store and range. */
  #open = new Map<string, number>();

  /** @param state where the shard stands; `trimmed` when the partition no longer begins at its first message */
  constructor(state: ChainState | 'trimmed' = chainStart) {
    this.#isTrimmed = state === 'trimmed';
    this.#state = state === 'trimmed' ? chainStart : state;
  }

  get state(): ChainState {
    return this.#state;
  }

  /** Whether nothing that is left tells where the shard stands. */
  get isUnknown(): boolean {
    return this.#isTrimmed;
  }

  /** Whether parts of an unfinished delta are outstanding. */
  get isBetweenParts(): boolean {
    return this.#open.size > 0;
  }

  /** Identifies the delta that a part belongs to. */
  static keyOf(part: DeltaPart): string {
    return JSON.stringify([part.storeId, part.kind, part.generation, part.parts, fromOf(part), toOf(part)]);
  }

  accept(part: DeltaPart): Verdict {
    if (this.#isTrimmed) {
      if (part.part !== 1) return 'skip';
      this.#state = stateBefore(part);
      this.#isTrimmed = false;
    }
    const { generation, position, gaps, cubeSet } = this.#state;
    if (part.generation < generation) return 'dead';
    if (part.kind === 'reset') {
      if (part.generation === generation) return 'skip';
      this.#state = startOf(part.generation);
      this.#open.clear();
      return 'apply';
    }
    // A generation begins with its reset mark, which all partitions get before any store works for it.
    if (part.generation > generation) return 'refuse';
    const from = fromOf(part);
    const to = toOf(part);
    if (part.kind === 'delta') {
      if (notAfter(to, position) && (cubeSet === '' || part.cubeSet === cubeSet)) {
        // An empty delta changes nothing either way.
        return 'skip';
      }
      if (!samePosition(from, position)) return 'refuse';
      // A store that lacks other messages would count from another state of the same titles.
      if (!sameGaps(gapsBefore(gapsOf(part), from), gaps)) return 'refuse';
      if (cubeSet !== '' && part.cubeSet !== cubeSet) return 'refuse';
    } else if (!notAfter(position, to)) {
      return 'refuse';
    }
    const key = DeltaChain.keyOf(part);
    const expected = part.part === 1 ? 1 : this.#open.get(key);
    if (part.part !== expected) return 'skip';
    if (part.part < part.parts) {
      this.#open.set(key, part.part + 1);
      return 'collect';
    }
    this.#open.clear();
    this.#state = { generation, position: merge(position, to), gaps: gapsOf(part), cubeSet: part.cubeSet };
    return 'apply';
  }
}

function merge(position: Position, to: Position): Position {
  const merged: Record<string, number> = { ...position };
  for (const topic of Object.keys(to)) merged[topic] = nextIn(to, topic);
  return merged;
}
