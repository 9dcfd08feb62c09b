/**
 * A refresh that is killed at each of its steps, in one namespace and one after the other. Each kill is followed by a
 * different dump, of which the topics must then hold exactly the rows: what a killed run sent, and what it wrote to the
 * index or did not, leaves no trace. At the end gold equals the batch computation.
 */
import { join } from 'node:path';
import { expect, vi } from 'vitest';
import { type DatasetName, datasetNames, datasets } from '../../topics/catalog.ts';
import { groupOf } from '../../topics/id-groups.ts';
import { dumpOfDay } from '../support/dump-days.ts';
import { chunkType, type Place, readTopic, smallDataset, test, textOf } from '../support/harness.ts';

vi.setConfig({ testTimeout: 900_000 });

/** More rows vanish than in a real dump, and older dumps follow newer ones. */
const plausible = ['--max-removed', '60', '--allow-older'];

/** Of a first load: the topics are new. */
const loadPoints = ['after-ack-before-journal:2', 'after-load-before-index', 'before-index-message:1'];
const refreshPoints = [
  'after-plan-before-send',
  'mid-refresh:1',
  'mid-refresh:4',
  'after-refresh-before-index:1',
  'after-refresh-before-index:3',
  'before-index-message:1',
  'before-index-message:2',
  'before-index-message:5',
  'after-index-before-journal:1',
  'after-index-before-journal:4',
];

const keyOf = (dataset: DatasetName, row: Readonly<Record<string, unknown>>) =>
  datasets[dataset].columns
    .slice(0, datasets[dataset].keyColumns)
    .map(({ name }) => String(row[name]))
    .join(' ');

/** The keys that the topic holds, with votes where it has them. */
async function held(place: Place, dataset: DatasetName): Promise<string[]> {
  const rows = new Map<string, string>();
  for (const { value } of await readTopic(place.names.source(dataset))) {
    const { replaces, records } = chunkType(dataset).fromBuffer((value as Buffer).subarray(5)) as {
      replaces: number[];
      records: Record<string, unknown>[];
    };
    const groups = new Set(replaces);
    if (groups.size > 0) {
      for (const key of rows.keys()) {
        if (groups.has(groupOf(Number(key.slice(2).split(' ')[0])))) rows.delete(key);
      }
    }
    for (const row of records) rows.set(keyOf(dataset, row), `${keyOf(dataset, row)} ${row.numVotes ?? ''}`);
  }
  return [...rows.values()].sort();
}

function expected(folder: string, dataset: DatasetName): string[] {
  const names = datasets[dataset].columns.map(({ name }) => name);
  const lines = textOf(folder, dataset).trimEnd().split('\n').slice(1);
  return lines
    .map((line) => {
      const values = line.split('\t');
      const row = Object.fromEntries(names.map((name, place) => [name, values[place]]));
      return `${keyOf(dataset, row)} ${row.numVotes ?? ''}`;
    })
    .sort();
}

async function expectHeld(place: Place, folder: string, after: string): Promise<void> {
  for (const dataset of datasetNames) {
    expect(await held(place, dataset), `${dataset} after ${after}`).toEqual(expected(folder, dataset));
  }
}

test('killed at every step, the next dump is held exactly', async ({ place, newPlace }) => {
  const base = await smallDataset(join(place.folder, 'base'), 300, 37);
  const dumps = [1, 2, 3].map((day) => dumpOfDay(join(place.folder, `day-${day}`), base, day));
  const dies = async (own: Place, point: string, dump: string) => {
    const finished = await own.run(own.args('replay', dump, ...plausible), { REELFLOW_CRASH_AT: point });
    expect(finished, `${point} was not reached: ${finished.stderr.slice(-500)}`).toMatchObject({
      signal: 'SIGKILL',
    });
  };
  for (const point of loadPoints) {
    const own = newPlace();
    await dies(own, point, dumps[0] as string);
    await own.replay(dumps[1] as string, ...plausible);
    await expectHeld(own, dumps[1] as string, point);
  }

  await place.pipeline(dumps[0] as string);
  for (const [n, point] of refreshPoints.entries()) {
    // The topics hold neither of them.
    const [killed, next] = [dumps[(2 * n + 1) % 3] as string, dumps[(2 * n + 2) % 3] as string];
    await dies(place, point, killed);
    // Every second time another host continues.
    const state = n % 2 === 1 ? ['--state', join(place.folder, `elsewhere-${n}`)] : [];
    await place.replay(next, ...plausible, ...state);
    await expectHeld(place, next, point);
    // The index knows that, too. After several dumps a base would be due.
    expect(await place.replay(next, '--base-above', '100')).toMatchObject({ produced: 0 });
  }
  const last = dumps[(2 * refreshPoints.length) % 3] as string;
  await place.process();
  await place.sink();
  expect(await place.differences(last)).toEqual([]);
});
