/** The wall clock. It may step, so an interval is measured by `performance.now()`; each use of `Date.now()` is named here. */
import { expect, test } from 'vitest';
import { projectTexts } from './prose.ts';

/** Sources that read the wall clock, and why. */
const uses: Readonly<Record<string, string>> = {
  'kafka/clocks.ts': 'translates the moments of kafkajs',
  'kafka/oauth.ts': 'the end of a token is a date',
  'kafka/security.ts': 'the validity of a certificate is a date',
  'monitor/lag-watch.ts': 'the age of messages, which producers stamp',
  'monitor/overview.ts': 'the date of a view',
  'processors/cube-base.ts': 'the date of a message',
  'processors/filling.ts': 'windows end at multiples of their period',
  'processors/offset-commits.ts': 'the date of a commit',
  'processors/reset-marks.ts': 'the date of a message',
  'producers/refresh/kafka-logs.ts': "the broker's date, where it gives none",
  'producers/sender.ts': 'the date of a message',
  'runtime/registry-http.ts': 'Retry-After may be a date',
  'sinks/intake.ts': 'the date of a commit',
};

const stages = /^(cli|database|flink|kafka|monitor|processors|producers|runtime|sinks|tables|topics)\//;

test('a source reads the wall clock only for a date', () => {
  const found = [...projectTexts()]
    .filter(([path, text]) => stages.test(path) && path.endsWith('.ts') && text.includes('Date.now()'))
    .map(([path]) => path);
  expect(found.sort()).toEqual(Object.keys(uses).sort());
});
