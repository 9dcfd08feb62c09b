/** What every command that touches the pipeline shares: its options, its endpoints, its connections. */
import { type Command, InvalidArgumentError } from 'commander';
import type { Broker } from '../kafka/client.ts';
import type { Endpoints, Places } from '../runtime/config.ts';
import type { Logger, LogLevel } from '../runtime/logger.ts';
import { namespacePattern, type TopicNames, topicNamesIn } from '../topics/catalog.ts';
import type { Registry } from '../topics/registry.ts';

export interface CommonFlags {
  gold: string;
  state: string;
  namespace: string;
  json?: true;
  verbose?: true;
}

export interface Context {
  readonly endpoints: Endpoints;
  readonly broker: Broker;
  readonly registry: Registry;
  readonly names: TopicNames;
  readonly places: Places;
  readonly logger: Logger;
}

/** Where local services, gold and state live unless told otherwise. */
export const localFolder = '.reelflow';
/** Columns of a table that a terminal has room for; more it would only wrap. */
export const columnsShown = 12;

/** Adds the options that are the same everywhere. */
export function commonOptions(command: Command): Command {
  return command
    .option('--gold <dir>', 'gold folder', `${localFolder}/gold`)
    .option('--state <dir>', 'state folder', `${localFolder}/state`)
    .option('--namespace <name>', 'goes before topics and groups', namespace, '')
    .option('--json', 'the result as one line of JSON')
    .option('--verbose', 'log in detail, and show stack traces');
}

function namespace(text: string): string {
  if (text !== '' && !namespacePattern.test(text)) {
    throw new InvalidArgumentError('Lower-case letters, digits, - and _, 64 at most.');
  }
  return text;
}

/** Parses an option that is a whole number in a range. */
export function integerOption(min: number, max = Number.MAX_SAFE_INTEGER): (text: string) => number {
  return (text) => {
    const value = Number(text);
    if (!/^-?\d+$/.test(text) || value < min || value > max) {
      throw new InvalidArgumentError(
        `A whole number from ${min}${max < Number.MAX_SAFE_INTEGER ? ` to ${max}` : ''} is expected.`,
      );
    }
    return value;
  };
}

const unitsMs: Readonly<Record<string, number>> = { ms: 1, s: 1_000, m: 60_000, h: 3_600_000 };

/** Parses a duration such as `250ms`, `1s`, `5m`. @returns milliseconds */
export function durationOption(text: string): number {
  const [, number, unit] = /^(\d+(?:\.\d+)?)(ms|s|m|h)$/.exec(text) ?? [];
  const ms = Number(number) * (unitsMs[unit ?? ''] ?? Number.NaN);
  if (!(ms >= 1)) throw new InvalidArgumentError('A duration such as 250ms, 1s or 5m is expected.');
  return ms;
}

/** Gathers an option that may be given again. */
export const severalOption = (text: string, before: readonly string[]): string[] => [...before, text];

export interface ListenAddress {
  readonly host: string;
  readonly port: number;
}

/** Parses where to listen: `9464` (127.0.0.1), `0.0.0.0:9464`, `[::]:9464`. */
export function listenOption(text: string): ListenAddress {
  const [, address = '127.0.0.1', digits] = /^(?:([\w.-]+|\[[\da-fA-F:.]+\]):)?(\d{1,5})$/.exec(text) ?? [];
  const port = Number(digits);
  if (!(port >= 1 && port <= 65_535)) {
    throw new InvalidArgumentError('A port such as 9464 or an address such as 0.0.0.0:9464 is expected.');
  }
  return { host: address.replace(/^\[|\]$/g, ''), port };
}

export const listenFlags = '--listen <address>';
export const listenHelp = 'serve /healthz, /readyz and /metrics on this port of 127.0.0.1, or on host:port';

const unitsBytes: Readonly<Record<string, number>> = { B: 1, kB: 1e3, MB: 1e6, GB: 1e9, '': 1 };

/** Parses a size such as `64MB`. @returns bytes */
export function bytesOption(text: string): number {
  const [, number, unit] = /^(\d+(?:\.\d+)?)(B|kB|MB|GB|)$/.exec(text) ?? [];
  const bytes = Number(number) * (unitsBytes[unit ?? '?'] ?? Number.NaN);
  if (!(bytes >= 1)) throw new InvalidArgumentError('A size such as 500kB, 64MB or 1GB is expected.');
  return Math.round(bytes);
}

/** `debug` when asked, `info` in a pipe or a service, `warn` on a terminal, where people watch bars and tables. */
export function logLevelOf(flags: { verbose?: true }): LogLevel {
  if (flags.verbose === true) return 'debug';
  return process.stderr.isTTY ? 'warn' : 'info';
}

/**
 * The endpoints of the environment or of running local services, and what is built on them. Nothing is connected.
 * @param signal ends every wait for the registry
 * @throws ReelflowError usage or services
 */
export async function openContext(
  flags: CommonFlags,
  found?: Endpoints,
  signal?: AbortSignal,
): Promise<Context> {
  const [{ endpointsOf }, { createBroker }, { Registry }, { createLogger }] = await Promise.all([
    import('../kafka/local/services.ts'),
    import('../kafka/client.ts'),
    import('../topics/registry.ts'),
    import('../runtime/logger.ts'),
  ]);
  const endpoints = found ?? endpointsOf({ env: process.env, folder: localFolder });
  const logger = createLogger(logLevelOf(flags));
  return {
    endpoints,
    logger,
    broker: createBroker(endpoints, logger),
    registry: new Registry({
      url: endpoints.registryUrl,
      ...(endpoints.registryCredentials && { credentials: endpoints.registryCredentials }),
      ...(signal !== undefined && { signal }),
      onWaiting: (detail) => logger.warn({ detail }, 'waiting for the Schema Registry'),
    }),
    names: topicNamesIn(flags.namespace),
    places: { gold: flags.gold, state: flags.state, namespace: flags.namespace },
  };
}

/** What the parent of a forked stage sends to make it finish what there is and end. */
export const finishMessage = 'finish';

/** Aborts when the parent process asks this one to finish, or at once with `now`. */
export function finishSignal(now: boolean): AbortSignal {
  const controller = new AbortController();
  if (now) controller.abort();
  process.on('message', (message) => {
    if (message === finishMessage) controller.abort();
  });
  // The channel to the parent alone must not keep this process alive.
  process.channel?.unref();
  return controller.signal;
}

/** Aborts at the first SIGTERM or SIGINT. */
export function stopSignal(): AbortSignal {
  const controller = new AbortController();
  for (const name of ['SIGTERM', 'SIGINT'] as const) process.once(name, () => controller.abort(name));
  return controller.signal;
}
