/** `reelflow sink`: the sink that writes gold. */
import { Command, Option } from 'commander';
import { counted } from '../runtime/counted.ts';
import { ReelflowError } from '../runtime/errors.ts';
import { packageVersion } from '../runtime/package.ts';
import type { LakePlace } from '../sinks/gold/lake.ts';
import type { TrimMode } from '../sinks/source-trim.ts';
import { declarationsOf } from './declared.ts';
import type { HealthView } from './observe.ts';
import {
  commonOptions,
  integerIn,
  type KeepFlags,
  keepOf,
  keepOptions,
  memoryOption,
  observersOption,
  periodOption,
  type TablesFlags,
  tablesOptions,
} from './options.ts';
import { printFilled, printJson } from './output.ts';
import { finishSignal, openStage, publishedMessage, type StageFlags } from './stage.ts';
import { endInterrupted } from './stop.ts';

interface Flags extends StageFlags, TablesFlags, KeepFlags {
  interval: number;
  once?: true;
  memory: string;
  push?: string;
  history?: number;
  acceptLoss?: true;
  lake?: string;
  trim: TrimMode;
}

export function sinkCommand(): Command {
  const command = new Command('sink')
    .description('fold deltas and names into Parquet snapshots until SIGTERM')
    .addOption(periodOption('--interval <period>', 'time between two snapshots', '60s'))
    .option('--once', 'read up to the present end offsets, publish a snapshot if something changed, and end')
    .option('--keep <n>', 'number of newest snapshots to keep', integerIn(1, 100_000), 10)
    .option(
      '--history <days>',
      'days of rating history to keep; default those of the gold folder, else 400',
      integerIn(0, 100_000),
    )
    .option('--accept-loss', 'change the length of the history, also where that loses days')
    .addOption(observersOption())
    .option('--push <url>', 'push every snapshot to this bucket, given as s3://bucket/prefix')
    .option('--lake <url>', 'show every snapshot in this lake, given as ducklake:FILE or iceberg:DIR')
    .addOption(
      new Option(
        '--trim <mode>',
        'messages that a base has replaced: delete them, only report them, or keep them',
      )
        .choices(['delete', 'report', 'off'] satisfies TrimMode[])
        .default('delete'),
    )
    .addOption(memoryOption("limit of DuckDB's memory"));
  keepOptions(command);
  return commonOptions(tablesOptions(command)).action(run);
}

async function run(flags: Flags): Promise<void> {
  const declarations = await declarationsOf(flags);
  const lake = await lakeOf(flags);

  // An unusable bucket ends the command now, not after the first snapshot.
  if (flags.push !== undefined) (await import('../sinks/gold/bucket.ts')).bucketPlaceOf(flags.push);
  let health = (): HealthView => ({ isHealthy: true, isReady: false });
  const { broker, registry, names, places, signal, stopped, observed } = await openStage(
    'sink',
    flags,
    () => health(),
    async (metrics) => new (await import('../sinks/sink-metrics.ts')).SinkMetrics(metrics),
  );
  const [{ runSink }, { outageDetail }] = await Promise.all([
    import('../sinks/sink.ts'),
    import('../kafka/outage.ts'),
  ]);
  const report = await runSink({
    broker,
    registry,
    names,
    gold: places.gold,
    state: places.state,
    intervalMs: flags.interval,
    finish: finishSignal(flags.once === true),
    keep: keepOf(flags),
    ...(flags.history !== undefined && { historyDays: flags.history }),
    acceptLoss: flags.acceptLoss === true,
    trim: flags.trim,
    ...(flags.push !== undefined && { pushTo: flags.push }),
    ...(lake !== undefined && { lake }),
    memoryLimit: flags.memory,
    reelflowVersion: packageVersion(),
    declarations,
    signal,
    ...observed,
    onSnapshot: () => process.send?.(publishedMessage),
    onOpen: () => {
      health = () => {
        const detail = outageDetail({ broker: broker.outages.current, registry: registry.outage });
        return { isHealthy: true, isReady: detail === '', detail };
      };
    },
  });
  stopped();
  const { snapshot } = report;
  if (flags.json) printJson(report);
  if (flags.once && signal.aborted) {
    endInterrupted(
      snapshot === null ? ': no snapshot.' : ` after snapshot ${snapshot}. Run the same command again.`,
    );
    return;
  }
  if (flags.once && !flags.json) {
    printFilled(
      snapshot === null ? 'Nothing changed: no snapshot.' : `Snapshot ${snapshot} in ${places.gold}`,
    );
    if (report.deleted > 0) {
      const what = flags.trim === 'report' ? 'could be deleted' : 'deleted';
      printFilled(`${counted(report.deleted, 'message')} of source topics ${what}: a base replaces them.`);
    }
  }
}

/** @throws ReelflowError usage */
async function lakeOf({ lake, push }: Flags): Promise<LakePlace | undefined> {
  if (lake === undefined) return undefined;
  const place = (await import('../sinks/gold/lake.ts')).lakePlaceOf(lake);
  if (place.kind !== 'object' || push !== undefined) return place;
  throw new ReelflowError('usage', 'A lake in a bucket shows the snapshots of a bucket', {
    detail: `--lake ${lake} without --push.`,
    hint: 'Add --push s3://bucket/prefix, or write the lake to a file.',
  });
}
