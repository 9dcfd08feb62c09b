/** The manifest names the dump of each dataset, and whether the input holds all of it and nothing else. */
import { utimesSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test as plainTest } from 'vitest';
import { logBounds } from '../../kafka/bounds.ts';
import { ensureCompactedTopics } from '../../kafka/topics.ts';
import type { Manifest } from '../../sinks/gold/manifest.ts';
import { completes, dumpsIn } from '../../sinks/held-dumps.ts';
import { topicNamesIn } from '../../topics/catalog.ts';
import { encodeDirectory } from '../../topics/dump-index.ts';
import { dumpOfDay } from '../support/dump-days.ts';
import { broker, headerOf, type Place, smallDataset, test } from '../support/harness.ts';

describe('a dump is complete', () => {
  const names = topicNamesIn('');
  const topic = names.source('title.ratings');
  const mark = (offset: number) => ({ start: 0, offset, hash: '' });
  const strays = { rows: 0, low: 0, high: 0 };
  const directory = { runId: 'run', asOfMs: 0, fingerprint: '', strays, marks: [mark(5), mark(0)] };
  const of = (first: number, second: number) =>
    dumpsIn({ [topic]: { 0: [0, first], 1: [0, second] } }, new Map([['title.ratings', directory]]), names);

  plainTest.each([
    ['where the input ends at its marks', 5, 0, true],
    ['not before the last message of a partition', 4, 0, false],
    ['not with a later message, also of a partition that it did not change', 5, 1, false],
  ])('%s', (_, first, second, complete) => {
    const asOf = '1970-01-01T00:00:00.000Z';
    expect(of(first, second)).toEqual({ 'title.ratings': { asOf, run: 'run', complete } });
  });

  plainTest('a dump that has become complete is worth a snapshot, one that was complete is not', () => {
    const current = (complete: boolean) => ({ dumps: { 'title.ratings': { asOf: '', run: '', complete } } });
    expect(completes(of(5, 0), {})).toBe(true);
    expect(completes(of(5, 0), current(false))).toBe(true);
    expect(completes(of(5, 0), current(true))).toBe(false);
    expect(completes(of(4, 0), current(false))).toBe(false);
  });
});

const read = ['title.basics', 'title.ratings', 'title.principals', 'name.basics'];

function states({ manifest }: Place): [string, boolean][] {
  const dumps = (manifest as unknown as Manifest).dumps ?? {};
  return read.map((dataset) => [dumps[dataset]?.asOf.slice(0, 10) ?? '', dumps[dataset]?.complete ?? false]);
}

test('a snapshot names the dates of its dumps, and says when other rows came later', async ({ place }) => {
  const whole = await smallDataset(join(place.folder, 'whole'), 300, 3);
  await place.replay(dumpOfDay(join(place.folder, 'one'), whole, 1), '--shards', '2');
  await place.process();
  await place.sink();
  expect(states(place)).toEqual(read.map(() => ['2026-01-01', true]));

  // Only the ratings are newer.
  const two = dumpOfDay(join(place.folder, 'two'), whole, 2);
  await place.replay(join(two, 'title.ratings.tsv'), '--max-removed', '50');
  await place.process();
  await place.sink();
  const dates = read.map((dataset) => (dataset === 'title.ratings' ? '2026-01-02' : '2026-01-01'));
  expect(states(place)).toEqual(dates.map((date) => [date, true]));

  const text = `${headerOf('title.ratings')}tt0000001\t9.9\t123456\n`;
  const more = join(place.files('more', { 'title.ratings.tsv': text }), 'title.ratings.tsv');
  const later = new Date(Date.UTC(2026, 0, 3));
  utimesSync(more, later, later);
  await place.replay(more, '--upsert');
  await place.process();
  await place.sink();
  expect(states(place)).toEqual(dates.map((date, at) => [date, read[at] !== 'title.ratings']));
}, 120_000);

test('a first dump is named also when its index was written after all of it was checked', async ({
  place,
}) => {
  const dump = await smallDataset(join(place.folder, 'dump'), 30, 3);
  await place.upsert(dump, '--shards', '1');
  await place.process();
  await place.sink();
  expect(place.manifest.dumps).toEqual({});
  // The same rows: input without effect, behind the end of the snapshot's.
  await place.upsert(dump);
  await place.process();
  expect((await place.sink()).snapshot).toBeNull();

  const { dumpIndex, source } = place.names;
  const topic = source('title.ratings');
  const { end = 0 } = (await logBounds(broker, [topic])).get(topic)?.get(0) ?? {};
  const head = { runId: 'late', asOfMs: 0, fingerprint: '', strays: { rows: 0, low: 0, high: 0 } };
  const value = encodeDirectory({ ...head, marks: [{ start: 0, offset: end, hash: '' }], blocks: new Map() });
  await ensureCompactedTopics(broker, [{ topic: dumpIndex, partitions: 1 }]);
  const producer = broker.kafka.producer();
  await producer.connect();
  await producer.send({ topic: dumpIndex, messages: [{ key: 'title.ratings', value }] });
  await producer.disconnect();
  await place.sink();
  expect(place.manifest.dumps).toMatchObject({ 'title.ratings': { run: 'late', complete: true } });
}, 120_000);
