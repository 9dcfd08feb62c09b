/**
 * A command of ours as a child process of `reelflow run`. Its log goes to our standard error. It stops on request, and by itself
 * when this process is killed.
 */
import { type ChildProcess, type ForkOptions, fork } from 'node:child_process';
import { constants } from 'node:os';
import { createInterface } from 'node:readline';
import { type Endpoints, environmentOf } from '../runtime/config.ts';
import { failureKindOf, ReelflowError } from '../runtime/errors.ts';
import { readableLine } from '../runtime/logger.ts';
import { packageFile } from '../runtime/package.ts';
import { filled, terminalWidth } from '../runtime/terminal.ts';

/** The flags in the first line of `reelflow.js`: with a small heap, buffers outside it would trigger constant collections. */
export const stageFlags = ['--initial-old-space-size=256', '--single-threaded-gc'];

/** Starts a command of ours as a child process, on these endpoints. */
export function forkCommand(
  args: readonly string[],
  endpoints: Endpoints,
  options: Pick<ForkOptions, 'stdio' | 'detached'>,
): ChildProcess {
  return fork(packageFile('cli/reelflow.js'), args, {
    ...options,
    execArgv: [...process.execArgv, ...stageFlags],
    env: { ...process.env, ...environmentOf(endpoints) },
  });
}

/** Widest name of a member in front of a log line. */
const nameWidth = 'processor-1'.length;
/** Where the message of a log line begins, behind time and name. */
const valueIndent = '00:00:00  '.length + nameWidth + 2;
/** How long a member may take to leave before it is killed. */
const graceMs = 30_000;
/** Number of last lines for people that the error of a failed member repeats. */
const tailLines = 12;

export interface MemberEnd {
  readonly member: MemberProcess;
  readonly code: number | null;
  readonly signal: NodeJS.Signals | null;
  /** What it wrote to standard output. */
  readonly output: string;
}

/** A failure of a member, with the exit code of the member. */
class MemberFailure extends ReelflowError {
  readonly #code: number;

  constructor({ member, code, signal }: MemberEnd, tail: readonly string[]) {
    const how = signal === null ? `exit code ${code}` : `signal ${signal}`;
    super(failureKindOf(code), `${member.name} ended with ${how}, so the others were stopped`, {
      detail: tail.join('\n'),
      hint:
        signal === null
          ? 'Correct what its own lines above say, then run the same command again.'
          : 'Check the memory limit and the log of the system: reelflow did not send that signal.',
    });
    this.#code = code ?? 128 + (signal === null ? 0 : constants.signals[signal]);
  }

  override get exitCode(): number {
    return this.#code;
  }
}

/** One child process, from its start. */
export class MemberProcess {
  readonly name: string;
  readonly ended: Promise<MemberEnd>;
  readonly #child: ChildProcess;
  readonly #tail: string[] = [];

  /** @param args command and options. @param name what people call it, such as `processor-1` */
  constructor(name: string, args: readonly string[], endpoints: Endpoints) {
    this.name = name;
    this.#child = forkCommand(args, endpoints, {
      stdio: ['ignore', 'pipe', 'pipe', 'ipc'],
      // A terminal sends Ctrl-C to the whole process group: only this process decides when members leave.
      detached: true,
    });
    let output = '';
    this.#child.stdout?.setEncoding('utf8').on('data', (text: string) => {
      output += text;
    });
    const { stderr } = this.#child;
    if (stderr !== null) createInterface({ input: stderr }).on('line', (line) => this.#forward(line));
    this.ended = new Promise((resolve, reject) => {
      this.#child.once('error', reject);
      this.#child.once('close', (code, signal) => resolve({ member: this, code, signal, output }));
    });
    // A failure is thrown where the end is awaited; until then it must not count as unhandled.
    this.ended.catch(() => undefined);
  }

  get isRunning(): boolean {
    return this.#child.exitCode === null && this.#child.signalCode === null;
  }

  /** Asks it to leave, and waits; kills it when it does not. */
  async stop(): Promise<MemberEnd> {
    if (this.isRunning) this.#child.kill('SIGTERM');
    const timer = setTimeout(() => this.#child.kill('SIGKILL'), graceMs);
    return this.ended.finally(() => clearTimeout(timer));
  }

  failure(end: MemberEnd): ReelflowError {
    return new MemberFailure(end, this.#tail);
  }

  /** Passes JSON lines on for programs; on a terminal it makes them lines for people that start with the name. */
  #forward(line: string): void {
    if (!line.startsWith('{')) {
      this.#tail.push(line);
      if (this.#tail.length > tailLines) this.#tail.shift();
      return;
    }
    if (process.stderr.isTTY !== true) {
      process.stderr.write(`${line}\n`);
      return;
    }
    process.stderr.write(`${memberLine(line, this.name, terminalWidth(process.stderr))}\n`);
  }
}

/** A log line of a member for people: behind the time its name, and further lines below the message. */
export function memberLine(json: string, name: string, width: number): string {
  const { component, pid, version, ...values } = JSON.parse(json) as Record<string, unknown>;
  const text = readableLine(JSON.stringify(values));
  return filled(`${text.slice(0, 8)}  ${name.padEnd(nameWidth)}${text.slice(8)}`, width, valueIndent);
}
