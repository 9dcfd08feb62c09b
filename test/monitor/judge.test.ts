/**
 * Judging a consumer: laws that hold for any observations, and simulated consumers with known rates. Then the code with
 * one rule changed at a time: at least one law must break for each change.
 */
import { readFileSync } from 'node:fs';
import { stripTypeScriptTypes } from 'node:module';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import type { Observation, State } from '../../monitor/judge.ts';
import * as judging from '../../monitor/judge.ts';
import * as pacing from '../../monitor/pace.ts';

const product = { ...judging, ...pacing };
type Product = typeof product;

const spanMs = 60_000;
const lookMs = 1_000;
const startMs = 1_700_000_000_000;

interface Consumer {
  /** Lag at the start. */
  readonly backlog: number;
  readonly producedPerSecond: number;
  readonly consumedPerSecond: number;
  readonly commitEveryMs: number;
  /** Idle until then. */
  readonly idleMs?: number;
  readonly isOwned?: boolean | null;
  /** Commits the same offset again while it makes no progress. */
  readonly saysWhen?: boolean;
  readonly seconds: number;
}

/** One observation a second of a consumer that works evenly and commits periodically. */
function observationsOf(consumer: Consumer): Observation[] {
  const {
    backlog,
    producedPerSecond,
    consumedPerSecond,
    commitEveryMs,
    idleMs = 0,
    isOwned = true,
  } = consumer;
  return Array.from({ length: consumer.seconds + 1 }, (_, i): Observation => {
    const ms = i * lookMs;
    const end = backlog + Math.floor((producedPerSecond * ms) / 1000);
    const commitMs = Math.floor(ms / commitEveryMs) * commitEveryMs;
    const written = backlog + Math.floor((producedPerSecond * commitMs) / 1000);
    const worked = Math.max(0, commitMs - idleMs);
    const next = Math.min(written, Math.floor((consumedPerSecond * worked) / 1000));
    const committedAtMs = consumer.saysWhen === true ? startMs + commitMs : null;
    return { atMs: startMs + ms, start: 0, end, next, isOwned, committedAtMs, readNext: null };
  }).slice(-(spanMs / lookMs) - 1);
}

/** One observation a second of a consumer at these offsets. */
function playedFor(
  seconds: number,
  at: (
    second: number,
  ) => Pick<Observation, 'end' | 'next'> & Partial<Pick<Observation, 'readNext' | 'highWatermark'>>,
): Observation[] {
  return Array.from({ length: seconds + 1 }, (_, second): Observation => {
    const about = { start: 0, isOwned: true, committedAtMs: null, readNext: null };
    return { atMs: startMs + second * lookMs, ...about, ...at(second) };
  });
}

/** Any observations: arbitrary offsets, intervals and owners. */
const anyObservations: fc.Arbitrary<Observation[]> = fc
  .array(
    fc.record({
      gapMs: fc.integer({ min: 1, max: 20_000 }),
      start: fc.nat(5),
      end: fc.option(fc.nat(40), { freq: 8 }),
      next: fc.option(fc.nat(40), { freq: 8 }),
      isOwned: fc.option(fc.boolean()),
      committedAtMs: fc.option(fc.nat(3)),
    }),
    { minLength: 1, maxLength: 12 },
  )
  .map((steps) => {
    let atMs = startMs;
    return steps.map(({ gapMs, ...observation }) => {
      atMs += gapMs;
      return { ...observation, atMs, readNext: null };
    });
  });

const unknownTimes = { committedAtMs: null, readNext: null };

const commitEveryMs = fc.integer({ min: 200, max: spanMs / 6 });
const rate = fc.integer({ min: 20, max: 5_000 });
/** Large enough that rounding does not decide. */
const backlogOf = fc.integer({ min: 1_000_000, max: 2_000_000 });

const withLast = (observations: readonly Observation[], change: Partial<Observation>): Observation[] => [
  ...observations.slice(0, -1),
  { ...(observations.at(-1) as Observation), ...change },
];

const with_ = (observations: readonly Observation[], change: Partial<Observation>): Observation[] =>
  observations.map((observation) => ({ ...observation, ...change }));

const later = (observations: readonly Observation[], change: Partial<Observation>): Observation[] => {
  const last = observations.at(-1) as Observation;
  return [...observations, { ...last, atMs: last.atMs + lookMs, ...change }];
};

const holds = (property: fc.IRawProperty<unknown>) => (): void =>
  fc.assert(property as fc.IProperty<unknown>, { numRuns: 60, seed: 20_261_121, endOnFailure: true });

function same(found: unknown, expected: unknown): void {
  if (!Object.is(found, expected)) throw new Error(`${String(found)} instead of ${String(expected)}`);
}

const within = (found: number | null, expected: number, part: number): void => {
  if (found === null || Math.abs(found - expected) > part * expected) {
    throw new Error(`${found} instead of ${expected}`);
  }
};

/** Each throws when it is broken. */
const laws = ({
  judge,
  paceOf,
  catchUpMsOf,
  worstOf,
  lagOf,
  lostOf,
}: Product): Record<string, () => void> => {
  const is = (observations: readonly Observation[], state: State | null) =>
    same(judge(observations, spanMs), state);
  return {
    'without lag it is OK, whatever happened before': holds(
      fc.property(anyObservations, fc.nat(40), (observations, end) =>
        is(withLast(observations, { start: 0, end, next: end }), 'OK'),
      ),
    ),
    'without the end of the log the state is unknown': holds(
      fc.property(anyObservations, (observations) => is(withLast(observations, { end: null }), null)),
    ),
    'a log that ends before the committed offset is ERR': holds(
      fc.property(anyObservations, fc.nat(40), (observations, end) =>
        is(withLast(observations, { end, next: end + 1 }), 'ERR'),
      ),
    ),
    'offsets and clocks may start anywhere': holds(
      fc.property(anyObservations, fc.nat(1_000), fc.nat(1_000_000), (observations, offsets, ms) => {
        const plus = (value: number | null) => (value === null ? null : value + offsets);
        const moved = observations.map((observation) => ({
          ...observation,
          atMs: observation.atMs + ms,
          start: plus(observation.start),
          end: plus(observation.end),
          next: plus(observation.next),
        }));
        is(moved, judge(observations, spanMs));
      }),
    ),
    'a short history convicts no assigned member': holds(
      fc.property(anyObservations, (observations) => {
        const owned = with_(observations, { isOwned: true });
        const first = owned[0] as Observation;
        const last = owned.at(-1) as Observation;
        const state = judge(owned, last.atMs - first.atMs + 1);
        if (state === 'STALL' || state === 'WARN' || state === 'STOP') throw new Error(state);
      }),
    ),
    'a consumer faster than the producer is OK as soon as that is observed': holds(
      fc.property(
        rate,
        commitEveryMs,
        fc.integer({ min: 20, max: 90 }),
        (producedPerSecond, every, seconds) => {
          const consumedPerSecond = producedPerSecond * 1.5;
          const backlog = 100 * consumedPerSecond;
          is(
            observationsOf({ backlog, producedPerSecond, consumedPerSecond, commitEveryMs: every, seconds }),
            seconds * 1000 > 2 * every ? 'OK' : judge([], spanMs),
          );
        },
      ),
    ),
    'a consumer slower than the producer is WARN, however rarely it commits': holds(
      fc.property(rate, commitEveryMs, backlogOf, (consumedPerSecond, every, backlog) => {
        const producedPerSecond = consumedPerSecond * 1.5;
        is(
          observationsOf({
            backlog,
            producedPerSecond,
            consumedPerSecond,
            commitEveryMs: every,
            seconds: 100,
          }),
          'WARN',
        );
      }),
    ),
    'a constant lag is WARN': () => {
      const even = { backlog: 5_000, producedPerSecond: 10, consumedPerSecond: 10, commitEveryMs: 1_000 };
      is(observationsOf({ ...even, seconds: 80 }), 'WARN');
    },
    'a commit that is observed late does not look like catching up': holds(
      fc.property(fc.array(fc.nat(500), { minLength: 61, maxLength: 61 }), (late) => {
        const observations = late.map((messages, i): Observation => {
          const lag = 1_000 + 10 * i + (i % 3 === 0 ? 0 : messages);
          const end = i + lag;
          return {
            atMs: startMs + i * lookMs,
            start: 0,
            end,
            next: i,
            isOwned: true,
            committedAtMs: null,
            readNext: null,
          };
        });
        is(observations, 'WARN');
      }),
    ),
    'an assigned member without progress is STALL': holds(
      fc.property(rate, backlogOf, fc.boolean(), (producedPerSecond, backlog, saysWhen) => {
        const still = { backlog, producedPerSecond, consumedPerSecond: 0, commitEveryMs: 5_000, saysWhen };
        is(observationsOf({ ...still, seconds: 100 }), 'STALL');
        is(observationsOf({ ...still, seconds: 59 }), null);
        // The commits of the same offset are the only sign of life where owners are unknown.
        is(observationsOf({ ...still, isOwned: null, seconds: 100 }), saysWhen ? 'STALL' : 'STOP');
      }),
    ),
    'one commit in the span is progress': () => {
      const still = { backlog: 1_000, producedPerSecond: 10, consumedPerSecond: 0, commitEveryMs: 1_000 };
      const observations = observationsOf({ ...still, seconds: 60 });
      is(later(observations, { next: 1, end: 2_000 }).slice(1), 'WARN');
      is(later(observations, { next: 1_500, end: 1_600 }).slice(1), 'OK');
    },
    'no assigned member with messages waiting is STOP at the first observation': () => {
      const observation = {
        atMs: startMs,
        start: 0,
        end: 9,
        next: 4,
        isOwned: false,
        committedAtMs: null,
        readNext: null,
      };
      is([observation], 'STOP');
      is([{ ...observation, isOwned: true }], null);
      is([{ ...observation, isOwned: null }], null);
      is([{ ...observation, next: 9 }], 'OK');
    },
    'a partition without commit and member is STOP, unless it is empty': () => {
      const observation = {
        atMs: startMs,
        start: 4,
        end: 9,
        next: null,
        isOwned: false,
        committedAtMs: null,
        readNext: null,
      };
      is([observation], 'STOP');
      is([{ ...observation, isOwned: true }], null);
      is([{ ...observation, isOwned: null }], null);
      is([{ ...observation, isOwned: true, start: 9 }], 'OK');
    },
    'members that left are STOP at once, also after they kept up': () => {
      const kept = { backlog: 0, producedPerSecond: 0, consumedPerSecond: 0, commitEveryMs: 1_000 };
      const observations = observationsOf({ ...kept, seconds: 70 });
      is(later(observations, { end: 5, isOwned: false }), 'STOP');
      is(later(later(observations, { isOwned: false }), { end: 5, isOwned: false }), 'STOP');
      // Its last commit came between two looks.
      is(later(observations, { end: 5, next: 3, isOwned: false }), 'STOP');
    },
    'commits without membership are not STOP, until they end': holds(
      fc.property(rate, backlogOf, (perSecond, backlog) => {
        const alone = {
          producedPerSecond: perSecond,
          consumedPerSecond: perSecond * 2,
          commitEveryMs: 3_000,
        };
        let observations = observationsOf({ ...alone, backlog, isOwned: false, seconds: 10 });
        is(observations, 'OK');
        for (let i = 0; i < 58; i++) observations = later(observations, {});
        is(observations, 'OK');
        is(observations.slice(-50), 'STOP');
      }),
    ),
    'a message that has just arrived on a slow topic convicts no consumer': () => {
      const slow = { backlog: 0, producedPerSecond: 0, consumedPerSecond: 0, commitEveryMs: 1_000 };
      for (const isOwned of [true, false, null]) {
        is(later(observationsOf({ ...slow, isOwned, seconds: 90 }), { end: 1 }), 'OK');
      }
    },
    'a consumer that went back is ERR until it reaches its earlier offset': () => {
      const keepsUp = { backlog: 0, producedPerSecond: 10, consumedPerSecond: 10, commitEveryMs: 1_000 };
      const observations = observationsOf({ ...keepsUp, seconds: 30 });
      const { next, end } = observations.at(-1) as Observation;
      const back = later(observations, { next: (next as number) - 5, end: (end as number) + 10 });
      is(back, 'ERR');
      is(later(back, { next: next as number }), 'OK');
    },
    'the pace is that of the consumer and of the log, however rarely it commits': holds(
      fc.property(rate, rate, commitEveryMs, fc.nat(10), (consumed, producedPerSecond, every, more) => {
        const consumedPerSecond = consumed;
        const observations = observationsOf({
          ...{ backlog: 10_000_000, producedPerSecond, consumedPerSecond },
          ...{ commitEveryMs: every, seconds: 80 + more },
        });
        const pace = paceOf(observations);
        within(pace.producedPerSecond, producedPerSecond, 0.01);
        within(pace.consumedPerSecond, consumedPerSecond, 0.05);
      }),
    ),
    'the time to catch up is the time that it then takes': holds(
      fc.property(rate, fc.integer({ min: 200, max: 4_000 }), (producedPerSecond, every) => {
        const consumedPerSecond = producedPerSecond * 2;
        // After 60 of 200 seconds.
        const backlog = 200 * (consumedPerSecond - producedPerSecond);
        const shape = { backlog, producedPerSecond, consumedPerSecond, commitEveryMs: every };
        const observations = observationsOf({ ...shape, seconds: 60 });
        within(catchUpMsOf([{ observations, weight: 1 }], spanMs), 140_000, 0.2);
      }),
    ),
    'neither a late start nor rare commits change the time to catch up': holds(
      fc.property(
        rate,
        fc.integer({ min: 1, max: 9 }),
        fc.integer({ min: 0, max: 25 }),
        (produced, every, idle) => {
          const shape = {
            ...{ backlog: 200 * produced, producedPerSecond: produced, consumedPerSecond: 2 * produced },
            ...{ commitEveryMs: every * 1_000, idleMs: idle * 1_000 },
          };
          for (const seconds of [50, 53, 57, 60]) {
            const observations = observationsOf({ ...shape, seconds });
            const leftMs = (200 + 2 * idle - seconds) * 1_000;
            within(catchUpMsOf([{ observations, weight: 1 }], spanMs), leftMs, 0.06);
          }
        },
      ),
    ),
    'an overdue commit lengthens the time to catch up; one that is due soon does not': () => {
      const observations = observationsOf({
        ...{ backlog: 1_000, producedPerSecond: 0, consumedPerSecond: 10 },
        ...{ commitEveryMs: 10_000, seconds: 30 },
      });
      const later = (seconds: number) =>
        Array.from({ length: seconds }, (_, i) => ({
          ...(observations.at(-1) as Observation),
          atMs: startMs + (31 + i) * lookMs,
        }));
      const catchUpAfter = (seconds: number) =>
        catchUpMsOf([{ observations: [...observations, ...later(seconds)], weight: 1 }], spanMs) as number;
      same(Math.round(catchUpAfter(0)), 70_000);
      same(Math.round(catchUpAfter(9)), 61_000);
      // In the newer half of the span, 30 s, it worked at most 20 s: 600 messages remain at 200 in 30 s.
      same(Math.round(catchUpAfter(20)), 90_000);
    },
    'the last few commits determine the pace, however fast or slow it was before': () => {
      // One a second for half a minute, then four, committed every so many seconds.
      const timeOf = (seconds: number, every: number, ...others: Observation[][]) => {
        const at = (second: number) => (second <= 30 ? second : 30 + 4 * (second - 30));
        const observations = playedFor(seconds, (second) => ({
          end: 1_000,
          next: at(Math.floor(second / every) * every),
        }));
        return catchUpMsOf(
          [observations, ...others].map((each) => ({ observations: each, weight: 1 })),
          spanMs,
        );
      };
      // A sixth of the span, 10 s; a second earlier one of the seconds was slow.
      same(timeOf(40, 1), ((1_000 - 70) / 4) * 1_000);
      same(timeOf(39, 1), ((1_000 - 66) / 37) * 10_000);
      // Three times five seconds; half of the span.
      same(timeOf(45, 5), ((1_000 - 90) / 4) * 1_000);
      same(timeOf(40, 5), ((1_000 - 70) / 45) * 15_000);
      same(timeOf(60, 15), ((1_000 - 150) / 4) * 1_000);
      const done = playedFor(40, (s) => ({ end: 9, next: Math.min(9, Math.floor(s / 10) * 4.5) }));
      same(timeOf(40, 1, done), timeOf(40, 1));
    },
    'the wait before the first commit is not work': () => {
      const observations = playedFor(25, (seconds) => ({ end: 400, next: 10 * Math.max(0, seconds - 15) }));
      same(catchUpMsOf([{ observations, weight: 1 }], spanMs), 30_000);
    },
    'partitions that are committed by turns are consumed evenly': holds(
      fc.property(fc.integer({ min: 2, max: 8 }), fc.integer({ min: 20, max: 59 }), (count, seconds) => {
        // 100 a second each, of 10,000; each commits every eight seconds, at another time than the others.
        const parts = Array.from({ length: count }, (_, i) => ({
          weight: 1,
          observations: playedFor(seconds, (second) => {
            const commits = Math.floor((second + i) / 8);
            return { end: 10_000, next: Math.max(0, 100 * (8 * commits - i)) };
          }),
        }));
        within(catchUpMsOf(parts, spanMs), (100 - seconds) * 1_000, 0.02);
      }),
    ),
    'messages that are read count as done, and so does the work since the last commit': () => {
      const parts = (readNext: number | null) => [
        {
          weight: 1,
          observations: playedFor(24, (s) => ({ end: 1_000, next: 50 * Math.floor(s / 5), readNext })),
        },
      ];
      same(catchUpMsOf(parts(null), spanMs), 76_000);
      same(catchUpMsOf(parts(300), spanMs), 66_000);
      // A read position before the commit adds nothing.
      same(catchUpMsOf(parts(100), spanMs), 76_000);
      same(catchUpMsOf(parts(990), spanMs), 0);
    },
    'work that is almost done takes no time, never less': () => {
      // Everything is read, and production equals consumption.
      const observations = playedFor(60, (s) => ({ end: 10 + 10 * s, next: 10 * s, readNext: 10 + 10 * s }));
      same(catchUpMsOf([{ observations, weight: 1 }], spanMs), 0);
      const stalled = playedFor(60, () => ({ end: 20, next: 10, readNext: 20 }));
      same(catchUpMsOf([{ observations: stalled, weight: 1 }], spanMs), Number.POSITIVE_INFINITY);
      // At its pace 145 of 105 would be done, and it has read all: that does not reduce the work of the other one.
      const nearly = playedFor(29, (s) => ({ end: 105, next: 50 * Math.floor(s / 10), readNext: 105 }));
      const behind = playedFor(29, (s) => ({ end: 1_000 + 10 * s, next: 10 * s }));
      const found = catchUpMsOf(
        [nearly, behind].map((observations) => ({ observations, weight: 1 })),
        spanMs,
      );
      // In 28 s 100 of the first (5 were done in the first second), and of the other as many as were produced.
      within(found, (1_000 / 100) * 28_000, 0.001);
    },
    'partitions that one member consumes one after the other take as long as both': () => {
      // 10 a second, first of one and then of the other, which has no commit before.
      const first = playedFor(59, (s) => ({ end: 1_000, next: Math.min(200, 10 * s) }));
      const then = playedFor(59, (s) => ({ end: 1_000, next: s <= 20 ? null : 10 * (s - 20) }));
      const timeOf = (...parts: [Observation[], number][]) =>
        catchUpMsOf(
          parts.map(([observations, weight]) => ({ observations, weight })),
          spanMs,
        );
      // After its last commit the first may have done as much as between two commits.
      within(timeOf([first, 1], [then, 1]), 140_000, 0.001);
      // 790 threefold and 610 at 10 a second.
      within(timeOf([first, 3], [then, 1]), 298_000, 0.001);
      same(timeOf([first, 1], [withLast(then, { next: null }), 1]), null);
      same(timeOf([first, 1], [withLast(then, { end: null }), 1]), null);
      same(timeOf([[], 1]), null);
      const done = playedFor(59, (s) => ({ end: 5, next: Math.min(5, s) }));
      same(timeOf([done, 1]), 0);
    },
    'the duration of a single step is unknown until the span is observed': () => {
      const step = (seconds: number) => playedFor(seconds, (s) => ({ end: 100, next: s < 10 ? 0 : 60 }));
      const done = (seconds: number) => playedFor(seconds, (s) => ({ end: 9, next: s < 10 ? 0 : 9 }));
      const timeOf = (...parts: Observation[][]) =>
        catchUpMsOf(
          parts.map((observations) => ({ observations, weight: 1 })),
          spanMs,
        );
      same(timeOf(step(59)), null);
      same(timeOf(step(60)), 40_000);
      const steady = playedFor(59, (s) => ({ end: 1_000, next: 10 * s }));
      same(timeOf(steady, step(59)), null);
      within(timeOf(steady, done(59)), 41_000, 0.001);
      const waiting = playedFor(59, () => ({ end: 90, next: 0 }));
      same(timeOf(done(59), waiting), null);
      // A first commit counts if an observation before it had none.
      const begun = playedFor(25, (s) => ({ end: 1_000, next: s < 10 ? null : 100 * Math.floor(s / 10) }));
      within(timeOf(begun), 75_000, 0.001);
      same(timeOf(begun.slice(10)), null);
      // A commit at the log start, and the time from there to the next, do not count.
      const opened = begun.map((observation, s) => ({
        ...observation,
        next: observation.next ?? (s < 4 ? null : 0),
      }));
      within(timeOf(opened), 75_000, 0.001);
      same(timeOf(opened.slice(0, 20)), null);
    },
    'it never catches up only if that was observed for the whole span': () => {
      const timeOf = (seconds: number, perSecond: number) => {
        const observations = playedFor(seconds, (s) => ({ end: 500 + 10 * s, next: perSecond * s }));
        return catchUpMsOf([{ observations, weight: 1 }], spanMs);
      };
      same(timeOf(60, 9), Number.POSITIVE_INFINITY);
      same(timeOf(60, 10), Number.POSITIVE_INFINITY);
      same(timeOf(60, 0), Number.POSITIVE_INFINITY);
      same(timeOf(59, 9), null);
      same(timeOf(59, 10), null);
      same(timeOf(59, 0), null);
      same(timeOf(60, 12), 190_000);
      same(timeOf(50, 12), 200_000);
    },
    'one observation, or several at one moment, have no pace': () => {
      const observations = observationsOf({
        ...{ backlog: 5, producedPerSecond: 1, consumedPerSecond: 1 },
        ...{ commitEveryMs: 1_000, seconds: 1 },
      });
      same(paceOf(observations.slice(1)).consumedPerSecond, null);
      same(paceOf(with_(observations, { atMs: startMs })).producedPerSecond, null);
      same(paceOf(with_(observations, { next: null })).producedPerSecond, null);
    },
    'a group is as bad as its worst partition, and not OK while one is unknown': () => {
      same(worstOf(['OK', 'WARN', 'OK']), 'WARN');
      same(worstOf(['STALL', null, 'STOP', 'ERR']), 'STOP');
      same(worstOf(['OK', null]), null);
      same(worstOf(['OK', 'OK']), 'OK');
    },
    'the lag is unknown where an offset is unknown or the log ends before it': () => {
      same(lagOf({ end: 5, next: 5 }), 0);
      same(lagOf({ end: 5, next: 2 }), 3);
      same(lagOf({ end: 5, next: null }), null);
      // No message was ever there to wait.
      same(lagOf({ end: 0, next: null }), 0);
      same(lagOf({ end: null, next: 5 }), null);
      same(lagOf({ end: 4, next: 5 }), null);
    },
    'messages below the log start are lost, and only the readable rest is lag': () => {
      const purged = { atMs: startMs, ...unknownTimes, start: 8, end: 8, next: 3 };
      for (const isOwned of [true, false, null]) {
        is([{ ...purged, isOwned }], 'LOST');
        is([{ ...purged, end: 9, isOwned }], 'LOST');
        is([{ ...purged, next: 8, isOwned }], 'OK');
        is([{ ...purged, next: null, isOwned }], 'OK');
      }
      same(lagOf(purged), 0);
      same(lagOf({ ...purged, end: 10 }), 2);
      same(lostOf(purged), 5);
      same(lostOf({ start: 8, next: 9 }), 0);
      same(lostOf({ start: 8, next: null }), null);
      is([{ ...purged, start: null, end: 3, isOwned: false }], 'OK');
      is([{ ...purged, start: null, isOwned: false }], 'STOP');
    },
    'an open transaction is neither lag nor an error': () => {
      const open = { atMs: startMs, ...unknownTimes, start: 0, end: 5, highWatermark: 9, isOwned: true };
      is([{ ...open, next: 5 }], 'OK');
      // A consumer of uncommitted messages.
      is([{ ...open, next: 9 }], 'OK');
      is([{ ...open, next: 10 }], 'ERR');
      same(lagOf({ ...open, next: 7 }), 2);
      same(lagOf({ ...open, next: 2 }), 3);
    },
    'markers are not lag': () => {
      const marked = { atMs: startMs, ...unknownTimes, start: 0, end: 5, next: 4, isOwned: false };
      is([{ ...marked, readableFrom: 5 }], 'OK');
      is([marked], 'STOP');
      same(lagOf({ ...marked, end: 9, readableFrom: 6 }), 3);
    },
    'after its members have left a group consumes nothing': () => {
      const observations = playedFor(30, (s) => ({ end: 1_000, next: 10 * s }));
      const left = later(observations, { isOwned: false });
      same(paceOf(left).consumedPerSecond, 0);
      same(paceOf(later(left, {})).consumedPerSecond, 0);
      within(paceOf(with_(observations, { isOwned: false })).consumedPerSecond, 10, 0.001);
      same(paceOf(with_(observations.slice(0, 1), { isOwned: false })).consumedPerSecond, null);
    },
    'the pace of production includes open transactions': () => {
      const observations = playedFor(30, (s) => ({ end: 0, next: 0, highWatermark: 10 * s }));
      within(paceOf(observations).producedPerSecond, 10, 0.001);
    },
  };
};

describe('judging a consumer', () => {
  it.each(Object.entries(laws(product)))('%s', (_, law) => law());
});

/** Changes of the code, each of them a plausible mistake. */
const mutants: readonly (readonly [name: string, from: string, to: string])[] = [
  ['an unknown end is accepted', 'now === undefined || now.end === null', 'now === undefined'],
  ['an empty partition is unknown', `return now.end === now.start ? 'OK' : `, 'return '],
  ['a partition without commit is unknown', `now.isOwned === false ? 'STOP' : null`, 'null'],
  ['a replaced log is fine', `if (lag === null) return 'ERR';`, ''],
  ['a consumer without lag can be bad', `if (lag === 0) return 'OK';`, ''],
  ['no consumer ever stops', `if (hasStopped(observations, spanMs)) return 'STOP';`, ''],
  ['going back is fine', 'observation.next > next)', 'observation.next > next && false)'],
  ['having kept up does not count', `if (observations.some(isCaughtUp)) return 'OK';`, ''],
  ['catching up does not count', `if (lagDecreases(observations, spanMs)) return 'OK';`, ''],
  ['a short history convicts', 'if (!isFull(observations, spanMs)) return null;', ''],
  ['no progress is slow', `? 'STALL' : 'WARN'`, `? 'WARN' : 'WARN'`],
  ['slow is no progress', `? 'STALL' : 'WARN'`, `? 'STALL' : 'STALL'`],
  [
    'a repeated commit of the same offset does not count',
    ' || observation.committedAtMs !== before.committedAtMs',
    '',
  ],
  ['an assigned member can have stopped', 'if (isOwned === true) return false;', ''],
  [
    'an unknown owner never stops',
    'return isFull(observations, spanMs) && !hasCommitted',
    'return false && !hasCommitted',
  ],
  [
    'an unknown owner stops at once',
    'return isFull(observations, spanMs) && !hasCommitted',
    'return !hasCommitted',
  ],
  ['an unknown owner may not commit', ' && !hasCommitted(observations) &&', ' &&'],
  ['a slow topic stops an unknown owner', ' && !observations.some(isCaughtUp);', ';'],
  ['commits without membership do not count', 'if (hasCommitted(alone)) return false;', ''],
  [
    'the last commit of a member does not count',
    '(observation) => observation.isOwned !== false) + 1',
    '(observation) => observation.isOwned !== false)',
  ],
  ['members that left may have kept up', 'return alone.length < observations.length || ', 'return '],
  ['a slow topic stops a consumer without membership', ' || !alone.some(isCaughtUp);', ' || true;'],
  [
    'the lag between commits counts',
    'i > 0 && next !== known[i - 1]?.next);\n  // The time',
    'i > 0 && next !== undefined);\n  // The time',
  ],
  ['the first observation counts as a commit', 'if (commits.length < 2) commits', 'commits'],
  ['a single commit shows nothing', 'if (commits.length < 2) commits.unshift(first);', ''],
  ['the largest lag after a commit counts', 'Math.min(lag, least', 'Math.max(lag, least'],
  ['an equal lag is a decrease', 'i > 0 && lag < (lags', 'i > 0 && lag <= (lags'],
  [
    'the pace is that of the ends',
    'mean(([at, value]) => (at - x0 - x) * (value - y0 - y)) / spread',
    '((points.at(-1) as any)[1] - y0) / ((points.at(-1) as any)[0] - x0)',
  ],
  ['one moment has a pace', 'spread === 0 ? null :', 'spread === 0 ? 0 :'],
  ['an unknown lag is none', 'if (all.some(({ lag }) => lag === null)) return null;', ''],
  ['no lag takes time', 'if (sum(({ lag }) => lag as number) === 0) return 0;', ''],
  ['a message counts for one', 'part.weight * pick(part)', 'pick(part)'],
  ['one step has a duration', '(isOneStep || !hasSteps)', '!hasSteps'],
  ['no step has a pace', '(isOneStep || !hasSteps)', 'isOneStep'],
  [
    'a single step of a partition without lag counts',
    'lag !== 0 && commitsMs.length === 1',
    'commitsMs.length === 1',
  ],
  ['one step is never enough', 'if (!isWhole && (', 'if ((isOneStep || !isWhole) && ('],
  ['the whole span determines the pace', 'spanMs / 6), spanMs / 2)', 'spanMs / 6), spanMs)'],
  ['half of the span determines the pace', 'Math.max(stepsMs, spanMs / 6)', 'Math.max(stepsMs, spanMs / 2)'],
  ['two intervals determine the pace', 'const paceSteps = 3', 'const paceSteps = 2'],
  [
    'the interval of a partition without lag counts',
    'lag === 0 ? 0 : paceSteps',
    'lag === 0 ? paceSteps * stepMs : paceSteps',
  ],
  ['the time before the first commit counts', 'Math.max(begunMs, nowMs', 'Math.max(0, nowMs'],
  ['one step happened now', ' : nowMs - spanMs;', ' : nowMs - spanMs / 2;'],
  ['messages that are read are not done', ' - ahead)', ')'],
  ['a read position before the commit adds lag', 'ahead: Math.max(0, ', 'ahead: Math.max(-1e9, '],
  ['what one partition has read reduces the work of others', 'Math.max(0, valueAt(ends', '(0, valueAt(ends'],
  ['messages that are read are never processed', 'if (toRead === 0 && consumed > 0) return 0;', ''],
  ['a consumer without progress has caught up', 'toRead === 0 && consumed > 0', 'toRead === 0'],
  [
    'nothing is produced meanwhile',
    'if (consumed > produced) return (toRead / (consumed - produced))',
    'if (consumed > produced) return (toRead / consumed)',
  ],
  ['no progress catches up', 'if (consumed > produced)', 'if (consumed >= produced)'],
  [
    'never is reported early',
    'return isWhole ? Number.POSITIVE_INFINITY : null;',
    'return Number.POSITIVE_INFINITY;',
  ],
  [
    'any work was observed for the whole span',
    'isFull(observations, spanMs));\n  // The duration',
    'true);\n  // The duration',
  ],
  ['work happens at the commit', 'from + ((to - from) * (atMs - fromMs)) / (toMs - fromMs)', 'from'],
  ['uncommitted work does not count', 'done.push([last[0]', 'done.slice([last[0]'],
  ['an overdue commit does not count', 'Math.min(nowMs - last[0], stepMs)', 'nowMs - last[0]'],
  [
    'more may be done than the log holds',
    'Math.min((now && endOf(now)) ?? 0, last[1] + more)',
    'last[1] + more',
  ],
  ['the first observation is a commit', 'moves[i] !== observations[0] && ', ''],
  ['the first observed commit does not count', 'moves[i] !== observations[0] && ', 'i > 0 && '],
  ['a commit at the log start is work', ' && moves[i]?.next !== moves[i]?.start', ''],
  ['unknown partitions are OK', ` && all.includes(null) ? null`, ' && false ? null'],
  ['a log that ended earlier has a lag', ' || next > end) return null', ') return null'],
  ['lost messages are fine', "if (lostOf(now) !== 0 && now.start !== null) return 'LOST';", ''],
  ['an unknown start has lost messages', 'lostOf(now) !== 0 && now.start !== null', 'lostOf(now) !== 0'],
  ['lost messages wait', 'Math.max(next, start ?? 0, readableFrom', 'Math.max(next, 0, readableFrom'],
  ['markers wait', 'start ?? 0, readableFrom ?? 0', 'start ?? 0, 0'],
  [
    'a reader of uncommitted messages is beyond the end',
    'Math.max(end, highWatermark ?? end) : end',
    'end : end',
  ],
  ['an open transaction waits', 'next > end ? Math.max', 'next <= end ? Math.max'],
  ['members that left keep their pace', 'slope((hasEnded ? alone : known)', 'slope((known)'],
  ['an ended pace is unknown', 'hasEnded ? (consumed ?? 0) : consumed', 'consumed'],
  [
    'one observation without members has a pace',
    'alone.length > 0 && alone.length < known.length',
    'alone.length > 0',
  ],
  ['messages of open transactions are not produced', 'highWatermark ?? (end as number)', 'end as number'],
];

describe('a changed rule', () => {
  const files = ['judge.ts', 'pace.ts'].map((name) => {
    const url = new URL(`../../monitor/${name}`, import.meta.url);
    return { url, text: readFileSync(url, 'utf8') };
  });

  it.each(mutants)('breaks a law: %s', async (_, from, to) => {
    const found = files.filter(({ text }) => text.includes(from));
    expect(found, `one file contains: ${from}`).toHaveLength(1);
    const { url, text } = found[0] as (typeof files)[number];
    expect(text.split(from), `${url} contains once: ${from}`).toHaveLength(2);
    const code = stripTypeScriptTypes(text.replace(from, () => to)).replaceAll(
      /from '(\.\/[^']+)'/g,
      (__, path: string) => `from '${new URL(path, url).href}'`,
    );
    const changed = await import(/* @vite-ignore */ `data:text/javascript,${encodeURIComponent(code)}`);
    const broken = Object.entries(laws({ ...product, ...changed })).filter(([, law]) => {
      try {
        law();
        return false;
      } catch {
        return true;
      }
    });
    expect(broken.map(([name]) => name)).not.toEqual([]);
  });
});
