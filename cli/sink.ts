/** `reelflow sink`: the sink that writes gold. */
import { Command } from 'commander';
import {
  type CommonFlags,
  commonOptions,
  durationOption,
  finishSignal,
  integerOption,
  openContext,
  stopSignal,
} from './context.ts';
import { packageVersion } from './version.ts';

interface Flags extends CommonFlags {
  interval: number;
  once?: true;
  keep: number;
  memory: string;
}

export function sinkCommand(): Command {
  const command = new Command('sink')
    .description('compact deltas and names into Parquet snapshots until SIGTERM')
    .option('--interval <period>', 'time between two snapshots', durationOption, 60_000)
    .option('--once', 'read up to the ends of this moment, publish if something moved, and end')
    .option('--keep <n>', 'snapshots that stay', integerOption(1, 100_000), 10)
    .option('--memory <size>', "DuckDB's limit", '1GB');
  return commonOptions(command).action(run);
}

async function run(flags: Flags): Promise<void> {
  const signal = stopSignal();
  const { broker, registry, names, places } = await openContext(flags, undefined, signal);
  const { runSink } = await import('../sinks/sink.ts');
  const report = await runSink({
    broker,
    registry,
    names,
    gold: places.gold,
    state: places.state,
    intervalMs: flags.interval,
    finish: finishSignal(flags.once === true),
    keep: flags.keep,
    memoryLimit: flags.memory,
    reelflowVersion: packageVersion(),
    signal,
  });
  if (flags.json) process.stdout.write(`${JSON.stringify(report)}\n`);
  else if (flags.once) {
    process.stdout.write(
      report.snapshot === null
        ? 'Nothing has moved: no snapshot.\n'
        : `Snapshot ${report.snapshot} in ${places.gold}\n`,
    );
  }
}
