/**
 * A process that outlives us, known by a pid file. The file names the process by its id and its start time,
 * so a process that merely got the same id later is never taken for ours, and never signalled.
 */
import { execFileSync, spawn } from 'node:child_process';
import {
  closeSync,
  mkdirSync,
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

/** What a pid file holds. */
export interface ProcessRecord {
  readonly pid: number;
  /** When the process started, in the words of the operating system; `identityOf` compares it. */
  readonly started: string;
  /** The port that it serves on 127.0.0.1. */
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
 * What tells this process from every other that ever had its id: its start time and, on Linux, the boot.
 * @returns undefined when no such process runs; a zombie has ended
 */
export function identityOf(pid: number): string | undefined {
  if (process.platform === 'linux') {
    try {
      // The second field is the program's name in brackets, which may itself hold blanks and brackets.
      const stat = readFileSync(`/proc/${pid}/stat`, 'utf8');
      const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
      // A zombie whose other threads still end holds its ports; without them only its parent's attention is missing.
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
 * Starts a program detached from us, in a session of its own, and writes its pid file.
 * @throws the spawn's error, such as ENOENT
 */
export async function startDetached(program: Program, pidFile: string, port: number): Promise<ProcessRecord> {
  mkdirSync(program.cwd, { recursive: true });
  mkdirSync(dirname(program.log), { recursive: true });
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
    writeFileSync(`${pidFile}.new`, `${JSON.stringify(record)}\n`);
    renameSync(`${pidFile}.new`, pidFile);
    return record;
  } finally {
    closeSync(output);
  }
}

/**
 * Ends the process of a pid file: SIGTERM, and SIGKILL when it has not ended after `graceMs`. Waits for its end.
 * @returns whether there was one to end
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
  const deadline = Date.now() + boundMs;
  if (isRunning(record)) process.kill(record.pid, signal);
  while (isRunning(record)) {
    if (Date.now() > deadline) return false;
    await delay(20);
  }
  return true;
}

/** The end of a finished command; `code` is null when it could not be started, was killed or took too long. */
export interface CommandResult {
  readonly code: number | null;
  /** Standard output and error as they came. */
  readonly output: string;
  /** Whether the command does not exist. */
  readonly missing: boolean;
}

/** Runs a command to its end without a shell and without input; never throws. */
export function run(
  command: string,
  args: readonly string[],
  options: { env: NodeJS.ProcessEnv; cwd?: string; timeoutMs?: number; onText?: (text: string) => void },
): Promise<CommandResult> {
  return new Promise((resolve) => {
    const child = spawn(command, [...args], {
      env: options.env,
      stdio: ['ignore', 'pipe', 'pipe'],
      ...(options.cwd === undefined ? {} : { cwd: options.cwd }),
      ...(options.timeoutMs === undefined ? {} : { timeout: options.timeoutMs, killSignal: 'SIGKILL' }),
    });
    let output = '';
    const take = (text: string) => {
      output += text;
      options.onText?.(text);
    };
    child.stdout.setEncoding('utf8').on('data', take);
    child.stderr.setEncoding('utf8').on('data', take);
    child.on('error', (error: NodeJS.ErrnoException) =>
      resolve({ code: null, output: error.message, missing: error.code === 'ENOENT' }),
    );
    child.on('close', (code) => resolve({ code, output, missing: false }));
  });
}
