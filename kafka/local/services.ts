/**
 * Where the broker and the registry are, and how they come up: the ones named by the environment, else Docker, else
 * Java and Maven. What was started here is known by a record in the folder; only that is ever stopped.
 */
import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { type Endpoints, endpointsFromEnvironment } from '../../runtime/config.ts';
import { messageOf, ReelflowError } from '../../runtime/errors.ts';
import { withFolderLock } from '../../runtime/folder-lock.ts';
import { createLogger, type Logger } from '../../runtime/logger.ts';
import { clusterIdOf, createBroker } from '../client.ts';
import { composeDown, composeRecord, composeUp, findDocker, type Ports } from './docker.ts';
import { findJvm } from './jars.ts';
import {
  logOf,
  registryUrlOf,
  runningService,
  type ServiceName,
  startJvmServices,
  stopService,
} from './jvm.ts';
import { answersKafka, answersRegistry } from './probe.ts';

export type { ServiceName } from './jvm.ts';

export type ServicesWay = 'environment' | 'docker' | 'jvm';

/** Ports on 127.0.0.1 that no usual installation of Kafka or of a registry takes. The controller has the one after the broker's. */
export const defaultPorts: Ports = { broker: 19_092, registry: 18_081 };

export interface RunningServices {
  readonly endpoints: Endpoints;
  readonly how: ServicesWay;
  /** Why each earlier way did not serve, one sentence each. */
  readonly why: readonly string[];
  /** What this call started; empty when everything was running already. */
  readonly started: readonly ServiceName[];
}

export interface ServicesOptions {
  readonly env: NodeJS.ProcessEnv;
  /** The folder of everything local, `.reelflow` unless told otherwise. */
  readonly folder: string;
  /** For services that are not running yet; `portsFrom` gives the environment's or the defaults. */
  readonly ports?: Ports;
  readonly onProgress?: (line: string) => void;
  readonly logger?: Logger;
}

export interface ServiceStatus {
  readonly name: ServiceName;
  readonly running: boolean;
  /** null when it is not a process of ours */
  readonly pid: number | null;
  readonly address: string | null;
  /** Whether it answers a request. */
  readonly healthy: boolean;
  readonly log: string | null;
}

export interface ServicesStatus {
  /** null when no services are known */
  readonly how: ServicesWay | null;
  readonly services: readonly ServiceStatus[];
}

const lockPatienceMs = 15 * 60_000;
const names: readonly ServiceName[] = ['broker', 'registry'];

/**
 * Finds or starts a broker and a registry. Calls in several processes are served one after the other.
 *
 * 1. the endpoints of the environment, as they are;
 * 2. what this folder already runs;
 * 3. a reachable Docker engine;
 * 4. Java and Maven.
 *
 * @throws ReelflowError usage for a half-set environment; services when no way serves, a port is taken, a start fails
 */
export async function findServices(options: ServicesOptions): Promise<RunningServices> {
  const { env, onProgress, logger } = options;
  const named = endpointsFromEnvironment(env);
  if (named !== undefined) return { endpoints: named, how: 'environment', why: [], started: [] };

  const why = ['Environment: KAFKA_BROKERS and SCHEMA_REGISTRY_URL are not set.'];
  const ports = options.ports ?? portsFrom(env);
  const found = await locked(options, async (folder) => {
    if (names.some((name) => runningService(folder, name) !== undefined)) {
      why.push('Docker: not asked, because this folder already runs broker or registry on Java.');
      return startOnJvm(options, folder, ports, why);
    }

    const docker = await findDocker(env);
    if ('found' in docker) {
      const running = composeRecord(folder);
      const failure = await composeUp(env, folder, running ?? ports, onProgress);
      if (failure === undefined) return onDocker(running ?? ports, running !== undefined, why);
      // Once data lies in Docker's volumes, another way would silently be another, empty cluster.
      if (running !== undefined) throw composeFailed(failure);
      why.push(`Docker: compose could not start the services: ${failure}`);
      await composeDown(env, folder, ports);
    } else {
      why.push(`Docker: ${docker.why}.`);
    }

    const jvm = await findJvm(env, join(options.folder, 'jars'));
    if ('found' in jvm) return startOnJvm(options, folder, ports, why);
    throw new ReelflowError('services', 'There is no Kafka broker and no way to start one', {
      detail: [...why, `Java and Maven: ${jvm.why}.`].join('\n'),
      hint:
        'One of three: set KAFKA_BROKERS and SCHEMA_REGISTRY_URL to running services; start a Docker engine; ' +
        'or install Java 17 or newer and Maven.',
    });
  });
  logger?.info({ ...found }, 'services found');
  return found;
}

/** Stops what was started in this folder, and nothing else; data stays. @returns the services that ran */
export async function stopServices(options: ServicesOptions): Promise<ServiceName[]> {
  return locked(options, async (folder) => {
    const ran = await Promise.all(names.map((name) => stopService(folder, name)));
    const ports = composeRecord(folder);
    if (ports === undefined) return names.filter((_, i) => ran[i]);
    const failure = await composeDown(options.env, folder, ports);
    if (failure !== undefined) throw composeFailed(failure);
    return [...names];
  });
}

/** What runs, and whether it answers; changes nothing. */
export async function servicesStatus(options: ServicesOptions): Promise<ServicesStatus> {
  const folder = join(options.folder, 'services');
  const named = endpointsFromEnvironment(options.env);
  const ports = composeRecord(folder);
  if (named !== undefined) return { how: 'environment', services: await statusElsewhere(named) };
  if (ports !== undefined) return { how: 'docker', services: await statusElsewhere(endpointsAt(ports)) };

  const services = await Promise.all(
    names.map(async (name) => {
      const record = runningService(folder, name);
      const log = logOf(folder, name);
      if (record === undefined)
        return { name, running: false, pid: null, address: null, healthy: false, log };
      const address = `127.0.0.1:${record.port}`;
      const healthy = await (name === 'broker'
        ? answersKafka(record.port)
        : answersRegistry(registryUrlOf(address)));
      return { name, running: true, pid: record.pid, address, healthy, log };
    }),
  );
  return { how: services.some(({ running }) => running) ? 'jvm' : null, services };
}

/**
 * The endpoints that a stage talks to: the environment's, else those that run in this folder. Starts nothing.
 * @throws ReelflowError usage for a half-set environment; services when nothing runs
 */
export function endpointsOf({ env, folder }: Pick<ServicesOptions, 'env' | 'folder'>): Endpoints {
  const named = endpointsFromEnvironment(env);
  if (named !== undefined) return named;
  const services = join(folder, 'services');
  const ports = composeRecord(services);
  if (ports !== undefined) return endpointsAt(ports);
  const [broker, registry] = names.map((name) => runningService(services, name)?.port);
  if (broker !== undefined && registry !== undefined) return endpointsAt({ broker, registry });
  throw new ReelflowError('services', 'There is no running broker and registry', {
    detail: `KAFKA_BROKERS and SCHEMA_REGISTRY_URL are not set, and none were started in ${folder}.`,
    hint: 'Start local ones with: npx reelflow services up',
  });
}

/**
 * The ports for services still to be started: an option before the environment before the default.
 * @throws ReelflowError usage, for a text that is not a port
 */
export function portsFrom(
  env: NodeJS.ProcessEnv,
  options: { brokerPort?: string; registryPort?: string } = {},
): Ports {
  const port = (text: string | undefined, otherwise: number, name: string) => {
    if (text === undefined || text.trim() === '') return otherwise;
    const value = Number(text);
    // 65535 is no port for the broker: its controller needs the next one.
    if (/^\d+$/.test(text.trim()) && value > 0 && value < 65_535) return value;
    throw new ReelflowError('usage', `${name} is not a port: ${text}`, {
      hint: 'A port is a number from 1 to 65534.',
    });
  };
  return {
    broker: port(options.brokerPort ?? env.REELFLOW_BROKER_PORT, defaultPorts.broker, 'The broker port'),
    registry: port(
      options.registryPort ?? env.REELFLOW_REGISTRY_PORT,
      defaultPorts.registry,
      'The registry port',
    ),
  };
}

/** Runs `work` on the folder of the services, which nobody else changes meanwhile. */
async function locked<T>(options: ServicesOptions, work: (folder: string) => Promise<T>): Promise<T> {
  const folder = join(options.folder, 'services');
  try {
    mkdirSync(folder, { recursive: true });
  } catch (error) {
    throw new ReelflowError('services', `The folder of the local services is not writable: ${folder}`, {
      detail: messageOf(error),
      hint: 'Choose another folder, or make this one writable.',
      cause: error,
    });
  }
  const onWait = (pid: number) =>
    options.onProgress?.(`waiting for process ${pid}, which starts or stops services`);
  return withFolderLock(folder, { patienceMs: lockPatienceMs, onWait }, () => work(folder));
}

async function startOnJvm(
  { env, folder: root, onProgress }: ServicesOptions,
  folder: string,
  ports: Ports,
  why: readonly string[],
): Promise<RunningServices> {
  const { endpoints, broker, registry } = await startJvmServices({
    folder,
    jars: join(root, 'jars'),
    brokerPort: ports.broker,
    registryPort: ports.registry,
    env,
    ...(onProgress && { onProgress }),
  });
  const started = [broker, registry].filter(({ startedNow }) => startedNow).map(({ name }) => name);
  return { endpoints, how: 'jvm', why, started };
}

function onDocker(ports: Ports, wasRunning: boolean, why: readonly string[]): RunningServices {
  return { endpoints: endpointsAt(ports), how: 'docker', why, started: wasRunning ? [] : names };
}

function endpointsAt(ports: Ports): Endpoints {
  return {
    brokers: [`127.0.0.1:${ports.broker}`],
    registryUrl: registryUrlOf(`127.0.0.1:${ports.registry}`),
  };
}

/** The status of services that are not processes of ours: what answers, runs. */
async function statusElsewhere(endpoints: Endpoints): Promise<ServiceStatus[]> {
  const { brokers, registryUrl, registryCredentials } = endpoints;
  const [broker, registry] = await Promise.all([
    answersBroker(endpoints),
    answersRegistry(registryUrl, registryCredentials),
  ]);
  const elsewhere = { pid: null, log: null };
  return [
    { name: 'broker', running: broker, healthy: broker, address: brokers.join(','), ...elsewhere },
    { name: 'registry', running: registry, healthy: registry, address: registryUrl, ...elsewhere },
  ];
}

async function answersBroker(endpoints: Endpoints): Promise<boolean> {
  const { brokers, security } = endpoints;
  if (security !== undefined) {
    // Only whoever has shaken hands and logged in gets an answer.
    const broker = createBroker(endpoints, createLogger('silent'));
    return clusterIdOf(broker).then(
      () => true,
      () => false,
    );
  }
  const answers = await Promise.all(
    brokers.map((address) => {
      const colon = address.lastIndexOf(':');
      return answersKafka(Number(address.slice(colon + 1)), address.slice(0, colon).replace(/^\[|\]$/g, ''));
    }),
  );
  return answers.some(Boolean);
}

function composeFailed(output: string): ReelflowError {
  return new ReelflowError('services', 'docker compose failed', {
    detail: output,
    hint: 'Check that the Docker engine runs and can fetch images.',
  });
}
