/** `reelflow reset`: begin a new generation. */
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { Command } from 'commander';
import { type CommonFlags, commonOptions, openContext } from './context.ts';

interface Flags extends CommonFlags {
  dryRun?: true;
}

export function resetCommand(): Command {
  const command = new Command('reset')
    .description(
      'begin anew from the topics: stores and deltas of before are dead, CURRENT stays until it is replaced',
    )
    .option('--dry-run', 'say what would be processed again, and change nothing');
  return commonOptions(command).action(run);
}

async function run(flags: Flags): Promise<void> {
  const { broker, registry, names, places } = await openContext(flags);
  const [{ reset }, { currentSnapshot, readManifest }, { withFolderLock }] = await Promise.all([
    import('../processors/reset.ts'),
    import('../sinks/gold/manifest.ts'),
    import('../runtime/folder-lock.ts'),
  ]);
  const current = currentSnapshot(places.gold);
  const shardsOf = current === undefined ? {} : readManifest(places.gold, current).shards;
  const generationMin = Math.max(0, ...Object.values(shardsOf).map((shard) => shard.generation));
  const work = () => reset({ broker, registry, names, generationMin, dryRun: flags.dryRun === true });
  // A sink that runs once is no member of its group; its lock tells.
  const lock = join(places.gold, '.sink');
  const report = existsSync(lock)
    ? await withFolderLock(lock, { of: 'gold', patienceMs: 0 }, work)
    : await work();
  if (flags.json) {
    process.stdout.write(`${JSON.stringify({ ...report, dryRun: flags.dryRun === true })}\n`);
    return;
  }
  const { generation, shards, messages, records } = report;
  const amount = records === null ? 'all records' : `${records.toLocaleString('en-US')} records`;
  const verb = flags.dryRun ? 'would be' : 'will be';
  process.stdout.write(
    `Generation ${generation} ${flags.dryRun ? 'would begin' : 'begins'} in ${shards} shards: ${amount} of title topics in ` +
      `${messages.toLocaleString('en-US')} messages ${verb} processed again.\n` +
      'CURRENT stays until a snapshot as complete as this replaces it.\n',
  );
}
