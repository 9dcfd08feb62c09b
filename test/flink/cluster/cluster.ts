/**
 * A standalone session cluster on 127.0.0.1, in separate processes, as Flink's scripts start them: a job manager, a task
 * manager with two slots and, on demand, a SQL gateway. Job and task manager have the jars of a Flink distribution. With
 * `connectors` they also have those of Kafka and the registry, like the image of deploy/flink.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { closeSync, mkdirSync, openSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { flinkJars, opened } from '../../../flink/local.ts';
import { findJvm, resolveJars } from '../../../kafka/local/jars.ts';
import { causeLines, freePorts } from '../../../kafka/local/probe.ts';

const startMs = 300_000;

interface FlinkCluster {
  /** REST address of the job manager. */
  readonly rest: string;
  /** The answer to a GET below the REST address. */
  ask<T>(path: string): Promise<T>;
  /** Starts a SQL gateway of the cluster, which always has the connectors. @returns its address */
  startGateway(): Promise<string>;
  /** Kills the task manager; a new one starts. */
  killTaskManager(): void;
  stop(): Promise<void>;
}

/** @param folder holds configuration, logs, temporary files and checkpoints */
export async function startCluster(
  folder: string,
  { jars, connectors }: { jars: string; connectors: boolean },
): Promise<FlinkCluster> {
  const java = await findJvm(process.env, jars, flinkJars);
  if ('why' in java) throw new Error(java.why);
  const lib = await resolveJars({ jars, env: process.env, set: flinkJars });
  const all = readdirSync(lib).map((jar) => join(lib, jar));
  const own = all.filter(
    (jar) => connectors || !/flink-sql-(connector-kafka|avro-confluent-registry)-/.test(jar),
  );
  const [rpcPort, restPort, gatewayPort] = (await freePorts(3)) as [number, number, number];
  const rest = `http://127.0.0.1:${restPort}`;
  const tmp = join(folder, 'tmp');
  mkdirSync(tmp, { recursive: true });
  const settings = {
    'jobmanager.rpc.address': '127.0.0.1',
    'jobmanager.rpc.port': rpcPort,
    'jobmanager.bind-host': '127.0.0.1',
    'taskmanager.host': '127.0.0.1',
    'taskmanager.bind-host': '127.0.0.1',
    'rest.address': '127.0.0.1',
    'rest.bind-address': '127.0.0.1',
    'rest.port': restPort,
    'sql-gateway.endpoint.rest.address': '127.0.0.1',
    'sql-gateway.endpoint.rest.bind-address': '127.0.0.1',
    'sql-gateway.endpoint.rest.port': gatewayPort,
    'execution.target': 'remote',
    'execution.checkpointing.dir': `file://${folder}/checkpoints`,
    'io.tmp.dirs': tmp,
    // A loaded machine is slow.
    'pekko.ask.timeout': '10 min',
    'taskmanager.numberOfTaskSlots': 2,
    // Flink's scripts compute these values from the memory of a process.
    'taskmanager.cpu.cores': 2,
    'taskmanager.memory.framework.heap.size': '128m',
    'taskmanager.memory.framework.off-heap.size': '128m',
    'taskmanager.memory.task.heap.size': '384m',
    'taskmanager.memory.task.off-heap.size': '64m',
    'taskmanager.memory.jvm-metaspace.size': '192m',
    'taskmanager.memory.jvm-overhead.min': '96m',
    'taskmanager.memory.jvm-overhead.max': '96m',
    'taskmanager.memory.managed.size': '256m',
    'taskmanager.memory.network.min': '96m',
    'taskmanager.memory.network.max': '96m',
  };
  writeFileSync(
    join(folder, 'config.yaml'),
    Object.entries(settings)
      .map(([name, value]) => `${name}: ${JSON.stringify(value)}\n`)
      .join(''),
  );

  const running = new Map<string, ChildProcess>();
  let isOver = false;
  const start = (
    name: string,
    main: string,
    heap: string,
    classPath: readonly string[],
    ...args: string[]
  ) => {
    const log = openSync(join(folder, `${name}.log`), 'a');
    const small = [`-Xmx${heap}`, '-XX:+UseSerialGC', '-XX:TieredStopAtLevel=1', `-Djava.io.tmpdir=${tmp}`];
    const opens = opened.map((module) => `--add-opens=${module}=ALL-UNNAMED`);
    const child = spawn(java.found, [...small, ...opens, '-cp', classPath.join(':'), main, ...args], {
      cwd: folder,
      env: { ...process.env, FLINK_CONF_DIR: folder },
      stdio: ['ignore', log, log],
    });
    closeSync(log);
    running.set(name, child);
    // Like compose and Kubernetes.
    if (name !== 'taskmanager') return;
    child.once('exit', () => {
      if (!isOver) start(name, main, heap, classPath, ...args);
    });
  };
  const until = async (name: string, url: string, holds: (answer: unknown) => boolean) => {
    const deadline = Date.now() + startMs;
    for (;;) {
      const answer = await fetch(url).then(
        (response) => response.json(),
        () => undefined,
      );
      if (answer !== undefined && holds(answer)) return;
      if (running.get(name)?.exitCode !== null || Date.now() > deadline) {
        throw new Error(
          `${name} does not start\n${causeLines(readFileSync(join(folder, `${name}.log`), 'utf8'))}`,
        );
      }
      await delay(200);
    }
  };
  const stop = async () => {
    isOver = true;
    for (const child of running.values()) {
      if (child.exitCode !== null || child.signalCode !== null) continue;
      const ended = once(child, 'exit');
      child.kill('SIGKILL');
      await ended;
    }
  };
  const [entrypoint, runner] = [
    'org.apache.flink.runtime.entrypoint.StandaloneSessionClusterEntrypoint',
    'org.apache.flink.runtime.taskexecutor.TaskManagerRunner',
  ];
  try {
    start('jobmanager', entrypoint, '400m', own, '--configDir', folder);
    await until('jobmanager', `${rest}/overview`, () => true);
    start('taskmanager', runner, '512m', own, '--configDir', folder);
    await until(
      'taskmanager',
      `${rest}/overview`,
      (answer) => (answer as { 'slots-total'?: number })['slots-total'] === 2,
    );
  } catch (thrown) {
    await stop();
    throw thrown;
  }
  return {
    rest,
    ask: async <T>(path: string) => (await (await fetch(`${rest}${path}`)).json()) as T,
    startGateway: async () => {
      const url = `http://127.0.0.1:${gatewayPort}`;
      start('gateway', 'org.apache.flink.table.gateway.SqlGateway', '700m', all);
      await until('gateway', `${url}/v1/info`, () => true);
      return url;
    },
    killTaskManager: () => running.get('taskmanager')?.kill('SIGKILL'),
    stop,
  };
}
