/**
 * The command line. Commands load what they need when they run, so that `--help` is quick; errors become text and exit
 * code here and nowhere else.
 */
import { Command, CommanderError } from 'commander';
import { exitCodes, messageOf, ReelflowError } from '../runtime/errors.ts';
import { demoCommand } from './demo.ts';
import { dlqCommand } from './dlq.ts';
import { downloadCommand } from './download.ts';
import { flinkCommand } from './flink.ts';
import { generateCommand } from './generate.ts';
import { goldCommand } from './gold.ts';
import { lagCommand } from './lag.ts';
import { monitorCommand } from './monitor.ts';
import { processCommand } from './process.ts';
import { replayCommand } from './replay.ts';
import { resetCommand } from './reset.ts';
import { servicesCommand } from './services.ts';
import { sinkCommand } from './sink.ts';
import { statusCommand } from './status.ts';
import { verifyCommand } from './verify.ts';
import { packageVersion } from './version.ts';

const endWithinMs = 3_000;

/** Runs a command line and sets the exit code. @param argv as in `process.argv` */
export async function main(argv: readonly string[]): Promise<void> {
  const program = new Command('reelflow')
    .description(
      'Replays the IMDb datasets into Kafka, keeps their aggregates up to date, writes Parquet snapshots.',
    )
    .version(packageVersion())
    .showHelpAfterError('(--help shows the usage)');
  for (const command of [
    demoCommand(),
    servicesCommand(),
    generateCommand(),
    downloadCommand(),
    replayCommand(),
    processCommand(),
    sinkCommand(),
    statusCommand(),
    resetCommand(),
    lagCommand(),
    monitorCommand(),
    dlqCommand(),
    verifyCommand(),
    flinkCommand(),
    goldCommand(),
  ]) {
    program.addCommand(command);
  }
  exitOverride(program);
  try {
    await program.parseAsync(argv);
  } catch (thrown) {
    process.exitCode = report(thrown, argv.includes('--verbose'));
  }
  // A command is over when it returns. What still hangs (a request without an answer) must not keep the process alive.
  setTimeout(() => process.exit(), endWithinMs).unref();
}

function exitOverride(command: Command): void {
  command.exitOverride();
  for (const inner of command.commands) exitOverride(inner);
}

/** Writes an error for people to standard error. @returns the exit code */
function report(thrown: unknown, verbose: boolean): number {
  if (thrown instanceof CommanderError) {
    // commander has said what it has to say; help and version are no errors.
    return thrown.exitCode === 0 ? 0 : exitCodes.usage;
  }
  const lines: string[] = [];
  if (thrown instanceof ReelflowError) {
    lines.push(`Error: ${thrown.message}`);
    if (thrown.detail !== '') lines.push(`Detail: ${thrown.detail}`);
    if (thrown.hint !== '') lines.push(`Hint: ${thrown.hint}`);
  } else {
    lines.push(`Error: ${messageOf(thrown)}`, 'Hint: This is a defect of reelflow; --verbose shows where.');
  }
  if (verbose && thrown instanceof Error) lines.push(thrown.stack ?? '', causesOf(thrown));
  process.stderr.write(`${lines.filter((line) => line !== '').join('\n')}\n`);
  return thrown instanceof ReelflowError ? thrown.exitCode : exitCodes.defect;
}

function causesOf(error: Error): string {
  return error.cause instanceof Error ? `Caused by: ${error.cause.stack}\n${causesOf(error.cause)}` : '';
}
