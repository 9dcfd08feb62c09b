/** The report of a replay as text for people. */
import type { ReplayCounts, ReplayReport, ReportedPlan } from '../producers/replay-report.ts';
import { counted } from '../runtime/counted.ts';
import { datasetNames } from '../topics/catalog.ts';
import { whole } from './figures.ts';
import { tableText, wholeColumn } from './table.ts';

/** The counts of a replay, as a table for people. */
export function replayText(report: ReplayReport): string {
  const lines: [string, ReplayCounts][] = datasetNames.flatMap((dataset) => {
    const counts = report.datasets[dataset];
    return counts === undefined ? [] : [[dataset, counts]];
  });
  const count = (head: string, value: (counts: ReplayCounts) => number, drop?: number) =>
    wholeColumn<[string, ReplayCounts]>(head, ([, counts]) => value(counts), drop);
  const table = tableText(
    [
      { head: 'dataset', cell: ([name]) => name },
      count('read', ({ read }) => read),
      ...(report.unchanged > 0 ? [count('unchanged', ({ unchanged }) => unchanged)] : []),
      count('produced', ({ produced }) => produced),
      count('rejected', ({ rejected }) => rejected),
      count('chunks', ({ chunks }) => chunks, 2),
      count('bytes', ({ bytes }) => bytes, 3),
      { head: 'seconds', align: 'right', drop: 1, cell: ([, { seconds }]) => seconds.toFixed(1) },
      count('records/s', ({ recordsPerSecond }) => recordsPerSecond),
    ],
    [...lines, ['total', report]],
  );
  const dropped = report.dropped ?? [];
  // A run's id begins with the time.
  const begin = report.runId?.replace(/Z-.*/, ' UTC').replace('T', ' ');
  const remarks = [
    dropped.length > 0 && `Dropped, with all rows: ${dropped.join(', ')}.`,
    report.wouldCreate !== undefined && `Topics to create: ${report.wouldCreate.join(', ')}.`,
    report.absent.length > 0 && `Absent: ${report.absent.join(', ')}.`,
    report.unchanged > 0 &&
      report.unchanged + report.rejected === report.read &&
      report.chunks === 0 &&
      dropped.length === 0 &&
      `Nothing changed: the topics already hold ${report.rejected > 0 ? 'the valid rows of this dump' : 'this dump'}.`,
    report.unfinished !== undefined && `Not finished: ${report.unfinished.join(', ')}.`,
    report.before !== undefined &&
      `Resumed the run that began ${begin}. Of the total, its earlier attempts read ${counted(report.before.read, 'row')} ` +
        `and produced ${whole(report.before.produced)}, in ${report.before.seconds.toFixed(1)} s.`,
    report.nothingToDo &&
      `Nothing to do: the run that began ${begin} is complete. Above are its counts. Leave --resume out to replay again.`,
    report.rejected > 0 && 'Rejected rows are in the dead-letter topic, with file, line and reason.',
  ];
  const plan = report.plan === undefined ? [] : [planText(report.plan)];
  // A dry run has a plan and no counts.
  const counts = lines.length === 0 && plan.length > 0 ? [] : [table];
  return [...plan, ...counts, ...remarks.filter((remark) => remark !== false)].join('\n');
}

/** Per dataset the groups and ids that a refresh sends or removes. */
function planText(plans: NonNullable<ReplayReport['plan']>): string {
  const lines = datasetNames.flatMap((dataset): [string, ReportedPlan][] => {
    const plan = plans[dataset];
    return plan === undefined ? [] : [[dataset, plan]];
  });
  const count = (head: string, value: (plan: ReportedPlan) => number, drop?: number) =>
    wholeColumn<[string, ReportedPlan]>(head, ([, plan]) => value(plan), drop);
  return tableText(
    [
      { head: 'plan', cell: ([name]) => name },
      count('rows', ({ rows }) => rows),
      count('changed\ngroups', ({ changed }) => changed.groups, 1),
      count('ids in changed\ngroups', ({ changed }) => changed.ids),
      count('new\ngroups', ({ new: fresh }) => fresh.groups, 2),
      count('new\nids', ({ new: fresh }) => fresh.ids),
      count('vanished\ngroups', ({ vanished }) => vanished.groups, 2),
      count('vanished\nids', ({ vanished }) => vanished.ids),
      count('unknown\ngroups', ({ unknown }) => unknown.groups, 1),
      count('refused\nrows', ({ refused }) => refused),
      { head: 'sent as', drop: 3, cell: ([, { isBase }]) => (isBase ? 'base' : 'changes') },
    ],
    lines,
  );
}
