/**
 * The topic of deltas: recreated, cut short, trimmed too far, or with messages that are not deltas. The sink and
 * the owners of shards judge it alike; a stage that cannot continue says so, and the remedy that it names works.
 */

import { cpSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { expect, vi } from 'vitest';
import { deleteBefore, ensureRetainedTopics } from '../../kafka/topics.ts';
import { counted } from '../../runtime/counted.ts';
import { withFolderLock } from '../../runtime/folder-lock.ts';
import { datasetNames } from '../../topics/catalog.ts';
import { decodeDeltaHeader, encodeDeltaHeader } from '../../topics/delta-wire.ts';
import {
  deleteTopic,
  endsOf,
  expectFailure,
  expectRefusal,
  few,
  processOnce,
  ratings,
  recreateTopic,
  sendTo,
  shards,
  sinkOnce,
} from '../support/damage.ts';
import { broker, lastJson, type Place, smallDataset, test } from '../support/harness.ts';
import { temporaryFolder } from '../support/temporary-folder.ts';

vi.setConfig({ testTimeout: 240_000 });

const data = await smallDataset(join(temporaryFolder(), 'data'), 300, 5);

const reset = async (place: Place) => {
  const finished = await place.run(place.args('reset', '--json'));
  expect(finished, finished.stderr).toMatchObject({ code: 0 });
  return lastJson<{ generation: number }>(finished);
};

// Method: a message that announces a delta from the shard's position, and whose rows are cut off. If only one of sink
// and owner took it for a delta, or both moved on without its rows, gold would be wrong or the next delta refused.
test('a delta whose rows cannot be decoded counts neither for the sink nor for the owner', async ({
  place,
}) => {
  await place.pipeline(data, { replay: few });
  const messages = await place.readTopic(place.names.deltas);
  for (let shard = 0; shard < shards; shard++) {
    const last = messages.filter(({ partition }) => partition === shard).at(-1)?.value ?? null;
    const schemaId = (last as Buffer).readInt32BE(1);
    const { header } = decodeDeltaHeader(last, schemaId);
    const range = header.range.map((of) => ({ ...of, from: of.to, to: of.to + 1, duplicate: 0, applied: 1 }));
    const promise = encodeDeltaHeader(schemaId, { ...header, range, part: 1, parts: 1 });
    await sendTo(place.names.deltas, shard, [Buffer.concat([promise, Buffer.from([0x02, 0x02])])]);
  }
  await place.upsert(data);
  await place.process();
  expect(await place.sink()).toMatchObject({ refused: 0 });
  expect(await place.differences(data)).toEqual([]);
  const letters = (await place.deadLetters()).filter(({ stage }) => stage === 'sink');
  expect(letters.map(({ reason }) => reason)).toEqual(Array(shards).fill('undecodable'));
});

// Method: gone, then empty, then with as many deltas as before, of a rebuilt store.
test('a topic that was recreated is noticed by a sink that runs once; reset is the way out', async ({
  place,
}) => {
  await place.pipeline(data, { replay: few });
  await reset(place);
  await place.process();
  await place.sink();
  const deltas = place.names.deltas;
  const ends = await endsOf(deltas);
  await deleteTopic(deltas);
  await expectRefusal(place, 'sourceReplaced', sinkOnce(place));
  await ensureRetainedTopics(broker, [{ topic: deltas, partitions: shards }]);
  expect(await expectRefusal(place, 'sourceReplaced', sinkOnce(place))).toContain('ends at offset 0');
  while ((await endsOf(deltas)).some((end, shard) => end < (ends[shard] ?? 0))) {
    await place.upsert(data, ...ratings);
    await place.process();
  }
  expect(await expectRefusal(place, 'sourceReplaced', sinkOnce(place))).toContain('another delta');
  // Only the snapshot still knows its generation.
  expect(await reset(place)).toMatchObject({ generation: 2 });
  await place.process();
  const sunk = await place.sink();
  expect(sunk.snapshot).not.toBeNull();
  expect(await place.differences(data)).toEqual([]);
});

test('fewer partitions than shards of the state stop the sink; new folders are the way out', async ({
  place,
}) => {
  await place.pipeline(data, { replay: few });
  const { deltas, deadLetter, source } = place.names;
  for (const topic of [deltas, deadLetter, ...datasetNames.map(source)]) await deleteTopic(topic);
  await place.replay(data, '--shards', String(shards - 1));
  await place.process();
  const said = await expectRefusal(place, 'topicMismatch', sinkOnce(place));
  expect(said).toContain(`${deltas} has ${counted(shards - 1, 'partition')}`);
  expect(said).toMatch(/--gold and --state\s+away/);
  await reset(place);
  await place.process();
  await expectRefusal(place, 'topicMismatch', sinkOnce(place));
  for (const gone of [place.gold, place.state]) rmSync(gone, { recursive: true });
  await place.process();
  expect((await place.sink()).snapshot).not.toBeNull();
  expect(await place.differences(data)).toEqual([]);
});

test('deltas that are trimmed too far stop sink and processor; reset is the way out', async ({ place }) => {
  await place.pipeline(data, { replay: few });
  await place.upsert(data);
  await place.process();
  const all = (await endsOf(place.names.deltas)).map((offset, partition) => ({ partition, offset }));
  await deleteBefore(broker, place.names.deltas, all);
  const said = await expectRefusal(place, 'deltasTrimmed', sinkOnce(place));
  expect(said).toContain('Hint: Run `reelflow reset');
  expect(await expectRefusal(place, 'deltasTrimmed', processOnce(place))).toContain('reelflow reset');
  await reset(place);
  await place.run(processOnce(place));
  expect(await place.sink()).toMatchObject({ refused: 0 });
  expect(await place.differences(data)).toEqual([]);
});

test('deltas that CURRENT contains and an older state lacks stop the sink; moving the state away is the way out', async ({
  place,
}) => {
  await place.pipeline(data, { replay: few });
  const older = join(temporaryFolder(), 'state');
  cpSync(place.state, older, { recursive: true });
  await place.upsert(await smallDataset(join(temporaryFolder(), 'other'), 300, 6));
  await place.process();
  await place.sink();
  const all = (await endsOf(place.names.deltas)).map((offset, partition) => ({ partition, offset }));
  await deleteBefore(broker, place.names.deltas, all);
  const said = expectFailure(await place.run(sinkOnce(place, '--state', older)), 'deltasTrimmed');
  expect(said).toContain('Hint: Move the sink state away');
  rmSync(older, { recursive: true });
  expect(await place.run(sinkOnce(place, '--state', older))).toMatchObject({ code: 0 });
});

// Method: what a sink that runs once holds is its lock on the gold folder; this test holds it in its place.
test('a reset refuses while a sink runs once, and before an emptied topic is filled again', async ({
  place,
}) => {
  await place.pipeline(data, { replay: few });
  await withFolderLock(join(place.gold, '.sink'), { kind: 'gold', patienceMs: 0 }, async () => {
    await expectRefusal(place, 'busy', place.args('reset'));
  });
  const topic = place.names.source('title.ratings');
  await recreateTopic(topic);
  expect(await expectRefusal(place, 'input', place.args('reset'))).toContain(topic);
  await place.upsert(data, ...ratings);
  await reset(place);
  await place.process();
  await place.sink();
  expect(await place.differences(data)).toEqual([]);
});
