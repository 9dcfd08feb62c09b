/**
 * The files of Iceberg's table format, version 2 (https://iceberg.apache.org/spec): manifest, manifest list, and the schema in
 * the table's metadata. Numbers beside the fields are the ids that the specification gives them.
 */
import { buffer } from 'node:stream/consumers';
import avsc, { type Schema } from 'avsc';
import type { ParquetTable } from './parquet-columns.ts';

interface IcebergField {
  readonly id: number;
  readonly name: string;
  readonly required: false;
  readonly type: string | IcebergList;
  readonly doc?: string;
}

interface IcebergList {
  readonly type: 'list';
  readonly 'element-id': number;
  readonly element: string;
  readonly 'element-required': false;
}

export interface IcebergSchema {
  readonly type: 'struct';
  readonly 'schema-id': number;
  readonly fields: readonly IcebergField[];
}

/** Iceberg's types for gold columns, by DuckDB's names. */
const types: Readonly<Record<string, string>> = {
  BOOLEAN: 'boolean',
  INTEGER: 'int',
  BIGINT: 'long',
  DOUBLE: 'double',
  VARCHAR: 'string',
  DATE: 'date',
};

function typeOf(name: string, type: string): string {
  const found = types[type];
  if (found !== undefined) return found;
  throw new RangeError(`column ${name} has the type ${type}`);
}

/**
 * The schema of a table. A column has the same id in all schemas of its table: files have no ids, so they are matched by name.
 * @param idOf the id of a column, or of `<column>.element`
 * @throws RangeError for a type that gold tables do not have
 */
export function icebergSchema(
  { columns }: ParquetTable,
  schemaId: number,
  idOf: (name: string) => number,
): IcebergSchema {
  const fields = columns.map(({ name, type, comment }): IcebergField => {
    const doc = comment === '' ? {} : { doc: comment };
    const id = idOf(name);
    if (!type.endsWith('[]')) return { id, name, required: false, type: typeOf(name, type), ...doc };
    const element = typeOf(name, type.slice(0, -2));
    const list = { 'element-id': idOf(`${name}.element`), element, 'element-required': false } as const;
    return { id, name, required: false, type: { type: 'list', ...list }, ...doc };
  });
  return { type: 'struct', 'schema-id': schemaId, fields };
}

/** The names by which readers find the columns of these schemas in files without ids. */
export function nameMapping(schemas: readonly IcebergSchema[]): string {
  const byId = new Map<number, object>();
  for (const { id, name, type } of schemas.flatMap(({ fields }) => fields)) {
    const element =
      typeof type === 'string' ? {} : { fields: [{ 'field-id': type['element-id'], names: ['element'] }] };
    byId.set(id, { 'field-id': id, names: [name], ...element });
  }
  return JSON.stringify([...byId.values()]);
}

const field = (name: string, type: Schema, id: number) => ({ name, type, 'field-id': id });

const entrySchema = {
  type: 'record',
  name: 'manifest_entry',
  fields: [
    field('status', 'int', 0),
    field('snapshot_id', 'long', 1),
    field('sequence_number', 'long', 3),
    field('file_sequence_number', 'long', 4),
    field(
      'data_file',
      {
        type: 'record',
        name: 'r2',
        fields: [
          field('content', 'int', 134),
          field('file_path', 'string', 100),
          field('file_format', 'string', 101),
          field('partition', { type: 'record', name: 'r102', fields: [] }, 102),
          field('record_count', 'long', 103),
          field('file_size_in_bytes', 'long', 104),
        ],
      } as Schema,
      2,
    ),
  ],
} as Schema;

const listSchema = {
  type: 'record',
  name: 'manifest_file',
  fields: [
    field('manifest_path', 'string', 500),
    field('manifest_length', 'long', 501),
    field('partition_spec_id', 'int', 502),
    field('content', 'int', 517),
    field('sequence_number', 'long', 515),
    field('min_sequence_number', 'long', 516),
    field('added_snapshot_id', 'long', 503),
    field('added_files_count', 'int', 504),
    field('existing_files_count', 'int', 505),
    field('deleted_files_count', 'int', 506),
    field('added_rows_count', 'long', 512),
    field('existing_rows_count', 'long', 513),
    field('deleted_rows_count', 'long', 514),
  ],
} as Schema;

/** One data file that a version adds. */
interface IcebergFile {
  readonly path: string;
  readonly rows: number;
  readonly bytes: number;
}

/** A manifest with one file. @param version snapshot id and sequence number */
export function manifestBytes(version: number, file: IcebergFile, schema: IcebergSchema): Promise<Buffer> {
  const entry = {
    status: 1,
    snapshot_id: version,
    sequence_number: version,
    file_sequence_number: version,
    data_file: {
      content: 0,
      file_path: file.path,
      file_format: 'PARQUET',
      partition: {},
      record_count: file.rows,
      file_size_in_bytes: file.bytes,
    },
  };
  return avroFile(entrySchema, entry, {
    schema: JSON.stringify(schema),
    'schema-id': String(schema['schema-id']),
    'partition-spec': '[]',
    'partition-spec-id': '0',
    'format-version': '2',
    content: 'data',
  });
}

/** The list of a version's one manifest. */
export function manifestListBytes(
  version: number,
  manifest: { path: string; bytes: number; rows: number },
): Promise<Buffer> {
  const entry = {
    manifest_path: manifest.path,
    manifest_length: manifest.bytes,
    partition_spec_id: 0,
    content: 0,
    sequence_number: version,
    min_sequence_number: version,
    added_snapshot_id: version,
    added_files_count: 1,
    existing_files_count: 0,
    deleted_files_count: 0,
    added_rows_count: manifest.rows,
    existing_rows_count: 0,
    deleted_rows_count: 0,
  };
  const metadata = {
    'snapshot-id': String(version),
    'sequence-number': String(version),
    'format-version': '2',
  };
  return avroFile(listSchema, entry, metadata);
}

/** An Avro container with one record. */
function avroFile(schema: Schema, record: object, texts: Readonly<Record<string, string>>): Promise<Buffer> {
  const metadata = Object.fromEntries(Object.entries(texts).map(([key, text]) => [key, Buffer.from(text)]));
  const encoder = new avsc.streams.BlockEncoder(schema, { codec: 'null', metadata } as object);
  encoder.end(record);
  return buffer(encoder);
}
