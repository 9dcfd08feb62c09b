/**
 * The judgement of a consumer: laws that hold whatever was seen, and consumers that are played with known rates. Then
 * the product with one rule changed at a time: some law has to notice each change.
 */
import { readFileSync } from 'node:fs';
import { stripTypeScriptTypes } from 'node:module';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import type { Sight, State } from '../monitor/judge.ts';
import * as product from '../monitor/judge.ts';

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
    return { atMs: startMs + ms, start: 0, end, next, isOwned, committedAtMs };
  }).slice(-(spanMs / lookMs) - 1);
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
      return { ...sight, atMs };
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
const laws = ({
  judge,
  paceOf,
  workOf,
  catchUpMsOf,
  worstOf,
  lagOf,
}: Product): Record<string, () => void> => {
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
          return { atMs: startMs + i * lookMs, start: 0, end, next: i, isOwned: true, committedAtMs: null };
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
      const sight = { atMs: startMs, start: 0, end: 9, next: 4, isOwned: false, committedAtMs: null };
      is([sight], 'STOP');
      is([{ ...sight, isOwned: true }], null);
      is([{ ...sight, isOwned: null }], null);
      is([{ ...sight, next: 9 }], 'OK');
    },
    'what nobody has begun is STOP, unless there is nothing to begin': () => {
      const sight = { atMs: startMs, start: 4, end: 9, next: null, isOwned: false, committedAtMs: null };
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
        within(catchUpMsOf(workOf([{ sights, weight: 1 }], spanMs)), 140_000, 0.2);
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
            within(catchUpMsOf(workOf([{ sights, weight: 1 }], spanMs)), leftMs, 0.06);
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
        catchUpMsOf(workOf([{ sights: [...sights, ...later(seconds)], weight: 1 }], spanMs)) as number;
      same(Math.round(catchUpAfter(0)), 70_000);
      same(Math.round(catchUpAfter(9)), 61_000);
      // 20 s for 10 s of work: as if it had taken half as long again, of which a commit's worth is done.
      same(Math.round(catchUpAfter(20)), 95_000);
    },
    'what is as good as done takes no time, never less': () => {
      const work = { left: 5, done: 8, lessPerSecond: 1, moves: 9, isFull: true };
      same(catchUpMsOf(work), 0);
    },
    'partitions that one member works off one after the other take as long as both': () => {
      const sightsAt = (nexts: readonly (number | null)[]) =>
        nexts.map((next, i): Sight => {
          const atMs = startMs + i * lookMs;
          return { atMs, start: 0, end: 1_000, next, isOwned: true, committedAtMs: null };
        });
      // 10 a second: first of the one, then of the other, which says nothing before it is begun.
      const first = sightsAt(Array.from({ length: 60 }, (_, i) => Math.min(200, 10 * i)));
      const then = sightsAt(Array.from({ length: 60 }, (_, i) => (i <= 20 ? null : 10 * (i - 20))));
      const both = workOf(
        [first, then].map((sights) => ({ sights, weight: 1 })),
        spanMs,
      );
      same(both.left, 800 + 610);
      within(both.lessPerSecond, 10, 0.001);
      same(both.moves, 38);
      same(both.isFull, false);
      const weighed = workOf([{ sights: first, weight: 3 }], spanMs);
      same(weighed.left, 2_400);
      same(workOf([{ sights: first, weight: 1 }], 59_000).isFull, true);
      const unknownNow = [first, sightsAt([...then.slice(0, -1).map(({ next }) => next), null])];
      same(
        workOf(
          unknownNow.map((sights) => ({ sights, weight: 1 })),
          spanMs,
        ).left,
        null,
      );
      same(workOf([{ sights: [], weight: 1 }], spanMs).left, null);
    },
    'it never catches up only when that was seen for the whole span': () => {
      const work = { left: 10, done: 0, lessPerSecond: -1, moves: 9, isFull: true };
      same(catchUpMsOf(work), Number.POSITIVE_INFINITY);
      same(catchUpMsOf({ ...work, lessPerSecond: 0 }), Number.POSITIVE_INFINITY);
      same(catchUpMsOf({ ...work, isFull: false }), null);
      same(catchUpMsOf({ ...work, lessPerSecond: 0, isFull: false }), null);
      same(catchUpMsOf({ ...work, lessPerSecond: 2 }), 5_000);
      same(catchUpMsOf({ ...work, lessPerSecond: 2, isFull: false }), 5_000);
      same(catchUpMsOf({ ...work, lessPerSecond: 2, isFull: false, moves: 1 }), null);
      same(catchUpMsOf({ ...work, lessPerSecond: null }), null);
      same(catchUpMsOf({ ...work, left: null }), null);
      same(catchUpMsOf({ ...work, left: 0 }), 0);
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
  ['looks count that know only some', 'known === partitions.length).sort', 'known > 0).sort'],
  ['what is left now may be that of before', 'sums.get(nowMs)?.known === partitions.length ?', 'true ?'],
  ['a message counts for one', 'lag * weight', 'lag'],
  ['what is left gets more', 'paceOver(({ lag }) => -lag)', 'paceOver(({ lag }) => lag)'],
  ['the time before the first commit counts', 'commits.length < 2 ? whole : commits', 'whole'],
  ['what is not committed is not done', 'Math.max(0, left - done)', 'left'],
  ['more may be done than there is', 'Math.max(0, left - done)', '(left - done)'],
  ['what a commit holds is done twice over', 'Math.min(nowMs - lastMs, ', '(0, nowMs - lastMs, '],
  ['an overdue commit does not count', 'pace / slowness', 'pace'],
  ['any work has been seen for the whole span', 'nowMs - firstMs >= spanMs', 'true'],
  ['one step tells how long it took', 'if (moves < 2 && !isFull) return null;', ''],
  [
    'never is said early',
    'return isFull ? Number.POSITIVE_INFINITY : null;',
    'return Number.POSITIVE_INFINITY;',
  ],
  ['standing still catches up', 'if (lessPerSecond > 0)', 'if (lessPerSecond >= 0)'],
  ['unknown parts are OK', ` && all.includes(null) ? null`, ' && false ? null'],
  ['a log that ended earlier has a lag', ' || next > end ? null', ' ? null'],
];

describe('a judgement that is changed', () => {
  const text = readFileSync(new URL('../monitor/judge.ts', import.meta.url), 'utf8');

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
