/** `reelflow replay`: the producers. Results go to standard output, progress to standard error. */
import { Command, InvalidArgumentError } from 'commander';
import type { ReplayProgress } from '../producers/file-replay.ts';
import { checkRejections, defaultMaxRejected } from '../producers/rejection-limit.ts';
import type { ReplayOptions } from '../producers/replay.ts';
import type { ReplayCounts, ReplayReport, ReportedPlan } from '../producers/replay-report.ts';
import { counted } from '../runtime/counted.ts';
import { exitCodes, ReelflowError } from '../runtime/errors.ts';
import type { Logger } from '../runtime/logger.ts';
import { type DatasetName, datasetNames } from '../topics/catalog.ts';
import { whole } from './figures.ts';
import {
  commonOptions,
  datasetsOption,
  integerIn,
  maxRemovedOption,
  observersOption,
  percent,
} from './options.ts';
import { print } from './output.ts';
import { openProgress, type Progress } from './progress.ts';
import { openStage, type StageFlags } from './stage.ts';
import { stoppedExitCode } from './stop.ts';
import { tableText } from './table.ts';

interface Flags extends StageFlags {
  datasets?: DatasetName[];
  maxRejected?: number;
  rate?: number;
  resume?: true;
  shards?: number;
  upsert?: true;
  full?: true;
  dryRun?: true;
  maxRemoved?: number;
  baseAbove?: number;
  allowOlder?: true;
  drop?: DatasetName[];
}

export function replayCommand(): Command {
  const command = new Command('replay')
    .description('make the topics hold exactly these IMDb datasets: send what changed, remove what is gone')
    .argument('<inputs...>', 'a directory, or files named <dataset>.tsv or <dataset>.tsv.gz')
    .addOption(datasetsOption())
    .option('--rate <records>', 'limit of records per second', integerIn(1))
    .addOption(observersOption())
    .option(
      '--max-rejected <percent>',
      `exit with code ${exitCodes.rowsRejected} if more of a dataset's rows are rejected; default ${defaultMaxRejected}`,
      percent,
    )
    .option('--resume', 'continue where the last run of the same inputs broke off')
    .option(
      '--shards <n>',
      'partition count of the topics; default the count of existing ones, else 4',
      integerIn(1, 1_000),
    )
    .option('--upsert', 'add and replace rows, remove none: for files that are not a whole dump')
    .option('--full', 'send every row, also of what did not change')
    .option('--dry-run', 'print the plan, and change nothing')
    .addOption(maxRemovedOption())
    .option(
      '--base-above <times>',
      'send a dataset whole, as a base, if its topic holds more than so many times its records; default 2',
      times,
    )
    .option('--allow-older', 'accept a dump that is older than the topics')
    .addOption(datasetsOption('--drop <list>', 'remove all rows of datasets that the dump lacks'));
  return commonOptions(command).action(run);
}

function times(text: string): number {
  const value = Number(text);
  if (text.trim() === '' || !(value >= 1 && value <= 1_000_000)) {
    throw new InvalidArgumentError('Use a number of at least 1.');
  }
  return value;
}

/** @throws ReelflowError usage */
function modeOptions(flags: Flags): Partial<ReplayOptions> {
  const { upsert, full, dryRun, maxRemoved, baseAbove, allowOlder, drop } = flags;
  const own = { full, dryRun, maxRemoved, baseAbove, allowOlder, drop };
  const given = Object.entries(own).filter(([, value]) => value !== undefined);
  if (upsert === undefined) return { mode: 'refresh', ...Object.fromEntries(given) };
  if (given.length === 0) return { mode: 'upsert' };
  throw new ReelflowError('usage', 'These options exclude each other', {
    detail:
      'With --upsert nothing is compared or removed: --full, --dry-run, --max-removed, --base-above, --allow-older and --drop have no meaning.',
    hint: 'Leave --upsert out, or the other options.',
  });
}

async function run(inputs: string[], flags: Flags): Promise<void> {
  const mode = modeOptions(flags);
  const { broker, registry, names, places, logger, signal, stopped, observed } = await openStage(
    'replay',
    flags,
    () => ({ isHealthy: true, isReady: true }),
    async (metrics) => new (await import('../producers/replay-metrics.ts')).ReplayMetrics(metrics),
  );
  const { replay } = await import('../producers/replay.ts');
  const { datasets, rate, shards, maxRejected } = flags;
  const { metrics } = observed;
  const progress = await replayProgress(logger);
  const printReport = (report: ReplayReport) =>
    print(flags.json === true ? JSON.stringify(report) : replayText(report));
  let report: ReplayReport;
  let refused: ReplayReport | undefined;
  try {
    report = await replay({
      broker,
      registry,
      names,
      inputs,
      ...(datasets !== undefined && { datasets }),
      ...(shards !== undefined && { shards }),
      ...(rate !== undefined && { rate }),
      ...mode,
      ...(maxRejected !== undefined && { maxRejected }),
      resume: flags.resume === true,
      state: places.state,
      logger,
      onProgress: (now) => {
        progress.show(now);
        if (now.pass === 'send') metrics?.progress(now);
      },
      onRejected: (reason) => metrics?.rejected(reason),
      onRefused: (counted) => {
        refused = counted;
      },
      signal,
    });
  } finally {
    progress.end();
    if (refused !== undefined) printReport(refused);
  }
  stopped();
  printReport(report);
  if (report.interrupted) {
    process.stderr.write('Interrupted. Run the same command with --resume to continue.\n');
    process.exitCode = stoppedExitCode();
    return;
  }
  checkRejections(report.datasets, maxRejected);
}

/** The counts of a replay, as a table for people. */
export function replayText(report: ReplayReport): string {
  const lines: [string, ReplayCounts][] = datasetNames.flatMap((dataset) => {
    const counts = report.datasets[dataset];
    return counts === undefined ? [] : [[dataset, counts]];
  });
  const count = (head: string, of: (counts: ReplayCounts) => number, drop = 0) =>
    ({
      head,
      align: 'right',
      drop,
      cell: ([, counts]: [string, ReplayCounts]) => whole(of(counts)),
    }) as const;
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
  const count = (head: string, of: (plan: ReportedPlan) => number, drop = 0) =>
    ({ head, align: 'right', drop, cell: ([, plan]: [string, ReportedPlan]) => whole(of(plan)) }) as const;
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

/** One bar per file, by its bytes. */
export function replayProgress(logger: Logger): Promise<Progress<ReplayProgress>> {
  return openProgress(
    ({ dataset, pass, bytesRead, bytesTotal, read, rejected }) => ({
      // Both passes share the bar of their dataset: the second one fills it again.
      name: dataset,
      done: bytesRead,
      total: bytesTotal,
      text:
        pass === 'compare'
          ? 'compared with the topics'
          : `${counted(read, 'record')}${rejected > 0 ? `, ${whole(rejected)} rejected` : ''}`,
    }),
    (now) => logger.info(now, 'replaying'),
  );
}
