/**
 * Topics that were deleted and created again under the same name, whole or with a lost tail: kafkajs reads them on without
 * an error, so the last message that was applied must tell. Each time the failure, nothing changed, and the way out.
 */
import { join } from 'node:path';
import { describe, expect, vi } from 'vitest';
import {
  deleteTopic,
  endsOf,
  expectFailure,
  expectRefusal,
  few,
  processOnce,
  ratings,
  recreateTopic,
  shards,
  sinkOnce,
  standOf,
} from '../support/damage.ts';
import { lastJson, type Place, smallDataset, test } from '../support/harness.ts';
import { temporaryFolder } from '../support/temporary-folder.ts';

vi.setConfig({ testTimeout: 240_000 });

const data = await smallDataset(join(temporaryFolder(), 'data'), 300, 5);
const other = await smallDataset(join(temporaryFolder(), 'other'), 310, 6);

async function resetAndRunAgain(place: Place): Promise<void> {
  expect(await place.run(['reset', '--namespace', place.namespace])).toMatchObject({ code: 0 });
  await place.process();
  const sink = lastJson<{ snapshot: string | null; refused: number }>(await place.run(sinkOnce(place)));
  expect(sink).toMatchObject({ snapshot: expect.any(String), refused: 0 });
}

describe('a source topic that is another one under the same name (sourceReplaced)', () => {
  // Method: first empty, so that it is shorter than what was applied; then with as many messages as before, but others.
  test('is noticed at the next start: without its tail, and refilled; reset is the way out', async ({
    place,
  }) => {
    await place.pipeline(data, { replay: few });
    const topic = place.names.source('title.ratings');
    const ends = await endsOf(topic);
    await recreateTopic(topic);
    expect(await expectRefusal(place, 'sourceReplaced', processOnce(place))).toContain('shorter');
    await place.upsert(other, ...ratings);
    expect(await endsOf(topic)).toEqual(ends);
    expect(await expectRefusal(place, 'sourceReplaced', processOnce(place))).toContain(`${topic}/`);
    await place.upsert(data, ...ratings);
    await expectRefusal(place, 'sourceReplaced', processOnce(place));
    await resetAndRunAgain(place);
    // Ratings of both: rows that only the other has are of titles that this one may not have, or has.
    expect(place.manifest.input[topic]).toEqual({ 0: [0, 2], 1: [0, 2] });
  });

  // Method: the member is stopped while it happens, so that no fetch of it can fail: only a look back can tell.
  test('is noticed while a member runs, also when none of its fetches failed', async ({ place }) => {
    await place.pipeline(data, { replay: few });
    const before = await standOf(place);
    const member = place.start(place.args('process', '--window', '50ms'));
    await member.logged(
      'open shards',
      () => member.log.filter(({ msg }) => msg === 'shard opened').length === shards,
    );
    member.kill('SIGSTOP');
    const topic = place.names.source('title.ratings');
    await recreateTopic(topic);
    await place.upsert(other, ...ratings);
    await place.upsert(other, ...ratings);
    member.kill('SIGCONT');
    expect(expectFailure(await member.done, 'sourceReplaced')).toContain(topic);
    expect(await standOf(place)).toEqual(before);
  });
});

describe('the topic of names', () => {
  test('is proved by the sink like the others: gone, shorter, refilled; reset is the way out', async ({
    place,
  }) => {
    await place.pipeline(data, { replay: few });
    const topic = place.names.source('name.basics');
    const ends = await endsOf(topic);
    await deleteTopic(topic);
    await expectRefusal(place, 'sourceLost', sinkOnce(place));
    await place.upsert(other, '--datasets', 'name.basics');
    expect(await endsOf(topic)).toEqual(ends);
    await expectRefusal(place, 'sourceReplaced', sinkOnce(place));
    await recreateTopic(topic);
    expect(await expectRefusal(place, 'sourceReplaced', sinkOnce(place))).toContain('shorter');
    await place.upsert(data, '--datasets', 'name.basics');
    await resetAndRunAgain(place);
    expect(await place.differences(data)).toEqual([]);
  });
});
