/**
 * A base on a real broker: dumps in which rows and titles vanish and return, a kill in the middle of a base, a whole base,
 * the deletion of everything before it; then everything that is older than the base goes on from there. Gold is
 * compared with a batch computation over the files of the newest dump at each step.
 */
import { cpSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { expect } from 'vitest';
import { logBounds } from '../../kafka/bounds.ts';
import { withAdmin } from '../../kafka/client.ts';
import { LagWatch } from '../../monitor/lag-watch.ts';
import { exitCodes } from '../../runtime/errors.ts';
import type { DatasetName } from '../../topics/catalog.ts';
import { datasetNames } from '../../topics/catalog.ts';
import { sendTo } from '../support/damage.ts';
import { broker, type Place, smallDataset, test, textOf, writeDatasets } from '../support/harness.ts';

/** A dump without the lines of a file that `isGone` names, by their number. */
function without(from: string, to: string, isGone: (dataset: DatasetName, line: number) => boolean): string {
  const texts = datasetNames.map((dataset) => {
    const lines = textOf(from, dataset).trimEnd().split('\n');
    const kept = lines.filter((_, line) => line === 0 || !isGone(dataset, line));
    return [dataset, `${kept.join('\n')}\n`] as const;
  });
  return writeDatasets(to, Object.fromEntries(texts));
}

const starts = async ({ names }: Place) => {
  const topics = datasetNames.map((dataset) => names.source(dataset));
  const bounds = await logBounds(broker, topics);
  return Object.fromEntries(
    datasetNames.map((dataset) => {
      const partitions = [...(bounds.get(names.source(dataset))?.values() ?? [])];
      return [dataset, partitions.map(({ start }) => start)];
    }),
  ) as Record<DatasetName, number[]>;
};

const refresh = ['--max-removed', '100'];
const asBase = [...refresh, '--base-above', '1'];
/** Without a history the ratings are deleted like everything else. */
const keepsNoHistory = ['--history', '0'];

test('after a base everything before it can go: stores, backups, names and a reset begin there, and gold is exact', async ({
  place,
}) => {
  const whole = await smallDataset(join(place.folder, 'whole'), 400, 7);
  const first = without(whole, join(place.folder, 'first'), (_, line) => line % 5 === 0);
  const second = without(whole, join(place.folder, 'second'), (_, line) => line % 7 === 0);
  const third = without(whole, join(place.folder, 'third'), (_, line) => line % 3 === 0);
  const backups = join(place.folder, 'backups');

  // 1. A first load, and a copy of everything that is made from it.
  await place.replay(first, '--shards', '2', ...refresh);
  await place.process('--backups', backups);
  await place.sink(...keepsNoHistory);
  const old = join(place.folder, 'old');
  cpSync(place.state, join(old, 'state'), { recursive: true });
  const olderSnapshot = place.manifest.id;

  // 2. Another dump: the topics hold more than one.
  await place.replay(second, ...refresh);

  // 3. A base that is killed, with an end in no partition of the third dataset.
  const dry = await place.replay(third, ...asBase, '--dry-run');
  expect(Object.values(dry.plan ?? {}).map(({ isBase }) => isBase)).toEqual(datasetNames.map(() => true));
  const killed = await place.run(place.args('replay', third, ...asBase), {
    REELFLOW_CRASH_AT: 'before-base-end:3',
  });
  expect(killed.signal).toBe('SIGKILL');
  await place.process();

  // 4. The next replay is whole and exact.
  const { plan } = await place.replay(third, ...asBase);
  expect(Object.values(plan ?? {}).some(({ isBase }) => isBase)).toBe(true);
  await place.process();
  const report = await place.sink('--trim', 'report', ...keepsNoHistory);
  expect(report.deleted).toBeGreaterThan(0);
  expect(await starts(place)).toMatchObject({ 'title.basics': [0, 0], 'name.basics': [0, 0] });
  expect((await place.sink(...keepsNoHistory)).deleted).toBe(report.deleted);
  const after = await starts(place);
  for (const dataset of datasetNames) expect(Math.min(...after[dataset]), dataset).toBeGreaterThan(0);
  expect(await place.differences(third)).toEqual([]);
  await verified(place);

  // 5. A snapshot from before the base is compared with its files, and says so.
  const verification = await place.run([
    ...['verify', olderSnapshot, '--gold', place.gold, '--namespace', place.namespace],
  ]);
  expect(verification.code).toBe(exitCodes.sourceLost);
  expect(verification.stderr).toContain('--data DIR');

  // 6. A consumer that has read nothing lost nothing.
  const topic = place.names.source('title.basics');
  const groupId = `${place.namespace}-late`;
  const partitions = [0, 1].map((partition) => ({ partition, offset: '0' }));
  await withAdmin(broker, (admin) => admin.setOffsets({ groupId, topic, partitions }));
  const { rows } = await new LagWatch(broker).look([{ group: groupId, topics: [topic] }]);
  expect(rows.map(({ lost, state }) => [lost, state === 'LOST'])).toEqual([
    [0, false],
    [0, false],
  ]);

  // 7. The state of day one and its backups are behind the base: they begin there, and lead to what is published.
  const oldState = ['--state', join(old, 'state')];
  await place.process(...oldState);
  await place.process('--state', join(place.folder, 'empty'), '--backups', backups);
  const oldSink = [...oldState, '--gold', join(place.folder, 'old-gold'), ...keepsNoHistory];
  expect(await place.sink(...oldSink)).toMatchObject({ refused: 0 });
  expect(await place.sink(...keepsNoHistory)).toMatchObject({ refused: 0 });

  // 8. The next dump sends what changed, and nothing else.
  const last = without(whole, join(place.folder, 'last'), (_, line) => line % 3 === 0 && line > 9);
  const { plan: small } = await place.replay(last, ...refresh);
  expect(Object.values(small ?? {}).map(({ unknown }) => unknown.groups)).toEqual(datasetNames.map(() => 0));
  await place.process();
  await place.sink(...keepsNoHistory);
  expect(await place.differences(last)).toEqual([]);

  // 9. From nothing: a reset, no stores, no sink.
  const reset = await place.run(place.args('reset'));
  expect(reset, reset.stderr).toMatchObject({ code: 0 });
  rmSync(place.state, { recursive: true });
  rmSync(place.gold, { recursive: true });
  await place.process();
  const sink = await place.run(place.args('sink', '--once', '--json', ...keepsNoHistory));
  expect(sink, sink.stderr).toMatchObject({ code: 0 });
  // The messages before the base are no loss.
  const losses = sink.stderr.split('\n').filter((line) => line.includes('the log lost messages'));
  expect(losses.filter((line) => line.includes('title.basics'))).toEqual([]);
  expect(await place.differences(last)).toEqual([]);
  await verified(place);
}, 600_000);

test('a message that consumers refused stays before a base until the next refresh has read it', async ({
  place,
}) => {
  const whole = await smallDataset(join(place.folder, 'whole'), 200, 7);
  const dump = (name: string, every: number) =>
    without(whole, join(place.folder, name), (_, line) => line % every === 0);
  await place.replay(dump('first', 5), '--shards', '1', ...refresh);
  await place.replay(dump('second', 7), ...refresh);
  await place.process();
  const topic = place.names.source('title.crew');
  const endOf = async () => (await logBounds(broker, [topic])).get(topic)?.get(0)?.end;
  const refused = await endOf();
  await sendTo(topic, 0, [Buffer.from('garbage')]);

  // No consumer has refused it when the base is sent.
  const { plan } = await place.replay(dump('third', 3), ...asBase);
  expect(plan?.['title.crew']?.isBase).toBe(true);
  await place.process();
  await place.sink(...keepsNoHistory);
  expect((await starts(place))['title.crew']).toEqual([refused]);

  await place.replay(dump('fourth', 4), ...refresh, '--base-above', '9');
  await place.process();
  await place.sink(...keepsNoHistory);
  // The base begins behind the refused message.
  expect((await starts(place))['title.crew']).toEqual([Number(refused) + 1]);
  expect(await place.differences(join(place.folder, 'fourth'))).toEqual([]);
});

async function verified(place: Place): Promise<void> {
  const { gold, namespace, run } = { ...place, run: place.run.bind(place) };
  const finished = await run(['verify', '--gold', gold, '--namespace', namespace]);
  expect(finished, finished.stdout + finished.stderr).toMatchObject({ code: 0 });
}
