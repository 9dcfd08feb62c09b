/**
 * The limit of rejected rows. A file of another shape may lose all its rows and still be read to its end; exit code 0
 * means that the job was done, so such a replay fails after it has sent and accounted for everything else.
 */
import { counted } from '../runtime/counted.ts';
import { ReelflowError } from '../runtime/errors.ts';
import { type DatasetName, datasetNames } from '../topics/catalog.ts';
import type { RejectedRow } from './chunker.ts';
import type { Rejections } from './journal.ts';
import type { ReplayReport } from './replay-report.ts';

/** Per cent of a dataset's rows. */
export const defaultMaxRejected = 1;
/** A file whose first rows are all rejected is not read any further. */
export const hopelessRows = 10_000;

const reasonsMax = 3;

/** Counts a row under its reason, whose first row stays as the example. */
export function countRejection(rejections: Rejections, { reason, line, detail }: RejectedRow): void {
  rejections[reason] ??= { rows: 0, line, detail };
  rejections[reason].rows += 1;
}

interface RejectionCounts {
  readonly read: number;
  readonly rejected: number;
  readonly rejections: Rejections;
}

/** @throws ReelflowError rowsRejected, naming each dataset above the limit and its most frequent reasons */
export function checkRejections({ datasets }: ReplayReport, maxRejected = defaultMaxRejected): void {
  const above = aboveLimit(datasets, maxRejected);
  if (above.length > 0) throw tooManyRejected(above, maxRejected, 'The valid rows were sent.');
}

/** As above, of rows that would be rejected: nothing was sent yet. @throws ReelflowError rowsRejected */
export function checkPlannedRejections(
  counts: Partial<Record<DatasetName, RejectionCounts>>,
  maxRejected = defaultMaxRejected,
): void {
  const above = aboveLimit(counts, maxRejected);
  if (above.length === 0) return;
  throw tooManyRejected(
    above,
    maxRejected,
    'Nothing was sent.',
    'To send the valid rows and read the rejected ones with `reelflow dlq list --limit 20`, raise --max-rejected.',
  );
}

function aboveLimit(
  counts: Partial<Record<DatasetName, RejectionCounts>>,
  maxRejected: number,
): (readonly [DatasetName, RejectionCounts])[] {
  return datasetNames.flatMap((dataset) => {
    const own = counts[dataset];
    const isAbove = own !== undefined && own.rejected > (own.read * maxRejected) / 100;
    return isAbove ? [[dataset, own] as const] : [];
  });
}

/**
 * @param above the datasets above the limit
 * @param maxRejected percent of their rows
 * @param sent whether the other rows were sent
 * @param next how to read the rejected rows, which are dead letters by default
 */
export function tooManyRejected(
  above: readonly (readonly [DatasetName, RejectionCounts])[],
  maxRejected: number,
  sent: string,
  next = 'Run `reelflow dlq list --limit 20` to list the rejected rows. To accept them, raise --max-rejected.',
): ReelflowError {
  const names = above.map(([dataset]) => dataset).join(', ');
  return new ReelflowError(
    'rowsRejected',
    `More than ${maxRejected} % of the rows of ${names} are rejected`,
    {
      detail: [...above.map(([dataset, counts]) => `${dataset}: ${rejectionText(counts)}`), sent].join('\n'),
      hint: `Correct the file and replay it again. ${next}`,
    },
  );
}

function rejectionText({ read, rejected, rejections }: RejectionCounts): string {
  const frequent = Object.entries(rejections)
    .sort(([, a], [, b]) => b.rows - a.rows)
    .slice(0, reasonsMax)
    .map(
      ([reason, { rows, line, detail }]) =>
        `${reason} ${counted(rows, 'time')}, first at line ${line}: ${detail}`,
    );
  return [`${rejected.toLocaleString('en-US')} of ${counted(read, 'row')} rejected`, ...frequent].join('; ');
}
