/**
 * The content hash of a gold table, over keys and integer measures: equal input gives an equal hash, whatever the order, the
 * windows, the shards and the crashes were. It is the SHA-256 of a sum over the rows, which needs no order: rows that come
 * are added, rows that go are taken away.
 */
import { createHash } from 'node:crypto';
import type { DuckDBConnection } from '@duckdb/node-api';
import type { GoldTable } from './gold-table.ts';

type Columns = Pick<GoldTable, 'key' | 'attributes' | 'measures'>;

/** Of the hash. Version 1 was the SHA-256 of all rows as lines in the order of their keys. */
export const contentHashVersion = 2;

/** The sum over rows: of 1, and of the upper 96 bits of the MD5 of each row. */
export interface ContentSum {
  readonly rows: bigint;
  readonly hashes: bigint;
}

/** @param relation holds rows of the table's integer form. */
export async function contentSum(
  connection: DuckDBConnection,
  { key, attributes = [], measures }: Columns,
  relation: string,
): Promise<ContentSum> {
  // The length of a text tells where it ends; null has none.
  const fields = [
    ...[...key, ...attributes].map(
      (name) => `coalesce(strlen(${name}::VARCHAR) || '=' || ${name}::VARCHAR, '-')`,
    ),
    ...measures.map((name) => `coalesce(${name}::VARCHAR, '-')`),
  ];
  const [row] = (
    await connection.runAndReadAll(`
      SELECT count(*), coalesce(sum((md5_number(concat_ws(chr(9), ${fields.join(', ')})) >> 32)::HUGEINT), 0)
      FROM ${relation}`)
  ).getRows();
  return { rows: BigInt(String(row?.[0])), hashes: BigInt(String(row?.[1])) };
}

/** @returns hexadecimal */
export const hashOfSum = ({ rows, hashes }: ContentSum) =>
  createHash('sha256').update(`${rows} ${hashes}`).digest('hex');

/**
 * @param relation holds the table's integer form
 * @param version of a manifest that was written by an earlier version
 * @returns hexadecimal
 */
export async function contentHash(
  connection: DuckDBConnection,
  table: Columns,
  relation: string,
  version = contentHashVersion,
): Promise<string> {
  if (version > 1) return hashOfSum(await contentSum(connection, table, relation));
  const hash = createHash('sha256');
  const blocks = await connection.stream(linesInOrder(table, relation));
  for (;;) {
    const chunk = await blocks.fetchChunk();
    if (chunk === null || chunk.rowCount === 0) return hash.digest('hex');
    for (const block of chunk.getColumnValues(0)) hash.update(String(block));
  }
}

/** Version 1: a SELECT of one text column, the lines of the integer form in the order of its keys, 4,096 lines a block. */
function linesInOrder({ key, attributes = [], measures }: Columns, relation: string): string {
  // Null differs from every text, including the empty one. Numbers contain no tab and no newline.
  const fields = [
    ...[...key, ...attributes].map(
      (name) => `coalesce('=' || replace(replace(${name}::VARCHAR, '\\', '\\\\'), chr(10), '\\n'), '-')`,
    ),
    ...measures.map((name) => `${name}::VARCHAR`),
  ];
  return `
    SELECT string_agg(line, chr(10) ORDER BY number) || chr(10) AS block
    FROM (
      SELECT concat_ws(chr(9), ${fields.join(', ')}) AS line,
        row_number() OVER (ORDER BY ${key.map((name) => `${name} NULLS FIRST`).join(', ')}) AS number
      FROM ${relation}
    )
    GROUP BY number // 4096 ORDER BY min(number)`;
}
