/** What a gold table is on a topic of Flink's: one message per row that changed, its key as text, its columns as Avro. */
import { batchTables } from '../sinks/verify/batch-gold.ts';

const avroTypes = {
  BIGINT: 'long',
  INTEGER: 'int',
  DOUBLE: 'double',
  VARCHAR: 'string',
  BOOLEAN: 'boolean',
  'VARCHAR[]': { type: 'array', items: 'string' },
} as const;

/** The Avro schema of a table's rows. Every column may be null, as in Parquet. */
export function schemaOfGoldTable(name: string) {
  const table = batchTables[name];
  if (table === undefined) throw new RangeError(`the contract has no gold table ${name}`);
  return {
    type: 'record',
    namespace: 'reelflow.gold',
    name,
    fields: Object.entries(table.columns).map(([column, type]) => ({
      name: column,
      type: ['null', avroTypes[type]],
      default: null,
    })),
  };
}
