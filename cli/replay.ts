/**
 * `reelflow replay`: the producers. Results go to standard output, progress to standard error: bars on a terminal, log
 * lines elsewhere.
 */
import { Command, InvalidArgumentError } from 'commander';
import type { ReplayProgress } from '../producers/file-replay.ts';
import type { ReplayMetrics } from '../producers/replay-metrics.ts';
import type { ReplayCounts, ReplayReport } from '../producers/replay-report.ts';
import type { Logger } from '../runtime/logger.ts';
import { type DatasetName, datasetNames } from '../topics/catalog.ts';
import {
  type CommonFlags,
  commonOptions,
  integerOption,
  type ListenAddress,
  listenFlags,
  listenHelp,
  listenOption,
  openContext,
  stopSignal,
} from './context.ts';

interface Flags extends CommonFlags {
  datasets?: DatasetName[];
  rate?: number;
  resume?: true;
  shards?: number;
  listen?: ListenAddress;
}

/** As a shell reports a program that a signal ended. */
const signalExitCodes: Readonly<Record<string, number>> = { SIGINT: 130, SIGTERM: 143 };
const logEveryMs = 5_000;

export function replayCommand(): Command {
  const command = new Command('replay')
    .description('replay a directory of IMDb datasets, or single files, into Kafka')
    .argument('<inputs...>', 'a directory, or files named <dataset>.tsv or <dataset>.tsv.gz')
    .option('--datasets <list>', `only these, separated by commas: ${datasetNames.join(', ')}`, datasetList)
    .option('--rate <records>', 'at most so many records per second', integerOption(1))
    .option(listenFlags, listenHelp, listenOption)
    .option('--resume', 'go on where the last run of the same inputs broke off')
    .option(
      '--shards <n>',
      'partition count of the topics; default that of the existing ones, else 4',
      integerOption(1, 1_000),
    );
  return commonOptions(command).action(run);
}

function datasetList(text: string): DatasetName[] {
  const names = text.split(',').map((name) => name.trim());
  const unknown = names.filter((name) => !datasetNames.includes(name as DatasetName));
  if (unknown.length > 0) throw new InvalidArgumentError(`No dataset is called ${unknown.join(', ')}.`);
  return names as DatasetName[];
}

async function run(inputs: string[], flags: Flags): Promise<void> {
  const { broker, registry, names, places, logger } = await openContext(flags);
  const { replay } = await import('../producers/replay.ts');
  const { datasets, rate, shards } = flags;
  const signal = stopSignal();
  let metrics: ReplayMetrics | undefined;
  if (flags.listen !== undefined) {
    const [{ serveObservers }, { ReplayMetrics }] = await Promise.all([
      import('./observe.ts'),
      import('../producers/replay-metrics.ts'),
    ]);
    const health = () => ({ isHealthy: true, isReady: true });
    metrics = new ReplayMetrics(await serveObservers(flags.listen, health));
  }
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
  process.stdout.write(`${flags.json === true ? JSON.stringify(report) : await replayText(report)}\n`);
  if (report.interrupted) {
    process.stderr.write('Interrupted. The same command with --resume goes on from here.\n');
    process.exitCode = signalExitCodes[String(signal.reason)] ?? 1;
  }
}

/** What a replay did, as a table for people. */
export async function replayText(report: ReplayReport): Promise<string> {
  const { default: Table } = await import('cli-table3');
  const table = new Table({
    head: ['dataset', 'read', 'produced', 'rejected', 'chunks', 'bytes', 'seconds', 'records/s'],
    colAligns: ['left', 'right', 'right', 'right', 'right', 'right', 'right', 'right'],
    style: { head: [], border: [] },
  });
  for (const dataset of datasetNames) {
    const counts = report.datasets[dataset];
    if (counts !== undefined) table.push([dataset, ...cells(counts)]);
  }
  table.push(['total', ...cells(report)]);
  const remarks = [
    report.absent.length > 0 && `Absent: ${report.absent.join(', ')}.`,
    report.nothingToDo && 'Nothing to do: the last run was finished.',
    report.rejected > 0 && 'Rejected rows are in the dead-letter topic, with file, line and reason.',
  ];
  return [table.toString(), ...remarks.filter((remark) => remark !== false)].join('\n');
}

function cells({
  read,
  produced,
  rejected,
  chunks,
  bytes,
  seconds,
  recordsPerSecond,
}: ReplayCounts): string[] {
  const whole = (value: number) => Math.round(value).toLocaleString('en-US');
  const counts = [read, produced, rejected, chunks, bytes].map(whole);
  return [...counts, seconds.toFixed(1), whole(recordsPerSecond)];
}

export interface ProgressView {
  show(progress: ReplayProgress): void;
  end(): void;
}

/** Bars on a terminal, log lines elsewhere. */
export async function replayProgress(logger: Logger): Promise<ProgressView> {
  return process.stderr.isTTY === true ? bars() : lines((now) => logger.info(now, 'replaying'));
}

/** One bar per file, by its bytes. */
async function bars(): Promise<ProgressView> {
  const { default: cliProgress } = await import('cli-progress');
  const all = new cliProgress.MultiBar({
    format: '{dataset} {bar} {percentage}%  {records} records{rejects}',
    barCompleteChar: '█',
    barIncompleteChar: '░',
    hideCursor: true,
    stream: process.stderr,
  });
  const started = new Map<DatasetName, ReturnType<typeof all.create>>();
  return {
    show({ dataset, bytesRead, bytesTotal, read, rejected }) {
      const payload = {
        dataset: dataset.padEnd(16),
        records: read.toLocaleString('en-US'),
        rejects: rejected > 0 ? `, ${rejected.toLocaleString('en-US')} rejected` : '',
      };
      const bar = started.get(dataset) ?? all.create(bytesTotal, 0, payload);
      started.set(dataset, bar);
      bar.update(bytesRead, payload);
    },
    end: () => all.stop(),
  };
}

function lines(log: (progress: ReplayProgress) => void): ProgressView {
  let last = performance.now();
  return {
    show(progress) {
      if (performance.now() - last < logEveryMs) return;
      last = performance.now();
      log(progress);
    },
    end: () => undefined,
  };
}
