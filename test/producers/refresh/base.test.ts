/** When a dump is sent as a base, and when a base gets its end, on a real broker. */
import { afterEach, expect, it, vi } from 'vitest';
import { logBounds } from '../../../kafka/bounds.ts';
import { LogReader } from '../../../kafka/log.ts';
import { scanTopic } from '../../../kafka/scan.ts';
import { Appender } from '../../../producers/appender.ts';
import { baseMarkOf, findBase } from '../../../topics/base.ts';
import { broker, DumpPlace, dumpOf, many, ratings, votesOf } from '../../support/dump-place.ts';

const a = many((id) => id, 300);
const b = many((id) => (id % 3 === 0 ? id + 1_000 : id), 300);
/** With so low a bound a base is due at every replay. */
const always = { baseAbove: 0, maxRemoved: 100, maxRejected: 50 };
const onlyRatings = { ...always, datasets: ['title.ratings'] as const };

afterEach(() => vi.restoreAllMocks());

const topicOf = (place: DumpPlace) => place.options.names.source('title.ratings');

async function marks(place: DumpPlace): Promise<string[]> {
  const found: string[] = [];
  for await (const { partition, messages } of scanTopic(broker, topicOf(place))) {
    for (const { value } of messages) {
      const mark = baseMarkOf(value)?.mark;
      if (mark !== undefined) found.push(`${mark} ${partition}`);
    }
  }
  return found.sort();
}

it('an unchanged dump sends nothing, however much the topics hold', async () => {
  const place = new DumpPlace();
  for (const votes of [a, b, a]) await place.replay(place.dump(dumpOf(votes)));
  const messages = await place.messages();
  for (let day = 0; day < 3; day++) {
    const report = await place.replay(place.dump(dumpOf(a)), always);
    expect(report).toMatchObject({ unchanged: 600, produced: 0, chunks: 0 });
    expect(report.plan?.['title.ratings']?.isBase).toBe(false);
  }
  expect(await place.messages()).toBe(messages);
});

it.each([
  ['from a spool', {}],
  ['without a spool', { spoolBytesMax: -1 }],
])('one change makes a base of the whole dump, %s, and writes no letter twice', async (_, more) => {
  const place = new DumpPlace();
  const broken = (votes: Readonly<Record<number, number>>) => ({
    'title.ratings': `${ratings(votes)}tt9999999\tfive\t5\n`,
  });
  await place.replay(place.dump(broken(a)), onlyRatings);
  const report = await place.replay(place.dump(broken({ ...a, 9973: 77 })), { ...onlyRatings, ...more });
  expect(report.plan?.['title.ratings']).toMatchObject({ isBase: true, changed: { groups: 1 } });
  expect(report).toMatchObject({ read: 301, produced: 300, unchanged: 0, rejected: 1 });
  expect(await place.deadLetters()).toBe(1);
  expect(await marks(place)).toEqual(['begin 0', 'begin 1', 'end 0', 'end 1']);
  expect(await votesOf(place)).toEqual({ ...a, 9973: 77 });
  const reader = new LogReader(broker);
  for (const [partition, { end }] of (await logBounds(broker, [topicOf(place)])).get(topicOf(place)) ?? []) {
    const begin = (await beginOf(place, partition)) as number;
    const whole = await findBase(reader, { topic: topicOf(place), partition }, { start: begin, end });
    expect(whole).toEqual({ begin, end });
  }
  await reader.close();
});

async function beginOf(place: DumpPlace, wanted: number): Promise<number | undefined> {
  for await (const { partition, messages } of scanTopic(broker, topicOf(place))) {
    const found = messages.find(({ value }) => baseMarkOf(value)?.mark === 'begin');
    if (partition === wanted && found !== undefined) return found.offset;
  }
  return undefined;
}

// Method: the sequence number of the end skips one, which is what the broker sees when it has lost the message before.
it('a base gets no end where the broker has lost a message before it, and the next change is a base again', async () => {
  const place = new DumpPlace();
  await place.replay(place.dump({ 'title.ratings': ratings(a) }), onlyRatings);
  const { append } = Appender.prototype;
  vi.spyOn(Appender.prototype, 'append').mockImplementation(function (
    this: Appender,
    topic,
    partition,
    build,
    onlyBehind,
  ) {
    const skips = onlyBehind === true && partition === 1;
    return append.call(
      this,
      topic,
      partition,
      (stamp) => build(skips ? { ...stamp, sequence: stamp.sequence + 1 } : stamp),
      onlyBehind,
    );
  });
  await place.replay(place.dump({ 'title.ratings': ratings(b) }), onlyRatings);
  expect(await marks(place)).toEqual(['begin 0', 'begin 1', 'end 0']);
  vi.restoreAllMocks();
  await place.replay(place.dump({ 'title.ratings': ratings(a) }), onlyRatings);
  expect(await marks(place)).toEqual(['begin 0', 'begin 0', 'begin 1', 'begin 1', 'end 0', 'end 0', 'end 1']);
  expect(await votesOf(place)).toEqual(a);
});
