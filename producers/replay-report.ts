/** What a replay did, computed from its journal. */
import { type DatasetName, datasetNames } from '../topics/catalog.ts';
import type { Journal, JournaledProgress, Rejections } from './journal.ts';
import type { DatasetPlan } from './refresh/plan.ts';

export interface ReplayCounts {
  /** Rows read, without the header; always unchanged + produced + rejected. */
  read: number;
  /** Rows that the topic already held, with all rows of their group. */
  unchanged: number;
  produced: number;
  rejected: number;
  /** Acknowledged chunks; those that a resumed run sent again count again. */
  chunks: number;
  /** Bytes of these chunks before compression. */
  bytes: number;
  seconds: number;
  /** Rows read per second. */
  recordsPerSecond: number;
}

interface DatasetReport extends ReplayCounts {
  /** Rejected rows by reason. */
  readonly rejections: Rejections;
}

export interface ReplayReport extends ReplayCounts {
  readonly runId: string;
  readonly datasets: Partial<Record<DatasetName, DatasetReport>>;
  /** Optional datasets that the directory lacks. */
  readonly absent: readonly DatasetName[];
  /** `--resume` found a finished run and sent nothing. */
  readonly nothingToDo: boolean;
  readonly interrupted: boolean;
  /** What earlier attempts of a resumed run did; the other counts include it. */
  readonly before?: ReplayCounts;
  /** Datasets that an interrupted run has not sent whole; of those it was comparing, the counts are not known. */
  readonly unfinished?: readonly DatasetName[];
  /** Datasets that the dump lacks and of which all rows were removed. */
  readonly dropped?: readonly DatasetName[];
  /** What a refresh would send, or has sent; datasets whose topics were empty have one in a dry run only. */
  readonly plan?: Partial<Record<DatasetName, ReportedPlan>>;
  /** Topics that do not exist: a dry run creates none. */
  readonly wouldCreate?: readonly string[];
}

/** A plan without its lists. */
export type ReportedPlan = Pick<
  DatasetPlan,
  'rows' | 'changed' | 'new' | 'vanished' | 'unknown' | 'refused' | 'isBase'
>;

/** The counts of a run in total, from its journal. */
export function totalOf({ datasets, seconds }: Pick<Journal, 'datasets' | 'seconds'>): ReplayCounts {
  const total = { read: 0, unchanged: 0, produced: 0, rejected: 0, chunks: 0, bytes: 0 };
  for (const progress of Object.values(datasets)) {
    const counts = countsOf(progress);
    for (const name of Object.keys(total) as (keyof typeof total)[]) total[name] += counts[name];
  }
  return { ...total, seconds, recordsPerSecond: perSecond(total.read, seconds) };
}

function countsOf(progress: JournaledProgress): ReplayCounts {
  const { row: read, rejected, chunks, bytes, seconds, unchanged = 0 } = progress;
  const produced = read - rejected - unchanged;
  const recordsPerSecond = perSecond(read, seconds);
  return { read, unchanged, produced, rejected, chunks, bytes, seconds, recordsPerSecond };
}

/** The counts of a run by dataset and in total, from its journal. */
export function reportOf(
  journal: Journal,
  outcome: Omit<ReplayReport, keyof ReplayCounts | 'runId' | 'datasets'>,
): ReplayReport {
  const datasets: ReplayReport['datasets'] = {};
  for (const dataset of datasetNames) {
    const progress = journal.datasets[dataset];
    if (progress === undefined) continue;
    datasets[dataset] = { ...countsOf(progress), rejections: progress.rejections };
  }
  return { ...totalOf(journal), runId: journal.runId, datasets, ...outcome };
}

function perSecond(count: number, seconds: number): number {
  return seconds > 0 ? count / seconds : 0;
}
