/** DuckDB straight from the files: the least that any engine has to do. */
import { here, type Peer } from './peer.ts';

export const duckdb: Peer = {
  name: 'duckdb',
  input: 'files',
  setup: 'DuckDB in Node, 2 threads, 8 GB, only the columns that gold needs are converted',
  without: 'a batch: no broker, nothing kept for the next time; rows are not checked',
  prepare: async ({ data, out }) => ({
    command: process.execPath,
    args: [here('duckdb-batch.ts'), data, out],
  }),
};
