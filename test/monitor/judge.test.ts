/**
 * The judgement of a consumer: laws that hold whatever was seen, and consumers that are played with known rates. Then
 * the product with one rule changed at a time: some law has to notice each change.
 */
import { readFileSync } from 'node:fs';
import { stripTypeScriptTypes } from 'node:module';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import type { Sight, State } from '../../monitor/judge.ts';
import * as product from '../../monitor/judge.ts';

type Product = typeof product;

const spanMs = 60_000;
const lookMs = 1_000;
const startMs = 1_700_000_000_000;

interface Consumer {
  /** Messages that are left at the start. */
  readonly backlog: number;
  readonly producedPerSecond: number;
  readonly consumedPerSecond: number;
  readonly commitEveryMs: number;
  /** Does nothing before. */
  readonly idleMs?: number;
  readonly isOwned?: boolean | null;
  /** Commits the same offset again while it stands still. */
  readonly saysWhen?: boolean;
  readonly seconds: number;
}

/** What one look a second sees of a consumer that works evenly and commits now and then. */
function sightsOf(consumer: Consumer): Sight[] {
  const {
    backlog,
    producedPerSecond,
    consumedPerSecond,
    commitEveryMs,
    idleMs = 0,
    isOwned = true,
  } = consumer;
  return Array.from({ length: consumer.seconds + 1 }, (_, i): Sight => {
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

/** What one look a second sees of whoever is at these offsets. */
function playedFor(
  seconds: number,
  at: (second: number) => Pick<Sight, 'end' | 'next'> & Partial<Pick<Sight, 'readNext'>>,
): Sight[] {
  return Array.from({ length: seconds + 1 }, (_, second): Sight => {
    const about = { start: 0, isOwned: true, committedAtMs: null, readNext: null };
    return { atMs: startMs + second * lookMs, ...about, ...at(second) };
  });
}

/** Whatever can be seen: offsets that go anywhere, looks at any distance, owners that come and go. */
const anySights: fc.Arbitrary<Sight[]> = fc
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
    return steps.map(({ gapMs, ...sight }) => {
      atMs += gapMs;
      return { ...sight, atMs, readNext: null };
    });
  });

const commitEveryMs = fc.integer({ min: 200, max: spanMs / 6 });
const rate = fc.integer({ min: 20, max: 5_000 });
/** Within so many records of each other rounding decides. */
const backlogOf = fc.integer({ min: 1_000_000, max: 2_000_000 });

const withLast = (sights: readonly Sight[], change: Partial<Sight>): Sight[] => [
  ...sights.slice(0, -1),
  { ...(sights.at(-1) as Sight), ...change },
];

const with_ = (sights: readonly Sight[], change: Partial<Sight>): Sight[] =>
  sights.map((sight) => ({ ...sight, ...change }));

const later = (sights: readonly Sight[], change: Partial<Sight>): Sight[] => {
  const last = sights.at(-1) as Sight;
  return [...sights, { ...last, atMs: last.atMs + lookMs, ...change }];
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
const laws = ({ judge, paceOf, catchUpMsOf, worstOf, lagOf }: Product): Record<string, () => void> => {
  const is = (sights: readonly Sight[], state: State | null) => same(judge(sights, spanMs), state);
  return {
    'with nothing left it is OK, whatever was before': holds(
      fc.property(anySights, fc.nat(40), (sights, end) => is(withLast(sights, { end, next: end }), 'OK')),
    ),
    'without the end of the log nothing can be said': holds(
      fc.property(anySights, (sights) => is(withLast(sights, { end: null }), null)),
    ),
    'a log that ends before what was processed is an error': holds(
      fc.property(anySights, fc.nat(40), (sights, end) =>
        is(withLast(sights, { end, next: end + 1 }), 'ERR'),
      ),
    ),
    'offsets and clocks may begin anywhere': holds(
      fc.property(anySights, fc.nat(1_000), fc.nat(1_000_000), (sights, offsets, ms) => {
        const plus = (value: number | null) => (value === null ? null : value + offsets);
        const moved = sights.map((sight) => ({
          ...sight,
          atMs: sight.atMs + ms,
          start: plus(sight.start),
          end: plus(sight.end),
          next: plus(sight.next),
        }));
        is(moved, judge(sights, spanMs));
      }),
    ),
    'a short history convicts nobody who is there': holds(
      fc.property(anySights, (sights) => {
        const owned = with_(sights, { isOwned: true });
        const first = owned[0] as Sight;
        const last = owned.at(-1) as Sight;
        const state = judge(owned, last.atMs - first.atMs + 1);
        if (state === 'STALL' || state === 'WARN' || state === 'STOP') throw new Error(state);
      }),
    ),
    'who works faster than is written is OK as soon as that is seen': holds(
      fc.property(
        rate,
        commitEveryMs,
        fc.integer({ min: 20, max: 90 }),
        (producedPerSecond, every, seconds) => {
          const consumedPerSecond = producedPerSecond * 1.5;
          const backlog = 100 * consumedPerSecond;
          is(
            sightsOf({ backlog, producedPerSecond, consumedPerSecond, commitEveryMs: every, seconds }),
            seconds * 1000 > 2 * every ? 'OK' : judge([], spanMs),
          );
        },
      ),
    ),
    'who works slower than is written is WARN, however rarely it commits': holds(
      fc.property(rate, commitEveryMs, backlogOf, (consumedPerSecond, every, backlog) => {
        const producedPerSecond = consumedPerSecond * 1.5;
        is(
          sightsOf({ backlog, producedPerSecond, consumedPerSecond, commitEveryMs: every, seconds: 100 }),
          'WARN',
        );
      }),
    ),
    'who never gets behind any further, and never less, is WARN': () => {
      const even = { backlog: 5_000, producedPerSecond: 10, consumedPerSecond: 10, commitEveryMs: 1_000 };
      is(sightsOf({ ...even, seconds: 80 }), 'WARN');
    },
    'a commit that is seen late does not look like catching up': holds(
      fc.property(fc.array(fc.nat(500), { minLength: 61, maxLength: 61 }), (late) => {
        const sights = late.map((messages, i): Sight => {
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
        is(sights, 'WARN');
      }),
    ),
    'who is there and stands still is STALL': holds(
      fc.property(rate, backlogOf, fc.boolean(), (producedPerSecond, backlog, saysWhen) => {
        const still = { backlog, producedPerSecond, consumedPerSecond: 0, commitEveryMs: 5_000, saysWhen };
        is(sightsOf({ ...still, seconds: 100 }), 'STALL');
        is(sightsOf({ ...still, seconds: 59 }), null);
        // The commits of the same offset are the only sign of life where owners are unknown.
        is(sightsOf({ ...still, isOwned: null, seconds: 100 }), saysWhen ? 'STALL' : 'STOP');
      }),
    ),
    'who moved once in the span does not stand still': () => {
      const still = { backlog: 1_000, producedPerSecond: 10, consumedPerSecond: 0, commitEveryMs: 1_000 };
      const sights = sightsOf({ ...still, seconds: 60 });
      is(later(sights, { next: 1, end: 2_000 }).slice(1), 'WARN');
      is(later(sights, { next: 1_500, end: 1_600 }).slice(1), 'OK');
    },
    'nobody there with messages left is STOP at the first look': () => {
      const sight = {
        atMs: startMs,
        start: 0,
        end: 9,
        next: 4,
        isOwned: false,
        committedAtMs: null,
        readNext: null,
      };
      is([sight], 'STOP');
      is([{ ...sight, isOwned: true }], null);
      is([{ ...sight, isOwned: null }], null);
      is([{ ...sight, next: 9 }], 'OK');
    },
    'what nobody has begun is STOP, unless there is nothing to begin': () => {
      const sight = {
        atMs: startMs,
        start: 4,
        end: 9,
        next: null,
        isOwned: false,
        committedAtMs: null,
        readNext: null,
      };
      is([sight], 'STOP');
      is([{ ...sight, isOwned: true }], null);
      is([{ ...sight, isOwned: null }], null);
      is([{ ...sight, isOwned: true, start: 9 }], 'OK');
    },
    'members that are gone are STOP at once, however well they kept up': () => {
      const kept = { backlog: 0, producedPerSecond: 0, consumedPerSecond: 0, commitEveryMs: 1_000 };
      const sights = sightsOf({ ...kept, seconds: 70 });
      is(later(sights, { end: 5, isOwned: false }), 'STOP');
      is(later(later(sights, { isOwned: false }), { end: 5, isOwned: false }), 'STOP');
      // Its last commit came between two looks.
      is(later(sights, { end: 5, next: 3, isOwned: false }), 'STOP');
    },
    'who commits without being a member is not STOP, until it commits no more': holds(
      fc.property(rate, backlogOf, (perSecond, backlog) => {
        const alone = {
          producedPerSecond: perSecond,
          consumedPerSecond: perSecond * 2,
          commitEveryMs: 3_000,
        };
        let sights = sightsOf({ ...alone, backlog, isOwned: false, seconds: 10 });
        is(sights, 'OK');
        for (let i = 0; i < 58; i++) sights = later(sights, {});
        is(sights, 'OK');
        is(sights.slice(-50), 'STOP');
      }),
    ),
    'a message that has just come to a slow topic convicts nobody': () => {
      const slow = { backlog: 0, producedPerSecond: 0, consumedPerSecond: 0, commitEveryMs: 1_000 };
      for (const isOwned of [true, false, null]) {
        is(later(sightsOf({ ...slow, isOwned, seconds: 90 }), { end: 1 }), 'OK');
      }
    },
    'who went back is ERR until it has come again to where it was': () => {
      const keepsUp = { backlog: 0, producedPerSecond: 10, consumedPerSecond: 10, commitEveryMs: 1_000 };
      const sights = sightsOf({ ...keepsUp, seconds: 30 });
      const { next, end } = sights.at(-1) as Sight;
      const back = later(sights, { next: (next as number) - 5, end: (end as number) + 10 });
      is(back, 'ERR');
      is(later(back, { next: next as number }), 'OK');
    },
    'the pace is that of the consumer and of the log, however rarely it commits': holds(
      fc.property(rate, rate, commitEveryMs, fc.nat(10), (consumed, producedPerSecond, every, more) => {
        const consumedPerSecond = consumed;
        const sights = sightsOf({
          ...{ backlog: 10_000_000, producedPerSecond, consumedPerSecond },
          ...{ commitEveryMs: every, seconds: 80 + more },
        });
        const pace = paceOf(sights);
        within(pace.producedPerSecond, producedPerSecond, 0.01);
        within(pace.consumedPerSecond, consumedPerSecond, 0.05);
      }),
    ),
    'the time to catch up is what then happens': holds(
      fc.property(rate, fc.integer({ min: 200, max: 4_000 }), (producedPerSecond, every) => {
        const consumedPerSecond = producedPerSecond * 2;
        // After 60 of 200 seconds.
        const backlog = 200 * (consumedPerSecond - producedPerSecond);
        const shape = { backlog, producedPerSecond, consumedPerSecond, commitEveryMs: every };
        const sights = sightsOf({ ...shape, seconds: 60 });
        within(catchUpMsOf([{ sights, weight: 1 }], spanMs), 140_000, 0.2);
      }),
    ),
    'neither a late beginning nor seldom commits make the time to catch up another': holds(
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
            const sights = sightsOf({ ...shape, seconds });
            const leftMs = (200 + 2 * idle - seconds) * 1_000;
            within(catchUpMsOf([{ sights, weight: 1 }], spanMs), leftMs, 0.06);
          }
        },
      ),
    ),
    'a commit that is overdue means that it takes longer; one that is due soon does not': () => {
      const sights = sightsOf({
        ...{ backlog: 1_000, producedPerSecond: 0, consumedPerSecond: 10 },
        ...{ commitEveryMs: 10_000, seconds: 30 },
      });
      const later = (seconds: number) =>
        Array.from({ length: seconds }, (_, i) => ({
          ...(sights.at(-1) as Sight),
          atMs: startMs + (31 + i) * lookMs,
        }));
      const catchUpAfter = (seconds: number) =>
        catchUpMsOf([{ sights: [...sights, ...later(seconds)], weight: 1 }], spanMs) as number;
      same(Math.round(catchUpAfter(0)), 70_000);
      same(Math.round(catchUpAfter(9)), 61_000);
      // Of the newer half of the span, 30 s, it worked 20 as far as anybody knows: 600 are left at 200 in 30 s.
      same(Math.round(catchUpAfter(20)), 90_000);
    },
    'the last few commits tell the pace, however fast or slow it was before': () => {
      // One a second for half a minute, then four, committed every so many seconds.
      const timeOf = (seconds: number, every: number, ...others: Sight[][]) => {
        const at = (second: number) => (second <= 30 ? second : 30 + 4 * (second - 30));
        const sights = playedFor(seconds, (second) => ({
          end: 1_000,
          next: at(Math.floor(second / every) * every),
        }));
        return catchUpMsOf(
          [sights, ...others].map((each) => ({ sights: each, weight: 1 })),
          spanMs,
        );
      };
      // A sixth of the span, 10 s; in a second less one was slow.
      same(timeOf(40, 1), ((1_000 - 70) / 4) * 1_000);
      same(timeOf(39, 1), ((1_000 - 66) / 37) * 10_000);
      // Three times five seconds; half of the span.
      same(timeOf(45, 5), ((1_000 - 90) / 4) * 1_000);
      same(timeOf(40, 5), ((1_000 - 70) / 45) * 15_000);
      same(timeOf(60, 15), ((1_000 - 150) / 4) * 1_000);
      const done = playedFor(40, (s) => ({ end: 9, next: Math.min(9, Math.floor(s / 10) * 4.5) }));
      same(timeOf(40, 1, done), timeOf(40, 1));
    },
    'the waiting before the first commit is no work': () => {
      const sights = playedFor(25, (seconds) => ({ end: 400, next: 10 * Math.max(0, seconds - 15) }));
      same(catchUpMsOf([{ sights, weight: 1 }], spanMs), 30_000);
    },
    'partitions that are committed in steps of their own, by turns, are worked off evenly': holds(
      fc.property(fc.integer({ min: 2, max: 8 }), fc.integer({ min: 20, max: 59 }), (count, seconds) => {
        // 100 a second each, of 10,000; each commits every eight seconds, at another time than the others.
        const parts = Array.from({ length: count }, (_, i) => ({
          weight: 1,
          sights: playedFor(seconds, (second) => {
            const commits = Math.floor((second + i) / 8);
            return { end: 10_000, next: Math.max(0, 100 * (8 * commits - i)) };
          }),
        }));
        within(catchUpMsOf(parts, spanMs), (100 - seconds) * 1_000, 0.02);
      }),
    ),
    'what is read counts as done, and what was done since the last commit': () => {
      const parts = (readNext: number | null) => [
        { weight: 1, sights: playedFor(24, (s) => ({ end: 1_000, next: 50 * Math.floor(s / 5), readNext })) },
      ];
      same(catchUpMsOf(parts(null), spanMs), 76_000);
      same(catchUpMsOf(parts(300), spanMs), 66_000);
      // Whoever has read before it committed anew has read nothing beyond.
      same(catchUpMsOf(parts(100), spanMs), 76_000);
      same(catchUpMsOf(parts(990), spanMs), 0);
    },
    'what is as good as done takes no time, never less': () => {
      // All is read, and as much is written as is processed.
      const sights = playedFor(60, (s) => ({ end: 10 + 10 * s, next: 10 * s, readNext: 10 + 10 * s }));
      same(catchUpMsOf([{ sights, weight: 1 }], spanMs), 0);
      const stands = playedFor(60, () => ({ end: 20, next: 10, readNext: 20 }));
      same(catchUpMsOf([{ sights: stands, weight: 1 }], spanMs), Number.POSITIVE_INFINITY);
      // By its pace 145 of 105 would be done, and it has read all: that is no work less for the other one.
      const nearly = playedFor(29, (s) => ({ end: 105, next: 50 * Math.floor(s / 10), readNext: 105 }));
      const behind = playedFor(29, (s) => ({ end: 1_000 + 10 * s, next: 10 * s }));
      const found = catchUpMsOf(
        [nearly, behind].map((sights) => ({ sights, weight: 1 })),
        spanMs,
      );
      // In 28 s 100 of the one (5 were done in the first second) and as much of the other as was written.
      within(found, (1_000 / 100) * 28_000, 0.001);
    },
    'partitions that one member works off one after the other take as long as both': () => {
      // 10 a second: first of the one, then of the other, which says nothing before it is begun.
      const first = playedFor(59, (s) => ({ end: 1_000, next: Math.min(200, 10 * s) }));
      const then = playedFor(59, (s) => ({ end: 1_000, next: s <= 20 ? null : 10 * (s - 20) }));
      const timeOf = (...parts: [Sight[], number][]) =>
        catchUpMsOf(
          parts.map(([sights, weight]) => ({ sights, weight })),
          spanMs,
        );
      // After its last commit the one may have done as much again as with each before.
      within(timeOf([first, 1], [then, 1]), 140_000, 0.001);
      // 790 threefold and 610 at 10 a second.
      within(timeOf([first, 3], [then, 1]), 298_000, 0.001);
      same(timeOf([first, 1], [withLast(then, { next: null }), 1]), null);
      same(timeOf([first, 1], [withLast(then, { end: null }), 1]), null);
      same(timeOf([[], 1]), null);
      const done = playedFor(59, (s) => ({ end: 5, next: Math.min(5, s) }));
      same(timeOf([done, 1]), 0);
    },
    'one step does not tell how long it took, before the whole span was seen': () => {
      const step = (seconds: number) => playedFor(seconds, (s) => ({ end: 100, next: s < 10 ? 0 : 60 }));
      const done = (seconds: number) => playedFor(seconds, (s) => ({ end: 9, next: s < 10 ? 0 : 9 }));
      const timeOf = (...parts: Sight[][]) =>
        catchUpMsOf(
          parts.map((sights) => ({ sights, weight: 1 })),
          spanMs,
        );
      same(timeOf(step(59)), null);
      same(timeOf(step(60)), 40_000);
      const steady = playedFor(59, (s) => ({ end: 1_000, next: 10 * s }));
      same(timeOf(steady, step(59)), null);
      within(timeOf(steady, done(59)), 41_000, 0.001);
      const waiting = playedFor(59, () => ({ end: 90, next: 0 }));
      same(timeOf(done(59), waiting), null);
      // A first commit is one, if it was seen that there was none before.
      const begun = playedFor(25, (s) => ({ end: 1_000, next: s < 10 ? null : 100 * Math.floor(s / 10) }));
      within(timeOf(begun), 75_000, 0.001);
      same(timeOf(begun.slice(10)), null);
      // That it begins where the log does, and how long it then took to the first, tells nothing.
      const opened = begun.map((sight, s) => ({ ...sight, next: sight.next ?? (s < 4 ? null : 0) }));
      within(timeOf(opened), 75_000, 0.001);
      same(timeOf(opened.slice(0, 20)), null);
    },
    'it never catches up only when that was seen for the whole span': () => {
      const timeOf = (seconds: number, perSecond: number) => {
        const sights = playedFor(seconds, (s) => ({ end: 500 + 10 * s, next: perSecond * s }));
        return catchUpMsOf([{ sights, weight: 1 }], spanMs);
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
    'of one look, or of looks at one moment, there is no pace': () => {
      const sights = sightsOf({
        ...{ backlog: 5, producedPerSecond: 1, consumedPerSecond: 1 },
        ...{ commitEveryMs: 1_000, seconds: 1 },
      });
      same(paceOf(sights.slice(1)).consumedPerSecond, null);
      same(paceOf(with_(sights, { atMs: startMs })).producedPerSecond, null);
      same(paceOf(with_(sights, { next: null })).producedPerSecond, null);
    },
    'a whole is as bad as its worst part, and not OK while a part is unknown': () => {
      same(worstOf(['OK', 'WARN', 'OK']), 'WARN');
      same(worstOf(['STALL', null, 'STOP', 'ERR']), 'STOP');
      same(worstOf(['OK', null]), null);
      same(worstOf(['OK', 'OK']), 'OK');
    },
    'what is left is unknown where an offset is, and where the log ends before it': () => {
      same(lagOf({ end: 5, next: 5 }), 0);
      same(lagOf({ end: 5, next: 2 }), 3);
      same(lagOf({ end: 5, next: null }), null);
      same(lagOf({ end: null, next: 5 }), null);
      same(lagOf({ end: 4, next: 5 }), null);
    },
  };
};

describe('judging a consumer', () => {
  it.each(Object.entries(laws(product)))('%s', (_, law) => law());
});

/** What is changed in the product, each something that somebody might have thought as good. */
const mutants: readonly (readonly [name: string, from: string, to: string])[] = [
  ['an end that is unknown passes', 'now === undefined || now.end === null', 'now === undefined'],
  ['nothing to begin is unknown', `return end === now.start ? 'OK' : `, 'return '],
  ['what is not begun is unknown', `now.isOwned === false ? 'STOP' : null`, 'null'],
  ['a log that was replaced is fine', `if (next > end) return 'ERR';`, ''],
  ['nothing left can be bad', `if (next === end) return 'OK';`, ''],
  ['nobody ever stops', `if (hasStopped(sights, spanMs)) return 'STOP';`, ''],
  ['going back is fine', 'sight.next > next)', 'sight.next > next && false)'],
  ['having kept up does not count', `if (sights.some(isCaughtUp)) return 'OK';`, ''],
  ['catching up does not count', `if (lagDecreases(sights, spanMs)) return 'OK';`, ''],
  ['a short history convicts', 'if (!isFull(sights, spanMs)) return null;', ''],
  ['standing still is slow', `? 'STALL' : 'WARN'`, `? 'WARN' : 'WARN'`],
  ['slow is standing still', `? 'STALL' : 'WARN'`, `? 'STALL' : 'STALL'`],
  ['the same offset committed again is no commit', ' || sight.committedAtMs !== before.committedAtMs', ''],
  ['who is there can have stopped', 'if (isOwned === true) return false;', ''],
  [
    'an unknown owner never stops',
    'return isFull(sights, spanMs) && !hasCommitted',
    'return false && !hasCommitted',
  ],
  [
    'an unknown owner stops at once',
    'return isFull(sights, spanMs) && !hasCommitted',
    'return !hasCommitted',
  ],
  ['an unknown owner may not commit', ' && !hasCommitted(sights) &&', ' &&'],
  ['a slow topic stops an unknown owner', ' && !sights.some(isCaughtUp);', ';'],
  ['commits without membership do not count', 'if (hasCommitted(alone)) return false;', ''],
  [
    'the last commit of a member counts for nobody',
    '(sight) => sight.isOwned !== false) + 1',
    '(sight) => sight.isOwned !== false)',
  ],
  ['members that are gone may have kept up', 'return alone.length < sights.length || ', 'return '],
  ['a slow topic stops who is no member', ' || !alone.some(isCaughtUp);', ' || true;'],
  [
    'what is left between commits counts',
    'i > 0 && next !== known[i - 1]?.next);\n  // How',
    'i > 0 && next !== undefined);\n  // How',
  ],
  ['the first sight counts as a commit', 'if (commits.length < 2) commits', 'commits'],
  ['a single commit shows nothing', 'if (commits.length < 2) commits.unshift(first);', ''],
  ['the most after a commit counts', 'Math.min(lag, least', 'Math.max(lag, least'],
  ['as much as before is less', 'i > 0 && lag < (lags', 'i > 0 && lag <= (lags'],
  [
    'the pace is that of the ends',
    'mean(([at, value]) => (at - x0 - x) * (value - y0 - y)) / spread',
    '((points.at(-1) as any)[1] - y0) / ((points.at(-1) as any)[0] - x0)',
  ],
  ['a moment has a pace', 'spread === 0 ? null :', 'spread === 0 ? 0 :'],
  ['what is unknown is nothing', 'if (all.some(({ lag }) => lag === null)) return null;', ''],
  ['nothing left takes a time', 'if (sum(({ lag }) => lag as number) === 0) return 0;', ''],
  ['a message counts for one', 'part.weight * of(part)', 'of(part)'],
  ['one step tells how long it took', '(isOneStep || !hasSteps)', '!hasSteps'],
  ['no step tells a pace', '(isOneStep || !hasSteps)', 'isOneStep'],
  ['a step of what is done is waited for', 'lag !== 0 && commitsMs.length === 1', 'commitsMs.length === 1'],
  ['one step is not enough for ever', 'if (!isWhole && (', 'if ((isOneStep || !isWhole) && ('],
  ['the whole span tells the pace', 'spanMs / 6), spanMs / 2)', 'spanMs / 6), spanMs)'],
  ['half of the span tells the pace', 'Math.max(stepsMs, spanMs / 6)', 'Math.max(stepsMs, spanMs / 2)'],
  ['few commits tell the pace', 'const paceSteps = 3', 'const paceSteps = 2'],
  [
    'how seldom the done is committed counts',
    'lag === 0 ? 0 : paceSteps',
    'lag === 0 ? paceSteps * stepMs : paceSteps',
  ],
  ['the time before the first commit counts', 'Math.max(begunMs, nowMs', 'Math.max(0, nowMs'],
  ['one step happened now', ' : nowMs - spanMs;', ' : nowMs - spanMs / 2;'],
  ['what is read is not done', ' - ahead)', ')'],
  ['who has read nothing more has unread it', 'ahead: Math.max(0, ', 'ahead: Math.max(-1e9, '],
  ['what one has read is read by all', 'Math.max(0, valueAt(ends', '(0, valueAt(ends'],
  ['all that is read is never processed', 'if (toRead === 0 && consumed > 0) return 0;', ''],
  ['who stands still has read all', 'toRead === 0 && consumed > 0', 'toRead === 0'],
  [
    'nothing is written meanwhile',
    'if (consumed > produced) return (toRead / (consumed - produced))',
    'if (consumed > produced) return (toRead / consumed)',
  ],
  ['standing still catches up', 'if (consumed > produced)', 'if (consumed >= produced)'],
  [
    'never is said early',
    'return isWhole ? Number.POSITIVE_INFINITY : null;',
    'return Number.POSITIVE_INFINITY;',
  ],
  [
    'any work has been seen for the whole span',
    'isFull(sights, spanMs));\n  // Of one',
    'true);\n  // Of one',
  ],
  ['work is done when it is committed', 'from + ((to - from) * (atMs - fromMs)) / (toMs - fromMs)', 'from'],
  ['what is not committed is not done', 'done.push([last[0]', 'done.slice([last[0]'],
  ['an overdue commit does not count', 'Math.min(nowMs - last[0], stepMs)', 'nowMs - last[0]'],
  ['more may be done than there is', 'Math.min(now?.end ?? 0, last[1] + more)', 'last[1] + more'],
  ['the first look is a commit', 'moves[i] !== sights[0] && ', ''],
  ['the first commit that was seen is none', 'moves[i] !== sights[0] && ', 'i > 0 && '],
  ['to be at the start is work', ' && moves[i]?.next !== moves[i]?.start', ''],
  ['unknown parts are OK', ` && all.includes(null) ? null`, ' && false ? null'],
  ['a log that ended earlier has a lag', ' || next > end ? null', ' ? null'],
];

describe('a judgement that is changed', () => {
  const text = readFileSync(new URL('../../monitor/judge.ts', import.meta.url), 'utf8');

  it.each(mutants)('breaks a law: %s', async (_, from, to) => {
    expect(text.split(from), `monitor/judge.ts has exactly one: ${from}`).toHaveLength(2);
    const code = stripTypeScriptTypes(text.replace(from, () => to));
    const changed = (await import(
      /* @vite-ignore */ `data:text/javascript,${encodeURIComponent(code)}`
    )) as Product;
    const broken = Object.entries(laws(changed)).filter(([, law]) => {
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
