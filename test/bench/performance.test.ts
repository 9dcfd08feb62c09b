/** docs/performance.md against the results that it is written from, and what measures them. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { expect, it } from 'vitest';
import { keptResults, performanceFile, withResults } from '../../bench/docs.ts';
import { median, Watch } from '../../bench/measure.ts';
import { shown } from '../../bench/report.ts';

it('the figures in docs/performance.md are those of the results beside it', () => {
  const text = readFileSync(performanceFile, 'utf8');
  expect(withResults(text, keptResults())).toBe(text);
});

it('a number is shown with the digits that count', () => {
  expect(
    [0.123456, 1.23456, 12.3456, 123.456, 1_234_567, 12, Number.NaN, 'text', undefined].map(shown),
  ).toEqual(['0.12', '1.23', '12.3', '123', '1,234,567', '12', '–', 'text', '']);
});

it('the median is the value in the middle, the lower one of two', () => {
  expect(median([3, 1, 2])).toBe(2);
  expect(median([4, 1, 3, 2])).toBe(2);
  expect(median([])).toBeNaN();
});

it.skipIf(process.platform !== 'linux')(
  'a watch counts what a process and its children take',
  async () => {
    // The grandchild works and holds memory until its standard input ends.
    const work = `const end = process.cpuUsage().user + 200_000; while (process.cpuUsage().user < end);
    globalThis.held = Buffer.alloc(100_000_000, 1); console.log('worked'); process.stdin.resume();`;
    const parent = `require('node:child_process').spawn(process.execPath, ['-e', process.argv[1]], { stdio: 'inherit' });`;
    const child = spawn(process.execPath, ['-e', parent, work], { stdio: ['pipe', 'pipe', 'inherit'] });
    const watch = new Watch(child.pid ?? 0);
    try {
      await once(child.stdout, 'data');
      watch.stop();
      expect(watch.cpuSeconds()).toBeGreaterThan(0.15);
      expect(watch.cpuSeconds('no such command')).toBe(0);
      expect(watch.peakBytes).toBeGreaterThan(100_000_000);
    } finally {
      child.stdin.end();
      await once(child, 'close');
    }
  },
  180_000,
);
