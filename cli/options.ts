/**
 * Options and how their values are read: sizes, periods, numbers, addresses, positions. Every command reads them here,
 * so that a value means the same everywhere and a wrong one ends as bad usage, before anything is touched.
 */
import { totalmem } from 'node:os';
import { type Command, InvalidArgumentError, Option } from 'commander';
import { type DatasetName, datasetNames, namespacePattern } from '../topics/catalog.ts';
import { memberPorts } from './ports.ts';

/** The options that all commands share. */
export interface OutputFlags {
  json?: true;
  verbose?: true;
}

/** The options of commands that work on a pipeline. */
export interface CommonFlags extends OutputFlags {
  gold: string;
  state: string;
  namespace: string;
}

/** Holds local services, gold and state by default. */
export const localFolder = '.reelflow';

/** Adds the options of `OutputFlags`. */
export function outputOptions(command: Command): Command {
  return command
    .option('--json', 'print the result as one line of JSON')
    .option('--verbose', 'log in detail, and print stack traces');
}

/** Adds the option of commands that read gold alone. */
export function goldOption(command: Command): Command {
  return command.option('--gold <dir>', 'gold folder', `${localFolder}/gold`);
}

/** Where declarations come from. */
export interface TablesFlags {
  tables?: string;
  only?: string[];
}

/** For commands that read tables. */
export function tablesOption(command: Command): Command {
  const about = 'folder with SQL files that declare more cubes and tables';
  return command.addOption(new Option('--tables <dir>', about).env('REELFLOW_TABLES'));
}

/** For commands that compute tables. */
export function tablesOptions(command: Command): Command {
  return tablesOption(command).addOption(
    new Option('--only <list>', 'only these of the built-in tables, separated by commas').argParser(
      (text: string) => text.split(',').map((name) => name.trim()),
    ),
  );
}

/** The same flags for a command that runs as a child. */
export function tablesArguments({ tables, only }: TablesFlags): string[] {
  return [...(tables ? ['--tables', tables] : []), ...(only ? ['--only', only.join()] : [])];
}

/** Adds the options of `CommonFlags`. */
export function commonOptions(command: Command): Command {
  goldOption(command)
    .option('--state <dir>', 'state folder', `${localFolder}/state`)
    .addOption(
      new Option('--namespace <name>', 'prefix of topics and groups')
        .argParser(namespace)
        .env('REELFLOW_NAMESPACE')
        .default('', 'none'),
    );
  return outputOptions(command);
}

/** Accepted forms of values, by placeholder; help shows the lines that a command needs. */
const forms: readonly (readonly [placeholder: RegExp, line: string])[] = [
  [/<period>/, 'A period is written as 250ms, 1s, 5m, 2h or 1d.'],
  [/<size>/, 'A size is written as 500kB, 64MB, 1GB or 1GiB; a memory limit also as 50%.'],
  [
    /<[^>]*time>/,
    'A time is written as 2026-11-21, 2026-11-21T10:30 or 2026-11-21T10:30:00+01:00;\nwithout a zone it is UTC.',
  ],
];

/** Adds required options, defaults as they are typed, and accepted forms of values to the help of a command and its subcommands. */
export function describeForms(command: Command): void {
  for (const inner of command.commands) describeForms(inner);
  for (const option of command.options) {
    if (option.mandatory) option.description += ' (required)';
    // commander would show a text in quotation marks, which are not typed.
    if (typeof option.defaultValue === 'string') option.defaultValueDescription ??= option.defaultValue;
  }
  const flags = command.options.map((option) => option.flags).join(' ');
  const args = command.registeredArguments.map(({ description }) => description).join(' ');
  const lines = forms
    .filter(
      ([placeholder]) =>
        placeholder.test(flags) || (placeholder.source.includes('time') && /\btime\b/.test(args)),
    )
    .map(([, line]) => line);
  if (lines.length > 0) command.addHelpText('after', `\n${lines.join('\n')}`);
}

/** Refuses an empty path, such as that of an unset shell variable: it would name the working directory. */
export function refuseEmptyPaths(command: Command): void {
  for (const inner of command.commands) refuseEmptyPaths(inner);
  for (const option of command.options) {
    // An empty variable of the environment counts as unset.
    if (!/<(dir|path|file)>/.test(option.flags) || option.envVar !== undefined) continue;
    option.argParser((text) => {
      if (text === '') throw new InvalidArgumentError('It is empty: check the variables of the shell.');
      return text;
    });
  }
}

/** Lets help show another default for an option that a command shares with others. */
export function describeDefault(command: Command, long: string, text: string): void {
  const option = command.options.find((one) => one.long === long);
  if (option !== undefined) option.defaultValueDescription = text;
}

function namespace(text: string): string {
  if (text !== '' && !namespacePattern.test(text)) {
    throw new InvalidArgumentError('Use lower-case letters, digits, - and _, 64 at most.');
  }
  return text;
}

/** An option whose help shows its default as a person would type it. */
function typed(flags: string, help: string, parse: (text: string) => unknown, usual?: string): Option {
  const option = new Option(flags, help).argParser(parse);
  return usual === undefined ? option : option.default(parse(usual), usual);
}

/** @param usual the default, such as `60s` */
export const periodOption = (flags: string, help: string, usual?: string) =>
  typed(flags, help, periodOf, usual);
/** @param usual the default, such as `64MB` */
export const sizeOption = (flags: string, help: string, usual?: string) => typed(flags, help, sizeOf, usual);
/** A limit of DuckDB's memory: a size, or a share of what this process may use. */
export const memoryOption = (help: string) => typed('--memory <size>', help, memoryOf, '1GB');
/** Where a stage serves its health and metrics; absent, it serves none. */
export const observersOption = () =>
  typed(
    '--listen <address>',
    'serve /healthz, /readyz and /metrics on this port of 127.0.0.1, or on host:port',
    listenAddressOf,
  );
/** Where a command serves the page. */
export const pageOption = () =>
  typed(
    '--listen <address>',
    'serve the page and /metrics on this port of 127.0.0.1, or on host:port, which needs a token',
    listenAddressOf,
    `127.0.0.1:${memberPorts.monitor}`,
  );
export const maxRemovedOption = () =>
  typed(
    '--max-removed <percent>',
    'refuse a dump that lacks more of the ids of a dataset; default 1',
    percent,
  );

export interface KeepFlags {
  keep: number;
  keepDaily: number;
  keepMonthly: number;
}

/** Adds the options of snapshots that stay by age. @param usual their defaults; 0 keeps none by age */
export function keepOptions(command: Command, usual = { daily: 30, monthly: 12 }): Command {
  return command
    .option(
      '--keep-daily <n>',
      'also the last snapshot of each of this many days',
      integerIn(0, 100_000),
      usual.daily,
    )
    .option(
      '--keep-monthly <n>',
      'also the last snapshot of each of this many months',
      integerIn(0, 100_000),
      usual.monthly,
    );
}

/** The retention that the flags ask for. */
export const keepOf = ({ keep, keepDaily, keepMonthly }: KeepFlags) => ({
  newest: keep,
  daily: keepDaily,
  monthly: keepMonthly,
});

/** Reads a whole number in a range. */
export function integerIn(min: number, max = Number.MAX_SAFE_INTEGER): (text: string) => number {
  return (text) => {
    const value = Number(text);
    if (!/^-?\d+$/.test(text) || value < min || value > max) {
      const end = max < Number.MAX_SAFE_INTEGER ? `to ${max}` : 'up';
      throw new InvalidArgumentError(`Use a whole number from ${min} ${end}.`);
    }
    return value;
  };
}

/** Reads a share. @throws InvalidArgumentError, outside 0 to 100 */
export function percent(text: string): number {
  const value = Number(text);
  if (text.trim() === '' || !(value >= 0 && value <= 100)) {
    throw new InvalidArgumentError('Use a number from 0 to 100.');
  }
  return value;
}

const unitsMs: Readonly<Record<string, number>> = {
  ms: 1,
  s: 1_000,
  m: 60_000,
  min: 60_000,
  h: 3_600_000,
  d: 86_400_000,
};

/** Reads a period such as `250ms`, `1s`, `5m`, `2h`, `1d`. @returns milliseconds */
export function periodOf(text: string): number {
  const [, number, unit] = /^(\d+(?:\.\d+)?) ?(ms|s|m|min|h|d)$/.exec(text) ?? [];
  const ms = Number(number) * (unitsMs[unit ?? ''] ?? Number.NaN);
  if (!(ms >= 1)) throw new InvalidArgumentError('Use a period such as 250ms, 1s, 5m, 2h or 1d.');
  return ms;
}

const unitsBytes: Readonly<Record<string, number>> = {
  '': 1,
  b: 1,
  k: 1e3,
  kb: 1e3,
  ki: 2 ** 10,
  kib: 2 ** 10,
  m: 1e6,
  mb: 1e6,
  mi: 2 ** 20,
  mib: 2 ** 20,
  g: 1e9,
  gb: 1e9,
  gi: 2 ** 30,
  gib: 2 ** 30,
  t: 1e12,
  tb: 1e12,
  ti: 2 ** 40,
  tib: 2 ** 40,
};

function bytesIn(text: string): number {
  const [, number, unit] = /^(\d+(?:\.\d+)?) ?([a-z]*)$/i.exec(text) ?? [];
  return Math.round(Number(number) * (unitsBytes[unit?.toLowerCase() ?? '?'] ?? Number.NaN));
}

/** Reads a size such as `500kB`, `64MB`, `1GiB`, `1Gi`. @returns bytes */
export function sizeOf(text: string): number {
  const bytes = bytesIn(text);
  if (!(bytes >= 1)) throw new InvalidArgumentError('Use a size such as 500kB, 64MB, 1GB or 1GiB.');
  return bytes;
}

/** Reads a memory limit: a size, or a share such as `50%`. @returns a size as DuckDB takes it */
export function memoryOf(text: string): string {
  const [, percent] = /^(\d+(?:\.\d+)?) ?%$/.exec(text) ?? [];
  const bytes =
    percent === undefined ? bytesIn(text) : Math.round((Math.min(Number(percent), 100) / 100) * memoryHere());
  if (!(bytes >= memoryMin) || Number(percent ?? 1) > 100) {
    throw new InvalidArgumentError(
      'Use a size of at least 16MB, such as 512MB, 1GB or 1GiB, or a share of the memory such as 50%.',
    );
  }
  return `${bytes}B`;
}

/** Below this DuckDB cannot open a database. */
const memoryMin = 16_000_000;

/** Memory of the machine, or the limit of the container, in bytes. */
function memoryHere(): number {
  const allowed = process.constrainedMemory();
  return allowed > 0 ? Math.min(allowed, totalmem()) : totalmem();
}

export interface ListenAddress {
  readonly host: string;
  readonly port: number;
}

/** Reads where to listen: `9471` (on 127.0.0.1), `0.0.0.0:9471`, `[::]:9471`. */
export function listenAddressOf(text: string): ListenAddress {
  const [, address = '127.0.0.1', digits] = /^(?:([\w.-]+|\[[\da-fA-F:.]+\]):)?(\d{1,5})$/.exec(text) ?? [];
  const port = Number(digits);
  if (!(port >= 1 && port <= 65_535)) {
    throw new InvalidArgumentError('Use a port such as 9471 or an address such as 0.0.0.0:9471.');
  }
  return { host: address.replace(/^\[|\]$/g, ''), port };
}

/** An option that may be repeated. @param usual what its absence means */
export function severalOption(flags: string, help: string, usual: string): Option {
  const gather = (text: string, before: readonly string[]) => [...before, text];
  return new Option(flags, `${help}; may be repeated`).argParser(gather).default([], usual);
}

/** Reads a list of datasets. */
export function datasetsOption(
  flags = '--datasets <list>',
  help = `only these, separated by commas: ${datasetNames.join(', ')}`,
): Option {
  return typed(flags, help, (text) => {
    const names = text.split(',').map((name) => name.trim());
    const unknown = names.filter((name) => !datasetNames.includes(name as DatasetName));
    if (unknown.length > 0) throw new InvalidArgumentError(`Unknown dataset: ${unknown.join(', ')}.`);
    return names as DatasetName[];
  });
}

export interface LetterPosition {
  readonly partition: number;
  readonly offset: number;
}

/** Reads a position on the dead-letter topic. */
export function letterPositionOf(text: string): LetterPosition {
  const [, partition, offset] = /^(\d{1,6}):(\d{1,15})$/.exec(text) ?? [];
  if (partition === undefined) throw new InvalidArgumentError('Use partition:offset, such as 0:17.');
  return { partition: Number(partition), offset: Number(offset) };
}
