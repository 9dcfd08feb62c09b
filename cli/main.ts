/**
 * The command line. A command loads its modules when it runs, so that `--help` is quick. Errors become text and exit code
 * here and nowhere else.
 */
import { Command, CommanderError } from 'commander';
import { exitCodes, isAbort, messageOf, ReelflowError } from '../runtime/errors.ts';
import { demoCommand } from './demo.ts';
import { dlqCommand } from './dlq.ts';
import { downloadCommand } from './download.ts';
import { flinkCommand } from './flink.ts';
import { generateCommand } from './generate.ts';
import { goldCommand } from './gold.ts';
import { lagCommand } from './lag.ts';
import { monitorCommand } from './monitor.ts';
import { watchOutput } from './output.ts';
import { processCommand } from './process.ts';
import { refreshCommand } from './refresh.ts';
import { replayCommand } from './replay.ts';
import { resetCommand } from './reset.ts';
import { runCommand } from './run.ts';
import { servicesCommand } from './services.ts';
import { sinkCommand } from './sink.ts';
import { statusCommand } from './status.ts';
import { stoppedExitCode, stopReason } from './stop.ts';
import { tablesCommand } from './tables.ts';
import { verifyCommand } from './verify.ts';
import { packageVersion } from './version.ts';

const endWithinMs = 3_000;

/** All commands with their options. */
export function createProgram(): Command {
  const program = new Command('reelflow')
    .description(
      'Replays the IMDb datasets into Kafka, keeps their aggregates up to date, writes Parquet snapshots.',
    )
    .version(packageVersion())
    .showHelpAfterError('Run the command with --help for its usage.');
  for (const command of [
    demoCommand(),
    runCommand(),
    servicesCommand(),
    generateCommand(),
    downloadCommand(),
    replayCommand(),
    refreshCommand(),
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
    tablesCommand(),
  ]) {
    program.addCommand(command);
  }
  exitOverride(program);
  return program;
}

/** Runs a command line and sets the exit code. @param argv as in `process.argv` */
export async function main(argv: readonly string[]): Promise<void> {
  watchOutput();
  // An error that no code waits for, such as one of a stream or a timer. Without this Node prints a stack trace.
  process.once('uncaughtException', async (thrown) => {
    process.exit(await report(thrown, argv.includes('--verbose')));
  });
  try {
    await createProgram().parseAsync(argv);
  } catch (thrown) {
    process.exitCode = await report(thrown, argv.includes('--verbose'));
  }
  // The command has returned. A request that is still waiting for an answer must not keep the process alive.
  setTimeout(() => process.exit(), endWithinMs).unref();
}

function exitOverride(command: Command): void {
  command.exitOverride();
  for (const inner of command.commands) exitOverride(inner);
}

/** Writes an error for people to standard error. @returns the exit code */
async function report(error: unknown, verbose: boolean): Promise<number> {
  if (error instanceof CommanderError) {
    // commander has printed its message; help and version are no errors.
    return error.exitCode === 0 ? 0 : exitCodes.usage;
  }

  // A wait or a step that was given up because the command was asked to end.
  const reason = stopReason();
  if (reason !== undefined && (isAbort(error) || error === reason)) {
    if (reason !== 'SIGPIPE') process.stderr.write('Interrupted.\n');
    return stoppedExitCode();
  }
  // Loaded only here: help and a good run need none of it.
  const thrown =
    error instanceof ReelflowError ? error : await (await import('./faults.ts')).asExternalFault(error);
  const lines: string[] = [];
  if (thrown instanceof ReelflowError) {
    lines.push(`Error: ${thrown.message}`);
    if (thrown.detail !== '') lines.push(`Detail: ${thrown.detail}`);
    if (thrown.hint !== '') lines.push(`Hint: ${thrown.hint}`);
  } else {
    lines.push(
      `Error: ${messageOf(thrown)}`,
      'Hint: This is a defect of reelflow. Run the command with --verbose to see where.',
    );
  }
  if (verbose && thrown instanceof Error) lines.push(thrown.stack ?? '', causesOf(thrown));
  process.stderr.write(`${lines.filter((line) => line !== '').join('\n')}\n`);
  return thrown instanceof ReelflowError ? thrown.exitCode : exitCodes.defect;
}

function causesOf(error: Error): string {
  return error.cause instanceof Error ? `Caused by: ${error.cause.stack}\n${causesOf(error.cause)}` : '';
}
