/** `reelflow process`: one processor member. */
import { resolve } from 'node:path';
import { Command } from 'commander';
import { declarationsOf } from './declared.ts';
import type { HealthView } from './observe.ts';
import {
  commonOptions,
  integerIn,
  memoryOption,
  observersOption,
  periodOption,
  severalOption,
  sizeOption,
  type TablesFlags,
  tablesOptions,
} from './options.ts';
import { printJson } from './output.ts';
import { caughtUpMessage, finishSignal, flushMessage, openStage, type StageFlags } from './stage.ts';
import { endInterrupted } from './stop.ts';

interface Flags extends StageFlags, TablesFlags {
  window: number;
  maxRecords: number;
  maxBytes: number;
  memory: string;
  shards: number;
  untilCaughtUp?: true;
  acceptLoss?: true;
  stuckAfter: number;
  skipBatch: string[];
  backups?: string;
  backupInterval: number;
}

export function processCommand(): Command {
  const command = new Command('process')
    .description('run one processor member until SIGTERM')
    .addOption(periodOption('--window <period>', 'close a micro-batch after this period', '1s'))
    .option('--max-records <n>', 'close a micro-batch after this many records', integerIn(1), 1_000_000)
    .addOption(
      sizeOption('--max-bytes <size>', 'close a micro-batch after this many bytes of chunks', '64MB'),
    )
    .option(
      '--until-caught-up',
      'end when everything up to the present end offsets is applied, published and committed',
    )
    .option('--accept-loss', 'continue on a log that lost messages before they were applied')
    .addOption(
      severalOption('--skip-batch <topic:partition:offset>', 'skip a batch that cannot be decoded', 'none'),
    )
    .addOption(
      periodOption('--stuck-after <period>', 'end when a shard makes no progress for this long', '60s'),
    )
    .option('--backups <dir>', 'write backups of the shards to this folder, which members may share')
    .addOption(periodOption('--backup-interval <period>', 'time between two backups of a shard', '5m'))
    .addOption(observersOption())
    .addOption(memoryOption("limit of DuckDB's memory for all shards of this member"))
    .option('--shards <n>', 'partition count of topics that do not exist yet', integerIn(1, 1_000), 4);
  return commonOptions(tablesOptions(command)).action(run);
}

async function run(flags: Flags): Promise<void> {
  const { cubes } = await declarationsOf(flags);
  let health = (): HealthView => ({ isHealthy: true, isReady: false });
  const { broker, registry, names, places, signal, stopped, observed } = await openStage(
    'process',
    flags,
    () => health(),
    async (metrics) => new (await import('../processors/processor-metrics.ts')).ProcessorMetrics(metrics),
  );
  const { runProcessor } = await import('../processors/processor.ts');
  let hasCaughtUp = false;
  const report = await runProcessor({
    broker,
    registry,
    names,
    state: places.state,
    window: { periodMs: flags.window, recordsMax: flags.maxRecords, bytesMax: flags.maxBytes },
    finish: finishSignal(flags.untilCaughtUp === true),
    acceptLoss: flags.acceptLoss === true,
    memoryLimit: flags.memory,
    shards: flags.shards,
    cubeSet: cubes,
    stuckAfterMs: flags.stuckAfter,
    skipBatches: flags.skipBatch,
    backups:
      flags.backups === undefined
        ? undefined
        : { folder: resolve(flags.backups), everyMs: flags.backupInterval },
    signal,
    ...observed,
    onCaughtUp: () => {
      hasCaughtUp = true;
      process.send?.(caughtUpMessage);
    },
    onStarted: (flush) => {
      process.on('message', (message) => {
        if (message === flushMessage) flush();
      });
    },
    onHealth: (ask) => {
      health = ask;
    },
  });
  stopped();
  if (flags.json) printJson(report);
  if (flags.untilCaughtUp && !hasCaughtUp) endInterrupted(': the shards have not caught up.');
}
