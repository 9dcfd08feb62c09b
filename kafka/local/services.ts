/**
 * Finds or starts broker and registry: those of the environment, else Docker, else Java and Maven. A record in the
 * folder lists the services that reelflow started; it never stops any others.
 */
import { join, resolve } from 'node:path';
import { type Endpoints, endpointsFromEnvironment } from '../../runtime/config.ts';
import { messageOf, ReelflowError } from '../../runtime/errors.ts';
import { makeFolder } from '../../runtime/files.ts';
import { withFolderLock } from '../../runtime/folder-lock.ts';
import { createLogger, type Logger } from '../../runtime/logger.ts';
import { registryAccess } from '../../runtime/registry-security.ts';
import { clusterIdOf, createBroker } from '../client.ts';
import { composeDown, composeRecord, composeUp, findDocker, type Ports } from './docker.ts';
import { findJvm } from './jars.ts';
import { registryUrlOf, startJvmServices } from './jvm.ts';
import { answersKafka, answersRegistry } from './probe.ts';
import { logOf, runningService, type ServiceName, stopService } from './service-process.ts';

type ServicesWay = 'environment' | 'docker' | 'jvm';

/** Ports on 127.0.0.1 that a usual Kafka or registry does not use. The controller uses the port after the broker's. */
const defaultPorts: Ports = { broker: 19_092, registry: 18_081 };

interface RunningServices {
  readonly endpoints: Endpoints;
  readonly how: ServicesWay;
  /** Why each earlier way was not used, one sentence each. */
  readonly why: readonly string[];
  /** Services that this call started; empty when all were running. */
  readonly started: readonly ServiceName[];
}

interface ServicesOptions {
  readonly env: NodeJS.ProcessEnv;
  /** The folder of all local data, `.reelflow` by default. */
  readonly folder: string;
  /** For services that do not run yet. Default: those of `portsFrom`. */
  readonly ports?: Ports;
  readonly onProgress?: (line: string) => void;
  readonly logger?: Logger;
}

interface ServiceStatus {
  readonly name: ServiceName;
  readonly running: boolean;
  /** null unless reelflow started the process */
  readonly pid: number | null;
  readonly address: string | null;
  /** Whether it answers a request. */
  readonly healthy: boolean;
  readonly log: string | null;
}

interface ServicesStatus {
  /** null without known services */
  readonly how: ServicesWay | null;
  readonly services: readonly ServiceStatus[];
}

const lockPatienceMs = 15 * 60_000;
const serviceNames: readonly ServiceName[] = ['broker', 'registry'];

/**
 * Finds or starts a broker and a registry. Concurrent calls, also of other processes, run one after the other.
 *
 * 1. the endpoints of the environment, as they are;
 * 2. what this folder already runs;
 * 3. a reachable Docker engine;
 * 4. Java and Maven.
 *
 * @throws ReelflowError usage for a half-set environment; services when no way works, a port is in use, or a start fails
 */
export async function findServices(options: ServicesOptions): Promise<RunningServices> {
  const { env, onProgress, logger } = options;
  const named = endpointsFromEnvironment(env);
  if (named !== undefined) return { endpoints: named, how: 'environment', why: [], started: [] };

  const why = ['Environment: KAFKA_BROKERS and SCHEMA_REGISTRY_URL are not set.'];
  const ports = options.ports ?? portsFrom(env);
  const found = await locked(options, async (folder) => {
    if (serviceNames.some((name) => runningService(folder, name) !== undefined)) {
      why.push('Docker: not tried, because broker or registry already run on Java in this folder.');
      return startOnJvm(options, folder, ports, why);
    }

    const docker = await findDocker(env);
    if ('found' in docker) {
      const running = composeRecord(folder);
      const failure = await composeUp(env, folder, running ?? ports, onProgress);
      if (failure === undefined) return onDocker(running ?? ports, running !== undefined, why);
      // The data is in Docker's volumes: another way would silently create an empty cluster.
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

/** Stops the services that were started in this folder and no others; data stays. @returns the services that ran */
export async function stopServices(options: ServicesOptions): Promise<ServiceName[]> {
  return locked(options, async (folder) => {
    const ran = await Promise.all(serviceNames.map((name) => stopService(folder, name)));
    const ports = composeRecord(folder);
    if (ports === undefined) return serviceNames.filter((_, i) => ran[i]);
    const failure = await composeDown(options.env, folder, ports);
    if (failure !== undefined) throw composeFailed(failure);
    return [...serviceNames];
  });
}

/** Reports which services run and answer; changes nothing. */
export async function servicesStatus(options: ServicesOptions): Promise<ServicesStatus> {
  const folder = join(options.folder, 'services');
  const named = endpointsFromEnvironment(options.env);
  const ports = composeRecord(folder);
  if (named !== undefined) return { how: 'environment', services: await statusElsewhere(named) };
  if (ports !== undefined) return { how: 'docker', services: await statusElsewhere(endpointsAt(ports)) };

  const services = await Promise.all(
    serviceNames.map(async (name) => {
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
 * The endpoints of the services that were started in this folder, for a stage whose environment names none. Starts nothing.
 * @throws ReelflowError services when none runs
 */
export function runningEndpoints(folder: string): Endpoints {
  const services = join(folder, 'services');
  const ports = composeRecord(services);
  if (ports !== undefined) return endpointsAt(ports);
  const [broker, registry] = serviceNames.map((name) => runningService(services, name)?.port);
  if (broker !== undefined && registry !== undefined) return endpointsAt({ broker, registry });
  throw new ReelflowError('services', 'There is no running broker and registry', {
    detail: `KAFKA_BROKERS and SCHEMA_REGISTRY_URL are not set, and none were started in ${resolve(folder)}.`,
    hint: 'Change to the folder where they were started, or start local ones with: npx reelflow services up',
  });
}

/**
 * The ports for services to start: from the option, else the environment, else the default.
 * @throws ReelflowError usage, for a text that is not a port
 */
export function portsFrom(
  env: NodeJS.ProcessEnv,
  options: { brokerPort?: string; registryPort?: string } = {},
): Ports {
  const port = (text: string | undefined, otherwise: number, name: string) => {
    if (text === undefined || text.trim() === '') return otherwise;
    const value = Number(text);
    // 65535 is not possible: the controller needs the port after the broker's.
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

/** Runs `work` while no other process changes the folder of the services. @throws ReelflowError services, busy */
async function locked<T>(options: ServicesOptions, work: (folder: string) => Promise<T>): Promise<T> {
  const folder = join(options.folder, 'services');
  try {
    makeFolder(folder);
  } catch (error) {
    throw new ReelflowError('services', `The folder of the local services is not writable: ${folder}`, {
      detail: messageOf(error),
      hint: 'Choose another folder, or make this one writable.',
      cause: error,
    });
  }
  const onWait = (owner: string) =>
    options.onProgress?.(`waiting for ${owner}, which starts or stops services`);
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
  return { endpoints: endpointsAt(ports), how: 'docker', why, started: wasRunning ? [] : serviceNames };
}

function endpointsAt(ports: Ports): Endpoints {
  return {
    brokers: [`127.0.0.1:${ports.broker}`],
    registryUrl: registryUrlOf(`127.0.0.1:${ports.registry}`),
  };
}

/** The status of services that reelflow did not start: a service that answers is running. */
async function statusElsewhere(endpoints: Endpoints): Promise<ServiceStatus[]> {
  const { brokers, registryUrl, registrySecurity } = endpoints;
  const [broker, registry] = await Promise.all([
    answersBroker(endpoints),
    answersRegistry(registryUrl, registryAccess(registrySecurity)),
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
    // A secured port answers only after TLS handshake and login.
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
