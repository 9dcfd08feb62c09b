/** Kafka's own Java client in a process, for consumer groups of KIP-848 and transactions that stay open. */
import { type ChildProcessWithoutNullStreams, spawn } from 'node:child_process';
import { once } from 'node:events';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { inject } from 'vitest';
import { resolveJars } from '../../kafka/local/jars.ts';
import { type Place, until } from './harness.ts';
import { jars, jvm } from './jvm.ts';

const source = fileURLToPath(new URL('./java/Client.java', import.meta.url));

export class JavaClient {
  readonly #child: ChildProcessWithoutNullStreams;
  #lines: string[] = [];

  private constructor(child: ChildProcessWithoutNullStreams) {
    this.#child = child;
    child.stdout.setEncoding('utf8').on('data', (text: string) => {
      this.#lines.push(...text.split('\n').filter((line) => line !== ''));
    });
  }

  static async start(place: Place, ...args: string[]): Promise<JavaClient> {
    if ('why' in jvm) throw new Error(jvm.why);
    const lib = await resolveJars({ jars, env: process.env });
    const [mode = '', ...rest] = args;
    const child = spawn(jvm.found, [
      '-XX:TieredStopAtLevel=1',
      '-Dorg.slf4j.simpleLogger.defaultLogLevel=error',
      '-cp',
      join(lib, 'kafka', '*'),
      source,
      mode,
      inject('brokers').join(','),
      ...rest,
    ]);
    child.stderr.pipe(process.stderr);
    place.onEnd(() => {
      child.kill('SIGKILL');
    });
    return new JavaClient(child);
  }

  /** Sends a command and, for a producer, waits until it is done. */
  async do(command: string): Promise<void> {
    this.#child.stdin.write(command);
    await this.says(`done ${command}`);
    this.#lines = [];
  }

  send(command: string): void {
    this.#child.stdin.write(command);
  }

  says(line: string): Promise<void> {
    return until(`the Java client says ${line}`, () => this.#lines.includes(line));
  }

  async quit(): Promise<void> {
    const ended = once(this.#child, 'exit');
    this.#child.stdin.write('q');
    await ended;
  }
}
