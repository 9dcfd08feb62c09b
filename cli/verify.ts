/** `reelflow verify`: recomputes a snapshot and compares. */
import { Command } from 'commander';
import { ReelflowError } from '../runtime/errors.ts';
import type { ReadProgress } from '../sinks/verify/topic-rows.ts';
import type { Verification, VerifyOptions } from '../sinks/verify/verify.ts';
import { logLevelOf, openContext } from './context.ts';
import { whole } from './figures.ts';
import { type CommonFlags, commonOptions, memoryOption, severalOption } from './options.ts';
import { print } from './output.ts';
import { openProgress, type Progress } from './progress.ts';
import { stoppedExitCode, stopSignal } from './stop.ts';
import { tableText } from './table.ts';

interface Flags extends CommonFlags {
  data?: string;
  memory: string;
  skipBatch: string[];
}

export function verifyCommand(): Command {
  const command = new Command('verify')
    .description('recompute a snapshot from exactly its input, and compare')
    .argument('[snapshot]', 'id of the snapshot; default the newest')
    .option('--data <dir>', 'recompute it from these IMDb files instead of the topics')
    .addOption(
      severalOption(
        '--skip-batch <topic:partition:offset>',
        'skip a batch that the processors skipped',
        'none',
      ),
    )
    .addOption(memoryOption("limit of DuckDB's memory"));
  return commonOptions(command).action(run);
}

async function run(snapshot: string | undefined, flags: Flags, command: Command): Promise<void> {
  const { verifySnapshot } = await import('../sinks/verify/verify.ts');
  const signal = stopSignal();
  const input = flags.data === undefined ? await topicsOf(snapshot, flags, command) : { folder: flags.data };
  const progress = await verifyProgress(flags);
  let verification: Verification;
  try {
    verification = await verifySnapshot({
      gold: flags.gold,
      ...(snapshot !== undefined && { snapshot }),
      input,
      memoryLimit: flags.memory,
      skipBatches: flags.skipBatch,
      signal,
      onProgress: progress.show,
    });
  } catch (thrown) {
    if (!signal.aborted) throw thrown;
    process.stderr.write('Interrupted: the snapshot was not verified.\n');
    process.exitCode = stoppedExitCode();
    return;
  } finally {
    progress.end();
  }
  print(flags.json === true ? JSON.stringify(verification) : verificationText(verification, flags.data));
  if (verification.equal) return;
  const { findings } = verification;
  throw new ReelflowError('verifyFailed', `Snapshot ${verification.snapshot} differs from its input`, {
    detail: findings
      .slice(0, 3)
      .map(({ about, text: what }) => `${about}: ${what}`)
      .join('\n'),
    hint:
      flags.data === undefined
        ? 'If files were altered: remove CURRENT, and run `reelflow sink --once` to publish again. If not, this is a defect.'
        : 'Were exactly these files replayed, and nothing else? If so, and no file of the snapshot was altered, this is a defect.',
  });
}

/** The pipeline of the snapshot: the namespace of its manifest, unless one is given. */
async function topicsOf(
  snapshot: string | undefined,
  flags: Flags,
  command: Command,
): Promise<VerifyOptions['input']> {
  const { currentSnapshot, readManifest } = await import('../sinks/gold/manifest.ts');
  const id = snapshot ?? currentSnapshot(flags.gold);
  const isGiven = command.getOptionValueSource('namespace') !== 'default';
  const namespace = isGiven || id === undefined ? flags.namespace : readManifest(flags.gold, id).namespace;
  return openContext({ ...flags, namespace });
}

/** What was compared, as tables for people. */
function verificationText(verification: Verification, data?: string): string {
  const lines = [
    tableText(
      [
        { head: 'table', cell: ([name]) => name },
        { head: 'rows', align: 'right', cell: ([, { rows }]) => whole(rows) },
        { head: 'differences', align: 'right', cell: ([, { differences }]) => whole(differences) },
      ],
      Object.entries(verification.tables),
    ),
  ];
  if (verification.accounting !== null) {
    const counts = ['records', 'applied', 'duplicate', 'rejected'] as const;
    const topics = Object.entries(verification.accounting);
    lines.push(
      '',
      tableText(
        [
          { head: 'topic', cell: ([name]: (typeof topics)[number]) => name },
          ...counts.map((head) => ({
            head,
            align: 'right' as const,
            cell: ([, of]: (typeof topics)[number]) => whole(of[head]),
          })),
        ],
        topics,
      ),
    );
  }
  lines.push(...verification.findings.map(({ about, text }) => `${about}: ${text}`));
  const { snapshot, equal, seconds } = verification;
  const from = data === undefined ? 'its input on the topics' : data;
  lines.push(
    `Snapshot ${snapshot} ${equal ? 'equals' : 'differs from'} what ${from} gives (${seconds.toFixed(1)} s).`,
  );
  return lines.join('\n');
}

async function verifyProgress(flags: Flags): Promise<Progress<ReadProgress>> {
  const { createLogger } = await import('../runtime/logger.ts');
  const logger = createLogger(logLevelOf(flags), { component: 'verify' });
  return openProgress(
    ({ topic, messages, messagesTotal, records }) => ({
      name: '',
      done: messages,
      total: messagesTotal,
      text: `${whole(records)} records  ${messages < messagesTotal ? topic : 'computing'}`,
    }),
    (now) => logger.info(now, 'verifying'),
  );
}
