/** What the three stage commands share: every line of their log names its process, and they log their start and end. */
import { mkdirSync, rmdirSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { expect } from 'vitest';
import { exitCodes } from '../../runtime/errors.ts';
import { packageVersion } from '../../runtime/package.ts';
import { type Place, Running, servicesEnv, smallDataset, spoken, test } from '../support/harness.ts';

test('each stage logs its start and its end, and every line has component, pid and version', async ({
  place,
}) => {
  const data = await smallDataset(`${place.folder}/data`, 20, 1);
  const runs = [
    ['replay', place.args('replay', data)],
    ['process', place.args('process', '--until-caught-up')],
    ['sink', place.args('sink', '--once')],
  ] as const;
  for (const [component, args] of runs) {
    const running = place.start(args);
    const { code, stderr } = await running.done;
    expect(code, stderr).toBe(0);
    for (const line of running.log)
      expect(line).toMatchObject({ component, pid: running.pid, version: packageVersion() });
    expect(running.log[0]).toMatchObject({ msg: 'started', namespace: place.namespace });
    expect(running.log.at(-1)).toMatchObject({ msg: 'stopped', reason: 'done' });
  }
});

test('a stage that a signal ends names the signal', async ({ place }) => {
  const sink = place.start(place.args('sink'));
  await sink.logged('its start', ({ msg }) => msg === 'started');
  const { code, stderr } = await sink.terminate();
  expect(code, stderr).toBe(0);
  expect(sink.log.at(-1)).toMatchObject({ msg: 'stopped', reason: 'SIGTERM' });
});

test.for([
  ['process', '--until-caught-up'],
  ['sink', '--once'],
] as const)(
  '%s %s does not end with 0 when a signal ends it before its work is done',
  async (args, { place }) => {
    const [command, ...more] = args;
    const stage = place.start(place.args(command, ...more));
    await stage.logged('its start', ({ msg }) => msg === 'started');
    const { code, stderr } = await stage.terminate();
    expect(code, stderr).toBe(143);
    expect(stderr).toContain('Interrupted');
  },
);

test('a processor that a signal reaches while it starts leaves at once', async ({ place }) => {
  const member = place.start(place.args('process'));
  await member.logged('its start', ({ msg }) => msg === 'started');
  const { code, stderr } = await member.terminate();
  expect(code, stderr).toBe(0);
  expect(member.log.some(({ msg }) => msg === 'shards assigned')).toBe(false);
  expect(member.log.at(-1)).toMatchObject({ msg: 'stopped', reason: 'SIGTERM' });
});

/** A command in a working directory of its own, which is killed if it does not end. */
function startIn(place: Place, cwd: string, ...args: string[]): Running {
  mkdirSync(cwd);
  const env = {
    ...process.env,
    ...servicesEnv,
    REELFLOW_NAMESPACE: place.namespace,
  };
  const running = new Running(args, { cwd, env });
  const timer = setTimeout(() => running.kill('SIGKILL'), 60_000);
  place.onEnd(() => clearTimeout(timer));
  return running;
}

// Method: the directory is removed before the program runs, while Node loads it.
test('a command without a working directory ends with words', async ({ place }) => {
  const cwd = join(place.folder, 'removed');
  const started = startIn(place, cwd, 'process');
  rmdirSync(cwd);
  const finished = await started.done;
  expect(finished, finished.stderr).toMatchObject({ code: exitCodes.usage, signal: null });
  expect(spoken(finished)).toContain('The working directory does not exist any more');
});

// A recursive mkdir of a relative path would never return, and no signal but SIGKILL would end the sink.
test('a sink whose working directory is removed still publishes or ends', async ({ place }) => {
  await place.replay(await smallDataset(join(place.folder, 'data'), 20, 1));
  await place.process();
  const cwd = join(place.folder, 'removed');
  const sink = startIn(place, cwd, 'sink', '--interval', '100ms');
  await sink.logged('its start', ({ msg }) => msg === 'started');
  rmSync(cwd, { recursive: true });
  const published = sink.logged('a snapshot', ({ msg }) => msg === 'snapshot published');
  await Promise.race([published, sink.done]);
  published.catch(() => undefined);
  expect((await sink.terminate()).signal).toBeNull();
});
