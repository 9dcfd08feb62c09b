/** `reelflow refresh`: the daily job. Downloads the dumps that have changed, then makes the topics hold exactly these. */
import { Command } from 'commander';
import type { DownloadedFile } from '../producers/download/download.ts';
import type { ReplayReport } from '../producers/replay-report.ts';
import { counted } from '../runtime/counted.ts';
import { filled, terminalWidth } from '../runtime/terminal.ts';
import type { DatasetName } from '../topics/catalog.ts';
import { downloadProgress, fromOption } from './download.ts';
import {
  type CommonFlags,
  commonOptions,
  datasetsOption,
  integerIn,
  maxRemovedOption,
  percent,
} from './options.ts';
import { print, printJson } from './output.ts';
import { replayProgress } from './replay.ts';
import { openStage } from './stage.ts';
import { endInterrupted } from './stop.ts';

interface Flags extends CommonFlags {
  dir: string;
  datasets?: DatasetName[];
  from?: string;
  maxRejected?: number;
  maxRemoved?: number;
  shards?: number;
}

export function refreshCommand(): Command {
  const command = new Command('refresh')
    .description('download the IMDb dumps that have changed, then make the topics hold exactly them')
    .requiredOption('--dir <dir>', 'folder of the dumps')
    .addOption(datasetsOption())
    .addOption(fromOption())
    .option('--max-rejected <percent>', "fail if more of a dataset's rows are rejected; default 1", percent)
    .addOption(maxRemovedOption())
    .option('--shards <n>', 'partition count of topics that do not exist yet', integerIn(1, 1_000));
  return commonOptions(command).action(run);
}

async function run(flags: Flags): Promise<void> {
  const { dir, datasets, from, maxRejected, maxRemoved, shards } = flags;
  const { broker, registry, names, places, logger, signal, stopped } = await openStage(
    'replay',
    flags,
    () => ({ isHealthy: true, isReady: true }),
    async () => undefined,
  );
  const [{ download, licence }, { replay }, { checkRejections }] = await Promise.all([
    import('../producers/download/download.ts'),
    import('../producers/replay.ts'),
    import('../producers/rejection-limit.ts'),
  ]);
  process.stderr.write(`${filled(licence, terminalWidth(process.stderr))}\n\n`);
  const startedMs = performance.now();
  const only = datasets !== undefined && { datasets };
  const downloading = await downloadProgress();
  const files = await download({
    out: dir,
    ...only,
    ...(from !== undefined && { from }),
    onProgress: downloading.show,
    signal,
  }).finally(downloading.end);
  const progress = await replayProgress(logger);
  // Also if no file is new: an earlier run may have ended between download and replay.
  const report = await replay({
    broker,
    registry,
    names,
    inputs: [dir],
    ...only,
    mode: 'refresh',
    ...(maxRemoved !== undefined && { maxRemoved }),
    ...(maxRejected !== undefined && { maxRejected }),
    ...(shards !== undefined && { shards }),
    state: places.state,
    logger,
    onProgress: progress.show,
    signal,
  }).finally(progress.end);
  const seconds = (performance.now() - startedMs) / 1000;
  stopped();
  if (flags.json) printJson({ dir, seconds, files, replay: report });
  else print(refreshText(dir, files, report, seconds));
  if (report.interrupted) {
    endInterrupted('. Run the same command again to continue.');
    return;
  }
  checkRejections(report.datasets, maxRejected);
}

/** One line: what was new, what was sent. */
function refreshText(
  dir: string,
  files: readonly Pick<DownloadedFile, 'outcome'>[],
  { produced, rejected, plan = {} }: Pick<ReplayReport, 'produced' | 'rejected' | 'plan'>,
  seconds: number,
): string {
  const fresh = files.filter(({ outcome }) => outcome !== 'complete').length;
  const vanished = Object.values(plan).reduce((sum, { vanished: { ids } }) => sum + ids, 0);
  const done =
    produced + vanished + rejected === 0
      ? 'nothing changed'
      : `${counted(produced, 'row')} sent, ${counted(vanished, 'id')} removed, ${counted(rejected, 'row')} rejected`;
  return `${dir}: ${fresh} of ${counted(files.length, 'file')} downloaded; ${done}; ${seconds.toFixed(1)} s`;
}
