/** `reelflow verify`: recomputes a snapshot and compares. */
import { Command } from 'commander';
import { ReelflowError } from '../runtime/errors.ts';
import type { ReadProgress } from '../sinks/verify/source-rows.ts';
import type { Verification, VerifyOptions } from '../sinks/verify/verify.ts';
import { type CommonFlags, commonOptions, logLevelOf, openContext, stopSignal } from './context.ts';

interface Flags extends CommonFlags {
  data?: string;
  memory: string;
  skipBatch: string[];
}

/** As a shell reports a program that a signal ended. */
const signalExitCodes: Readonly<Record<string, number>> = { SIGINT: 130, SIGTERM: 143 };
const logEveryMs = 5_000;

export function verifyCommand(): Command {
  const command = new Command('verify')
    .description('recompute a snapshot from exactly its input, and compare')
    .argument('[snapshot]', 'id of the snapshot; default the newest')
    .option('--data <dir>', 'compute it from these IMDb files instead of the topics')
    .option(
      '--skip-batch <position>',
      'topic:partition:offset of a batch that cannot be decoded, skipped when it was processed; may be given again',
      (text: string, before: string[]) => [...before, text],
      [],
    )
    .option('--memory <size>', "DuckDB's limit", '1GB');
  return commonOptions(command).action(run);
}

async function run(snapshot: string | undefined, flags: Flags, command: Command): Promise<void> {
  const { verifySnapshot } = await import('../sinks/verify/verify.ts');
  const signal = stopSignal();
  const input = flags.data === undefined ? await topicsOf(snapshot, flags, command) : { folder: flags.data };
  const progress = await progressOf(flags);
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
    process.stderr.write('Interrupted: nothing is known about the snapshot.\n');
    process.exitCode = signalExitCodes[String(signal.reason)] ?? 1;
    return;
  } finally {
    progress.end();
  }
  const text =
    flags.json === true ? JSON.stringify(verification) : await verificationText(verification, flags.data);
  process.stdout.write(`${text}\n`);
  if (verification.equal) return;
  const { findings } = verification;
  throw new ReelflowError('verifyFailed', `Snapshot ${verification.snapshot} is not what its input gives`, {
    detail: findings
      .slice(0, 3)
      .map(({ about, text: what }) => `${about}: ${what}`)
      .join('\n'),
    hint:
      flags.data === undefined
        ? 'If files were altered: remove CURRENT, and `reelflow sink --once` publishes anew. If they were not, this is a defect.'
        : 'Were exactly these files replayed, and nothing else? If so, and no file of the snapshot was altered, this is a defect.',
  });
}

/** The pipeline that the snapshot belongs to: the namespace is that of the manifest unless one is given. */
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

/** What was compared, as a table for people. */
export async function verificationText(verification: Verification, data?: string): Promise<string> {
  const { default: Table } = await import('cli-table3');
  const whole = (value: number) => value.toLocaleString('en-US');
  const style = { head: [], border: [] };
  const tables = new Table({
    head: ['table', 'rows', 'differences'],
    colAligns: ['left', 'right', 'right'],
    style,
  });
  for (const [name, { rows, differences }] of Object.entries(verification.tables)) {
    tables.push([name, whole(rows), whole(differences)]);
  }
  const lines = [tables.toString()];
  if (verification.accounting !== null) {
    const topics = new Table({
      head: ['topic', 'records', 'applied', 'duplicate', 'rejected'],
      colAligns: ['left', 'right', 'right', 'right', 'right'],
      style,
    });
    for (const [topic, of] of Object.entries(verification.accounting)) {
      topics.push([topic, ...[of.records, of.applied, of.duplicate, of.rejected].map(whole)]);
    }
    lines.push(topics.toString());
  }
  lines.push(...verification.findings.map(({ about, text }) => `${about}: ${text}`));
  const from = data === undefined ? 'its input on the topics' : data;
  lines.push(
    `Snapshot ${verification.snapshot} ${verification.equal ? 'equals' : 'differs from'} what ${from} gives (${verification.seconds.toFixed(1)} s).`,
  );
  return lines.join('\n');
}

interface ProgressView {
  show(progress: ReadProgress): void;
  end(): void;
}

/** A bar on a terminal, log lines elsewhere. */
async function progressOf(flags: Flags): Promise<ProgressView> {
  if (process.stderr.isTTY === true) {
    const { default: cliProgress } = await import('cli-progress');
    const bar = new cliProgress.SingleBar({
      format: '{bar} {percentage}%  {records} records  {topic}',
      barCompleteChar: '█',
      barIncompleteChar: '░',
      hideCursor: true,
      stream: process.stderr,
    });
    let started = false;
    return {
      show({ topic, messages, messagesTotal, records }) {
        const payload = { records: records.toLocaleString('en-US'), topic };
        if (!started) bar.start(messagesTotal, 0, payload);
        started = true;
        bar.update(messages, messages < messagesTotal ? payload : { ...payload, topic: 'computing' });
      },
      end: () => bar.stop(),
    };
  }
  const { createLogger } = await import('../runtime/logger.ts');
  const logger = createLogger(logLevelOf(flags));
  let last = performance.now();
  return {
    show(progress) {
      if (performance.now() - last < logEveryMs) return;
      last = performance.now();
      logger.info(progress, 'verifying');
    },
    end: () => undefined,
  };
}
