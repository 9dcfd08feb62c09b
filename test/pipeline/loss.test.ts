/**
 * What a source log may lose, and what the processor then does: it ends with an exit code of its own kind, says what and
 * what to do, leaves state and gold as they were, and the way out that it names works. All through the command line, on a
 * real broker whose topics are spoilt for it.
 */
import { rmSync } from 'node:fs';
import { join } from 'node:path';
import kafkajs from 'kafkajs';
import { describe, expect, vi } from 'vitest';
import { withAdmin } from '../../kafka/client.ts';
import { deleteBefore } from '../../kafka/topics.ts';
import { datasetNames } from '../../topics/catalog.ts';
import {
  deleteTopic,
  endsOf,
  expectFailure,
  expectRefusal,
  few,
  processOnce,
  ratings,
  sendTo,
  shards,
  standOf,
  storesBelow,
} from '../support/damage.ts';
import {
  broker,
  lastJson,
  type Place,
  smallDataset,
  test,
  textOf,
  writeDatasets,
} from '../support/harness.ts';
import { temporaryFolder } from '../support/temporary-folder.ts';

vi.setConfig({ testTimeout: 240_000 });

const data = await smallDataset(join(temporaryFolder(), 'data'), 300, 5);

const atGold = ({ gold, namespace }: Place) => ['--gold', gold, '--namespace', namespace];

/**
 * Sends one half of the ratings, one message a partition, then the other one with all the rest.
 * @returns the folder of the rows without the first half
 */
async function replayHalves(place: Place, folder: string): Promise<string> {
  const [header, ...rows] = textOf(data, 'title.ratings').trimEnd().split('\n') as [string, ...string[]];
  const half = (n: number) => `${[header, ...rows.filter((_, i) => i % 2 === n)].join('\n')}\n`;
  const texts = Object.fromEntries(datasetNames.map((name) => [name, textOf(data, name)]));
  const left = writeDatasets(join(folder, 'left'), { ...texts, 'title.ratings': half(1) });
  await place.upsert(place.files('first', { 'title.ratings.tsv': half(0) }), ...few, ...ratings);
  await place.upsert(left);
  return left;
}

describe('messages that were never applied and are gone', () => {
  // Method: the ratings come three times, one message each; after the first, two are not applied yet. First one of these
  // two is deleted, then all that is left of the partition.
  test('end the processor (sourceLost); with --accept-loss it goes on, and the deltas too', async ({
    place,
  }) => {
    await place.pipeline(data, { replay: few });
    const before = place.manifest;
    const topic = place.names.source('title.ratings');
    await place.upsert(data, ...ratings);
    await place.upsert(data, ...ratings);
    expect(await endsOf(topic)).toEqual([3, 3]);
    await deleteBefore(broker, topic, [
      { partition: 0, offset: 2 },
      { partition: 1, offset: 3 },
    ]);
    const text = await expectRefusal(place, 'sourceLost', processOnce(place));
    expect(text).toContain('--accept-loss');

    await place.process('--accept-loss');
    expect(await place.sink()).toMatchObject({ refused: 0 });
    expect(await place.differences(data)).toEqual([]);
    // What is held lies on both sides of the gap.
    const { input, shards: states } = place.manifest;
    expect(input[topic]).toEqual({ 0: [0, 3], 1: [0, 3] });
    const whole = (shard: number) => before.shards[shard]?.sources[topic]?.applied;
    expect([0, 1].map((shard) => states[shard]?.sources[topic])).toEqual([
      { applied: whole(0), duplicate: whole(0), rejected: 0, removed: 0, next: 3, gaps: [[1, 2]] },
      { applied: whole(1), duplicate: 0, rejected: 0, removed: 0, next: 3, gaps: [[1, 3]] },
    ]);
    const status = await place.run(['status', ...atGold(place)]);
    expect(status.stdout).toContain(`${topic}/1: offsets 1 to 3 were lost`);
    await place.process();
  });

  // Method: a second dump is on the topics, not applied yet, and one topic loses all its messages.
  test('are on the topics again after a replay; the way out of the hint makes gold exact', async ({
    place,
  }) => {
    await place.pipeline(data, { replay: few });
    const later = await smallDataset(join(place.folder, 'later'), 300, 6);
    await place.replay(later, '--max-removed', '100');
    const topic = place.names.source('title.ratings');
    const ends = await endsOf(topic);
    await deleteBefore(
      broker,
      topic,
      ends.map((offset, partition) => ({ partition, offset })),
    );
    const text = await expectRefusal(place, 'sourceLost', processOnce(place));
    expect(text).toMatch(/then run `reelflow process --accept-loss [^`]*` once/);
    await place.replay(later);
    await place.process('--accept-loss');
    expect(await place.sink()).toMatchObject({ refused: 0 });
    expect(await place.differences(later)).toEqual([]);
    await place.process();
  });

  // Method: one half of the ratings is replayed after the other, and the first message of each partition is deleted
  // before any processor comes.
  test('end a processor with a new store as well; then gold equals the remaining rows', async ({
    place,
    newPlace,
  }) => {
    const left = await replayHalves(place, newPlace().folder);
    const topic = place.names.source('title.ratings');
    expect(await endsOf(topic)).toEqual([2, 2]);
    await deleteBefore(
      broker,
      topic,
      [0, 1].map((partition) => ({ partition, offset: 1 })),
    );
    await expectRefusal(place, 'sourceLost', processOnce(place));
    await place.process('--accept-loss');
    expect(await place.sink()).toMatchObject({ refused: 0 });
    expect(await place.differences(left)).toEqual([]);
    expect(place.manifest.input[topic]).toEqual({ 0: [1, 2], 1: [1, 2] });
    const verified = await place.run(['verify', ...atGold(place), '--json']);
    expect(lastJson(verified)).toMatchObject({ equal: true });
  });

  // Method: as before, but the first halves are applied and published before they are lost, and the stores with them.
  test('and are taken out of gold when the store that held them is lost too', async ({ place, newPlace }) => {
    const left = await replayHalves(place, newPlace().folder);
    await place.process();
    await place.sink();
    const topic = place.names.source('title.ratings');
    await deleteBefore(
      broker,
      topic,
      [0, 1].map((partition) => ({ partition, offset: 1 })),
    );
    for (const path of storesBelow(place.state)) rmSync(path);
    await expectRefusal(place, 'sourceLost', processOnce(place));
    await place.process('--accept-loss');
    expect(await place.sink()).toMatchObject({ refused: 0 });
    expect(await place.differences(left)).toEqual([]);
    expect(place.manifest.input[topic]).toEqual({ 0: [1, 2], 1: [1, 2] });
  });
});

describe('while a member runs', () => {
  test('a topic that is deleted ends it (sourceLost)', async ({ place }) => {
    await place.upsert(data, ...few);
    await place.process();
    const before = await standOf(place);
    const member = place.start(place.args('process', '--stuck-after', '500ms'));
    await member.logged('an open shard', ({ msg }) => msg === 'shard opened');
    await deleteTopic(place.names.source('title.akas'));
    const finished = await member.done;
    expect(expectFailure(finished, 'sourceLost')).toContain(place.names.source('title.akas'));
    expect(await standOf(place)).toEqual(before);
  });

  test('and at a start, another partition count ends it (topicMismatch)', async ({ place }) => {
    await place.upsert(data, ...few);
    await place.process();
    const before = await standOf(place);
    const member = place.start(place.args('process', '--stuck-after', '500ms'));
    await member.logged('an open shard', ({ msg }) => msg === 'shard opened');
    const topic = place.names.source('title.ratings');
    await withAdmin(broker, (admin) =>
      admin.createPartitions({ topicPartitions: [{ topic, count: shards + 1 }] }),
    );
    expect(expectFailure(await member.done, 'topicMismatch')).toContain(topic);
    expect(await standOf(place)).toEqual(before);
    await expectRefusal(place, 'topicMismatch', processOnce(place));
  });
});

// Method: three messages in one batch that unpacks to more than a batch may, which the broker does not mind; a good
// message behind it. All partitions have something to read, so that the one must be found among them.
test('a batch that cannot be decoded ends the processor, until it is skipped by its position', async ({
  place,
}) => {
  await place.upsert(data, ...few);
  await place.process();
  const topic = place.names.source('title.ratings');
  const bomb = [Buffer.alloc(30_000_000), Buffer.alloc(30_000_000), Buffer.alloc(30_000_000)];
  await sendTo(topic, 1, bomb, kafkajs.CompressionTypes.ZSTD);
  const position = `${topic}:1:1`;
  const text = expectFailure(await place.run(processOnce(place)), 'undecodableBatch');
  expect(text).toContain(`${topic}, partition 1, offset 1`);
  expect(text).toContain(`--skip-batch ${position}`);
  const before = await standOf(place);
  await expectRefusal(place, 'undecodableBatch', processOnce(place));
  expect(await standOf(place)).toEqual(before);

  const skipped = await place.process('--skip-batch', position);
  expect(skipped.rejected).toBe(3);
  // Nothing behind it yet: the next start has no message to prove the topic by, and must do without.
  await place.process();
  await place.upsert(data, ...ratings);
  await place.process();
  await place.sink();
  expect(place.manifest.shards[1]?.sources[topic]).toMatchObject({ rejected: 3, next: 5 });
  expect(await place.differences(data)).toEqual([]);
  const letters = (await place.deadLetters()).filter(({ stage }) => stage === 'processor');
  expect(letters).toHaveLength(3);
  for (const letter of letters) expect(letter).toMatchObject({ reason: 'undecodable_batch', topic });
});
