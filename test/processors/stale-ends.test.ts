/** Ends of logs are asked for while shards go on: an old answer must not make a log look too short. */
import { afterEach, beforeEach, expect, test, vi } from 'vitest';
import { Watchdog } from '../../processors/watchdog.ts';
import { createLogger } from '../../runtime/logger.ts';

beforeEach(() => {
  vi.useFakeTimers();
});
afterEach(() => {
  vi.useRealTimers();
});

// Method: two messages arrive and are applied after the broker has answered and before the watchdog looks. The log that
// then really is shorter is noticed.
test('the watchdog compares end offsets with earlier positions of the shards', async () => {
  const failures: string[] = [];
  const shard = {
    number: 0,
    topics: ['t'],
    appliedPosition: { t: 10 },
    publishedPosition: { t: 10 },
    isWaiting: false,
    deltasSeen: 0,
  };
  let end = 10;
  const watchdog = new Watchdog({
    bounds: async () => {
      const answer = new Map([['t', new Map([[0, { start: 0, end }]])]]);
      shard.appliedPosition = { t: 12 };
      return answer;
    },
    deltas: 'deltas',
    onForeignDeltas: () => undefined,
    shards: () => [shard],
    expectedPartitions: 1,
    stuckAfterMs: 60_000,
    logger: createLogger('silent'),
    onFailure: ({ kind }) => failures.push(kind),
  });
  await vi.advanceTimersByTimeAsync(3_500);
  expect(failures).toEqual([]);
  end = 11;
  await vi.advanceTimersByTimeAsync(3_500);
  expect(failures).toEqual(['sourceReplaced']);
  watchdog.stop();
});
