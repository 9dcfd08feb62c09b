/** `reelflow sink`: the sink that writes gold. */
import { Command } from 'commander';
import type { SinkMetrics } from '../sinks/metrics.ts';
import {
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
import { packageVersion } from './version.ts';

interface Flags extends CommonFlags {
  interval: number;
  once?: true;
  keep: number;
  memory: string;
  listen?: ListenAddress;
  push?: string;
}

export function sinkCommand(): Command {
  const command = new Command('sink')
    .description('compact deltas and names into Parquet snapshots until SIGTERM')
    .option('--interval <period>', 'time between two snapshots', durationOption, 60_000)
    .option('--once', 'read up to the ends of this moment, publish if something moved, and end')
    .option('--keep <n>', 'snapshots that stay', integerOption(1, 100_000), 10)
    .option(listenFlags, listenHelp, listenOption)
    .option('--push <url>', 's3://bucket/prefix that follows the gold folder')
    .option('--memory <size>', "DuckDB's limit", '1GB');
  return commonOptions(command).action(run);
}

async function run(flags: Flags): Promise<void> {
  const signal = stopSignal();
  const { broker, registry, names, places } = await openContext(flags, undefined, signal);
  const { runSink } = await import('../sinks/sink.ts');
  let isReady = false;
  let metrics: SinkMetrics | undefined;
  if (flags.listen !== undefined) {
    const [{ serveObservers }, { SinkMetrics }] = await Promise.all([
      import('./observe.ts'),
      import('../sinks/metrics.ts'),
    ]);
    metrics = new SinkMetrics(await serveObservers(flags.listen, () => ({ isHealthy: true, isReady })));
  }
  const report = await runSink({
    broker,
    registry,
    names,
    gold: places.gold,
    state: places.state,
    intervalMs: flags.interval,
    finish: finishSignal(flags.once === true),
    keep: flags.keep,
    ...(flags.push !== undefined && { pushTo: flags.push }),
    memoryLimit: flags.memory,
    reelflowVersion: packageVersion(),
    signal,
    ...(metrics !== undefined && { metrics }),
    onOpen: () => {
      isReady = true;
    },
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
