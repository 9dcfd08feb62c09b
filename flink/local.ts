/**
 * A SQL gateway on 127.0.0.1 that this process starts. Its jobs run in the gateway's process (an embedded mini cluster) or on
 * a remote cluster. Its jars come from Maven Central by `pom.xml`. The gateway ends with the command. The next command ends a
 * gateway that a killed command left behind.
 */
import { globSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { findJvm, type JarSet, resolveJars } from '../kafka/local/jars.ts';
import { causeLines, freePorts } from '../kafka/local/probe.ts';
import { isRunning, startDetached, stopProcess } from '../runtime/detached-process.ts';
import { ReelflowError } from '../runtime/errors.ts';
import { withFolderLock } from '../runtime/folder-lock.ts';

export const flinkJars: JarSet = { pom: 'flink/pom.xml', programs: 'Flink', megabytes: 230 };
/** The version in `flink/pom.xml`. Clusters of another version cannot run its jobs. */
export const flinkVersion = '2.3';

interface LocalGatewayOptions {
  /** Holds the log, the pid file and temporary files. Only one gateway can use it at a time. */
  readonly folder: string;
  /** The cache of jars. */
  readonly jars: string;
  readonly env: NodeJS.ProcessEnv;
  readonly signal?: AbortSignal;
  readonly onProgress?: (line: string) => void;
}

export interface LocalGateway {
  readonly url: string;
  readonly log: string;
  /** Jars that a job needs on a cluster with only Flink's own jars. */
  readonly connectors: readonly string[];
}

const startBoundMs = 180_000;
const stopBoundMs = 10_000;

/** The modules that Flink accesses by reflection, as in its default configuration. */
export const opened = ['lang', 'net', 'io', 'nio', 'lang.reflect', 'text', 'time', 'util', 'util.concurrent']
  .map((name) => `java.base/java.${name}`)
  .concat(
    'java.base/sun.nio.ch',
    'java.base/java.util.concurrent.atomic',
    'java.base/java.util.concurrent.locks',
  );

/**
 * Starts a gateway, runs `work`, and ends the gateway.
 * @throws ReelflowError services, when it cannot be started; busy, when another command uses the folder; the abort reason
 */
export async function withLocalGateway<T>(
  options: LocalGatewayOptions,
  work: (gateway: LocalGateway) => Promise<T>,
): Promise<T> {
  const { env, jars, onProgress } = options;
  const java = await findJvm(env, jars, flinkJars);
  if ('why' in java) {
    throw new ReelflowError('services', 'Flink cannot run on this machine', {
      detail: java.why,
      hint: 'Install Java 17 or newer and Maven, or use a cluster: `reelflow flink submit`.',
    });
  }
  const lib = await resolveJars({ jars, env, set: flinkJars, ...(onProgress && { onProgress }) });
  const folder = resolve(options.folder);
  return withFolderLock(folder, { patienceMs: 0 }, async () => {
    const pidFile = join(folder, 'gateway.pid');
    await stopProcess(pidFile, stopBoundMs);
    try {
      return await work(await start({ ...options, folder }, java.found, lib, pidFile));
    } finally {
      await stopProcess(pidFile, stopBoundMs);
    }
  });
}

async function start(
  { folder, env, signal, onProgress }: LocalGatewayOptions,
  java: string,
  lib: string,
  pidFile: string,
): Promise<LocalGateway> {
  const [port = 0] = await freePorts(1);
  const temporary = join(folder, 'tmp');
  rmSync(temporary, { recursive: true, force: true });
  mkdirSync(temporary, { recursive: true, mode: 0o700 });
  writeFileSync(join(folder, 'config.yaml'), configuration(temporary));
  const { PATH, HOME, LANG } = env;
  const log = join(folder, 'flink.log');
  rmSync(log, { force: true });
  onProgress?.(`starting Flink on 127.0.0.1:${port}`);
  const record = await startDetached(
    {
      command: java,
      args: [
        '-Xmx2g',
        '-XX:+UseSerialGC',
        `-Djava.io.tmpdir=${temporary}`,
        '-Dorg.slf4j.simpleLogger.showDateTime=true',
        '-Dorg.slf4j.simpleLogger.dateTimeFormat=yyyy-MM-dd HH:mm:ss.SSS',
        '-Dorg.slf4j.simpleLogger.log.org.apache.flink.kafka.shaded=warn',
        ...opened.map((module) => `--add-opens=${module}=ALL-UNNAMED`),
        '-cp',
        join(lib, '*'),
        'org.apache.flink.table.gateway.SqlGateway',
        '-Dsql-gateway.endpoint.rest.address=127.0.0.1',
        '-Dsql-gateway.endpoint.rest.bind-address=127.0.0.1',
        `-Dsql-gateway.endpoint.rest.port=${port}`,
      ],
      cwd: folder,
      env: { ...(PATH && { PATH }), ...(HOME && { HOME }), ...(LANG && { LANG }), FLINK_CONF_DIR: folder },
      log,
    },
    pidFile,
    port,
  );
  const url = `http://127.0.0.1:${port}`;
  const deadline = performance.now() + startBoundMs;
  while (!(await answers(url))) {
    signal?.throwIfAborted();
    const ended = !isRunning(record);
    if (ended || performance.now() > deadline) {
      throw new ReelflowError('services', `Flink ${ended ? 'ended during its start' : 'does not answer'}`, {
        detail: causeLines(readFileSync(log, 'utf8')) || 'Its log names no cause.',
        hint: `Read its log: ${log}.`,
      });
    }
    await delay(200);
  }
  const connectors = globSync('flink-sql-{connector-kafka,avro-confluent-registry}-*.jar', { cwd: lib });
  return { url, log, connectors: connectors.map((jar) => join(lib, jar)) };
}

/** The mini cluster has one slot for each partition. Its memory is fixed, so it is the same on every machine. */
function configuration(temporary: string): string {
  return `execution.target: local
io.tmp.dirs: ${JSON.stringify(temporary)}
rest.bind-address: 127.0.0.1
rest.address: 127.0.0.1
taskmanager.memory.managed.size: 512mb
taskmanager.memory.network.min: 128mb
taskmanager.memory.network.max: 128mb
sql-gateway.session.idle-timeout: 0
`;
}

async function answers(url: string): Promise<boolean> {
  try {
    return (await fetch(`${url}/v1/info`, { signal: AbortSignal.timeout(5_000) })).ok;
  } catch {
    return false;
  }
}
