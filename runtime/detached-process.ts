/**
 * A detached process that a pid file identifies. The file holds the process id and the start time, so no other process that
 * later gets the same id receives a signal.
 */
import { execFileSync, spawn } from 'node:child_process';
import {
  closeSync,
  openSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { dirname } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { makeFolder } from './files.ts';

/** What a pid file holds. */
export interface ProcessRecord {
  readonly pid: number;
  /** Start time as the operating system reports it; `identityOf` compares it. */
  readonly started: string;
  /** Its port on 127.0.0.1. */
  readonly port: number;
}

/** How to start a process. */
export interface Program {
  readonly command: string;
  readonly args: readonly string[];
  readonly cwd: string;
  readonly env: NodeJS.ProcessEnv;
  /** Standard output and error are appended here; a log over 10 MB is first moved to `<log>.1`. */
  readonly log: string;
}

const logBytesMax = 10_000_000;

/**
 * Distinguishes this process from every other that ever had its id: by its start time and, on Linux, the boot.
 * @returns undefined when no such process runs; a zombie does not run
 */
export function identityOf(pid: number): string | undefined {
  if (process.platform === 'linux') {
    try {
      // The second field is the program's name in parentheses, which may itself contain blanks and parentheses.
      const stat = readFileSync(`/proc/${pid}/stat`, 'utf8');
      const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
      // A zombie whose other threads are still ending holds its ports; without them it only waits for its parent.
      const ended = fields[0] === 'X' || (fields[0] === 'Z' && readdirSync(`/proc/${pid}/task`).length <= 1);
      if (ended) return undefined;
      return `${readFileSync('/proc/sys/kernel/random/boot_id', 'utf8').trim()} ${fields[19]}`;
    } catch {
      return undefined;
    }
  }
  try {
    const line = execFileSync('ps', ['-o', 'stat=,lstart=', '-p', String(pid)], { encoding: 'utf8' }).trim();
    const [state = 'Z', ...started] = line.split(/\s+/);
    return state.startsWith('Z') ? undefined : started.join(' ');
  } catch {
    return undefined;
  }
}

/** Whether the process of a record is still the one that runs under its id. */
export function isRunning(record: Pick<ProcessRecord, 'pid' | 'started'>): boolean {
  return identityOf(record.pid) === record.started;
}

/** The record of a pid file whose process runs, or undefined; a stale file is removed. */
export function readRecord(pidFile: string): ProcessRecord | undefined {
  let record: ProcessRecord;
  try {
    record = JSON.parse(readFileSync(pidFile, 'utf8')) as ProcessRecord;
  } catch {
    return undefined;
  }
  if (isRunning(record)) return record;
  rmSync(pidFile, { force: true });
  return undefined;
}

/**
 * Starts a detached program in its own session and writes its pid file.
 * @throws the error of spawn, such as ENOENT; errors of the file system, after which the program does not run
 */
export async function startDetached(program: Program, pidFile: string, port: number): Promise<ProcessRecord> {
  makeFolder(program.cwd);
  makeFolder(dirname(program.log));
  if ((statSync(program.log, { throwIfNoEntry: false })?.size ?? 0) > logBytesMax) {
    renameSync(program.log, `${program.log}.1`);
  }
  const output = openSync(program.log, 'a');
  try {
    const child = spawn(program.command, [...program.args], {
      cwd: program.cwd,
      env: program.env,
      detached: true,
      stdio: ['ignore', output, output],
    });
    await new Promise((resolve, reject) => {
      child.once('spawn', resolve);
      child.once('error', reject);
    });
    child.unref();
    const pid = child.pid as number;
    const record = { pid, started: identityOf(pid) ?? 'ended at once', port };
    try {
      writeFileSync(`${pidFile}.new`, `${JSON.stringify(record)}\n`);
      renameSync(`${pidFile}.new`, pidFile);
    } catch (thrown) {
      // Without a pid file nothing could end it.
      child.kill('SIGKILL');
      throw thrown;
    }
    return record;
  } finally {
    closeSync(output);
  }
}

/**
 * Ends the process of a pid file with SIGTERM, after `graceMs` with SIGKILL, and waits for its end.
 * @returns whether it ran
 */
export async function stopProcess(pidFile: string, graceMs: number): Promise<boolean> {
  const record = readRecord(pidFile);
  if (record === undefined) return false;
  if (!(await signalAndWait(record, 'SIGTERM', graceMs))) await signalAndWait(record, 'SIGKILL', 10_000);
  rmSync(pidFile, { force: true });
  return true;
}

/** Sends a signal and waits for the end of the process. @returns whether it ended within `boundMs` */
export async function signalAndWait(
  record: ProcessRecord,
  signal: NodeJS.Signals,
  boundMs: number,
): Promise<boolean> {
  const deadline = performance.now() + boundMs;
  if (isRunning(record)) process.kill(record.pid, signal);
  while (isRunning(record)) {
    if (performance.now() > deadline) return false;
    await delay(20);
  }
  return true;
}
