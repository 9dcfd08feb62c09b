/**
 * Two months of daily dumps. Each day a tenth of the ratings and some titles change, a command is killed now and then at one
 * of its crash points, and the next day brings another dump. Every day gold equals a batch computation over the files of that day. Topics,
 * index, stores and deltas stop growing, and in the end a rebuild from nothing reads about as much as a first load.
 */
import { readdirSync, rmSync, statSync, utimesSync } from 'node:fs';
import { join } from 'node:path';
import { expect } from 'vitest';
import { logBounds } from '../../kafka/bounds.ts';
import { storeFiles } from '../../processors/store-folder.ts';
import { type DatasetName, datasetNames } from '../../topics/catalog.ts';
import { Chance } from '../chaos/chance.ts';
import {
  broker,
  type Place,
  readTopic,
  recordsOnTopic,
  smallDataset,
  test,
  textOf,
  writeDatasets,
} from '../support/harness.ts';

const days = Number(process.env.SOAK_ROUNDS ?? 60);
const titles = 1_000;
const shards = 2;
const keep = 3;
const historyDays = 3;
const dayMs = 86_400_000;
/** A small file may lose a large share of its ids, and a base comes after a few days. */
const replayOptions = ['--max-removed', '10', '--base-above', '1.2'];

/** Where a command of each stage is killed, and how often it passes there before. */
const crashes = {
  replay: [
    ['after-plan-before-send', 1],
    ['after-plan-before-send', 3],
    ['mid-refresh', 2],
    ['before-base-end', 1],
    ['before-base-end', 3],
    ['after-refresh-before-index', 2],
    ['before-index-message', 2],
  ],
  process: [
    ['before-commit', 2],
    ['after-commit-before-publish', 1],
    ['after-publish-before-mark', 2],
  ],
  sink: [
    ['after-delta-commit', 1],
    ['after-history-commit', 1],
    ['after-manifest-before-current', 1],
  ],
} as const;

type Stage = keyof typeof crashes;

/** The dump of a day: of the whole one, without every line whose turn it is to be gone, and with some other votes. */
function dumpOf(whole: string, folder: string, day: number, firstMs: number): string {
  const texts = datasetNames.map((dataset): [DatasetName, string] => {
    const lines = textOf(whole, dataset).trimEnd().split('\n');
    const kept = lines.flatMap((line, number) => {
      if (number === 0) return [line];
      if ((number + day) % 211 === 0) return [];
      const [id, rating] = line.split('\t');
      const isOther = dataset === 'title.ratings' && (number + day) % 10 === 0;
      return [isOther ? `${id}\t${rating}\t${1_000 + day}` : line];
    });
    return [dataset, `${kept.join('\n')}\n`];
  });
  writeDatasets(folder, Object.fromEntries(texts));
  const time = new Date(firstMs + day * dayMs);
  for (const name of readdirSync(folder)) utimesSync(join(folder, name), time, time);
  return folder;
}

interface Sizes {
  /** Messages that the log of each topic still holds. */
  readonly messages: number;
  readonly records: number;
  readonly deltas: number;
  readonly indexKeys: number;
  readonly storeBytes: number;
}

async function sizesOf(place: Place): Promise<Sizes> {
  const { names } = place;
  const held = async (topics: readonly string[]) => {
    const bounds = await logBounds(broker, topics);
    return [...bounds.values()]
      .flatMap((of) => [...of.values()])
      .reduce((sum, { start, end }) => sum + end - start, 0);
  };
  let records = 0;
  for (const dataset of datasetNames) records += await recordsOnTopic(names, dataset);
  const keys = new Map<string, boolean>();
  for (const { key, value } of await readTopic(names.dumpIndex)) keys.set(String(key), value !== null);
  const folder = join(place.state, String(readdirSync(place.state)[0]), place.namespace);
  const stores = Array.from({ length: shards }, (_, shard) => storeFiles(folder, shard)).flat();
  return {
    messages: await held(datasetNames.map((dataset) => names.source(dataset))),
    records,
    deltas: await held([names.deltas]),
    indexKeys: [...keys.values()].filter(Boolean).length,
    storeBytes: stores.reduce((sum, path) => sum + statSync(path).size, 0),
  };
}

test('daily dumps with kills: gold is exact every day, and nothing keeps growing', async ({ place }) => {
  const chance = new Chance(1);
  const firstMs = Date.now() - (days + 2) * dayMs;
  const whole = await smallDataset(join(place.folder, 'whole'), titles, 1);
  const retention = ['--keep', String(keep), '--history', String(historyDays)];
  const argsOf = (stage: Stage, data: string): string[] => {
    if (stage === 'replay') return place.args('replay', data, '--json', ...replayOptions);
    if (stage === 'process') return place.args('process', '--until-caught-up', '--json');
    return place.args('sink', '--once', '--json', ...retention);
  };
  const killSometimes = async (stage: Stage, data: string) => {
    if (chance.next() >= 0.3) return;
    const [point, passage] = chance.pick([...crashes[stage]]);
    await place.run(argsOf(stage, data), { REELFLOW_CRASH_AT: `${point}:${passage}` });
  };
  const day = async (number: number, ...more: string[]) => {
    const data = dumpOf(whole, join(place.folder, 'day'), number, firstMs);
    await place.replay(data, ...replayOptions, ...more);
    await killSometimes('process', data);
    const processed = await place.process();
    await killSometimes('sink', data);
    await place.sink(...retention);
    expect(await place.differences(data), `day ${number}`).toEqual([]);
    return processed;
  };

  const load = await day(0, '--shards', String(shards));
  const samples: Sizes[] = [];
  for (let number = 1; number <= days; number++) {
    // A dump that is never finished: the next one is another.
    await killSometimes('replay', dumpOf(whole, join(place.folder, 'day'), number - 0.5, firstMs));
    await day(number);
    samples.push(await sizesOf(place));
    process.stdout.write(`day ${number}: ${JSON.stringify(samples.at(-1))}\n`);
  }

  // 1. nothing needs more in the last third than it ever did in the second
  const third = Math.floor(days / 3);
  const highest = (from: number, to: number, of: keyof Sizes) =>
    Math.max(...samples.slice(from, to).map((sizes) => sizes[of]));
  for (const name of ['messages', 'records', 'deltas', 'indexKeys', 'storeBytes'] as const) {
    const before = highest(third, 2 * third, name);
    // A day may bring a chunk and a mark to every partition.
    const slack = name === 'messages' ? 2 * shards * datasetNames.length : shards * keep;
    expect(highest(2 * third, days, name), name).toBeLessThanOrEqual(before * 1.2 + slack);
  }

  // 2. a rebuild right after a base reads about as much as the first load
  await day(days + 1, '--base-above', '1');
  await place.sink(...retention);
  expect((await place.run(place.args('reset'))).code).toBe(0);
  rmSync(place.state, { recursive: true });
  const rebuilt = await place.process();
  await place.sink(...retention);
  const read = ({ applied, duplicate, rejected }: typeof load) => applied + duplicate + rejected;
  process.stdout.write(`first load ${read(load)} records, rebuild ${read(rebuilt)}\n`);
  // The ratings reach back as far as their history.
  const ratings = await recordsOnTopic(place.names, 'title.ratings');
  expect(read(rebuilt)).toBeLessThanOrEqual(read(load) * 1.1 + ratings);
  expect(await place.differences(join(place.folder, 'day'))).toEqual([]);
}, 7_200_000);
