/** `reelflow replay`: the producers. Results go to standard output, progress to standard error. */
import { Command } from 'commander';
import type { ReplayProgress } from '../producers/file-replay.ts';
import type { ReplayCounts, ReplayReport } from '../producers/replay-report.ts';
import type { Logger } from '../runtime/logger.ts';
import { type DatasetName, datasetNames } from '../topics/catalog.ts';
import { whole } from './figures.ts';
import { commonOptions, datasetsOption, integerIn, listenOption, observersHelp } from './options.ts';
import { print } from './output.ts';
import { openProgress, type Progress } from './progress.ts';
import { openStage, type StageFlags } from './stage.ts';
import { stoppedExitCode } from './stop.ts';
import { tableText } from './table.ts';

interface Flags extends StageFlags {
  datasets?: DatasetName[];
  rate?: number;
  resume?: true;
  shards?: number;
}

export function replayCommand(): Command {
  const command = new Command('replay')
    .description('send a directory of IMDb datasets, or single files, to Kafka')
    .argument('<inputs...>', 'a directory, or files named <dataset>.tsv or <dataset>.tsv.gz')
    .addOption(datasetsOption())
    .option('--rate <records>', 'limit of records per second', integerIn(1))
    .addOption(listenOption(observersHelp))
    .option('--resume', 'continue where the last run of the same inputs broke off')
    .option(
      '--shards <n>',
      'partition count of the topics; default the count of existing ones, else 4',
      integerIn(1, 1_000),
    );
  return commonOptions(command).action(run);
}

async function run(inputs: string[], flags: Flags): Promise<void> {
  const { broker, registry, names, places, logger, signal, stopped, observed } = await openStage(
    'replay',
    flags,
    () => ({ isHealthy: true, isReady: true }),
    async (metrics) => new (await import('../producers/replay-metrics.ts')).ReplayMetrics(metrics),
  );
  const { replay } = await import('../producers/replay.ts');
  const { datasets, rate, shards } = flags;
  const { metrics } = observed;
  const progress = await replayProgress(logger);
  let report: ReplayReport;
  try {
    report = await replay({
      broker,
      registry,
      names,
      inputs,
      ...(datasets !== undefined && { datasets }),
      ...(shards !== undefined && { shards }),
      ...(rate !== undefined && { rate }),
      resume: flags.resume === true,
      state: places.state,
      logger,
      onProgress: (now) => {
        progress.show(now);
        metrics?.progress(now);
      },
      onRejected: (reason) => metrics?.rejected(reason),
      signal,
    });
  } finally {
    progress.end();
  }
  stopped();
  print(flags.json === true ? JSON.stringify(report) : replayText(report));
  if (report.interrupted) {
    process.stderr.write('Interrupted. Run the same command with --resume to continue.\n');
    process.exitCode = stoppedExitCode();
  }
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
      count('produced', ({ produced }) => produced),
      count('rejected', ({ rejected }) => rejected),
      count('chunks', ({ chunks }) => chunks, 2),
      count('bytes', ({ bytes }) => bytes, 3),
      { head: 'seconds', align: 'right', drop: 1, cell: ([, { seconds }]) => seconds.toFixed(1) },
      count('records/s', ({ recordsPerSecond }) => recordsPerSecond),
    ],
    [...lines, ['total', report]],
  );
  const remarks = [
    report.absent.length > 0 && `Absent: ${report.absent.join(', ')}.`,
    report.nothingToDo && 'Nothing to do: the last run was complete.',
    report.rejected > 0 && 'Rejected rows are in the dead-letter topic, with file, line and reason.',
  ];
  return [table, ...remarks.filter((remark) => remark !== false)].join('\n');
}

/** One bar per file, by its bytes. */
export function replayProgress(logger: Logger): Promise<Progress<ReplayProgress>> {
  return openProgress(
    ({ dataset, bytesRead, bytesTotal, read, rejected }) => ({
      name: dataset,
      done: bytesRead,
      total: bytesTotal,
      text: `${whole(read)} records${rejected > 0 ? `, ${whole(rejected)} rejected` : ''}`,
    }),
    (now) => logger.info(now, 'replaying'),
  );
}
