/** `reelflow reset`: starts a new generation. */
import { Command } from 'commander';
import { counted } from '../runtime/counted.ts';
import { openContext } from './context.ts';
import { type CommonFlags, commonOptions } from './options.ts';
import { printFilled, printJson } from './output.ts';

interface Flags extends CommonFlags {
  dryRun?: true;
}

export function resetCommand(): Command {
  const command = new Command('reset')
    .description(
      'process the topics again from the start: earlier stores and deltas become invalid, CURRENT stays until it is replaced',
    )
    .option('--dry-run', 'print what would be processed again, and change nothing');
  return commonOptions(command).action(run);
}

async function run(flags: Flags): Promise<void> {
  const { broker, registry, names, places } = await openContext(flags);
  const [{ reset }, { currentSnapshot, readManifest }, { hasGoldLock, withGoldLock }] = await Promise.all([
    import('../processors/reset.ts'),
    import('../sinks/gold/manifest.ts'),
    import('../sinks/gold/gold-lock.ts'),
  ]);
  const current = currentSnapshot(places.gold);
  const shardsOf = current === undefined ? {} : readManifest(places.gold, current).shards;
  const generationMin = Math.max(0, ...Object.values(shardsOf).map((shard) => shard.generation));
  const work = () => reset({ broker, registry, names, generationMin, dryRun: flags.dryRun === true });
  // A sink that runs once is not a member of its group; only its lock shows that it is running.
  const report =
    hasGoldLock(places.gold) && flags.dryRun !== true
      ? await withGoldLock(places.gold, { patienceMs: 0 }, work)
      : await work();
  if (flags.json) return printJson({ ...report, dryRun: flags.dryRun === true });
  const { generation, shards, messages, records } = report;
  const amount = records === null ? 'all records' : counted(records, 'record');
  printFilled(
    `Generation ${generation} ${flags.dryRun ? 'would start' : 'starts'} in ${counted(shards, 'shard')}: ${amount} of title topics in ` +
      `${counted(messages, 'message')} ${flags.dryRun ? 'would be' : 'will be'} processed again.\n` +
      'CURRENT stays until a snapshot that is as complete replaces it.',
  );
}
