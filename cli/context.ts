/** The clients, names and folders of a command. */
import type { Command } from 'commander';
import type { Broker } from '../kafka/client.ts';
import type { Endpoints, Places } from '../runtime/config.ts';
import { ReelflowError } from '../runtime/errors.ts';
import type { Logger, LogLevel } from '../runtime/logger.ts';
import { packageVersion } from '../runtime/package.ts';
import { type TopicNames, topicNamesIn } from '../topics/catalog.ts';
import type { Registry } from '../topics/registry.ts';
import { type CommonFlags, localFolder, type OutputFlags } from './options.ts';

export interface Context {
  readonly endpoints: Endpoints;
  readonly broker: Broker;
  readonly registry: Registry;
  readonly names: TopicNames;
  readonly places: Places;
  readonly logger: Logger;
}

/** `debug` with --verbose, `info` in a pipe or a service, `warn` on a terminal, where bars and tables are shown. */
export function logLevelOf(flags: OutputFlags): LogLevel {
  if (flags.verbose === true) return 'debug';
  return process.stderr.isTTY ? 'warn' : 'info';
}

interface ContextOptions {
  /** Default those of the environment, else of running local services. */
  readonly endpoints?: Endpoints;
  /** Ends every wait for the registry. */
  readonly signal?: AbortSignal;
  /** Names the command in its log. */
  readonly component?: string;
  /** Default that of `logLevelOf`. */
  readonly level?: LogLevel;
}

/** Connects nothing yet. @throws ReelflowError usage; services, if there are no endpoints */
export async function openContext(flags: CommonFlags, options: ContextOptions = {}): Promise<Context> {
  const { signal, component = 'cli', level = logLevelOf(flags) } = options;
  const [
    { endpointsFromEnvironment },
    { createBroker },
    { OutageMonitor },
    { Registry },
    { registryAccess },
    { createLogger },
  ] = await Promise.all([
    import('../runtime/config.ts'),
    import('../kafka/client.ts'),
    import('../kafka/outage.ts'),
    import('../topics/registry.ts'),
    import('../runtime/registry-security.ts'),
    import('../runtime/logger.ts'),
  ]);
  const endpoints = options.endpoints ??
    endpointsFromEnvironment(process.env) ?? {
      ...(await import('../kafka/local/services.ts')).runningEndpoints(localFolder),
      areLocal: true,
    };
  // What every JSON line of the log names.
  const logger = createLogger(level, { component, pid: process.pid, version: packageVersion() });
  return {
    endpoints,
    logger,
    // A command without a signal gives one answer, for which a person waits.
    broker: createBroker(
      endpoints,
      logger,
      signal === undefined && options.endpoints === undefined ? 'look' : 'stage',
    ),
    registry: new Registry({
      url: endpoints.registryUrl,
      access: registryAccess(endpoints.registrySecurity),
      isLocal: endpoints.areLocal ?? false,
      ...(signal !== undefined && { signal }),
      outages: new OutageMonitor(logger, 'Schema Registry'),
    }),
    names: topicNamesIn(flags.namespace),
    places: { gold: flags.gold, state: flags.state, namespace: flags.namespace },
  };
}

/** Broker and registry of the environment or of this machine; starts them if none run. @throws ReelflowError services */
export async function servicesHere() {
  const { findServices } = await import('../kafka/local/services.ts');
  return findServices({
    env: process.env,
    folder: localFolder,
    onProgress: (line) => process.stderr.write(`${line}\n`),
  });
}

/**
 * The flags with the namespace of a snapshot, unless the command line names another one: a gold folder belongs to one pipeline.
 * @param id undefined for a folder without snapshots
 * @throws ReelflowError foreignCluster, if the named namespace is another one; goldUnusable
 */
export async function inNamespaceOf<Flags extends CommonFlags>(
  id: string | undefined,
  flags: Flags,
  command: Command,
): Promise<Flags> {
  if (id === undefined) return flags;
  const { readManifest } = await import('../sinks/gold/manifest.ts');
  const { namespace } = readManifest(flags.gold, id);
  const isGiven = command.getOptionValueSource('namespace') !== 'default';
  if (!isGiven || namespace === flags.namespace) {
    // Hints read the options of the command.
    command.setOptionValue('namespace', namespace);
    return { ...flags, namespace };
  }
  throw new ReelflowError('foreignCluster', `Snapshot ${id} belongs to another namespace`, {
    detail: `${flags.gold} is ${namespaceText(namespace)}, not ${namespaceText(flags.namespace)}.`,
    hint: 'Leave --namespace and REELFLOW_NAMESPACE out to use the one of the snapshot, or name its folder with --gold.',
  });
}

/** A namespace in a sentence, behind what belongs to it. */
export const namespaceText = (namespace: string) =>
  namespace === '' ? 'without a namespace' : `of namespace ${namespace}`;
