/** The endpoints of a command and what is built on them. Nothing is connected before it is used. */
import type { Command } from 'commander';
import type { Broker } from '../kafka/client.ts';
import type { Endpoints, Places } from '../runtime/config.ts';
import { ReelflowError } from '../runtime/errors.ts';
import type { Logger, LogLevel } from '../runtime/logger.ts';
import { type TopicNames, topicNamesIn } from '../topics/catalog.ts';
import type { Registry } from '../topics/registry.ts';
import { type CommonFlags, localFolder, type OutputFlags } from './options.ts';
import { packageVersion } from './version.ts';

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

/** What every JSON line of the log names. */
const about = (component: string) => ({ component, pid: process.pid, version: packageVersion() });

/**
 * The endpoints of the environment, or of running local services.
 * @param signal ends every wait for the registry
 * @param log who writes the log, and its level if it is another one
 * @throws ReelflowError usage or services
 */
export async function openContext(
  flags: CommonFlags,
  found?: Endpoints,
  signal?: AbortSignal,
  log: { readonly component: string; readonly level?: LogLevel } = { component: 'cli' },
): Promise<Context> {
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
  const endpoints =
    found ??
    endpointsFromEnvironment(process.env) ??
    (await import('../kafka/local/services.ts')).runningEndpoints(localFolder);
  const logger = createLogger(log.level ?? logLevelOf(flags), about(log.component));
  return {
    endpoints,
    logger,
    // Without a signal nothing runs on: a person waits for one answer.
    broker: createBroker(endpoints, logger, signal === undefined && found === undefined ? 'look' : 'stage'),
    registry: new Registry({
      url: endpoints.registryUrl,
      access: registryAccess(endpoints.registrySecurity),
      ...(signal !== undefined && { signal }),
      outages: new OutageMonitor(logger, 'Schema Registry'),
    }),
    names: topicNamesIn(flags.namespace),
    places: { gold: flags.gold, state: flags.state, namespace: flags.namespace },
  };
}

/** Broker and registry of the environment or of this machine, which are started if none run. @throws ReelflowError services */
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
