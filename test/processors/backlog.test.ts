/** Which topics of a shard are read on: played with a log that answers a fetch with a few messages of each topic. */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { Backlog } from '../../processors/backlog.ts';
import type { Position } from '../../topics/position.ts';

const perFetch = 2;

/** Answers one fetch. @returns topics that were asked for */
function fetchOnce(backlog: Backlog, ends: Readonly<Record<string, number>>, to?: Position): string[] {
  const due = backlog.due(to);
  for (const topic of due) {
    const next = backlog.nextOf(topic);
    const end = ends[topic] ?? 0;
    const messages = Array.from({ length: Math.max(0, Math.min(perFetch, end - next)) });
    backlog.sees(topic, { highWatermark: end, messages });
    backlog.moveTo(topic, next + messages.length);
  }
  return due;
}

function readingOf(topics: readonly string[]): Backlog {
  const backlog = new Backlog();
  for (const topic of topics) backlog.startAt(topic, 0);
  backlog.begin();
  return backlog;
}

describe('the backlog of a shard', () => {
  it('is read in proportion: topics come to their ends together, whatever their lengths', () => {
    fc.assert(
      fc.property(
        fc.array(fc.integer({ min: 1, max: 200 }), { minLength: 2, maxLength: 5 }),
        fc.integer({ min: 1, max: 30 }),
        (lengths, fetchesPerMicroBatch) => {
          const ends = Object.fromEntries(lengths.map((length, i) => [`t${i}`, length]));
          const backlog = readingOf(Object.keys(ends));
          const shareOf = (topic: string) => backlog.nextOf(topic) / (ends[topic] as number);
          for (let fetches = 1; Object.keys(ends).some((topic) => shareOf(topic) < 1); fetches++) {
            if (fetches % fetchesPerMicroBatch === 0) backlog.begin();
            expect(fetches).toBeLessThan(2_000);
            fetchOnce(backlog, ends);
            const open = Object.keys(ends).filter((topic) => shareOf(topic) < 1);
            // No topic is further ahead than one fetch, in each micro-batch.
            for (const one of open) {
              for (const other of open) {
                const ahead = perFetch / (ends[one] as number) + perFetch / (ends[other] as number);
                const microBatches = 1 + Math.floor(fetches / fetchesPerMicroBatch);
                expect(shareOf(one) - shareOf(other)).toBeLessThanOrEqual(ahead * microBatches);
              }
            }
          }
        },
      ),
    );
  });

  it('asks for all until the ends are known, and for those without a backlog always', () => {
    const backlog = readingOf(['long', 'short', 'none']);
    const ends = { long: 100, short: 10, none: 0 };
    expect(fetchOnce(backlog, ends)).toEqual(['long', 'short', 'none']);
    expect(fetchOnce(backlog, ends)).toEqual(['long', 'none']);
    expect(backlog.nextOf('short')).toBe(2);
    expect(backlog.ends).toEqual([
      ['long', 100],
      ['short', 10],
      ['none', 0],
    ]);
    expect(['long', 'short', 'none'].map((topic) => backlog.isBehind(topic))).toEqual([true, true, false]);
    backlog.begin();
    expect(backlog.due()).toEqual(['long', 'short', 'none']);
  });

  it('waits for no topic that gives nothing: another transaction may be open before its end', () => {
    const backlog = readingOf(['held', 'free']);
    const answer = (topic: string, messages: number, end: number) => {
      backlog.sees(topic, { highWatermark: end, messages: Array.from({ length: messages }) });
      backlog.moveTo(topic, backlog.nextOf(topic) + messages);
    };
    expect(backlog.isBehind('held')).toBe(false);
    answer('held', 0, 10);
    answer('free', 2, 10);
    expect(backlog.due()).toEqual(['held', 'free']);
    expect(['held', 'free'].map((topic) => backlog.isBehind(topic))).toEqual([false, true]);
    answer('held', 1, 10);
    expect(backlog.due()).toEqual(['held']);
  });

  it('ends at its target: later messages are not waited for', () => {
    const backlog = readingOf(['a', 'b']);
    const ends = { a: 100, b: 100 };
    const to = { a: 2, b: 50 };
    fetchOnce(backlog, ends, to);
    for (let i = 0; i < 24; i++) expect(fetchOnce(backlog, ends, to)).toContain('b');
    expect(backlog.nextOf('b')).toBe(50);
  });

  it('ignores a topic that it was not given', () => {
    const backlog = new Backlog();
    expect(backlog.nextOf('a')).toBe(0);
    expect(() => backlog.moveTo('a', 1)).toThrow(RangeError);
  });
});
