/** What a measurement computes: the job that other engines do too, or everything. */
import { type DatasetName, datasetNames } from '../topics/catalog.ts';

/** The five datasets behind the tables that other engines compute too. */
export const goldDatasets: readonly DatasetName[] = datasetNames.filter(
  (name) => name !== 'title.crew' && name !== 'title.episode',
);

/**
 * The tables that other engines compute too, each with the order of its rows by the contract: not every engine can write in
 * order, and none is held to it.
 */
export const orderOfFive: Readonly<Record<string, string>> = {
  genre_analysis: 'total_titles DESC, genres',
  decade_trends: 'decade',
  title_ratings_agg: 'startYear, total_titles DESC, genres NULLS LAST',
  contributor_analysis: 'total_votes DESC, nconst',
  region_analysis: 'total_titles DESC, region',
};

export interface Workload {
  readonly tables: 'five' | 'all';
  readonly datasets: readonly DatasetName[];
  /** Arguments of process and sink. */
  readonly only: readonly string[];
  /** The program in peers/ that computes the same tables with DuckDB, straight from the files. */
  readonly duckdb: string;
}

export const workloads = {
  five: {
    tables: 'five',
    datasets: goldDatasets,
    only: ['--only', Object.keys(orderOfFive).join(',')],
    duckdb: 'duckdb-batch.ts',
  },
  all: { tables: 'all', datasets: datasetNames, only: [], duckdb: 'duckdb-all.ts' },
} satisfies Record<string, Workload>;
