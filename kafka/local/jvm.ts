/**
 * The real broker and the real registry as two Java processes on 127.0.0.1, without Docker. Their jars come from
 * Maven Central by `services/pom.xml`; their data stays in the folder, so a restart continues the same cluster
 * with the same schema ids.
 */
import { randomBytes } from 'node:crypto';
import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import {
  isRunning,
  type ProcessRecord,
  type Program,
  readRecord,
  run,
  signalAndWait,
  startDetached,
  stopProcess,
} from '../../runtime/child-process.ts';
import type { Endpoints } from '../../runtime/config.ts';
import { ReelflowError } from '../../runtime/errors.ts';
import { findJvm, resolveJars } from './jars.ts';
import { answersKafka, answersRegistry, isFree, tellingLines } from './probe.ts';

export type ServiceName = 'broker' | 'registry';

/** One of the two processes. */
export interface ServiceHandle {
  readonly name: ServiceName;
  /** host:port */
  readonly address: string;
  readonly log: string;
  /** Whether this call started it, rather than found it running. */
  readonly startedNow: boolean;
  /** undefined while it does not run */
  pid(): number | undefined;
  /** SIGTERM, SIGKILL after a bound; waits for the end. */
  stop(): Promise<void>;
  /** Sends a signal; with SIGKILL also waits for the end. */
  kill(signal: NodeJS.Signals): Promise<void>;
  /** Starts it again, on the same port and data, after stopping it if it runs; waits until it is healthy. */
  restart(): Promise<void>;
}

export interface JvmServices {
  readonly endpoints: Endpoints;
  readonly broker: ServiceHandle;
  readonly registry: ServiceHandle;
  stop(): Promise<void>;
}

export interface JvmOptions {
  /** Holds data, logs and pid files of this pair. */
  readonly folder: string;
  /** The cache of jars, shared by any number of pairs. */
  readonly jars: string;
  readonly brokerPort: number;
  readonly registryPort: number;
  /** The port of the KRaft controller, the next after the broker's if not given. */
  readonly controllerPort?: number;
  readonly env: NodeJS.ProcessEnv;
  /** Broker properties that override ours. */
  readonly brokerProperties?: Readonly<Record<string, string>>;
  /** More arguments for formatting the broker's data folder: users of SCRAM are made there. */
  readonly formatArguments?: readonly string[];
  readonly onProgress?: (line: string) => void;
}

const startBoundMs = 120_000;
const stopBoundMs = { broker: 30_000, registry: 10_000 };

/**
 * Starts broker and registry, or recognises those that already run in the folder, and waits until both answer.
 * @throws ReelflowError services, when jars cannot be fetched, a port is taken or a process does not start
 */
export async function startJvmServices(options: JvmOptions): Promise<JvmServices> {
  const context = await contextOf(options);
  const [broker, registry] = await bothOrNeither(brokerOf(context), registryOf(context));
  return {
    endpoints: { brokers: [broker.address], registryUrl: registryUrlOf(registry.address) },
    broker,
    registry,
    stop: async () => {
      await Promise.all([broker.stop(), registry.stop()]);
    },
  };
}

/** The broker alone, for those who have a registry already. @throws ReelflowError services */
export async function startJvmBroker(options: Omit<JvmOptions, 'registryPort'>): Promise<ServiceHandle> {
  const context = await contextOf({ ...options, registryPort: 0 });
  return startService(brokerOf(context), new AbortController().signal);
}

async function contextOf(options: JvmOptions): Promise<JvmContext> {
  const java = await findJvm(options.env, options.jars);
  if ('why' in java) {
    throw new ReelflowError('services', 'Broker and registry cannot run on this machine', {
      detail: java.why,
      hint: 'Install Java 17 or newer and Maven.',
    });
  }
  const lib = await resolveJars(options);
  return { ...options, folder: resolve(options.folder), java: java.found, lib };
}

/** The Confluent-compatible API of a registry at host:port. */
export function registryUrlOf(address: string): string {
  return `http://${address}/apis/ccompat/v7`;
}

/** The record of a service that runs in the folder, started by us, or undefined. */
export function runningService(folder: string, name: ServiceName): ProcessRecord | undefined {
  return readRecord(pidFileOf(folder, name));
}

/** Ends a service that runs in the folder. @returns whether it ran */
export function stopService(folder: string, name: ServiceName): Promise<boolean> {
  return stopProcess(pidFileOf(folder, name), stopBoundMs[name]);
}

export function logOf(folder: string, name: ServiceName): string {
  return join(folder, `${name}.log`);
}

function pidFileOf(folder: string, name: ServiceName): string {
  return join(folder, `${name}.pid`);
}

/** A failure of one at once ends what this call started of the other. */
async function bothOrNeither(broker: Service, registry: Service): Promise<[ServiceHandle, ServiceHandle]> {
  const failed = new AbortController();
  const start = async (service: Service) => {
    try {
      return await startService(service, failed.signal);
    } catch (error) {
      if (!failed.signal.aborted) failed.abort(error);
      return undefined;
    }
  };
  const [first, second] = await Promise.all([start(broker), start(registry)]);
  if (first !== undefined && second !== undefined) return [first, second];
  for (const handle of [first, second]) if (handle?.startedNow) await handle.stop();
  throw failed.signal.reason;
}

interface Service {
  readonly name: ServiceName;
  readonly folder: string;
  readonly port: number;
  /** Ports that must be free before it starts. */
  readonly ports: readonly number[];
  readonly program: Program;
  /** Makes the data folder ready before a start. */
  readonly prepare: () => Promise<void>;
  readonly isHealthy: (port: number) => Promise<boolean>;
  readonly onProgress: JvmOptions['onProgress'];
}

interface JvmContext extends JvmOptions {
  readonly java: string;
  readonly lib: string;
}

/** The environment of a service: none of the caller's variables can change its configuration. */
function bareEnvironment(env: NodeJS.ProcessEnv): NodeJS.ProcessEnv {
  const { PATH, HOME, LANG } = env;
  return { ...(PATH && { PATH }), ...(HOME && { HOME }), ...(LANG && { LANG }) };
}

function brokerOf(context: JvmContext): Service {
  const { folder, brokerPort, lib, java } = context;
  const cwd = join(folder, 'broker');
  const controllerPort = context.controllerPort ?? brokerPort + 1;
  const properties = {
    'process.roles': 'broker,controller',
    'node.id': '1',
    'controller.quorum.voters': `1@127.0.0.1:${controllerPort}`,
    'controller.listener.names': 'CONTROLLER',
    listeners: `PLAINTEXT://127.0.0.1:${brokerPort},CONTROLLER://127.0.0.1:${controllerPort}`,
    'advertised.listeners': `PLAINTEXT://127.0.0.1:${brokerPort}`,
    'log.dirs': 'data',
    // Limits and retention stay as Kafka ships them. What follows is what one node needs, and quick groups.
    'auto.create.topics.enable': 'false',
    'group.initial.rebalance.delay.ms': '0',
    'offsets.topic.replication.factor': '1',
    'offsets.topic.num.partitions': '4',
    'transaction.state.log.replication.factor': '1',
    'transaction.state.log.min.isr': '1',
    'transaction.state.log.num.partitions': '4',
    'share.coordinator.state.topic.replication.factor': '1',
    'share.coordinator.state.topic.min.isr': '1',
    ...context.brokerProperties,
  };
  const jvm = (heap: string, ...more: string[]) => [
    `-Xmx${heap}`,
    `-Djava.io.tmpdir=${join(cwd, 'tmp')}`,
    ...more,
    '-cp',
    join(lib, 'kafka', '*'),
  ];
  const env = bareEnvironment(context.env);
  return {
    name: 'broker',
    folder,
    port: brokerPort,
    ports: [brokerPort, controllerPort],
    program: {
      command: java,
      // The flags of Kafka's own start script: this broker is measured.
      args: [
        ...jvm(
          '1g',
          '-server',
          '-XX:+UseG1GC',
          '-XX:MaxGCPauseMillis=20',
          '-XX:InitiatingHeapOccupancyPercent=35',
          '-XX:+ExplicitGCInvokesConcurrent',
          '-Djava.awt.headless=true',
          '-Dorg.slf4j.simpleLogger.showDateTime=true',
          '-Dorg.slf4j.simpleLogger.dateTimeFormat=yyyy-MM-dd HH:mm:ss.SSS',
        ),
        'kafka.Kafka',
        'server.properties',
      ],
      cwd,
      env,
      log: logOf(folder, 'broker'),
    },
    prepare: async () => {
      freshTemporaryFolder(cwd);
      const text = Object.entries(properties).map(([key, value]) => `${key}=${value}\n`);
      writeFileSync(join(cwd, 'server.properties'), text.join(''));
      if (existsSync(join(cwd, 'data', 'meta.properties'))) return;
      const format = [
        ...jvm('256m', '-XX:TieredStopAtLevel=1', '-Dorg.slf4j.simpleLogger.defaultLogLevel=warn'),
        'kafka.tools.StorageTool',
        'format',
        '--config',
        join(cwd, 'server.properties'),
        '--cluster-id',
        newClusterId(),
        ...(context.formatArguments ?? []),
      ];
      // `log.dirs` is relative, so the tool has to run where the broker will.
      const result = await run(java, format, { env, cwd });
      if (result.code !== 0) {
        throw new ReelflowError('services', 'The broker could not format its data folder', {
          detail: tellingLines(result.output),
          hint: `Check that ${cwd} is writable and its disk not full.`,
        });
      }
    },
    isHealthy: answersKafka,
    onProgress: context.onProgress,
  };
}

function registryOf(context: JvmContext): Service {
  const { folder, registryPort, lib, java } = context;
  const cwd = join(folder, 'registry');
  const jar = readdirSync(join(lib, 'registry')).find((file) => file.endsWith('-runner.jar')) as string;
  return {
    name: 'registry',
    folder,
    port: registryPort,
    ports: [registryPort],
    program: {
      command: java,
      args: [
        '-Xmx512m',
        '-XX:TieredStopAtLevel=1',
        '-XX:+UseSerialGC',
        `-Djava.io.tmpdir=${join(cwd, 'tmp')}`,
        '-Dquarkus.http.host=127.0.0.1',
        `-Dquarkus.http.port=${registryPort}`,
        '-Dquarkus.http.access-log.enabled=false',
        // The default is a database in memory: after a restart ids would be allotted anew, and old chunks decoded
        // by the wrong schema. Without WRITE_DELAY=0 a killed registry forgets the ids of its last half second.
        '-Dapicurio.datasource.url=jdbc:h2:file:./data/registry;WRITE_DELAY=0',
        '-Dapicurio.datasource.jdbc.initial-size=2',
        '-Dapicurio.datasource.jdbc.min-size=2',
        '-jar',
        join(lib, 'registry', jar),
      ],
      cwd,
      env: bareEnvironment(context.env),
      log: logOf(folder, 'registry'),
    },
    prepare: async () => freshTemporaryFolder(cwd),
    isHealthy: (port) => answersRegistry(registryUrlOf(`127.0.0.1:${port}`)),
    onProgress: context.onProgress,
  };
}

function freshTemporaryFolder(cwd: string): void {
  rmSync(join(cwd, 'tmp'), { recursive: true, force: true });
  mkdirSync(join(cwd, 'tmp'), { recursive: true });
}

/** 16 random bytes as Kafka writes them; like Kafka's own, it does not start with a dash. */
function newClusterId(): string {
  const id = randomBytes(16).toString('base64url');
  return id.startsWith('-') ? newClusterId() : id;
}

/** @param signal ends a start under way, together with the process that it started */
async function startService(service: Service, signal: AbortSignal): Promise<ServiceHandle> {
  const { name, folder, program } = service;
  const pidFile = pidFileOf(folder, name);
  const startHere = async (signal?: AbortSignal): Promise<ProcessRecord> => {
    for (const port of service.ports) await requireFree(port, service);
    await service.prepare();
    signal?.throwIfAborted();
    const logStart = statSync(program.log, { throwIfNoEntry: false })?.size ?? 0;
    service.onProgress?.(`starting the ${name} on 127.0.0.1:${service.port}`);
    const record = await startDetached(program, pidFile, service.port);
    await untilHealthy(service, record, { logStart, signal });
    return record;
  };

  const running = readRecord(pidFile);
  if (running !== undefined) await untilHealthy(service, running);
  const { port } = running ?? (await startHere(signal));
  return {
    name,
    address: `127.0.0.1:${port}`,
    log: program.log,
    startedNow: running === undefined,
    pid: () => readRecord(pidFile)?.pid,
    stop: async () => {
      await stopProcess(pidFile, stopBoundMs[name]);
    },
    kill: async (signal) => {
      const record = readRecord(pidFile);
      if (record !== undefined) await signalAndWait(record, signal, signal === 'SIGKILL' ? 10_000 : 0);
    },
    restart: async () => {
      await stopProcess(pidFile, stopBoundMs[name]);
      await startHere();
    },
  };
}

/** Waits for a process that was found, or for one that we started: only that is ended when it does not come up. */
async function untilHealthy(
  service: Service,
  record: ProcessRecord,
  own?: { logStart: number; signal: AbortSignal | undefined },
): Promise<void> {
  const { name, program } = service;
  const deadline = Date.now() + startBoundMs;
  while (!(await service.isHealthy(record.port))) {
    const ended = !isRunning(record);
    if (own && (own.signal?.aborted || Date.now() > deadline)) await signalAndWait(record, 'SIGKILL', 10_000);
    own?.signal?.throwIfAborted();
    if (ended || Date.now() > deadline) {
      throw new ReelflowError(
        'services',
        `The ${name} ${ended ? 'ended while it started' : 'does not answer'}`,
        {
          detail: tellingLines(readFrom(program.log, own?.logStart ?? 0)) || 'Its log says nothing.',
          hint: `The whole log is ${program.log}.${ended ? '' : ' To start afresh: npx reelflow services down, then up.'}`,
        },
      );
    }
    await delay(50);
  }
}

/** @throws ReelflowError services, when something listens on the port */
async function requireFree(port: number, { name }: Service): Promise<void> {
  if (await isFree(port)) return;
  const option = name === 'broker' ? 'broker-port' : 'registry-port';
  const variable = `REELFLOW_${option.replace('-', '_').toUpperCase()}`;
  throw new ReelflowError('services', `Port ${port} is taken`, {
    detail: `The ${name} needs 127.0.0.1:${port}, and a process that reelflow did not start listens there.`,
    hint:
      `Choose another with --${option} or ${variable}` +
      (name === 'broker' ? ' (the port after it is needed as well), ' : ', ') +
      'or name running services in KAFKA_BROKERS and SCHEMA_REGISTRY_URL.',
  });
}

function readFrom(log: string, start: number): string {
  try {
    return readFileSync(log).subarray(start).toString('utf8');
  } catch {
    return '';
  }
}
