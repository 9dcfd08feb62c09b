/** A gold table on a topic that Flink writes: one message per changed row, with the key as text and the columns as Avro. */
import type { GoldTable } from '../tables/gold-table.ts';

const avroTypes = {
  BIGINT: 'long',
  INTEGER: 'int',
  DOUBLE: 'double',
  VARCHAR: 'string',
  BOOLEAN: 'boolean',
  'VARCHAR[]': { type: 'array', items: 'string' },
  DATE: { type: 'int', logicalType: 'date' },
} as const;

/** The Avro schema of a table's rows. Every column may be null, as in Parquet. */
export function schemaOfGoldTable({ name, columns }: GoldTable) {
  return {
    type: 'record',
    namespace: 'reelflow.gold',
    name,
    fields: Object.entries(columns).map(([column, type]) => ({
      name: column,
      type: ['null', avroTypes[type]],
      default: null,
    })),
  };
}
