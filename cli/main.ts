/**
 * The command line. It loads the command that is named, and a command loads its modules when it runs. Errors become text
 * and exit code here and nowhere else.
 */
import { Command, CommanderError } from 'commander';
import { causesOf, exitCodes, isAbort, messageOf, ReelflowError } from '../runtime/errors.ts';
import { packageVersion } from '../runtime/package.ts';
import { filled, terminalWidth } from '../runtime/terminal.ts';
import { qualifiedHint } from './hint.ts';
import { describeForms, refuseEmptyPaths } from './options.ts';
import { watchOutput } from './output.ts';
import { stoppedExitCode, stopReason } from './stop.ts';

/** How long an unanswered request may keep the process alive after the command has ended. */
const endWithinMs = { done: 3_000, failed: 100 };

/** In the order of the help. Only the named command loads its file, so that it does not wait for those of the others. */
const commands: Readonly<Record<string, () => Promise<Command>>> = {
  demo: async () => (await import('./demo.ts')).demoCommand(),
  run: async () => (await import('./run.ts')).runCommand(),
  services: async () => (await import('./services.ts')).servicesCommand(),
  generate: async () => (await import('./generate.ts')).generateCommand(),
  download: async () => (await import('./download.ts')).downloadCommand(),
  replay: async () => (await import('./replay.ts')).replayCommand(),
  refresh: async () => (await import('./refresh.ts')).refreshCommand(),
  process: async () => (await import('./process.ts')).processCommand(),
  sink: async () => (await import('./sink.ts')).sinkCommand(),
  status: async () => (await import('./status.ts')).statusCommand(),
  reset: async () => (await import('./reset.ts')).resetCommand(),
  lag: async () => (await import('./lag.ts')).lagCommand(),
  monitor: async () => (await import('./monitor.ts')).monitorCommand(),
  dlq: async () => (await import('./dlq.ts')).dlqCommand(),
  verify: async () => (await import('./verify.ts')).verifyCommand(),
  flink: async () => (await import('./flink.ts')).flinkCommand(),
  gold: async () => (await import('./gold.ts')).goldCommand(),
  tables: async () => (await import('./tables.ts')).tablesCommand(),
  completion: async () => (await import('./completion.ts')).completionCommand(),
};

/** The program with these commands and their options. Default: all commands. */
export async function createProgram(names: readonly string[] = Object.keys(commands)): Promise<Command> {
  const program = new Command('reelflow')
    .description(
      'Replays the IMDb datasets into Kafka, keeps their aggregates up to date, writes Parquet snapshots.',
    )
    .version(packageVersion());
  for (const command of await Promise.all(names.map((name) => commands[name]?.()))) {
    if (command !== undefined) program.addCommand(command);
  }
  configure(program);
  describeForms(program);
  refuseEmptyPaths(program);
  return program;
}

/** Runs a command line and sets the exit code. @param argv as in `process.argv` */
export async function main(argv: readonly string[]): Promise<void> {
  watchOutput();
  const [, , named = ''] = argv;
  // The help, completion and a misspelt name need all commands.
  const isAlone = named !== 'completion' && Object.hasOwn(commands, named);
  const program = await createProgram(isAlone ? [named] : undefined);
  if (argv.includes('--help') || argv.includes('-h')) acceptAnyValue(program);
  let running = program;
  program.hook('preAction', (_, command) => {
    running = command;
  });
  const reported = (thrown: unknown) =>
    report(thrown, argv.includes('--verbose'), async (hint) =>
      qualifiedHint(hint, await createProgram(), running),
    );
  // An error that no code waits for, such as one of a stream or a timer. Without this Node prints a stack trace.
  process.once('uncaughtException', async (thrown) => {
    process.exit(await reported(thrown));
  });
  let end: keyof typeof endWithinMs = 'done';
  try {
    requireDirectory();
    await program.parseAsync(argv);
  } catch (thrown) {
    process.exitCode = await reported(thrown);
    if (process.exitCode !== 0) end = 'failed';
  }
  setTimeout(() => process.exit(), endWithinMs[end]).unref();
}

/** Without a working directory no relative path can be used. */
function requireDirectory(): void {
  try {
    process.cwd();
  } catch (thrown) {
    throw new ReelflowError('usage', 'The working directory does not exist any more', {
      detail: messageOf(thrown),
      hint: 'Change to another directory.',
      cause: thrown,
    });
  }
}

/** Changes defaults of commander. @param path the command as a person types it */
function configure(command: Command, path = 'reelflow'): void {
  command.exitOverride();
  command.showHelpAfterError(`Hint: Run \`${path} --help\` for its usage.`);
  command.configureOutput({
    writeErr: (text) => process.stderr.write(onTerminal(text)),
    outputError: (text, write) =>
      write(text.replace(/^error: ./, (start) => `Error: ${start.slice(-1).toUpperCase()}`)),
  });
  // Descriptions break also on a terminal of 60 columns.
  command.configureHelp({ minWidthToWrap: 15 });
  nameUnknownFirst(command);
  for (const inner of command.commands) configure(inner, `${path} ${inner.name()}`);
}

/** For help, which a wrong value of an option or of its variable must not hide. */
function acceptAnyValue(command: Command): void {
  for (const option of command.options) option.argParser((text) => text);
  for (const inner of command.commands) acceptAnyValue(inner);
}

const onTerminal = (text: string) => filled(text, terminalWidth(process.stderr));

/**
 * Reports an unknown option before a missing one. commander does the reverse, but a misspelt option is both, and its name helps
 * more. For commands that read gold alone, the error says why they lack the other options of a pipeline.
 */
function nameUnknownFirst(command: Command): void {
  const inner = command as unknown as {
    missingMandatoryOptionValue(option: unknown): void;
    unknownOption(flag: string): void;
  };
  const unknown = inner.unknownOption.bind(command);
  inner.unknownOption = (flag) => {
    const isPlace = ['--namespace', '--state'].includes(flag.split('=', 1)[0] ?? '');
    if (!isPlace || !command.options.some(({ long }) => long === '--gold')) return unknown(flag);
    const detail = 'A gold folder belongs to one pipeline: --gold alone names it.';
    command.error(`error: unknown option '${flag}'\nDetail: ${detail}`, { code: 'commander.unknownOption' });
  };
  const missing = inner.missingMandatoryOptionValue.bind(command);
  inner.missingMandatoryOptionValue = (option) => {
    const flag = command.args.find((argument) => argument.startsWith('-'));
    if (flag === undefined) missing(option);
    else inner.unknownOption(flag);
  };
}

/** Writes an error for people to standard error. @returns the exit code */
async function report(
  error: unknown,
  verbose: boolean,
  qualified: (hint: string) => Promise<string>,
): Promise<number> {
  if (error instanceof CommanderError) {
    // commander has printed its message; help and version are not errors.
    return error.exitCode === 0 ? 0 : exitCodes.usage;
  }

  // After a signal, an abort or a broker that has not answered is no failure.
  const reason = stopReason();
  const isUnanswered = error instanceof ReelflowError && error.kind === 'brokerUnreachable';
  if (reason !== undefined && (isAbort(error) || error === reason || isUnanswered)) {
    if (reason !== 'SIGPIPE') process.stderr.write('Interrupted.\n');
    return stoppedExitCode();
  }
  // Loaded only here: help and a good run need none of it.
  const thrown =
    error instanceof ReelflowError
      ? error
      : (missingPackage(error) ?? (await (await import('./faults.ts')).asExternalFault(error)));
  const lines: string[] = [];
  const known = thrown instanceof ReelflowError ? thrown : undefined;
  if (known !== undefined) {
    lines.push(`Error: ${known.message}`);
    if (known.detail !== '') lines.push(`Detail: ${known.detail}`);
    if (known.hint !== '') lines.push(`Hint: ${await qualified(known.hint)}`);
  } else {
    lines.push(
      `Error: ${messageOf(thrown)}`,
      'Hint: This is a defect of reelflow. Run the command with --verbose to see where.',
    );
  }
  const said = lines.map(onTerminal);
  if (verbose) {
    for (const error of causesOf(thrown)) said.push(`${error === thrown ? '' : 'Caused by: '}${error.stack}`);
  }
  process.stderr.write(`${said.filter((line) => line !== '').join('\n')}\n`);
  return known?.exitCode ?? exitCodes.defect;
}

/** Packages that an installation may lack, and what needs them. */
const separablePackages: Readonly<Record<string, string>> = {
  '@aws-sdk/client-s3': 'A bucket needs it.',
  '@observablehq/plot': 'The report needs it.',
  linkedom: 'The report needs it.',
};

/** The error of a command that loads a package which is absent. */
function missingPackage(thrown: unknown): ReelflowError | undefined {
  const [, name = ''] =
    /^Cannot find (?:package|module) '((?:@[\w-]+\/)?[\w.-]+)/.exec(messageOf(thrown)) ?? [];
  const isBinding = name.startsWith('@duckdb/node-bindings-');
  const detail = isBinding
    ? 'It is DuckDB for this kind of machine; `--omit=optional` leaves it out.'
    : separablePackages[name];
  if (detail === undefined) return undefined;
  return new ReelflowError('usage', `The package ${name} is not installed`, {
    detail,
    hint: isBinding ? 'Install reelflow again, without --omit=optional.' : `Run \`npm install ${name}\`.`,
    cause: thrown,
  });
}
