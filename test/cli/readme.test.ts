/**
 * The README's commands, run as they are written, from top to bottom, in one folder. Method: each line of an `sh` block goes
 * to bash; lines that start or end members in the background go to one shell, which has the jobs. `npx reelflow` is the checkout's program; what
 * keeps tests apart (namespace, port) is added by it. Nothing is left out but what `skipped` names with its reason.
 */
import { type ChildProcess, execFileSync, spawn } from 'node:child_process';
import { chmodSync, existsSync, mkdirSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { DuckDBConnection } from '@duckdb/node-api';
import { expect } from 'vitest';
import { withDatabase } from '../../database/duckdb.ts';
import { freePorts } from '../../kafka/local/probe.ts';
import { type Place, servicesEnv, test, until } from '../support/harness.ts';

const root = fileURLToPath(new URL('../..', import.meta.url));
const readme = readFileSync(join(root, 'README.md'), 'utf8');

/** Lines that cannot run here, and why. */
const skipped: Readonly<Record<string, string>> = {
  'npm install': 'the packages are installed',
  'export KAFKA_BROKERS=host1:9092,host2:9092': 'the hosts do not exist; the test has a broker',
  'export SCHEMA_REGISTRY_URL=http://host:8081': 'the host does not exist; the test has a registry',
};
/** Commands that end with Ctrl-C, and what they show first. */
const untilCtrlC: Readonly<Record<string, RegExp>> = {
  'npx reelflow run imdb': /snapshot published/,
  'npx reelflow lag --watch': /partition/,
  'npx reelflow monitor': /^http:/m,
};

const blocks = [...readme.matchAll(/^```sh\n(.*?)^```/gms)].map(([, block]) =>
  (block as string)
    .trim()
    .split('\n')
    .map((line) => line.replace(/ +#.*$/, '')),
);

/** A folder as after `git clone`, and a PATH on which `npx reelflow` is this checkout. */
async function clone(place: Place): Promise<{ cwd: string; env: NodeJS.ProcessEnv }> {
  const cwd = join(place.folder, 'reelflow');
  const bin = join(place.folder, 'bin');
  mkdirSync(cwd);
  mkdirSync(bin);
  writeFileSync(join(cwd, 'package.json'), readFileSync(join(root, 'package.json')));
  symlinkSync(join(root, 'cli'), join(cwd, 'cli'));
  const [port] = await freePorts(1);
  const npx = [
    '#!/bin/bash',
    'shift # reelflow',
    `case $1 in run | monitor) set -- "$@" --listen ${port} ;; esac`,
    `exec node "${root}/cli/reelflow.js" "$@"`,
  ];
  writeFileSync(join(bin, 'npx'), npx.join('\n'));
  chmodSync(join(bin, 'npx'), 0o755);
  const env = {
    ...process.env,
    PATH: `${bin}:${dirname(process.execPath)}:${process.env.PATH}`,
    ...servicesEnv,
    REELFLOW_NAMESPACE: place.namespace,
    npm_command: '',
  };
  return { cwd, env };
}

/** Runs the SQL of the README. @returns the number of rows of each block */
async function queried(file: string): Promise<number[]> {
  const blocks = [...readme.matchAll(/^```sql\n(.*?)^```/gms)].map(([, sql]) => sql as string);
  expect(blocks.length).toBeGreaterThan(0);
  const read = async (connection: DuckDBConnection) => {
    const counts: number[] = [];
    for (const sql of blocks) counts.push((await connection.runAndReadAll(sql)).currentRowCount);
    return counts;
  };
  return withDatabase(read, file, { access_mode: 'READ_ONLY' });
}

class Shell {
  readonly #child: ChildProcess;
  readonly done: Promise<{ code: number | null; output: string }>;
  output = '';

  constructor(script: string, where: { cwd: string; env: NodeJS.ProcessEnv }) {
    // A process group of its own, as a terminal gives it, so that Ctrl-C reaches all of it.
    this.#child = spawn('bash', ['-c', script], {
      ...where,
      stdio: ['pipe', 'pipe', 'pipe'],
      detached: true,
    });
    for (const stream of [this.#child.stdout, this.#child.stderr]) {
      stream?.setEncoding('utf8').on('data', (text: string) => {
        this.output += text;
      });
    }
    this.done = new Promise((resolve) => {
      this.#child.on('close', (code) => resolve({ code, output: this.output }));
    });
  }

  /** Types a line, or ends the input. */
  type(line: string | undefined): void {
    if (line === undefined) this.#child.stdin?.end();
    else this.#child.stdin?.write(`${line}\n`);
  }

  signal(signal: NodeJS.Signals): void {
    if (this.#child.exitCode === null) process.kill(-(this.#child.pid as number), signal);
  }

  async shows(what: RegExp): Promise<void> {
    let isOver = false;
    void this.done.then(() => {
      isOver = true;
    });
    await until(`${what} is shown`, () => what.test(this.output) || isOver);
    expect(this.output).toMatch(what);
  }
}

test('every line of the sh blocks of the README works, from top to bottom in one folder', async ({
  place,
}) => {
  const where = await clone(place);
  const started: Shell[] = [];
  place.onEnd(() => {
    for (const shell of started) shell.signal('SIGKILL');
  });
  const start = (script: string) => {
    const shell = new Shell(script, where);
    started.push(shell);
    return shell;
  };
  const ran: string[] = [];
  let jobs: Shell | undefined;
  let running: Shell | undefined;
  const stopRunning = async () => {
    if (running === undefined) return;
    running.signal('SIGINT');
    expect(await running.done).toMatchObject({ code: 0 });
    expect(running.output).toContain('all members have left');
    running = undefined;
  };
  for (const block of blocks) {
    // `run` stays up while the next block looks at it.
    if (block.some((line) => line.endsWith(' &'))) await stopRunning();
    for (const line of block) {
      ran.push(line);
      if (line in skipped) continue;
      if (line.endsWith(' &')) {
        jobs ??= start('exec bash -ms');
        jobs.type(line);
        continue;
      }
      if (line.startsWith('kill ') && jobs !== undefined) {
        jobs.type(line);
        jobs.type('wait');
        jobs.type(undefined);
        await jobs.done;
        expect(jobs.output.match(/"reason":"SIGTERM","msg":"stopped"/g)).toHaveLength(2);
        jobs = undefined;
        continue;
      }
      const shell = start(line);
      const shown = untilCtrlC[line];
      if (shown === undefined) {
        const finished = await shell.done;
        expect(finished, `${line}\n${finished.output}`).toMatchObject({ code: 0 });
        continue;
      }
      await shell.shows(shown);
      if (line.startsWith('npx reelflow run')) running = shell;
      else {
        shell.signal('SIGINT');
        await shell.done;
      }
    }
  }
  await stopRunning();
  // Each exception is still a line of the README.
  expect(Object.keys(skipped).filter((line) => !ran.includes(line))).toEqual([]);
  expect(Object.keys(untilCtrlC).filter((line) => !ran.includes(line))).toEqual([]);
  expect(ran.length).toBeGreaterThan(18);
  expect(existsSync(join(where.cwd, '.reelflow/gold/CURRENT'))).toBe(true);
  for (const rows of await queried(join(where.cwd, '.reelflow/gold/gold.duckdb')))
    expect(rows).toBeGreaterThan(0);
  expect(execFileSync('ls', [join(where.cwd, '.reelflow/demo')], { encoding: 'utf8' })).toContain(
    'demo-t10000',
  );
});
