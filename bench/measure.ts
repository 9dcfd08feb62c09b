/**
 * What a run takes of the machine, from /proc (Linux): CPU seconds and resident memory of a process with everything
 * that it started, looked at every 100 ms. What lives shorter is not seen, and of an ended process the last look counts.
 */
import { spawn } from 'node:child_process';
import { existsSync, openSync, readdirSync, readFileSync, statSync } from 'node:fs';
import { availableParallelism, cpus, totalmem } from 'node:os';
import { join } from 'node:path';
import { localFolder } from '../cli/options.ts';

const ticksPerSecond = 100;
const pageBytes = 4096;
const lookEveryMs = 100;

interface Look {
  /** Arguments with a NUL between them. */
  readonly command: string;
  readonly ticks: number;
  readonly residentBytes: number;
}

/** Watches a process and all its descendants from now on until `stop`. */
export class Watch {
  readonly #root: number;
  readonly #last = new Map<number, Look>();
  /** Ticks of the processes that were there before. */
  readonly #before = new Map<number, number>();
  readonly #timer: NodeJS.Timeout;
  #peakBytes = 0;

  constructor(root: number) {
    this.#root = root;
    for (const pid of familyOf(root)) this.#before.set(pid, lookAt(pid)?.ticks ?? 0);
    this.#timer = setInterval(() => this.#look(), lookEveryMs);
  }

  /** Resident memory of all of them together at its highest. Pages that two of them share count twice. */
  get peakBytes(): number {
    return this.#peakBytes;
  }

  /** @param of only the processes whose command line contains this text, NUL between arguments */
  cpuSeconds(of = ''): number {
    let ticks = 0;
    for (const [pid, look] of this.#last) {
      if (look.command.includes(of)) ticks += look.ticks - (this.#before.get(pid) ?? 0);
    }
    return ticks / ticksPerSecond;
  }

  stop(): void {
    clearInterval(this.#timer);
    this.#look();
  }

  #look(): void {
    let bytes = 0;
    for (const pid of familyOf(this.#root)) {
      const look = lookAt(pid);
      if (look === undefined) continue;
      bytes += look.residentBytes;
      this.#last.set(pid, look);
    }
    this.#peakBytes = Math.max(this.#peakBytes, bytes);
  }
}

/**
 * CPU seconds that a local broker has taken since it started.
 * @param address host:port that it tells its clients
 * @returns NaN when it is not a process of this machine that services started
 */
export function brokerCpuSeconds(address: string): number {
  const found = readdirSync('/proc').find((pid) => {
    if (!/^\d+$/.test(pid) || lookAt(Number(pid))?.command.includes('\0kafka.Kafka\0') !== true) return false;
    try {
      return readFileSync(`/proc/${pid}/cwd/server.properties`, 'utf8').includes(`//${address}\n`);
    } catch {
      return false;
    }
  });
  return (lookAt(Number(found))?.ticks ?? Number.NaN) / ticksPerSecond;
}

function familyOf(root: number): number[] {
  const family = [root];
  for (let i = 0; i < family.length; i++) family.push(...childrenOf(family[i] as number));
  return family;
}

function childrenOf(pid: number): number[] {
  try {
    return readdirSync(`/proc/${pid}/task`).flatMap((task) =>
      readFileSync(`/proc/${pid}/task/${task}/children`, 'utf8').split(' ').filter(Boolean).map(Number),
    );
  } catch {
    return [];
  }
}

/** @returns undefined for a process that has ended, also before its parent has waited for it */
function lookAt(pid: number): Look | undefined {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, 'utf8');
    const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
    const command = readFileSync(`/proc/${pid}/cmdline`, 'utf8');
    if (command === '') return undefined;
    return {
      command,
      ticks: Number(fields[11]) + Number(fields[12]),
      residentBytes: Number(fields[21]) * pageBytes,
    };
  } catch {
    return undefined;
  }
}

export interface Program {
  readonly command: string;
  readonly args: readonly string[];
  readonly env?: NodeJS.ProcessEnv;
}

interface MeasureOptions {
  /** Takes the program's standard error. */
  readonly log: string;
  /** host:port of the broker whose CPU seconds are measured too. */
  readonly broker: string;
  /** Ends the program. */
  readonly signal?: AbortSignal;
}

export interface Measured {
  /** From the start, or from the line `ready` if the program writes one, to its end, or to the line `done`. */
  readonly seconds: number;
  /** Before the line `ready`. */
  readonly secondsToStart: number;
  readonly cpuSeconds: number;
  readonly peakBytes: number;
  /** CPU seconds of the local broker meanwhile. */
  readonly brokerCpuSeconds: number;
  readonly lastLine: string;
}

/**
 * Runs a program to its end and measures it; it ends with us.
 *
 * @throws Error when it fails, with the end of its log
 */
export async function measure(
  { command, args, env = {} }: Program,
  { log, broker, signal }: MeasureOptions,
): Promise<Measured> {
  const startedMs = performance.now();
  const brokerBefore = brokerCpuSeconds(broker);
  const child = spawn(command, [...args], {
    stdio: ['ignore', 'pipe', openSync(log, 'w')],
    env: { ...process.env, ...env },
    ...(signal !== undefined && { signal, killSignal: 'SIGKILL' as const }),
  });
  const kill = () => child.kill('SIGKILL');
  process.once('exit', kill);
  const watch = new Watch(child.pid ?? 0);
  let readyMs = startedMs;
  let doneMs: number | undefined;
  let lastLine = '';
  let rest = '';
  child.stdout?.setEncoding('utf8').on('data', (text: string) => {
    const lines = (rest + text).split('\n');
    rest = lines.pop() ?? '';
    for (const line of lines) {
      if (line === 'ready') readyMs = performance.now();
      else if (line === 'done') doneMs = performance.now();
      else if (line !== '') lastLine = line;
    }
  });
  try {
    const [code, killedBy] = await new Promise<[number | null, string | null]>((resolve, reject) => {
      child.once('error', reject);
      child.once('close', (...ended) => resolve(ended));
    });
    if (code !== 0) {
      throw new Error(
        `${command} ended with ${code ?? killedBy}; its log is ${log}:\n${readFileSync(log, 'utf8').slice(-2_000)}`,
      );
    }
  } finally {
    process.off('exit', kill);
    watch.stop();
  }
  return {
    seconds: ((doneMs ?? performance.now()) - readyMs) / 1000,
    secondsToStart: (readyMs - startedMs) / 1000,
    cpuSeconds: watch.cpuSeconds(),
    peakBytes: watch.peakBytes,
    brokerCpuSeconds: brokerCpuSeconds(broker) - brokerBefore,
    lastLine,
  };
}

/** Bytes of all files below a folder. */
export function sizeOf(folder: string): number {
  if (!existsSync(folder)) return 0;
  return readdirSync(folder, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .reduce((sum, entry) => sum + statSync(join(entry.parentPath, entry.name)).size, 0);
}

/** The value in the middle; of an even number the lower of the two. NaN for none. */
export function median(values: readonly number[]): number {
  return values.toSorted((a, b) => a - b)[Math.floor((values.length - 1) / 2)] ?? Number.NaN;
}

/** The machine that figures were measured on. */
export function machine(): string {
  const memory = Math.round(totalmem() / 2 ** 30);
  return `${availableParallelism()} × ${cpus()[0]?.model.trim() ?? 'CPU'}, ${memory} GiB, Node ${process.versions.node}`;
}

/** Where measurements keep datasets, topics' names and results. */
export const benchFolder = join(localFolder, 'bench');
