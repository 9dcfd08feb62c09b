/**
 * The whole pipeline through the command line, on a real broker and registry: files are replayed, processed and sunk by
 * child processes, and gold is held against a batch computation over the same files, which shares no code with it.
 */

import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { beforeAll, describe, expect, vi } from 'vitest';
import { logBounds } from '../../kafka/bounds.ts';
import type { ProcessorReport } from '../../processors/processor-options.ts';
import { readChecked } from '../../sinks/checked.ts';
import { currentSnapshot, listSnapshots, type Manifest } from '../../sinks/gold/manifest.ts';
import { type DatasetName, datasetNames } from '../../topics/catalog.ts';
import { decodeDeltaHeader, decodeDeltaRows } from '../../topics/delta-wire.ts';
import { Dictionary } from '../../topics/dictionary.ts';
import {
  broker,
  headerOf,
  lastJson,
  type Place,
  recordsOnTopic,
  sample,
  smallDataset,
  test,
  textOf,
  until,
  writeDatasets,
} from '../support/harness.ts';
import { temporaryFolder } from '../support/temporary-folder.ts';

// Several commands each, and other tests at the same time.
vi.setConfig({ testTimeout: 120_000, hookTimeout: 120_000 });

const folder = temporaryFolder();
/** A few thousand titles in all partitions, seven datasets, some files packed. */
let small: string;

beforeAll(async () => {
  small = await smallDataset(join(folder, 'small'), 2_000, 11);
});

const hashesOf = ({ tables }: Manifest) =>
  Object.fromEntries(Object.entries(tables).map(([name, { contentHash }]) => [name, contentHash]));

const rowsOf = (text: string): string[] => text.trimEnd().split('\n').slice(1);

/** Each record of the log is accounted for in the manifest, whose input is the whole log. */
async function expectAccountsClosed({ names, manifest }: Place): Promise<void> {
  expect(Object.keys(manifest.input).sort()).toEqual(
    datasetNames.map((dataset) => names.source(dataset)).sort(),
  );
  for (const dataset of datasetNames) {
    const topic = names.source(dataset);
    const { applied, duplicate, rejected } = manifest.accounting[topic] ?? {};
    const counted = Number(applied) + Number(duplicate) + Number(rejected);
    expect(counted, topic).toBe(await recordsOnTopic(names, dataset));
    const bounds = (await logBounds(broker, [topic])).get(topic) ?? new Map();
    for (const [partition, { end }] of bounds) {
      expect(manifest.input[topic]?.[partition] ?? [0, 0], `${topic}/${partition}`).toEqual([0, end]);
    }
  }
}

/** Rows of all cubes in the deltas of a place from these offsets on. */
async function deltaRowsFrom(
  { names, readTopic, manifest }: Place,
  ends: Readonly<Record<string, number>>,
): Promise<number> {
  const dictionary = new Dictionary();
  const schemaId = manifest.schemas[`${names.deltas}-value`] ?? -1;
  let rows = 0;
  for (const { partition, offset, value } of await readTopic(names.deltas)) {
    if (offset < (ends[partition] ?? 0)) continue;
    const { at } = decodeDeltaHeader(value, schemaId);
    for (const { length } of decodeDeltaRows(value as Buffer, at, dictionary)) rows += length;
  }
  return rows;
}

/** A later dump: some rows changed, some new, some gone, some twice with the later version right. */
function correctedDump(texts: Readonly<Record<DatasetName, string>>): Record<DatasetName, string> {
  const change = (
    dataset: DatasetName,
    every: number,
    edit: (columns: string[]) => void,
    more: string[] = [],
  ) => {
    const rows = rowsOf(texts[dataset]).flatMap((row, n) => {
      if (n % every !== 0) return n % 101 === 50 ? [] : [row];
      const columns = row.split('\t');
      edit(columns);
      const changed = columns.join('\t');
      return n % (every * 3) === 0 ? [row, changed] : [changed];
    });
    return `${headerOf(dataset)}${[...rows, ...more].join('\n')}\n`;
  };
  const rated = new Set(rowsOf(texts['title.ratings']).map((row) => row.split('\t')[0]));
  const unrated = rowsOf(texts['title.basics'])
    .map((row) => row.split('\t')[0] as string)
    .filter((title) => !rated.has(title));
  const newTitle = 'tt99999990';
  return {
    ...texts,
    'title.ratings': change(
      'title.ratings',
      5,
      (columns) => {
        columns[1] = columns[1] === '10.0' ? '1.0' : '10.0';
        columns[2] = String(Number(columns[2]) + 7);
      },
      [
        ...unrated.slice(0, 300).map((title, n) => `${title}\t${1 + (n % 9)}.${n % 10}\t${n}`),
        `${newTitle}\t5.5\t55`,
      ],
    ),
    'title.basics': change(
      'title.basics',
      7,
      (columns) => {
        columns[5] = columns[5] === '\\N' ? '1999' : '\\N';
        columns[7] = '77';
        columns[8] = columns[8] === '\\N' ? 'Drama' : '\\N';
      },
      [`${newTitle}\tmovie\tNew\tNew\t0\t2027\t\\N\t\\N\tWestern`],
    ),
    'title.principals': change(
      'title.principals',
      9,
      (columns) => {
        columns[2] = 'nm0000001';
      },
      [`${newTitle}\t1\tnm0000001\tactor\t\\N\t["Self"]`, `${newTitle}\t2\tnm0000001\twriter\t\\N\t\\N`],
    ),
    'title.akas': change('title.akas', 9, (columns) => {
      columns[3] = columns[3] === '\\N' ? 'XWW' : '\\N';
    }),
    'name.basics': change(
      'name.basics',
      4,
      (columns) => {
        columns[1] = `${columns[1]} the Second`;
      },
      ['nm0000001\t"The" One\t\\N\t\\N\t\t\\N'],
    ),
  };
}

const texts = (data: string) =>
  Object.fromEntries(datasetNames.map((dataset) => [dataset, textOf(data, dataset)])) as Record<
    DatasetName,
    string
  >;

describe('gold', () => {
  // Method: three dumps one after the other, each with a run of its own of every stage. What is expected of the last is
  // the batch computation over the old rows with the new ones behind them.
  test('equals a batch computation, after a first dump, the same again, and a corrected one', async ({
    place,
  }) => {
    const { names } = place;
    const first = await place.replay(small);
    await place.process();
    await place.sink();
    expect(await place.differences(small)).toEqual([]);
    await expectAccountsClosed(place);
    const before = place.manifest;
    for (const dataset of datasetNames) {
      const { applied } = before.accounting[names.source(dataset)] ?? {};
      expect(applied, dataset).toBe(first.datasets[dataset]?.produced);
    }

    const again = await place.upsert(small);
    expect(again.runId).not.toBe(first.runId);
    const processed = await place.process();
    expect(processed).toMatchObject({ applied: 0, rejected: 0 });
    expect(await deltaRowsFrom(place, before.deltas)).toBe(0);
    // Every table is as it was: the sink records what it has checked, and publishes nothing.
    expect(await place.sink()).toMatchObject({ snapshot: null });
    expect(place.manifest).toEqual(before);
    const checked = readChecked(join(place.state, before.clusterId, place.namespace), before.id);
    for (const dataset of datasetNames) {
      const topic = names.source(dataset);
      const { applied = 0, duplicate = 0 } = before.accounting[topic] ?? {};
      const produced = again.datasets[dataset]?.produced ?? Number.NaN;
      const expected = { applied, duplicate: duplicate + produced, rejected: 0, removed: 0 };
      expect(checked?.accounting[topic], dataset).toEqual(expected);
    }

    const old = texts(small);
    const corrected = correctedDump(old);
    const overlaid = datasetNames.map((dataset) => [
      dataset,
      `${old[dataset]}${rowsOf(corrected[dataset]).join('\n')}\n`,
    ]);
    await place.pipeline(writeDatasets(join(place.folder, 'corrected'), corrected), {
      replay: ['--upsert'],
    });
    const expected = writeDatasets(join(place.folder, 'overlaid'), Object.fromEntries(overlaid));
    expect(await place.differences(expected)).toEqual([]);
    expect(hashesOf(place.manifest)).not.toEqual(hashesOf(before));
    await expectAccountsClosed(place);
  });

  test('of real files equals a batch computation', async ({ place, skip }) => {
    if (!existsSync(sample)) skip('the real files are not there: ../shared/imdb-sample beside the checkout');
    const finished = await place.run(place.args('demo', '--data', sample, '--json'));
    expect(finished, finished.stderr).toMatchObject({ code: 0 });
    expect(lastJson(finished)).toMatchObject({ read: 350_007, produced: 350_007, rejected: 0, absent: [] });
    expect(await place.differences(sample)).toEqual([]);
    await expectAccountsClosed(place);
  });

  // Method: three pipelines over the same files, which differ in partition counts and in the bounds of their windows.
  test('has the same content hashes whatever the shards and the windows', async ({ newPlace }) => {
    const tiny = ['--max-records', '1000', '--window', '50ms'];
    const manifests = await Promise.all([
      newPlace().pipeline(small, { replay: ['--shards', '1'] }),
      newPlace().pipeline(small, { replay: ['--shards', '7'] }),
      newPlace().pipeline(small, { process: tiny }),
    ]);
    const [one, seven, tinyWindows] = manifests as [Manifest, Manifest, Manifest];
    expect(Object.keys(one.shards)).toHaveLength(1);
    expect(Object.keys(seven.shards)).toHaveLength(7);
    expect(hashesOf(seven)).toEqual(hashesOf(one));
    expect(hashesOf(tinyWindows)).toEqual(hashesOf(one));
  });

  // Method: titles and principals come before the ratings that make them count; all stages end and begin in between.
  test('comes out right when datasets arrive one by one between restarts of all stages', async ({
    place,
  }) => {
    for (const datasets of [
      'title.principals,title.basics',
      'title.crew',
      'title.ratings,title.akas',
      'title.episode',
    ]) {
      await place.replay(small, '--datasets', datasets);
      await place.process();
      await place.sink();
    }
    await place.replay(small, '--datasets', 'name.basics');
    await place.sink();
    expect(await place.differences(small)).toEqual([]);
    await expectAccountsClosed(place);
  });
});

describe('a processor', () => {
  // Method: both members are in the group, with two shards each, before the first record comes. That all is applied is
  // read from the positions that they mirror to their group.
  test('shares the shards with a second one', async ({ place }) => {
    const members = [1, 2].map(() =>
      place.start(place.args('process', '--json', '--verbose', '--window', '50ms')),
    );
    await Promise.all(
      members.map((member) =>
        member.logged(
          'two shards',
          ({ msg, shards }) => msg === 'shards assigned' && `${shards}`.length === 3,
        ),
      ),
    );
    const { datasets } = await place.replay(small);
    await until('the group has committed the end offsets', () => place.hasCaughtUp());
    const ends = await Promise.all(members.map((member) => member.terminate()));
    const reports = ends.map((end) => {
      expect(end, end.stderr).toMatchObject({ code: 0 });
      expect(end.secondsToEnd).toBeLessThan(10);
      return lastJson<ProcessorReport>(end);
    });
    expect(reports.flatMap(({ shards }) => shards).sort()).toEqual([0, 1, 2, 3]);
    for (const { applied } of reports) expect(applied).toBeGreaterThan(0);
    const applied = reports.reduce((sum, report) => sum + report.applied, 0);
    const produced = datasetNames
      .filter((name) => name !== 'name.basics')
      .map((name) => datasets[name]?.produced ?? 0);
    expect(applied).toBe(produced.reduce((sum, count) => sum + count));
    await place.sink();
    expect(await place.differences(small)).toEqual([]);
    await expectAccountsClosed(place);
  });

  // Method: a replay that is held back, so that there is always more to come, and signals when the log proves that work
  // has begun: first to a processor, then to a sink that publishes at every turn and another processor.
  test('and a sink end with exit code 0 on SIGTERM in the middle of work, and lose nothing', async ({
    place,
  }) => {
    const tiny = ['--json', '--verbose', '--max-records', '500', '--window', '20ms'];
    const first = place.start(place.args('process', ...tiny));
    await first.logged('its shards', ({ msg }) => msg === 'shards assigned');
    const replay = place.start(place.args('replay', small, '--rate', '6000'));
    await first.logged('a micro-batch', ({ msg }) => msg === 'micro-batch');
    expect(replay.isDone).toBe(false);
    const end = await first.terminate();
    expect(end, end.stderr).toMatchObject({ code: 0 });
    expect(end.secondsToEnd).toBeLessThan(10);
    expect(lastJson<ProcessorReport>(end).applied).toBeGreaterThan(0);

    const second = place.start(place.args('process', ...tiny));
    const sink = place.start(place.args('sink', '--json', '--interval', '50ms'));
    await sink.logged('a snapshot', ({ msg }) => msg === 'snapshot published');
    const ends = await Promise.all([sink.terminate(), second.terminate()]);
    for (const { code, stderr, secondsToEnd } of ends) {
      expect(code, stderr).toBe(0);
      expect(secondsToEnd).toBeLessThan(10);
    }
    expect(await replay.done).toMatchObject({ code: 0 });
    await place.process();
    await place.sink();
    expect(await place.differences(small)).toEqual([]);
    await expectAccountsClosed(place);
  });
});

describe('a run with nothing to do', () => {
  test('ends with exit code 0 and makes no snapshot', async ({ place }) => {
    expect(await place.sink()).toMatchObject({ snapshot: null });
    expect(await place.process()).toMatchObject({ microBatches: 0, applied: 0 });
    const sink = await place.run(place.args('sink', '--once'));
    expect(sink).toMatchObject({ code: 0, stdout: 'Nothing changed: no snapshot.\n' });
    expect(currentSnapshot(place.gold)).toBeUndefined();
    expect(listSnapshots(place.gold)).toEqual([]);
  });
});

describe('the last line of output', () => {
  const figures = {
    read: expect.any(Number),
    produced: expect.any(Number),
    rejected: expect.any(Number),
    seconds: expect.any(Number),
    recordsPerSecond: expect.any(Number),
  };

  test('of a replay is its figures as JSON, by dataset too', async ({ place }) => {
    const data = place.files('data', {
      'title.ratings.tsv': `${headerOf('title.ratings')}tt0000001\t5.7\t2\ntt0000002\televen\t2\n`,
      'title.basics.tsv': `${headerOf('title.basics')}tt0000001\tshort\tA\tA\t0\t1894\t\\N\t1\tShort\n`,
    });
    const finished = await place.run(place.args('replay', data, '--json', '--max-rejected', '50'));
    expect(finished.code).toBe(0);
    expect(finished.stdout.trim().split('\n')).toHaveLength(1);
    expect(lastJson(finished)).toMatchObject({
      ...figures,
      ...{ read: 3, produced: 2, rejected: 1, chunks: 2 },
      datasets: { 'title.ratings': { read: 2, produced: 1, rejected: 1 }, 'title.basics': { read: 1 } },
      absent: ['title.principals', 'title.akas', 'title.crew', 'title.episode', 'name.basics'],
    });
  });

  // Method: the demo's own synthetic dataset, larger than that of the other tests.
  test('of a demo is its figures as JSON, with a snapshot whose gold is right', async ({ place }) => {
    const finished = await place.run(place.args('demo', '--titles', '20000', '--seed', '5', '--json'));
    expect(finished, finished.stderr).toMatchObject({ code: 0 });
    const line = lastJson<Record<string, unknown>>(finished);
    expect(line).toMatchObject({ ...figures, rejected: 0, gold: place.gold });
    expect(line.read).toBe(line.produced);
    expect(line.snapshot).toBe(currentSnapshot(place.gold));
    const data = join(place.folder, '.reelflow', 'data', 'titles-20000-seed-5');
    expect(await place.differences(data)).toEqual([]);
    await expectAccountsClosed(place);
  });
});
