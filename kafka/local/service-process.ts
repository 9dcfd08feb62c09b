/**
 * A service as a Java process: starts it, waits until it answers, stops and restarts it. A pid file in the folder
 * identifies the process.
 */
import { readFileSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import {
  isRunning,
  type ProcessRecord,
  type Program,
  readRecord,
  signalAndWait,
  startDetached,
  stopProcess,
} from '../../runtime/detached-process.ts';
import { ReelflowError } from '../../runtime/errors.ts';
import { causeLines, isFree } from './probe.ts';

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

export interface Service {
  readonly name: ServiceName;
  readonly folder: string;
  readonly port: number;
  /** Ports that must be free before it starts. */
  readonly ports: readonly number[];
  readonly program: Program;
  /** Makes the data folder ready before a start. */
  readonly prepare: () => Promise<void>;
  readonly isHealthy: (port: number) => Promise<boolean>;
  readonly onProgress: ((line: string) => void) | undefined;
}

const startBoundMs = 120_000;
const stopBoundMs = { broker: 30_000, registry: 10_000 };

/** The record of a service that reelflow started in the folder and that still runs. */
export function runningService(folder: string, name: ServiceName): ProcessRecord | undefined {
  return readRecord(pidFileOf(folder, name));
}

/** Ends a service that runs in the folder. @returns whether it ran */
export function stopService(folder: string, name: ServiceName): Promise<boolean> {
  return stopProcess(pidFileOf(folder, name), stopBoundMs[name]);
}

/** Path of the file that receives what a service writes. */
export function logOf(folder: string, name: ServiceName): string {
  return join(folder, `${name}.log`);
}

function pidFileOf(folder: string, name: ServiceName): string {
  return join(folder, `${name}.pid`);
}

/** @param signal ends a pending start together with its process */
export async function startService(service: Service, signal: AbortSignal): Promise<ServiceHandle> {
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

/** Waits until a process answers. Ends it on failure only if this call started it (`own`). */
async function untilHealthy(
  service: Service,
  record: ProcessRecord,
  own?: { logStart: number; signal: AbortSignal | undefined },
): Promise<void> {
  const { name, program } = service;
  const deadline = performance.now() + startBoundMs;
  while (!(await service.isHealthy(record.port))) {
    const ended = !isRunning(record);
    if (own && (own.signal?.aborted || performance.now() > deadline))
      await signalAndWait(record, 'SIGKILL', 10_000);
    own?.signal?.throwIfAborted();
    if (ended || performance.now() > deadline) {
      throw new ReelflowError(
        'services',
        `The ${name} ${ended ? 'ended while it started' : 'does not answer'}`,
        {
          detail: causeLines(readFrom(program.log, own?.logStart ?? 0)) || 'Its log is empty.',
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
  throw new ReelflowError('services', `Port ${port} is in use`, {
    detail: `The ${name} needs 127.0.0.1:${port}, and a process that reelflow did not start listens there.`,
    hint:
      `Choose another with --${option} or ${variable}` +
      (name === 'broker' ? ' (the port after it is needed as well), ' : ', ') +
      'or set KAFKA_BROKERS and SCHEMA_REGISTRY_URL to running services.',
  });
}

function readFrom(log: string, start: number): string {
  try {
    return readFileSync(log).subarray(start).toString('utf8');
  } catch {
    return '';
  }
}
