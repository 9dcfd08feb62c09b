/** `reelflow reset`: begin a new generation. */
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
  const { broker, registry, names } = await openContext(flags);
  const { reset } = await import('../processors/reset.ts');
  const report = await reset({ broker, registry, names, dryRun: flags.dryRun === true });
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
