/** Appending columns when DuckDB fails in the middle, as it does without memory: an appender that fails at each call. */
import type { DuckDBConnection } from '@duckdb/node-api';
import { expect, test } from 'vitest';
import { appendColumns } from '../../database/duckdb.ts';

test('the error of an append is the one that is thrown, not that of closing the appender', async () => {
  const connection = {
    createAppender: async () => ({
      appendDataChunk: () => {
        throw new Error('Out of Memory Error: failed to allocate data');
      },
      flushSync: () => undefined,
      closeSync: () => {
        throw new Error('Current transaction is aborted (please ROLLBACK)');
      },
    }),
  } as unknown as DuckDBConnection;
  const table = { catalog: 'memory', name: 'numbers' };
  await expect(appendColumns(connection, table, [Int32Array.of(1, 2, 3)], 3, [false])).rejects.toThrow(
    'Out of Memory',
  );
});
