/** `reelflow process`: one processor member. */
import { Command } from 'commander';
import type { ProcessorMetrics } from '../processors/processor-metrics.ts';
import {
  bytesOption,
  type CommonFlags,
  commonOptions,
  durationOption,
  finishSignal,
  integerOption,
  type ListenAddress,
  listenFlags,
  listenHelp,
  listenOption,
  openContext,
  stopSignal,
} from './context.ts';
import type { HealthView } from './observe.ts';

interface Flags extends CommonFlags {
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
  listen?: ListenAddress;
}

export function processCommand(): Command {
  const command = new Command('process')
    .description('run one processor member until SIGTERM')
    .option(
      '--window <period>',
      'period of the tumbling window that closes a micro-batch',
      durationOption,
      1_000,
    )
    .option('--max-records <n>', 'records that close a micro-batch', integerOption(1), 1_000_000)
    .option('--max-bytes <size>', 'bytes of chunks that close a micro-batch', bytesOption, 64_000_000)
    .option(
      '--until-caught-up',
      'end when the end offsets of this moment are applied, published and mirrored',
    )
    .option('--accept-loss', 'go on from a log that has lost messages which were never applied')
    .option(
      '--skip-batch <position>',
      'topic:partition:offset of a batch that cannot be decoded; may be given again',
      collect,
      [],
    )
    .option(
      '--stuck-after <period>',
      'end when a shard stands still for so long while its log does not',
      durationOption,
      60_000,
    )
    .option('--backups <dir>', 'folder for backups of the shards, which members may share')
    .option('--backup-interval <period>', 'time between two backups of a shard', durationOption, 300_000)
    .option(listenFlags, listenHelp, listenOption)
    .option('--memory <size>', "DuckDB's limit for all shards of this member", '1GB')
    .option('--shards <n>', 'partition count, when the topics do not exist yet', integerOption(1, 1_000), 4);
  return commonOptions(command).action(run);
}

const collect = (text: string, before: string[]) => [...before, text];

async function run(flags: Flags): Promise<void> {
  const signal = stopSignal();
  const { broker, registry, names, places } = await openContext(flags, undefined, signal);
  const { runProcessor } = await import('../processors/processor.ts');
  let health = (): HealthView => ({ isHealthy: true, isReady: false });
  let metrics: ProcessorMetrics | undefined;
  if (flags.listen !== undefined) {
    const [{ serveObservers }, { ProcessorMetrics }] = await Promise.all([
      import('./observe.ts'),
      import('../processors/processor-metrics.ts'),
    ]);
    metrics = new ProcessorMetrics(await serveObservers(flags.listen, () => health()));
  }
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
    stuckAfterMs: flags.stuckAfter,
    skipBatches: flags.skipBatch,
    backups:
      flags.backups === undefined ? undefined : { folder: flags.backups, everyMs: flags.backupInterval },
    signal,
    ...(metrics !== undefined && { metrics }),
    onHealth: (ask) => {
      health = ask;
    },
  });
  if (flags.json) process.stdout.write(`${JSON.stringify(report)}\n`);
}
