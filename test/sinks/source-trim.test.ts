/** What the sink deletes of its source topics, decided without a broker; and what the history of ratings still needs. */
import { expect, test } from 'vitest';
import { afterMark, type RatingState } from '../../sinks/rating-history.ts';
import { planTrim, type TrimInput } from '../../sinks/source-trim.ts';

const basics = 'imdb.title.basics';
const ratings = 'imdb.title.ratings';
const log = (start: number) => new Map([[0, { start, end: 99 }]]);
const groupAt = (next: number, topic = basics, partition = 0) => ({
  problem: null,
  committed: new Map([[topic, new Map([[partition, { next, metadata: '' }]])]]),
});

/** A snapshot of offsets 40 to 90, the first 40 of which lie before a base. */
const plan = (changes: Partial<TrimInput> = {}) =>
  planTrim({
    input: { [basics]: { 0: [40, 90] }, [ratings]: { 0: [40, 90] } },
    bounds: new Map([
      [basics, log(0)],
      [ratings, log(0)],
    ]),
    flink: undefined,
    ratings: { topic: ratings, keptFrom: () => 40 },
    refused: [],
    ...changes,
  });
const whole = (topic: string) => ({ topic, partition: 0, from: 0, to: 40 });

test('everything before the bases of a snapshot is deleted, once', () => {
  expect(plan()).toEqual([whole(basics), whole(ratings)]);
  const bounds = new Map([
    [basics, log(40)],
    [ratings, log(25)],
  ]);
  expect(plan({ bounds })).toEqual([{ ...whole(ratings), from: 25 }]);
});

test('nothing is deleted of a topic without a base, or of one that is gone', () => {
  expect(plan({ input: { [basics]: { 0: [0, 90] } } })).toEqual([]);
  expect(plan({ bounds: new Map() })).toEqual([]);
});

test('a Flink job keeps a topic until it is as far as the snapshot, and its topics only', () => {
  const held = { ...whole(basics), neededBy: 'Flink' };
  expect(plan({ flink: groupAt(89) })).toEqual([held, whole(ratings)]);
  expect(plan({ flink: groupAt(90) })).toEqual([whole(basics), whole(ratings)]);
  // It reads the topic, and has committed nothing of this partition yet.
  expect(plan({ flink: groupAt(90, basics, 1) })).toEqual([held, whole(ratings)]);
});

test('a Flink job whose offsets cannot be read keeps everything', () => {
  const flink = { problem: 'no permission', committed: new Map() };
  expect(plan({ flink }).map(({ neededBy }) => neededBy)).toEqual(['Flink', 'Flink']);
});

test('the history keeps the ratings from its own base on', () => {
  const keptFrom = () => 15;
  expect(plan({ ratings: { topic: ratings, keptFrom } })).toEqual([
    whole(basics),
    { ...whole(ratings), to: 15 },
    { ...whole(ratings), from: 15, neededBy: 'history' },
  ]);
});

test('a message with an open dead letter stays, for the next refresh to read, and what is behind it', () => {
  const refused = [
    { topic: basics, partition: 0, offset: 30 },
    { topic: basics, partition: 0, offset: 20 },
    { topic: basics, partition: 1, offset: 5 },
    { topic: ratings, partition: 0, offset: 40 },
  ];
  expect(plan({ refused })).toEqual([
    { ...whole(basics), to: 20 },
    { ...whole(basics), from: 20, neededBy: 'dead letter' },
    whole(ratings),
  ]);
  // A message that is gone keeps nothing.
  const bounds = new Map([[basics, log(25)]]);
  expect(plan({ refused, bounds })).toEqual([
    { ...whole(basics), from: 25, to: 30 },
    { ...whole(basics), from: 30, neededBy: 'dead letter' },
  ]);
});

const dayMs = 86_400_000;

function stateAfter(
  marks: readonly (readonly [id: string, day: number, mark: 'begin' | 'end'])[],
  historyDays: number,
) {
  let state: RatingState = {
    shard: 0,
    generation: 0,
    next: 0,
    lastHash: '',
    newestDay: -1,
    historyDays,
    gaps: [[0, 5]],
  };
  for (const [offset, [id, day, mark]] of marks.entries()) {
    state = { ...state, newestDay: Math.max(state.newestDay, day) };
    state = afterMark(state, { id, mark, asOfMs: day * dayMs }, 10 + offset);
  }
  return state;
}

test('the history needs the newest whole base that is as old as it is long, and nothing before it', () => {
  const marks = [
    ['a', 1, 'begin'],
    ['a', 1, 'end'],
    ['killed', 2, 'begin'],
    ['b', 3, 'begin'],
    ['b', 3, 'end'],
    ['c', 6, 'begin'],
    ['c', 6, 'end'],
  ] as const;
  const basesFor = (days: number) => stateAfter(marks, days).bases?.map(({ begin }) => begin);
  expect(basesFor(10)).toEqual([10, 13, 15]);
  expect(basesFor(4)).toEqual([10, 13, 15]);
  expect(basesFor(3)).toEqual([13, 15]);
  expect(basesFor(0)).toEqual([15]);
  // A gap before that base is missing in no day of the history.
  expect(stateAfter(marks, 10).gaps).toEqual([[0, 5]]);
  expect(stateAfter(marks, 5).gaps).toEqual([]);
});
