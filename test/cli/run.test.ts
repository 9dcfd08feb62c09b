/**
 * `reelflow run`: one command for the pipeline of a machine. Method: the real command with its real members; which processes
 * exist is read from /proc, who belongs to the groups from the broker.
 */
import { spawn } from 'node:child_process';
import { existsSync, mkdirSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs';
import { dirname } from 'node:path';
import { describe, expect } from 'vitest';
import { requireFreeGold } from '../../cli/run.ts';
import { withAdmin } from '../../kafka/client.ts';
import { freePorts } from '../../kafka/local/probe.ts';
import { exitCodes } from '../../runtime/errors.ts';
import { withGoldLock } from '../../sinks/gold/gold-lock.ts';
import {
  broker,
  lastJson,
  type Place,
  program,
  type Running,
  servicesEnv,
  smallDataset,
  spoken,
  test,
  until,
} from '../support/harness.ts';

async function start(place: Place, ...more: string[]): Promise<Running & { port: number }> {
  const [port = 0] = await freePorts(1);
  return Object.assign(place.start(place.args('run', ...more, '--listen', String(port))), { port });
}

/** Ids of the members by their component, as their own first lines say. */
async function members(running: Running, ...names: string[]): Promise<Record<string, number>> {
  const found: Record<string, number> = {};
  for (const name of names) {
    const line = await running.logged(
      `the start of ${name}`,
      ({ msg, component }) => msg === 'started' && component === name,
    );
    found[name] = line.pid as number;
  }
  return found;
}

const runs = (pid: number | undefined) =>
  pid !== undefined &&
  existsSync(`/proc/${pid}`) &&
  !/^State:\s+Z/m.test(readFileSync(`/proc/${pid}/status`, 'utf8'));

async function membersOfGroups({ names }: Place): Promise<number> {
  const { groups } = await withAdmin(broker, (admin) =>
    admin.describeGroups([names.processorGroup, names.sinkGroup]),
  );
  return groups.reduce((sum, group) => sum + group.members.length, 0);
}

test('loads a folder, publishes it exactly, serves the page, and all members leave at SIGINT', async ({
  place,
}) => {
  const data = await smallDataset(`${place.folder}/data`, 60, 1);
  const running = await start(place, data, '--interval', '1s', '--processors', '2');
  const { process: processor, sink } = await members(running, 'process', 'sink');
  await until('the folder is loaded', () => running.stdout.includes('Loaded  '));
  await until('gold equals the folder', async () => {
    if (!existsSync(`${place.gold}/CURRENT`)) return false;
    return (await place.differences(data)).length === 0;
  });
  const page = await fetch(`http://127.0.0.1:${running.port}/`);
  expect(await page.text()).toContain('<title>');
  expect(await membersOfGroups(place)).toBe(3);

  running.kill('SIGINT');
  const finished = await running.done;
  expect(finished, finished.stderr).toMatchObject({ code: 0 });
  expect(finished.stdout).toContain('Stopped by SIGINT: all members have left.');
  expect([runs(processor), runs(sink)]).toEqual([false, false]);
  expect(await membersOfGroups(place)).toBe(0);
});

test('prints where its page is as one line of JSON, and SIGTERM ends it with 0 also while it loads', async ({
  place,
}) => {
  const data = await smallDataset(`${place.folder}/data`, 60, 1);
  const running = await start(place, data, '--json');
  await members(running, 'replay');
  const finished = await running.terminate();
  expect(finished, finished.stderr).toMatchObject({ code: 0 });
  expect(finished.stdout.trim().split('\n')).toHaveLength(1);
  expect(lastJson(finished)).toMatchObject({
    url: `http://127.0.0.1:${running.port}/`,
    namespace: place.namespace,
  });
});

describe('the end of a member ends the others', () => {
  test('with its exit code and its own words', async ({ place }) => {
    place.files('.', { gold: 'a file where the folder should be' });
    const running = await start(place);
    const { process: processor } = await members(running, 'process');
    const finished = await running.done;
    expect(finished.code).toBe(exitCodes.goldUnusable);
    expect(spoken(finished)).toContain('Error: sink ended with exit code 8, so the others were stopped');
    expect(spoken(finished)).toContain('The gold folder cannot be written');
    expect(runs(processor)).toBe(false);
  });

  test('also when a signal ended it', async ({ place }) => {
    const running = await start(place);
    const { process: processor, sink } = await members(running, 'process', 'sink');
    process.kill(sink as number, 'SIGKILL');
    const finished = await running.done;
    expect(finished.code).toBe(128 + 9);
    expect(spoken(finished)).toContain('sink ended with signal SIGKILL');
    expect(spoken(finished)).not.toContain('defect');
    expect(runs(processor)).toBe(false);
  });
});

test('members leave by themselves when the command is killed', async ({ place }) => {
  const running = await start(place);
  const { process: processor, sink } = await members(running, 'process', 'sink');
  running.kill('SIGKILL');
  await until('both members are gone', () => !runs(processor) && !runs(sink));
});

test('a gold folder that another sink holds is named before the page and the members', async ({ place }) => {
  const gold = `${place.folder}/gold`;
  await requireFreeGold(gold);
  await withGoldLock(gold, { patienceMs: 0 }, async () => {
    await expect(requireFreeGold(gold, 0)).rejects.toMatchObject({
      kind: 'busy',
      detail: expect.stringContaining(gold),
    });
  });
  await requireFreeGold(gold);
});

test('a folder that does not exist is named before anything starts', async ({ place }) => {
  const finished = await place.run(place.args('run', 'nowhere'));
  expect(finished.code).toBe(exitCodes.input);
  expect(spoken(finished)).toContain('There is no folder nowhere');
});

test('a member in the background ends with the npx that started it', async ({ place }) => {
  mkdirSync(`${place.folder}/node_modules/.bin`, { recursive: true });
  symlinkSync(program, `${place.folder}/node_modules/.bin/reelflow`);
  writeFileSync(`${place.folder}/package.json`, '{}');
  const npx = spawn('npx', ['reelflow', ...place.args('process')], {
    cwd: place.folder,
    stdio: ['ignore', 'ignore', 'pipe'],
    env: {
      ...process.env,
      ...servicesEnv,
      // The Node of this run, which may be newer than that of the machine.
      PATH: `${dirname(process.execPath)}:${process.env.PATH}`,
    },
  });
  place.onEnd(() => npx.kill('SIGKILL'));
  let log = '';
  npx.stderr.setEncoding('utf8').on('data', (text: string) => {
    log += text;
  });
  const line = () => log.split('\n').find((text) => text.includes('"started"'));
  await until('the member has started', () => line() !== undefined);
  const { pid } = JSON.parse(line() ?? '{}') as { pid: number };
  expect(pid).not.toBe(npx.pid);
  expect(runs(pid)).toBe(true);
  npx.kill('SIGTERM');
  await until('the member has left', () => !runs(pid));
  expect(log).toContain('"reason":"SIGTERM"');
});
