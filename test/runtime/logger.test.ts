/** A log line as people read it. */
import { expect, test } from 'vitest';
import { readableLine } from '../../runtime/logger.ts';

const time = new Date(2026, 10, 26, 20, 5, 9).toISOString();

test('a readable line has the local time, the message and its values', () => {
  const line = { level: 'info', time, shard: 2, position: { a: 1 }, msg: 'shard opened' };
  expect(readableLine(JSON.stringify(line))).toBe('20:05:09  shard opened  shard=2  position={"a":1}');
});

test('entries of a value have a blank between them, where a narrow terminal breaks the line', () => {
  const line = { level: 'info', time, shards: [0, 3], position: { a: 1, b: [2] }, none: null, msg: 'm' };
  expect(readableLine(JSON.stringify(line))).toBe(
    '20:05:09  m  shards=[0, 3]  position={"a":1, "b":[2]}  none=null',
  );
});

test('a warning and an error say so', () => {
  expect(readableLine(JSON.stringify({ level: 'warn', time, msg: 'waiting' }))).toBe(
    '20:05:09  WARN waiting',
  );
  expect(readableLine(JSON.stringify({ level: 'error', time, msg: 'failed' }))).toBe(
    '20:05:09  ERROR failed',
  );
});
