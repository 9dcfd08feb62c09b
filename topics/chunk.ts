/**
 * Decodes the bytes of a message into columns. The fast path serves the schema that this version of the project
 * registers, and those before it, whose chunks lack only its last fields. avsc first resolves a chunk of any other registered
 * schema to ours: exact, but 18 times slower.
 */
import { createHash } from 'node:crypto';
import type { Schema, Type } from 'avsc';
import { MalformedRows, readBlockCount, readLong, readString } from './avro-reader.ts';
import { avroTypeOf } from './avro-type.ts';
import { type BaseMark, baseMarkOf, readBaseMark } from './base.ts';
import { type Dataset, type DatasetName, datasets } from './catalog.ts';
import type { Dictionary } from './dictionary.ts';
import { checkExtent } from './extent.ts';
import { groupMax } from './id-groups.ts';
import type { Ownership } from './ownership.ts';
import type { Registry } from './registry.ts';
import { schemaText, UnusableSchema } from './registry.ts';
import { type AvroField, type ColumnForm, planRows } from './row-plan.ts';
import { Columns, decodeRows } from './rows.ts';

/** Why a message cannot be applied: the reason of its dead letter. */
export const rejectReasons = [
  'no_value',
  'bad_magic_byte',
  'unknown_schema_id',
  'value_of_another_topic',
  'undecodable',
  'invalid_value',
  'wrong_partition',
  'undecodable_batch',
] as const;

type RejectReason = (typeof rejectReasons)[number];

/** A message that no stage can apply: its `reason` becomes the label of the dead letter, its text the detail. */
export class RejectedMessage extends Error {
  readonly reason: RejectReason;
  /** Records that the message counts for: those that it holds if they can be counted, else one. */
  readonly records: number;
  constructor(reason: RejectReason, detail: string, records = 1) {
    super(detail);
    this.name = 'RejectedMessage';
    this.reason = reason;
    this.records = records;
  }
}

export interface ChunkHeader {
  readonly runId: string;
  /** Number of the chunk within its run and partition. */
  readonly chunk: number;
  /** Date of the dump, in milliseconds since 1970. */
  readonly asOfMs: number;
  /** Upserts added to the end of the columns. */
  readonly records: number;
  /** Deletes added to the end of the delete columns; they apply after the upserts. */
  readonly deletes: number;
  /**
   * Groups of ids that the chunk replaces. It acts, at the place of its first record, like a delete of every key of
   * these groups; then its upserts and deletes apply.
   */
  readonly replaces: Int32Array;
  /** The chunk is the first or the last message of a base, and holds nothing else. */
  readonly base?: BaseMark | undefined;
}

/** The partition in which all ids and groups of a chunk must lie. */
export interface Owner {
  readonly ownership: Ownership;
  readonly partition: number;
}

const noGroups = new Int32Array(0);

/** Magic byte and schema id before every value. */
export const wireHeaderBytes = 5;

/** Reads the Confluent wire header. @throws RejectedMessage no_value or bad_magic_byte */
export function schemaIdOf(value: Buffer | null): number {
  if (value === null) throw new RejectedMessage('no_value', 'the message has no value');
  if (value.length < wireHeaderBytes || value[0] !== 0) {
    throw new RejectedMessage(
      'bad_magic_byte',
      `the value starts with ${value.subarray(0, 5).toString('hex')}`,
    );
  }
  return value.readInt32BE(1);
}

/** Which chunk this is, of our own schema, without the rest of it. @throws RejectedMessage undecodable */
export function originOf(value: Buffer): Pick<ChunkHeader, 'runId' | 'chunk'> {
  try {
    const [runId, next] = readString(value, wireHeaderBytes);
    return { runId, chunk: readLong(value, next)[0] };
  } catch (thrown) {
    if (!(thrown instanceof MalformedRows)) throw thrown;
    throw new RejectedMessage('undecodable', thrown.message);
  }
}

/** The form in which a column of a dataset becomes numbers. */
export function formOf(dataset: Dataset, column: string): ColumnForm {
  if (column === 'nconst') return 'nm';
  if (column === dataset.columns[0]?.name || column === 'parentTconst') {
    return dataset.idPrefix === 'nm' ? 'nm' : 'tt';
  }
  if (column === 'directors' || column === 'writers') return 'people';
  const type = dataset.columns.find(({ name }) => name === column)?.type;
  if (type === undefined) throw new RangeError(`${dataset.name} has no column ${column}`);
  if (type === 'tenths') return 'tenths';
  if (type === 'int' || type === 'nullable-int') return 'int';
  if (type === 'boolean' || type === 'nullable-boolean') return 'boolean';
  return 'dictionary';
}

interface ChunkSchema {
  fields: { name: string; type: { items: { fields: AvroField[] } } }[];
}

/** Fields that were added at the end of the schemas, oldest first. */
const addedFields = ['replaces', 'base'] as const;

type AddedField = (typeof addedFields)[number];

/** The schema of a dataset's chunks as it was before a field was added to its end. */
export function schemaBefore(added: AddedField, name: DatasetName): Schema {
  const lacking: readonly string[] = addedFields.slice(addedFields.indexOf(added));
  const schema = JSON.parse(schemaText(`imdb.${name}`)) as { fields: { name: string }[] };
  return { ...schema, fields: schema.fields.filter((field) => !lacking.includes(field.name)) } as Schema;
}

/** Columns for the wanted fields of a dataset's records. @param texts columns to keep as bytes */
export function recordColumns(
  name: DatasetName,
  wanted: readonly string[],
  dictionaries: Readonly<Record<string, Dictionary>> = {},
  texts: readonly string[] = [],
): Columns {
  const fields = recordFields(name, 'records');
  const forms = wanted.map((column) => ({
    name: column,
    form: texts.includes(column) ? ('text' as const) : formOf(datasets[name], column),
  }));
  return new Columns(planRows(fields, forms, dictionaries));
}

/** Columns for the keys of a dataset's deletes. */
export function deleteColumns(name: DatasetName): Columns {
  const fields = recordFields(name, 'deletes');
  return new Columns(
    planRows(
      fields,
      fields.map((field) => ({ name: field.name, form: formOf(datasets[name], field.name) })),
    ),
  );
}

function recordFields(name: DatasetName, array: 'records' | 'deletes'): AvroField[] {
  const schema = JSON.parse(schemaText(`imdb.${name}`)) as ChunkSchema;
  const field = schema.fields.find((candidate) => candidate.name === array);
  if (field === undefined) throw new RangeError(`no ${array} in the schema of ${name}`);
  return field.type.items.fields;
}

/** Decodes the chunks of one dataset. */
export class ChunkDecoder {
  readonly #name: DatasetName;
  readonly #schemaId: number;
  readonly #registry: Pick<Registry, 'writer'>;
  #ownType: Type | undefined;
  readonly #resolvers = new Map<number, { writer: Type; resolver: ReturnType<Type['createResolver']> }>();
  /** Ids of schemas that end before a field that was added. */
  readonly #endBefore = new Map<number, readonly [AddedField, Type]>();

  /** @param schemaId the registry's id of our own schema of this dataset */
  constructor(name: DatasetName, schemaId: number, registry: Pick<Registry, 'writer'>) {
    this.#name = name;
    this.#schemaId = schemaId;
    this.#registry = registry;
  }

  get #reader(): Type {
    this.#ownType ??= avroTypeOf(JSON.parse(schemaText(`imdb.${this.#name}`)));
    return this.#ownType;
  }

  /** Whether `decode` takes the value as it is; else it needs `resolve`. @throws RejectedMessage for a bad wire header */
  isOwn(value: Buffer | null): boolean {
    const id = schemaIdOf(value);
    return id === this.#schemaId || this.#endBefore.has(id);
  }

  /**
   * The same chunk written with our own schema, or unchanged if `decode` accepts it. Waits while the registry does not
   * answer.
   * @throws RejectedMessage unknown_schema_id, value_of_another_topic, undecodable
   */
  async resolve(value: Buffer): Promise<Buffer> {
    const id = schemaIdOf(value);
    let known = this.#resolvers.get(id);
    if (known === undefined) {
      const registered = await this.#registry.writer(id).catch((thrown: unknown) => {
        if (!(thrown instanceof UnusableSchema)) throw thrown;
        throw new RejectedMessage('value_of_another_topic', `schema ${id} ${thrown.message}`);
      });
      if (registered === undefined) {
        throw new RejectedMessage('unknown_schema_id', `the registry knows no schema ${id}`);
      }
      if (registered.name !== this.#reader.name) {
        throw new RejectedMessage(
          'value_of_another_topic',
          `schema ${id} is ${registered.name}, not ${this.#reader.name}`,
        );
      }
      try {
        const writer = registered;
        for (const field of addedFields) {
          const type = avroTypeOf(schemaBefore(field, this.#name));
          if (!writer.equals(type)) continue;
          this.#endBefore.set(id, [field, type]);
          return value;
        }
        known = { writer, resolver: this.#reader.createResolver(writer) };
      } catch (thrown) {
        throw new RejectedMessage('value_of_another_topic', `schema ${id}: ${(thrown as Error).message}`);
      }
      this.#resolvers.set(id, known);
    }
    try {
      checkExtent(known.writer, value, wireHeaderBytes);
      const chunk = this.#reader.fromBuffer(value.subarray(wireHeaderBytes), known.resolver);
      const header = Buffer.alloc(wireHeaderBytes);
      header.writeInt32BE(this.#schemaId, 1);
      return Buffer.concat([header, this.#reader.toBuffer(chunk)]);
    } catch (thrown) {
      throw new RejectedMessage('undecodable', `schema ${id}: ${(thrown as Error).message}`);
    }
  }

  /** What `decode` takes: the value as it is, or what `resolve` makes of it. @throws as `isOwn` and `resolve` */
  async asOwn(value: Buffer | null): Promise<Buffer> {
    return this.isOwn(value) ? (value as Buffer) : this.resolve(value as Buffer);
  }

  /**
   * Decodes a chunk of our own schema and adds its rows to the columns.
   * @param owner default: it may lie in any partition
   * @throws RejectedMessage undecodable, invalid_value or wrong_partition, after it restored the columns
   */
  decode(value: Buffer, records: Columns, deletes: Columns, owner?: Owner): ChunkHeader {
    const before = { records: records.length, text: records.textLength, deletes: deletes.length };
    try {
      const [runId, afterRunId] = readString(value, wireHeaderBytes);
      const [chunk, afterChunk] = readLong(value, afterRunId);
      const [asOfMs, afterAsOf] = readLong(value, afterChunk);
      const afterRecords = decodeRows(value, afterAsOf, records);
      const afterDeletes = decodeRows(value, afterRecords, deletes);
      const [endsBefore] = this.#endBefore.get(schemaIdOf(value)) ?? [];
      const [replaces, afterReplaces] =
        endsBefore === 'replaces' ? [noGroups, afterDeletes] : readGroups(value, afterDeletes);
      const [base, end] =
        endsBefore === undefined ? readBaseMark(value, afterReplaces) : [undefined, afterReplaces];
      if (end !== value.length) {
        throw new MalformedRows('undecodable', `${value.length - end} bytes behind the end`);
      }
      if (base !== undefined && baseMarkOf(value) === undefined) {
        throw new MalformedRows('invalid_value', 'a mark of a base with rows, or of another run');
      }
      const upserted = records.length - before.records;
      const deleted = deletes.length - before.deletes;
      if (owner !== undefined) {
        const { ownership, partition } = owner;
        ownership.check(records, before.records, partition, upserted + deleted);
        ownership.check(deletes, before.deletes, partition, upserted + deleted);
        ownership.checkGroups(replaces, partition, upserted + deleted);
      }
      return { base, runId, chunk, asOfMs, records: upserted, deletes: deleted, replaces };
    } catch (thrown) {
      records.length = before.records;
      records.textLength = before.text;
      deletes.length = before.deletes;
      if (!(thrown instanceof MalformedRows)) throw thrown;
      throw new RejectedMessage(thrown.reason, `${this.#name}: ${thrown.message}`, this.#recordsIn(value));
    }
  }

  /** A chunk that `decode` takes, as objects: slow. @throws MalformedRows, and what avsc throws */
  read(value: Buffer): unknown {
    const [, reader = this.#reader] = this.#endBefore.get(schemaIdOf(value)) ?? [];
    checkExtent(reader, value, wireHeaderBytes);
    return reader.fromBuffer(value.subarray(wireHeaderBytes));
  }

  /** The number of records in a value of our schema; one if the value does not follow the schema. */
  #recordsIn(value: Buffer): number {
    try {
      const { records, deletes } = this.read(value) as { records: unknown[]; deletes: unknown[] };
      return records.length + deletes.length;
    } catch {
      return 1;
    }
  }
}

/** An array of groups. @returns [groups, position behind] */
function readGroups(from: Uint8Array, start: number): [Int32Array, number] {
  if (from[start] === 0) return [noGroups, start + 1];
  const groups: number[] = [];
  let at = start;
  for (;;) {
    let count: number;
    [count, at] = readBlockCount(from, at);
    if (count === 0) return [Int32Array.from(groups), at];
    for (; count > 0; count--) {
      let group: number;
      [group, at] = readLong(from, at);
      if (group < 0 || group > groupMax) {
        throw new MalformedRows('invalid_value', `replaces holds ${group}, which is not a group of ids`);
      }
      groups.push(group);
    }
  }
}

/** SHA-256 of a message's value, hexadecimal. */
export function hashOf(value: Buffer | null): string {
  return createHash('sha256')
    .update(value ?? '')
    .digest('hex');
}
