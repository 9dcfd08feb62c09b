/** What the three stage commands share: every line of their log names its process, and they log their start and end. */
import { expect } from 'vitest';
import { packageVersion } from '../../cli/version.ts';
import { smallDataset, test } from '../support/harness.ts';

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

test('a processor that a signal reaches while it starts leaves at once', async ({ place }) => {
  const member = place.start(place.args('process'));
  await member.logged('its start', ({ msg }) => msg === 'started');
  const { code, stderr } = await member.terminate();
  expect(code, stderr).toBe(0);
  expect(member.log.some(({ msg }) => msg === 'shards assigned')).toBe(false);
  expect(member.log.at(-1)).toMatchObject({ msg: 'stopped', reason: 'SIGTERM' });
});
