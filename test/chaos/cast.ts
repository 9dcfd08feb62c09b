/** A command under supervision: started again whenever it ends, killed and stopped by the chaos run. */
import { type ChildProcess, spawn } from 'node:child_process';
import { createWriteStream, type WriteStream } from 'node:fs';
import { setTimeout as delay } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';

/** Of a command that SIGTERM ended before it could leave. */
const stoppedExitCode = 143;
const program = fileURLToPath(new URL('../../cli/reelflow.js', import.meta.url));

/** Log lines that show progress. */
const worksPattern = /"msg":"(micro-batch|snapshot published|micro-batch applied silently)"/;
const refusedPattern = /delta refused/;
const restoredPattern = /restored from backup/;
const silentPattern = /catching up silently/;
const healPattern = /Another owner has published|is rebuilt|publishing a base|another owner holds/;

export interface End {
  readonly role: string;
  readonly code: number | null;
  readonly signal: NodeJS.Signals | null;
  /** What it said last. */
  readonly words: string;
  /** Whether it had done a piece of work. */
  readonly hasWorked: boolean;
}

export interface Tally {
  refused: number;
  silent: number;
  healed: number;
  restored: number;
}

export class Actor {
  readonly role: string;
  readonly #args: () => readonly string[];
  readonly #env: NodeJS.ProcessEnv;
  readonly #cwd: string;
  readonly #log: WriteStream;
  readonly #tally: Tally;
  readonly #onEnd: (end: End) => void;
  #child: ChildProcess | undefined;
  #done: Promise<void> = Promise.resolve();
  #isWanted = false;
  #hasWorked = false;
  #expects: 'nothing' | 'a kill' | 'an end' = 'nothing';
  isStopped = false;

  constructor(
    role: string,
    args: () => readonly string[],
    options: {
      env: NodeJS.ProcessEnv;
      cwd: string;
      log: string;
      tally: Tally;
      onEnd: (end: End) => void;
    },
  ) {
    this.role = role;
    this.#args = args;
    this.#env = options.env;
    this.#cwd = options.cwd;
    this.#log = createWriteStream(options.log, { flags: 'a' });
    this.#tally = options.tally;
    this.#onEnd = options.onEnd;
  }

  get isRunning(): boolean {
    return this.#child !== undefined;
  }

  /** Whether it has done a piece of work since its start. */
  get hasWorked(): boolean {
    return this.#hasWorked;
  }

  /** Keeps it running from now on. */
  keep(): void {
    this.#isWanted = true;
    if (this.#child === undefined) this.#start();
  }

  /** Sends SIGKILL; the command is started again unless it is released. @returns whether it was running */
  async kill(): Promise<boolean> {
    const child = this.#child;
    if (child === undefined) return false;
    this.#expects = 'a kill';
    child.kill('SIGKILL');
    await this.#done;
    return true;
  }

  /** Lets it go for good, with a signal. */
  async letGo(signal: NodeJS.Signals): Promise<void> {
    this.#isWanted = false;
    if (this.isStopped) this.wake();
    if (this.#child === undefined) return;
    this.#expects = signal === 'SIGKILL' ? 'a kill' : 'an end';
    this.#child.kill(signal);
    const timer = setTimeout(() => {
      const words = `did not end 30 s after ${signal}`;
      this.#onEnd({ role: this.role, code: null, signal: null, words, hasWorked: this.#hasWorked });
      this.#expects = 'a kill';
      this.#child?.kill('SIGKILL');
    }, 30_000);
    await this.#done;
    clearTimeout(timer);
  }

  /** Stops the process for this long. @returns whether it was running */
  async sleep(forMs: number): Promise<boolean> {
    const child = this.#child;
    if (child === undefined || this.isStopped) return false;
    this.isStopped = true;
    child.kill('SIGSTOP');
    await delay(forMs);
    this.isStopped = false;
    child.kill('SIGCONT');
    return true;
  }

  wake(): void {
    this.isStopped = false;
    this.#child?.kill('SIGCONT');
  }

  #start(): void {
    this.#hasWorked = false;
    this.#expects = 'nothing';
    const args = this.#args();
    this.#log.write(`--- ${new Date().toISOString()} ${args.join(' ')}\n`);
    const child = spawn(process.execPath, [program, ...args], {
      cwd: this.#cwd,
      env: { ...process.env, ...this.#env },
      stdio: ['ignore', 'ignore', 'pipe'],
    });
    this.#child = child;
    let words = '';
    child.stderr.setEncoding('utf8').on('data', (text: string) => {
      this.#log.write(text);
      words = (words + text).slice(-3_000);
      if (worksPattern.test(text)) this.#hasWorked = true;
      for (const line of text.split('\n')) {
        if (refusedPattern.test(line)) this.#tally.refused += 1;
        if (silentPattern.test(line)) this.#tally.silent += 1;
        if (restoredPattern.test(line)) this.#tally.restored += 1;
        if (healPattern.test(line)) this.#tally.healed += 1;
      }
    });
    this.#done = new Promise((resolve) => {
      child.once('close', (code, signal) => {
        this.#child = undefined;
        this.isStopped = false;
        this.#log.write(`--- ${new Date().toISOString()} ended: ${code ?? signal}\n`);
        // A process that gets SIGTERM and SIGKILL may end by either. One whose broker hangs cannot end in order.
        const isEnd = code === 0 || code === stoppedExitCode;
        const ours = signal === 'SIGKILL' || signal === 'SIGTERM' || (this.#expects === 'an end' && isEnd);
        const expected = this.#expects !== 'nothing' && ours;
        if (!expected) this.#onEnd({ role: this.role, code, signal, words, hasWorked: this.#hasWorked });
        resolve();
        // A supervisor waits a moment before it starts what has just failed.
        if (this.#isWanted)
          setTimeout(() => this.#isWanted && !this.#child && this.#start(), expected ? 50 : 500);
      });
    });
  }
}
