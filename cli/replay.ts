/** `reelflow replay`: the producers. Results go to standard output, progress to standard error. */
import { Command, InvalidArgumentError } from 'commander';
import type { ReplayProgress } from '../producers/file-replay.ts';
import { checkRejections, defaultMaxRejected } from '../producers/rejection-limit.ts';
import type { ReplayOptions } from '../producers/replay.ts';
import type { ReplayReport } from '../producers/replay-report.ts';
import { counted } from '../runtime/counted.ts';
import { exitCodes, ReelflowError } from '../runtime/errors.ts';
import type { Logger } from '../runtime/logger.ts';
import type { DatasetName } from '../topics/catalog.ts';
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
import { replayText } from './replay-text.ts';
import { openStage, type StageFlags } from './stage.ts';
import { endInterrupted } from './stop.ts';

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
    endInterrupted('. Run the same command with --resume to continue.');
    return;
  }
  checkRejections(report.datasets, maxRejected);
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
