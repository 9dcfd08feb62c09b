/** What a pipeline and its stages, which are child processes, tell each other. */
import { type ChildProcess, fork } from 'node:child_process';
import { once } from 'node:events';
import { expect } from 'vitest';
import { runPipeline } from '../../cli/pipeline.ts';
import { flushMessage, publishedMessage, readyMessage } from '../../cli/stage.ts';
import { packageFile } from '../../runtime/package.ts';
import { currentSnapshot } from '../../sinks/gold/manifest.ts';
import { Registry } from '../../topics/registry.ts';
import { failureOf } from '../support/failure.ts';
import { broker, type Place, servicesEnv, smallDataset, test, until } from '../support/harness.ts';

function start(place: Place, args: readonly string[]): ChildProcess {
  const child = fork(packageFile('cli/reelflow.js'), args, {
    cwd: place.folder,
    stdio: ['ignore', 'ignore', 'ignore', 'ipc'],
    env: {
      ...process.env,
      ...servicesEnv,
    },
  });
  place.onEnd(() => child.kill('SIGKILL'));
  return child;
}

test('a processor that is asked to flush publishes before the end of the window, and goes on', async ({
  place,
}) => {
  await place.replay(await smallDataset(`${place.folder}/data`, 20, 1));
  const processor = start(place, place.args('process', '--window', '1h'));
  // A flush before the shards are open asks for nothing.
  await until('deltas', async () => {
    processor.send(flushMessage);
    return (await place.readTopic(place.names.deltas)).length > 0;
  });
  expect(processor.exitCode).toBe(null);
});

test('a sink says once for each new snapshot that CURRENT names it', async ({ place }) => {
  await place.replay(await smallDataset(`${place.folder}/data`, 20, 1));
  await place.process();
  const told: unknown[] = [];
  for (const _ of ['new', 'unchanged']) {
    const sink = start(place, place.args('sink', '--once'));
    sink.on('message', (message) => {
      if (message !== readyMessage) told.push([message, currentSnapshot(place.gold)]);
    });
    expect(await once(sink, 'exit')).toEqual([0, null]);
  }
  expect(told).toEqual([[publishedMessage, place.manifest.id]]);
});

test('a processor and a sink say once that they are ready', async ({ place }) => {
  await place.replay(await smallDataset(`${place.folder}/data`, 20, 1));
  for (const command of ['process', 'sink'] as const) {
    const stage = start(place, place.args(command));
    expect(await once(stage, 'message')).toEqual([readyMessage, undefined]);
    stage.kill('SIGTERM');
    const told: unknown[] = [];
    stage.on('message', (message) => told.push(message));
    await once(stage, 'exit');
    expect(told.filter((message) => message === readyMessage)).toEqual([]);
  }
});

// Vitest also fails if a rejection stays unhandled.
test('a pipeline ends with the failure of its stage', async ({ place }) => {
  const { names, gold, state, namespace } = place;
  const { endpoints, logger } = broker;
  const registry = new Registry({ url: endpoints.registryUrl });
  const run = runPipeline({
    context: { broker, registry, names, logger, endpoints, places: { gold, state, namespace } },
    data: await smallDataset(`${place.folder}/data`, 20, 1),
    logs: `${place.folder}/logs`,
    processArguments: ['--window', 'long'],
    signal: new AbortController().signal,
  });
  expect(await failureOf(run)).toMatchObject({
    kind: 'usage',
    message: 'reelflow process ended with exit code 2',
  });
});
