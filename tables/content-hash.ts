/**
 * The content hash of a gold table: SHA-256 over keys and integer measures in the order of the keys. Equal input gives an
 * equal hash, whatever the order, the windows, the shards and the crashes were.
 */
import { createHash } from 'node:crypto';
import type { DuckDBConnection } from '@duckdb/node-api';
import type { GoldTable } from './gold-table.ts';

/** @param relation holds the table's integer form. @returns hexadecimal */
export async function contentHash(
  connection: DuckDBConnection,
  table: GoldTable,
  relation: string,
): Promise<string> {
  const hash = createHash('sha256');
  const blocks = await connection.stream(canonicalText(table, relation));
  for (;;) {
    const chunk = await blocks.fetchChunk();
    if (chunk === null || chunk.rowCount === 0) return hash.digest('hex');
    for (const block of chunk.getColumnValues(0)) hash.update(String(block));
  }
}

/** A SELECT of one text column: the lines of the integer form in the canonical order of its keys, 4,096 lines a block. */
function canonicalText({ key, attributes = [], measures }: GoldTable, relation: string): string {
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
