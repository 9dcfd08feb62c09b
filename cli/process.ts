/** `reelflow process`: one processor member. */
import { Command } from 'commander';
import {
  bytesOption,
  type CommonFlags,
  commonOptions,
  durationOption,
  finishSignal,
  integerOption,
  openContext,
  stopSignal,
} from './context.ts';

interface Flags extends CommonFlags {
  window: number;
  maxRecords: number;
  maxBytes: number;
  memory: string;
  shards: number;
  untilCaughtUp?: true;
  acceptLoss?: true;
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
    .option('--memory <size>', "DuckDB's limit for all shards of this member", '1GB')
    .option('--shards <n>', 'partition count, when the topics do not exist yet', integerOption(1, 1_000), 4);
  return commonOptions(command).action(run);
}

async function run(flags: Flags): Promise<void> {
  const { broker, registry, names, places } = await openContext(flags);
  const { runProcessor } = await import('../processors/processor.ts');
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
    signal: stopSignal(),
  });
  if (flags.json) process.stdout.write(`${JSON.stringify(report)}\n`);
}
