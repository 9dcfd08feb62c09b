/**
 * A real broker and a real registry as two Java processes on 127.0.0.1, without Docker. `pom.xml` fetches their jars
 * from Maven Central. Their data stays in the folder, so a restart continues the same cluster with the same schema ids.
 */
import { randomBytes } from 'node:crypto';
import { existsSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { run } from '../../runtime/child-process.ts';
import type { Endpoints } from '../../runtime/config.ts';
import { ReelflowError } from '../../runtime/errors.ts';
import { makeFolder } from '../../runtime/files.ts';
import { findJvm, resolveJars } from './jars.ts';
import { answersKafka, answersRegistry, causeLines } from './probe.ts';
import { logOf, type Service, type ServiceHandle, startService } from './service-process.ts';

interface JvmServices {
  readonly endpoints: Endpoints;
  readonly broker: ServiceHandle;
  readonly registry: ServiceHandle;
  stop(): Promise<void>;
}

interface JvmOptions {
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
  /** More arguments for formatting the broker's data folder, which also creates SCRAM users. */
  readonly formatArguments?: readonly string[];
  readonly onProgress?: (line: string) => void;
}

/**
 * Starts broker and registry, or finds those that already run in the folder, and waits until both answer.
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

/** The broker alone, for a caller that has a registry. @throws ReelflowError services */
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

/** When one fails, ends the other at once if this call started it. */
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

interface JvmContext extends JvmOptions {
  readonly java: string;
  readonly lib: string;
}

/** The environment of a service, without variables that could change its configuration. */
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
    // Limits and retention keep Kafka's defaults. The rest is what a single node and fast groups need.
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
      // The flags of Kafka's own start script, because benchmarks measure this broker.
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
      // `log.dirs` is relative, so the tool must run in the broker's folder.
      const result = await run(java, format, { env, cwd });
      if (result.code !== 0) {
        throw new ReelflowError('services', 'The broker could not format its data folder', {
          detail: causeLines(result.output),
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
        // The default is an in-memory database: a restart would assign ids again, and old chunks would be decoded with
        // the wrong schema. Without WRITE_DELAY=0 a killed registry loses the ids of its last half second.
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
  makeFolder(join(cwd, 'tmp'));
}

/** 16 random bytes in Kafka's encoding; like Kafka's own ids, it does not start with a dash. */
function newClusterId(): string {
  const id = randomBytes(16).toString('base64url');
  return id.startsWith('-') ? newClusterId() : id;
}
