/**
 * `npm run bench -- starts`: what short commands take, run by node itself, from the checkout and from the package as npm packs it.
 * Wall and CPU seconds are those that bash's `time` reports, with all that the command started; each command runs once before.
 */
import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { mkdirSync, mkdtempSync, readdirSync, rmSync, symlinkSync } from 'node:fs';
import { loadavg, tmpdir } from 'node:os';
import { join } from 'node:path';
import { createBroker } from '../kafka/client.ts';
import { freePorts } from '../kafka/local/probe.ts';
import { type Endpoints, environmentOf } from '../runtime/config.ts';
import { createLogger } from '../runtime/logger.ts';
import { packageFile } from '../runtime/package.ts';
import { removeTopics } from './data.ts';
import { median } from './measure.ts';
import type { Line } from './report.ts';
import { program } from './stages.ts';

/** As the first line of `reelflow.js` starts it. */
const nodeFlags = ['--initial-old-space-size=256', '--single-threaded-gc'];

interface Run {
  readonly seconds: number;
  readonly cpuSeconds: number;
}

export async function startsOf(endpoints: Endpoints, runs: number): Promise<Line[]> {
  const folder = mkdtempSync(join(tmpdir(), 'reelflow-starts-'));
  const prefix = `starts-${process.pid}`;
  try {
    const lines = new Map<string, Record<string, string | number>>();
    for (const [from, path] of [
      ['checkout', program],
      ['package', packedProgram(folder)],
    ] as const) {
      const cwd = join(folder, `${from}-run`);
      mkdirSync(cwd);
      const env = {
        ...process.env,
        ...environmentOf(endpoints),
        REELFLOW_NAMESPACE: `${prefix}-${from}`,
      };
      for (const [command, all] of Object.entries(await measured({ path, cwd, env }, runs))) {
        const line = lines.get(command) ?? { command };
        line[`s ${from}`] = median(all.map(({ seconds }) => seconds));
        if (command !== stopping) line[`CPU s ${from}`] = median(all.map(({ cpuSeconds }) => cpuSeconds));
        lines.set(command, line);
      }
    }
    return [...lines.values()];
  } finally {
    await removeTopics(createBroker(endpoints, createLogger('silent')), `${prefix}-`);
    rmSync(folder, { recursive: true, force: true });
  }
}

/** For the note under the figures: on a busy machine wall seconds are those of waiting. */
export const load = () => `Load average ${loadavg()[0]?.toFixed(1)}.`;

const stopping = 'monitor, from SIGTERM to its end';

interface Place {
  /** Of reelflow.js. */
  readonly path: string;
  readonly cwd: string;
  readonly env: NodeJS.ProcessEnv;
}

async function measured(place: Place, runs: number): Promise<Record<string, Run[]>> {
  const several = (count: number, work: () => Run) => Array.from({ length: count }, work);
  const command = (...args: string[]) => {
    timed(place, args);
    return several(runs, () => timed(place, args));
  };
  const demo = (number: number) => {
    const namespace = `${place.env.REELFLOW_NAMESPACE}-${number}`;
    return timed(place, ['demo', '--titles', '10000', '--namespace', namespace, '--json']);
  };
  timed(place, ['generate', '--titles', '1000', '--out', 'data']);
  timed(place, ['replay', 'data']);
  const results: Record<string, Run[]> = {
    '--help': command('--help'),
    'process --until-caught-up, nothing to do': command('process', '--until-caught-up'),
    'sink --once, nothing to do': command('sink', '--once'),
    lag: command('lag'),
    'demo of 10,000 titles, the first time': Array.from({ length: runs }, (_, i) => demo(i)),
    'demo of 10,000 titles, again': several(runs, () => demo(0)),
  };
  results[stopping] = [];
  for (let run = 0; run < runs; run++) results[stopping].push(await stopOfMonitor(place));
  return results;
}

/** @throws Error with the end of its output, when the command fails */
function timed({ path, cwd, env }: Place, args: readonly string[]): Run {
  const { status, stderr } = spawnSync(
    'bash',
    [
      '-c',
      'TIMEFORMAT="%R %U %S"; time "$@" > /dev/null',
      '-',
      process.execPath,
      ...nodeFlags,
      path,
      ...args,
    ],
    { cwd, env, encoding: 'utf8', maxBuffer: 64 * 1024 * 1024 },
  );
  if (status !== 0) throw new Error(`${args.join(' ')} ended with ${status}:\n${stderr.slice(-2_000)}`);
  const [seconds = 0, user = 0, system = 0] = (stderr.trim().split('\n').at(-1) ?? '').split(' ').map(Number);
  return { seconds, cpuSeconds: user + system };
}

async function stopOfMonitor({ path, cwd, env }: Place): Promise<Run> {
  const [port] = await freePorts(1);
  const args = [...nodeFlags, path, 'monitor', '--listen', String(port)];
  const child: ChildProcess = spawn(process.execPath, args, {
    cwd,
    env,
    stdio: ['ignore', 'pipe', 'ignore'],
  });
  if (child.stdout === null) throw new Error('the monitor has no output');
  await once(child.stdout, 'data');
  // A page with a viewer.
  await fetch(`http://127.0.0.1:${port}/events`, { signal: AbortSignal.timeout(2_000) }).catch(
    () => undefined,
  );
  const startedMs = performance.now();
  child.kill('SIGTERM');
  await once(child, 'exit');
  return { seconds: (performance.now() - startedMs) / 1000, cpuSeconds: Number.NaN };
}

/** The package, as npm packs it, beside the packages of this checkout. @returns its reelflow.js */
function packedProgram(folder: string): string {
  const modules = packageFile('node_modules');
  const packed = join(folder, 'node_modules', 'reelflow');
  mkdirSync(packed, { recursive: true });
  const script =
    'npm pack --silent --pack-destination "$1" && tar xzf "$1"/reelflow-*.tgz -C "$2" --strip-components 1';
  const { status, stderr } = spawnSync('bash', ['-c', script, '-', folder, packed], {
    cwd: packageFile('.'),
    encoding: 'utf8',
  });
  if (status !== 0) throw new Error(`npm pack failed:\n${stderr}`);
  for (const name of readdirSync(modules)) {
    if (!name.startsWith('.') && name !== 'reelflow')
      symlinkSync(join(modules, name), join(folder, 'node_modules', name));
  }
  return join(packed, 'cli', 'reelflow.js');
}
