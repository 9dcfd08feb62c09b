/**
 * Local services: each fact is checked on real processes in a folder of its own, on free ports. Tests that start
 * Java need Java; everything else runs anywhere.
 */
import { type ChildProcess, execFileSync, spawn, spawnSync } from 'node:child_process';
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  realpathSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterEach, describe, expect, test, vi } from 'vitest';
import { parse } from 'yaml';
import { createBroker } from '../../../kafka/client.ts';
import { findJvm } from '../../../kafka/local/jars.ts';
import { startJvmServices } from '../../../kafka/local/jvm.ts';
import { freePorts } from '../../../kafka/local/probe.ts';
import {
  findServices,
  portsFrom,
  runningEndpoints,
  servicesStatus,
  stopServices,
} from '../../../kafka/local/services.ts';
import type { Endpoints } from '../../../runtime/config.ts';
import { identityOf, isRunning, readRecord } from '../../../runtime/detached-process.ts';
import { withFolderLock } from '../../../runtime/folder-lock.ts';
import { createLogger } from '../../../runtime/logger.ts';
import { failureOf } from '../../support/failure.ts';

// Starting two Java processes takes seconds, and minutes on a busy machine.
vi.setConfig({ testTimeout: 300_000 });

const root = fileURLToPath(new URL('../../..', import.meta.url));
const jars = join(root, '.reelflow', 'jars');
/** The caller's environment without services of its own and without a Docker engine. */
const env: NodeJS.ProcessEnv = {
  ...process.env,
  KAFKA_BROKERS: undefined,
  SCHEMA_REGISTRY_URL: undefined,
  DOCKER_HOST: 'unix:///nowhere/docker.sock',
  DOCKER_CONTEXT: undefined,
};
const jvm = await findJvm(env, jars);

const undo: (() => unknown)[] = [];
afterEach(async () => {
  for (const step of undo.splice(0).reverse()) await step();
});

/** A folder for one test that shares the cache of jars; what runs in it ends with the test. */
function temporaryFolder(): string {
  const folder = mkdtempSync(join(tmpdir(), 'reelflow-services-'));
  mkdirSync(jars, { recursive: true });
  symlinkSync(jars, join(folder, 'jars'));
  undo.push(async () => {
    await stopServices({ env, folder });
    rmSync(folder, { recursive: true, force: true });
  });
  return folder;
}

/** A process that has nothing to do with us. */
function innocent(): ChildProcess & { pid: number } {
  const child = spawn(process.execPath, ['-e', 'setInterval(() => {}, 1000)'], { stdio: 'ignore' });
  undo.push(() => child.kill('SIGKILL'));
  return child as ChildProcess & { pid: number };
}

async function schemaId(registryUrl: string, recordName: string): Promise<number> {
  const schema = JSON.stringify({ type: 'record', name: recordName, fields: [] });
  const response = await fetch(`${registryUrl}/subjects/${recordName}-value/versions`, {
    method: 'POST',
    headers: { 'content-type': 'application/vnd.schemaregistry.v1+json' },
    body: JSON.stringify({ schema }),
  });
  expect(response.status).toBe(200);
  return ((await response.json()) as { id: number }).id;
}

function clientOf(endpoints: Endpoints) {
  return createBroker(endpoints, createLogger('silent')).kafka;
}

async function produceOne(endpoints: Endpoints, topic: string): Promise<void> {
  const kafka = clientOf(endpoints);
  const admin = kafka.admin();
  const producer = kafka.producer();
  await admin.connect();
  await admin.createTopics({ topics: [{ topic, numPartitions: 1 }] });
  await admin.disconnect();
  await producer.connect();
  await producer.send({ topic, messages: [{ value: 'kept' }] });
  await producer.disconnect();
}

/** The cluster's id and the end offset of partition 0 of a topic. */
async function contents(endpoints: Endpoints, topic: string): Promise<{ clusterId: string; end: string }> {
  const admin = clientOf(endpoints).admin();
  await admin.connect();
  try {
    const { clusterId } = await admin.describeCluster();
    const [partition] = await admin.fetchTopicOffsets(topic);
    return { clusterId, end: partition?.high ?? 'none' };
  } finally {
    await admin.disconnect();
  }
}

describe('the order of ways', () => {
  test('endpoints of the environment are taken as they are', async () => {
    const named = { KAFKA_BROKERS: 'b:1, c:2,', SCHEMA_REGISTRY_URL: 'http://r:3' };
    const folder = temporaryFolder();
    expect(await findServices({ env: named, folder })).toEqual({
      endpoints: { brokers: ['b:1', 'c:2'], registryUrl: 'http://r:3' },
      how: 'environment',
      why: [],
      started: [],
    });
  });

  test.each([{ KAFKA_BROKERS: 'b:1' }, { SCHEMA_REGISTRY_URL: 'http://r:3' }])(
    'only one of the two variables is bad usage: %j',
    async (half) => {
      const failure = await failureOf(findServices({ env: half, folder: temporaryFolder() }));
      expect(failure.kind).toBe('usage');
    },
  );

  test('with none of the ways the error names all three and why each does not serve', async () => {
    const folder = temporaryFolder();
    const failure = await failureOf(findServices({ env: { PATH: folder }, folder }));
    expect(failure.kind).toBe('services');
    for (const part of ['KAFKA_BROKERS', 'there is no docker on the PATH', 'there is no java on the PATH']) {
      expect(failure.detail).toContain(part);
    }
    for (const way of ['KAFKA_BROKERS', 'Docker', 'Java 17']) expect(failure.hint).toContain(way);
  });

  test('without running services a stage names the command that starts them', async () => {
    const folder = temporaryFolder();
    expect(() => runningEndpoints(folder)).toThrow('There is no running broker and registry');
    const nowhere = await failureOf(async () => runningEndpoints('nowhere'));
    expect(nowhere.detail).toContain(`none were started in ${resolve('nowhere')}.`);
  });

  test.each(['status', 'down'])('services %s names the folder in which it has looked', (name) => {
    const cwd = temporaryFolder();
    const said = execFileSync(process.execPath, [join(root, 'cli/reelflow.js'), 'services', name], {
      ...{ cwd, env, encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'] },
    });
    expect(said).toContain(`No services were started in ${join(realpathSync(cwd), '.reelflow')}.`);
  });

  const named = { ...env, KAFKA_BROKERS: 'b:1', SCHEMA_REGISTRY_URL: 'http://r:3' };
  const up = (env: NodeJS.ProcessEnv, ...more: string[]) =>
    spawnSync(process.execPath, [join(root, 'cli/reelflow.js'), 'services', 'up', ...more], {
      ...{ env, encoding: 'utf8' },
    });

  test('services up says that it starts nothing while the variables name services', () => {
    expect(up(named).stdout).toContain('Nothing was started, because both variables are set.');
  });

  test('services up refuses options of local services while the variables name others', () => {
    const { status, stderr } = up(named, '--folder', temporaryFolder(), '--broker-port', '25092');
    expect(status).toBe(2);
    expect(stderr).toContain('--folder and --broker-port would have no effect');
  });

  test.skipIf('why' in jvm)(
    'services up names the command that stops the services of its folder',
    async () => {
      const folder = temporaryFolder();
      const [broker, , registry] = (await freePorts(3)) as [number, number, number];
      const ports = [`--broker-port=${broker}`, `--registry-port=${registry}`];
      const { stdout } = up(env, '--folder', folder, ...ports);
      expect(stdout).toContain(`They stay up until: npx reelflow services down --folder ${folder}\n`);
    },
  );

  test.each(['0', '65535', '9092x', '-1'])('%s is not a port', (text) => {
    expect(() => portsFrom({ REELFLOW_BROKER_PORT: text })).toThrow('The broker port is not a port');
  });
});

describe('processes are known by more than their id', () => {
  test('a stale pid file whose id another process got is removed, and that process left alone', async () => {
    const folder = temporaryFolder();
    const other = innocent();
    const pidFile = join(folder, 'services', 'broker.pid');
    mkdirSync(join(folder, 'services'));
    writeFileSync(pidFile, JSON.stringify({ pid: other.pid, started: 'another boot 17', port: 19092 }));

    const status = await servicesStatus({ env, folder });
    expect(status.services[0]).toMatchObject({ name: 'broker', running: false, pid: null });
    expect(existsSync(pidFile)).toBe(false);

    writeFileSync(pidFile, JSON.stringify({ pid: other.pid, started: 'another boot 17', port: 19092 }));
    expect(await stopServices({ env, folder })).toEqual([]);
    expect(identityOf(other.pid)).toBeDefined();
    expect(other.exitCode).toBeNull();
  });

  test('a lock has one holder at a time', async () => {
    const folder = temporaryFolder();
    let inside = 0;
    const turns = Array.from({ length: 8 }, () =>
      withFolderLock(folder, { patienceMs: 20_000 }, async () => {
        expect(++inside).toBe(1);
        await new Promise((resolve) => setTimeout(resolve, 5));
        inside--;
      }),
    );
    await Promise.all(turns);
    const failure = withFolderLock(folder, { patienceMs: 20_000 }, () =>
      failureOf(withFolderLock(folder, { patienceMs: 0 }, async () => {})),
    );
    expect((await failure).kind).toBe('busy');
  });
});

describe.skipIf('why' in jvm)('broker and registry as Java processes', () => {
  test('concurrent starts make one pair, and down and up keep cluster, records and schema ids', async () => {
    const folder = temporaryFolder();
    const [broker, , registry] = (await freePorts(3)) as [number, number, number];
    const options = { env, folder, ports: { broker, registry } };

    const both = await Promise.all([findServices(options), findServices(options)]);
    const { endpoints, how } = both[0];
    expect(how).toBe('jvm');
    expect(endpoints).toEqual(both[1].endpoints);
    expect(both.map(({ started }) => started.length).sort()).toEqual([0, 2]);
    expect(runningEndpoints(folder)).toEqual(endpoints);
    expect(both[0].why.join('\n')).toMatch(/Environment: .*\n.*Docker: /);

    const up = await servicesStatus({ env, folder });
    expect(up.services.map(({ healthy }) => healthy)).toEqual([true, true]);

    const first = await schemaId(endpoints.registryUrl, 'First');
    await produceOne(endpoints, 'kept');
    const before = await contents(endpoints, 'kept');
    expect(before.end).toBe('1');

    expect(await stopServices({ env, folder })).toEqual(['broker', 'registry']);
    const down = await servicesStatus({ env, folder });
    expect(down.how).toBeNull();
    for (const { pid } of up.services) expect(identityOf(pid as number)).toBeUndefined();

    const again = await findServices(options);
    expect(again.started).toEqual(['broker', 'registry']);
    expect(await contents(again.endpoints, 'kept')).toEqual(before);
    // In this order: with a forgotten store the second schema would be given the first one's id.
    expect(await schemaId(endpoints.registryUrl, 'Second')).not.toBe(first);
    expect(await schemaId(endpoints.registryUrl, 'First')).toBe(first);
  });

  test('killed processes restart on the same data', async () => {
    const folder = temporaryFolder();
    const [brokerPort, controllerPort, registryPort] = (await freePorts(3)) as [number, number, number];
    const services = await startJvmServices({
      folder: join(folder, 'services'),
      jars,
      brokerPort,
      controllerPort,
      registryPort,
      env,
      // A killed broker is let in again when its old session has ended, 9 s with Kafka's default.
      brokerProperties: { 'broker.session.timeout.ms': '2000', 'broker.heartbeat.interval.ms': '500' },
    });
    const { endpoints, broker, registry } = services;
    await produceOne(endpoints, 'kept');
    const before = await contents(endpoints, 'kept');
    const id = await schemaId(endpoints.registryUrl, 'JustBeforeTheKill');

    await Promise.all([broker.kill('SIGKILL'), registry.kill('SIGKILL')]);
    expect([broker.pid(), registry.pid()]).toEqual([undefined, undefined]);
    const restarts = await Promise.allSettled([broker.restart(), registry.restart()]);
    expect(restarts.map(({ status }) => status)).toEqual(['fulfilled', 'fulfilled']);

    expect(await contents(endpoints, 'kept')).toEqual(before);
    expect(await schemaId(endpoints.registryUrl, 'AfterTheKill')).not.toBe(id);
    expect(await schemaId(endpoints.registryUrl, 'JustBeforeTheKill')).toBe(id);
    await services.stop();
  });

  test('a port that another process holds is named, with the way to choose another, and nothing is left running', async () => {
    const folder = temporaryFolder();
    const [broker, , registry] = (await freePorts(3)) as [number, number, number];
    const server = createServer().listen(broker, '127.0.0.1');
    undo.push(() => server.close());

    const failure = await failureOf(findServices({ env, folder, ports: { broker, registry } }));
    expect(failure.kind).toBe('services');
    expect(failure.message).toBe(`Port ${broker} is in use`);
    expect(failure.hint).toContain('--broker-port or REELFLOW_BROKER_PORT');
    const { services } = await servicesStatus({ env, folder });
    expect(services.map(({ running }) => running)).toEqual([false, false]);
  }, 30_000);

  test('a start that fails shows the lines of the log that say why', async () => {
    const folder = temporaryFolder();
    const [brokerPort, controllerPort, registryPort] = (await freePorts(3)) as [number, number, number];
    const start = startJvmServices({
      folder: join(folder, 'services'),
      jars,
      brokerPort,
      controllerPort,
      registryPort,
      env,
      brokerProperties: { 'num.io.threads': 'many' },
    });
    const failure = await failureOf(start);
    expect(`${failure.message}\n${failure.detail}`).toContain('num.io.threads');
    expect(readRecord(join(folder, 'services', 'registry.pid'))).toBeUndefined();
  }, 30_000);
});

describe('docker-compose.yml', () => {
  const compose = parse(readFileSync(join(root, 'docker-compose.yml'), 'utf8')) as {
    services: Record<string, { image: string; profiles?: string[]; ports?: string[]; volumes?: string[] }>;
    volumes: Record<string, unknown>;
  };

  test('starts broker and registry by default, the stages on request', () => {
    const byDefault = Object.entries(compose.services).filter(
      ([, service]) => service.profiles === undefined,
    );
    expect(byDefault.map(([name]) => name)).toEqual(['broker', 'registry']);
    expect(Object.keys(compose.services)).toEqual(expect.arrayContaining(['processor', 'sink']));
  });

  test('pins the same versions as pom.xml', () => {
    const pom = readFileSync(join(root, 'kafka/local/pom.xml'), 'utf8');
    const version = (name: string) => new RegExp(`<${name}.version>(.*)<`).exec(pom)?.[1];
    expect(compose.services.broker?.image).toBe(`apache/kafka:${version('kafka')}`);
    expect(compose.services.registry?.image).toBe(`apicurio/apicurio-registry:${version('apicurio')}`);
  });

  test('listens on 127.0.0.1 only, and declares every volume that it mounts, folders of the host aside', () => {
    for (const { ports = [], volumes = [] } of Object.values(compose.services)) {
      for (const port of ports) expect(port).toMatch(/^127\.0\.0\.1:/);
      for (const volume of volumes.filter((one) => !/^(\.|\/|\$\{\w+:-\.)/.test(one)))
        expect(compose.volumes).toHaveProperty(volume.split(':')[0] as string);
    }
  });
});

test('the identity of a running process is the same each time, that of an ended one unknown', async () => {
  const other = innocent();
  const started = identityOf(other.pid) as string;
  expect(isRunning({ pid: other.pid, started })).toBe(true);
  other.kill('SIGKILL');
  await expect.poll(() => identityOf(other.pid)).toBeUndefined();
});
