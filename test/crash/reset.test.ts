/**
 * `reelflow reset`: a new generation, before which stores and deltas of older ones are dead wherever they lie, while
 * CURRENT stays until something as complete replaces it. Through the command line, on a real broker.
 */
import { cpSync } from 'node:fs';
import { join } from 'node:path';
import { expect, vi } from 'vitest';
import { deleteBefore } from '../../kafka/topics.ts';
import { currentSnapshot } from '../../sinks/gold/manifest.ts';
import { datasetNames } from '../../topics/catalog.ts';
import {
  endsOf,
  expectFailure,
  few,
  hashesBelow,
  onDatabase,
  recreateTopic,
  shards,
  standOf,
  storesBelow,
} from '../support/damage.ts';
import { broker, lastJson, type Place, recordsOnTopic, smallDataset, test } from '../support/harness.ts';
import { temporaryFolder } from '../support/temporary-folder.ts';

vi.setConfig({ testTimeout: 600_000 });

const data = await smallDataset(join(temporaryFolder(), 'data'), 300, 5);
const other = await smallDataset(join(temporaryFolder(), 'other'), 320, 6);

interface ResetLine {
  readonly generation: number;
  readonly shards: number;
  readonly messages: number;
  readonly records: number | null;
  readonly dryRun: boolean;
}

async function reset(place: Place, ...more: string[]): Promise<ResetLine> {
  const finished = await place.run(['reset', '--namespace', place.namespace, '--json', ...more]);
  expect(finished, finished.stderr).toMatchObject({ code: 0 });
  return lastJson<ResetLine>(finished);
}

const titleTopics = datasetNames.filter((name) => name !== 'name.basics');

async function titleRecords({ names }: Place): Promise<number> {
  let records = 0;
  for (const dataset of titleTopics) records += await recordsOnTopic(names, dataset);
  return records;
}

const generationOf = ({ manifest }: Place) =>
  Object.values(manifest.shards).map(({ generation }) => generation);

// Method: a state folder is copied before a reset; after it the copy is what a processor and a sink come with.
test('begins a generation that ignores older stores and deltas, and keeps CURRENT until a new snapshot replaces it', async ({
  place,
}) => {
  const nothing = await place.run(['reset', '--namespace', place.namespace]);
  expectFailure(nothing, 'input');
  const before = await place.pipeline(data, { replay: few });
  const records = await titleRecords(place);
  const old = join(place.folder, 'old');
  cpSync(place.state, old, { recursive: true });

  const stand = await standOf(place);
  const ends = await endsOf(place.names.deltas);
  const dry = await reset(place, '--dry-run');
  expect(dry).toMatchObject({ generation: 1, shards, records, dryRun: true });
  expect(await standOf(place)).toEqual(stand);
  expect(await endsOf(place.names.deltas)).toEqual(ends);

  expect(await reset(place)).toMatchObject({ generation: 1, records, dryRun: false });
  expect(await standOf(place)).toEqual(stand);
  // Nothing is processed again yet: no snapshot, CURRENT is unchanged.
  expect(await place.sink()).toMatchObject({ snapshot: null });
  expect(currentSnapshot(place.gold)).toBe(before.id);
  expect(await place.differences(data)).toEqual([]);

  const finished = await place.run(place.args('process', '--until-caught-up', '--json'));
  expect(finished, finished.stderr).toMatchObject({ code: 0 });
  expect(finished.stderr.match(/is rebuilt: its generation is 0, not 1/g)).toHaveLength(shards);
  const stores = storesBelow(place.state);
  expect(stores).toHaveLength(shards);
  for (const path of stores) {
    expect(await onDatabase(path, "SELECT value FROM meta WHERE name = 'generation'")).toEqual([['1']]);
  }
  expect((await place.sink()).snapshot).not.toBeNull();
  expect(generationOf(place)).toEqual([1, 1]);
  expect(place.manifest.accounting).toEqual(before.accounting);
  expect(await place.differences(data)).toEqual([]);

  // An earlier state folder does no harm: its stores are rebuilt, its sink reads the mark and all behind it.
  const after = place.manifest;
  const stale = await place.run(place.args('process', '--until-caught-up', '--json', '--state', old));
  expect(stale, stale.stderr).toMatchObject({ code: 0 });
  expect(stale.stderr).toContain('its generation is 0, not 1');
  const sink = await place.run(place.args('sink', '--once', '--json', '--state', old));
  expect(lastJson(sink)).toMatchObject({ refused: 0 });
  expect(place.manifest.tables).toEqual(after.tables);
});

// Method: all topics are deleted and created again, with other data in them that is fewer messages than before. Then a
// second reset follows the first, over deltas that were trimmed.
test('recovers after the topics were recreated, and again over trimmed deltas', async ({ place }) => {
  await place.pipeline(data, { replay: few });
  await place.upsert(data);
  await place.process();
  await place.sink();
  const snapshot = currentSnapshot(place.gold);
  for (const dataset of datasetNames) await recreateTopic(place.names.source(dataset));
  await place.upsert(other);
  expectFailure(await place.run(place.args('process', '--until-caught-up')), 'sourceReplaced');
  expectFailure(await place.run(place.args('sink', '--once')), 'sourceReplaced');
  expect(currentSnapshot(place.gold)).toBe(snapshot);

  expect(await reset(place)).toMatchObject({ generation: 1 });
  await place.process();
  await place.sink();
  expect(await place.differences(other)).toEqual([]);
  expect(generationOf(place)).toEqual([1, 1]);

  const deltas = place.names.deltas;
  await deleteBefore(
    broker,
    deltas,
    (await endsOf(deltas)).map((end, partition) => ({ partition, offset: end - 1 })),
  );
  expect(await reset(place)).toMatchObject({ generation: 2, records: null });
  await place.process();
  await place.sink();
  expect(await place.differences(other)).toEqual([]);
  expect(generationOf(place)).toEqual([2, 2]);
  for (const dataset of titleTopics) {
    const { applied, duplicate, rejected } = place.manifest.accounting[place.names.source(dataset)] ?? {};
    expect(Number(applied) + Number(duplicate) + Number(rejected)).toBe(
      await recordsOnTopic(place.names, dataset),
    );
  }
});

test('waits until a killed member has left its group', async ({ place }) => {
  await place.pipeline(data, { replay: few });
  const member = place.start(place.args('process', '--json'));
  await member.logged('its shards', ({ msg }) => msg === 'shards assigned');
  member.kill('SIGKILL');
  await member.done;
  expect((await reset(place)).generation).toBe(1);
});

test('refuses while a member of the processors or a sink is active', async ({ place }) => {
  await place.pipeline(data, { replay: few });
  for (const stage of ['process', 'sink'] as const) {
    const member = place.start(
      place.args(stage, '--verbose', ...(stage === 'sink' ? ['--interval', '100ms'] : [])),
    );
    if (stage === 'process') await member.logged('an open shard', ({ msg }) => msg === 'shard opened');
    else {
      await place.upsert(data, '--datasets', 'name.basics');
      await member.logged('a check', ({ msg }) => msg === 'every table equals the newest snapshot');
    }
    const ends = await endsOf(place.names.deltas);
    const gold = hashesBelow(place.gold);
    const text = expectFailure(await place.run(['reset', '--namespace', place.namespace]), 'busy');
    expect(text).toContain(stage === 'sink' ? place.names.sinkGroup : place.names.processorGroup);
    expect(await reset(place, '--dry-run')).toMatchObject({ dryRun: true });
    expect(await endsOf(place.names.deltas)).toEqual(ends);
    expect(hashesBelow(place.gold)).toEqual(gold);
    expect(await member.terminate()).toMatchObject({ code: 0 });
  }
});
