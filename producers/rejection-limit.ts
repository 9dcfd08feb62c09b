/**
 * The limit of rejected rows. A file of another shape may lose all its rows and still be read to its end. Such a replay fails
 * after it has sent and accounted for everything else, because exit code 0 means success.
 */
import { counted } from '../runtime/counted.ts';
import { ReelflowError } from '../runtime/errors.ts';
import { type DatasetName, datasetNames } from '../topics/catalog.ts';
import type { RejectedRow } from './chunker.ts';
import type { Rejections } from './journal.ts';

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

const listHint =
  'Run `reelflow dlq list --limit 20` to list the rejected rows. To accept them, raise --max-rejected.';

/** What was sent when the rows were counted, and how to read the rejected ones. */
const stages = {
  planned: {
    sent: 'Nothing was sent.',
    hint: 'To send the valid rows and read the rejected ones with `reelflow dlq list --limit 20`, raise --max-rejected.',
  },
  hopeless: { sent: 'No row was valid so far: the rest of the file was not read.', hint: listHint },
  sent: { sent: 'The valid rows were sent.', hint: listHint },
} as const;

/**
 * @param maxRejected per cent of a dataset's rows
 * @throws ReelflowError rowsRejected, naming each dataset above the limit and its most frequent reasons
 */
export function checkRejections(
  counts: Partial<Record<DatasetName, RejectionCounts>>,
  maxRejected = defaultMaxRejected,
  stage: keyof typeof stages = 'sent',
): void {
  const above = datasetNames.flatMap((dataset) => {
    const own = counts[dataset];
    const isAbove = own !== undefined && own.rejected > (own.read * maxRejected) / 100;
    return isAbove ? [{ dataset, text: `${dataset}: ${rejectionText(own)}` }] : [];
  });
  if (above.length === 0) return;
  const names = above.map(({ dataset }) => dataset).join(', ');
  const { sent, hint } = stages[stage];
  throw new ReelflowError('rowsRejected', `More than ${maxRejected} % of the rows of ${names} are rejected`, {
    detail: [...above.map(({ text }) => text), sent].join('\n'),
    hint: `Correct the file and replay it again. ${hint}`,
  });
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
