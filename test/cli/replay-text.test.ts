/** What a replay prints, without a broker. */
import { expect, test } from 'vitest';
import { replayText } from '../../cli/replay-text.ts';
import type { ReplayReport } from '../../producers/replay-report.ts';

test('the plan names ids of changed groups as such: a group is compared whole', () => {
  const none = { groups: 0, ids: 0 };
  const plan = {
    ...{ rows: 500, refused: 0, isBase: false, new: none, vanished: none, unknown: none },
    changed: { groups: 1, ids: 50 },
  };
  const report = {
    datasets: {},
    absent: [],
    seconds: 0,
    plan: { 'title.ratings': plan },
  } as unknown as ReplayReport;
  const [above, heads, , line] = replayText(report).split('\n');
  expect(above).toMatch(/^plan +rows +changed +ids in changed +new/);
  expect(heads).toMatch(/^ +groups +groups +groups +ids/);
  expect(line).toMatch(/^title\.ratings +500 +1 +50 +0/);
});
