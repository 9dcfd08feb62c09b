/**
 * A real broker and registry for the whole test run: the ones of the environment, else containers, else Java
 * processes; with none of them the run fails, it never skips. What this starts ends with the run, and what a killed
 * run left behind ends with the next.
 */
import { mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { TestProject } from 'vitest/node';
import { findJvm } from '../../kafka/local/jars.ts';
import { registryUrlOf, startJvmServices } from '../../kafka/local/jvm.ts';
import { freePorts } from '../../kafka/local/probe.ts';
import { stopService } from '../../kafka/local/service-process.ts';
import { type Endpoints, endpointsFromEnvironment } from '../../runtime/config.ts';
import { identityOf } from '../../runtime/detached-process.ts';
import { messageOf, ReelflowError } from '../../runtime/errors.ts';

declare module 'vitest' {
  export interface ProvidedContext {
    /** host:port of the brokers that the tests share */
    brokers: string[];
    registryUrl: string;
  }
}

interface Started {
  readonly endpoints: Endpoints;
  stop(): Promise<void>;
}

const local = fileURLToPath(new URL('../../.reelflow', import.meta.url));
/** One folder per test run, named after its process. */
const runs = join(local, 'test');

/** vitest's hook: provides `brokers` and `registryUrl`, and gives back the teardown. */
export default async function setup(project: TestProject): Promise<() => Promise<void>> {
  const { endpoints, stop } = await start();
  project.provide('brokers', endpoints.brokers);
  project.provide('registryUrl', endpoints.registryUrl);
  return stop;
}

async function start(): Promise<Started> {
  const named = endpointsFromEnvironment(process.env);
  if (named !== undefined) {
    say('the environment names broker and registry');
    return { endpoints: named, stop: async () => {} };
  }
  const why = ['Environment: KAFKA_BROKERS and SCHEMA_REGISTRY_URL are not set.'];

  const testcontainers = await import('testcontainers');
  try {
    await testcontainers.getContainerRuntimeClient();
  } catch (error) {
    why.push(`Docker: ${messageOf(error)}.`);
    const jvm = await findJvm(process.env, join(local, 'jars'));
    if ('found' in jvm) return startOnJvm(why);
    throw new ReelflowError('services', 'There is no Kafka broker to test with and no way to start one', {
      detail: [...why, `Java and Maven: ${jvm.why}.`].join('\n'),
      hint: 'Set KAFKA_BROKERS and SCHEMA_REGISTRY_URL, start a Docker engine, or install Java 17 and Maven.',
    });
  }
  return startContainers(testcontainers);
}

async function startOnJvm(why: readonly string[]): Promise<Started> {
  await sweep();
  say(`Java processes, because: ${why.join(' ')}`);
  const folder = join(runs, String(process.pid));
  mkdirSync(folder, { recursive: true });
  writeFileSync(join(folder, 'owner'), identityOf(process.pid) ?? '');
  const [brokerPort, controllerPort, registryPort] = (await freePorts(3)) as [number, number, number];
  const services = await startJvmServices({
    folder,
    jars: join(local, 'jars'),
    brokerPort,
    controllerPort,
    registryPort,
    env: process.env,
    onProgress: say,
  });
  return {
    endpoints: services.endpoints,
    stop: async () => {
      await services.stop();
      rmSync(folder, { recursive: true, force: true });
    },
  };
}

/** Ends the services of test runs that are gone. */
async function sweep(): Promise<void> {
  mkdirSync(runs, { recursive: true });
  for (const name of readdirSync(runs)) {
    const folder = join(runs, name);
    let owner = '';
    try {
      owner = readFileSync(join(folder, 'owner'), 'utf8');
    } catch {
      continue;
    }
    if (identityOf(Number(name)) === owner) continue;
    await Promise.all([stopService(folder, 'broker'), stopService(folder, 'registry')]);
    rmSync(folder, { recursive: true, force: true });
  }
}

/** The images of docker-compose.yml, on free ports. A broker must know its port on the host before it starts. */
async function startContainers({
  GenericContainer,
  Wait,
}: typeof import('testcontainers')): Promise<Started> {
  say('containers');
  const [port] = (await freePorts(1)) as [number];
  const starting = [
    new GenericContainer('apache/kafka:4.3.1')
      .withExposedPorts({ container: 19092, host: port })
      .withEnvironment({
        KAFKA_PROCESS_ROLES: 'broker,controller',
        KAFKA_NODE_ID: '1',
        KAFKA_CONTROLLER_QUORUM_VOTERS: '1@localhost:9093',
        KAFKA_CONTROLLER_LISTENER_NAMES: 'CONTROLLER',
        KAFKA_LISTENERS: 'HOST://:19092,CONTROLLER://:9093',
        KAFKA_ADVERTISED_LISTENERS: `HOST://127.0.0.1:${port}`,
        KAFKA_LISTENER_SECURITY_PROTOCOL_MAP: 'HOST:PLAINTEXT,CONTROLLER:PLAINTEXT',
        KAFKA_INTER_BROKER_LISTENER_NAME: 'HOST',
        KAFKA_AUTO_CREATE_TOPICS_ENABLE: 'false',
        KAFKA_GROUP_INITIAL_REBALANCE_DELAY_MS: '0',
        KAFKA_OFFSETS_TOPIC_REPLICATION_FACTOR: '1',
        KAFKA_OFFSETS_TOPIC_NUM_PARTITIONS: '4',
        KAFKA_TRANSACTION_STATE_LOG_REPLICATION_FACTOR: '1',
        KAFKA_TRANSACTION_STATE_LOG_MIN_ISR: '1',
      })
      .withWaitStrategy(Wait.forLogMessage(/Kafka Server started/))
      .start(),
    new GenericContainer('apicurio/apicurio-registry:3.0.9')
      .withExposedPorts(8080)
      .withWaitStrategy(Wait.forHttp('/health/ready', 8080))
      .start(),
  ] as const;
  const [broker, registry] = await Promise.all(starting);
  return {
    endpoints: {
      brokers: [`127.0.0.1:${port}`],
      registryUrl: registryUrlOf(`${registry.getHost()}:${registry.getMappedPort(8080)}`),
    },
    stop: async () => {
      await Promise.all([broker.stop(), registry.stop()]);
    },
  };
}

function say(line: string): void {
  process.stderr.write(`test services: ${line}\n`);
}
