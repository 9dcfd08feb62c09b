/** One warning when an outage starts, one when it ends, and work that is repeated until then. */
import pino from 'pino';
import { afterEach, beforeEach, expect, test, vi } from 'vitest';
import { LogInterrupted } from '../../kafka/failures.ts';
import { OutageMonitor, unlessEnded, untilServed } from '../../kafka/outage.ts';

let said: string[];
let outages: OutageMonitor;

beforeEach(() => {
  vi.useFakeTimers();
  said = [];
  const stream = { write: (line: string) => said.push((JSON.parse(line) as { msg: string }).msg) };
  outages = new OutageMonitor(pino({}, stream), 'Kafka broker');
});
afterEach(() => {
  vi.useRealTimers();
});

test('an outage is reported once at its start and once at its end, however many activities wait', async () => {
  outages.waits('reading', 'closed');
  outages.waits('publishing', 'refused');
  await vi.advanceTimersByTimeAsync(2_900);
  expect(outages.current).toBeUndefined();
  expect(said).toEqual([]);
  await vi.advanceTimersByTimeAsync(200);
  outages.waits('reading', 'still closed');
  expect(said).toEqual(['Kafka broker outage: waiting until it ends']);
  await vi.advanceTimersByTimeAsync(21_900);
  expect(outages.current).toMatchObject({ reason: 'refused' });
  expect(outages.seconds).toBeCloseTo(25, 1);
  outages.resumes('reading');
  expect(said).toHaveLength(1);
  outages.resumes('publishing');
  outages.resumes('publishing');
  expect(said).toEqual(['Kafka broker outage: waiting until it ends', 'Kafka broker outage is over']);
  expect(outages.current).toBeUndefined();
  expect(outages.seconds).toBe(0);
});

test('an activity that gives up does not say that the outage is over', async () => {
  const stop = new AbortController();
  const work = () => Promise.reject(new LogInterrupted(new Error('closed')));
  const waiting = expect(untilServed(outages, 'publishing', work, stop.signal)).rejects.toThrow('closed');
  await vi.advanceTimersByTimeAsync(5_000);
  stop.abort();
  await waiting;
  expect(said).toEqual(['Kafka broker outage: waiting until it ends']);
  expect(outages.current).toBeUndefined();
});

test('the log names a few of many activities', async () => {
  const stream = {
    write: (line: string) => said.push(...(JSON.parse(line) as { activities: string[] }).activities),
  };
  const many = new OutageMonitor(pino({}, stream), 'Schema Registry');
  for (const topic of ['a', 'b', 'c', 'd', 'e']) many.waits(topic, 'closed');
  await vi.advanceTimersByTimeAsync(4_000);
  expect(said).toEqual(['a', 'b', 'c', 'and 2 more']);
});

test('a leader that moves is not reported', async () => {
  outages.waits('reading', 'no leader');
  await vi.advanceTimersByTimeAsync(2_000);
  outages.resumes('reading');
  await vi.advanceTimersByTimeAsync(10_000);
  expect(said).toEqual([]);
});

test('work is repeated until it is served', async () => {
  let failuresLeft = 12;
  const work = async () => {
    if (failuresLeft-- > 0) throw new LogInterrupted(new Error('closed'));
    return 'served';
  };
  const served = untilServed(outages, 'publishing', work);
  await vi.advanceTimersByTimeAsync(30_000);
  expect(await served).toBe('served');
  expect(said).toEqual(['Kafka broker outage: waiting until it ends', 'Kafka broker outage is over']);
});

test('an error that does not pass is thrown at once', async () => {
  const work = vi.fn(() => Promise.reject(new Error('a defect')));
  await expect(untilServed(outages, 'publishing', work)).rejects.toThrow('a defect');
  expect(work).toHaveBeenCalledTimes(1);
});

test('a signal ends the wait with the last failure', async () => {
  const stop = new AbortController();
  const work = vi.fn(() => Promise.reject(new LogInterrupted(new Error('closed'))));
  const waiting = expect(untilServed(outages, 'publishing', work, stop.signal)).rejects.toThrow('closed');
  await vi.advanceTimersByTimeAsync(10_000);
  const attempts = work.mock.calls.length;
  stop.abort();
  await waiting;
  expect(work).toHaveBeenCalledTimes(attempts);
  await expect(untilServed(outages, 'publishing', work, stop.signal)).rejects.toThrow('closed');
  expect(work).toHaveBeenCalledTimes(attempts + 1);
});

test('a signal gives up work in flight during an outage, and waits for it otherwise', async () => {
  const stop = new AbortController();
  const answer = Promise.withResolvers<string>();
  const waited = unlessEnded(outages, stop.signal, () => answer.promise);
  stop.abort();
  outages.waits('reading', 'closed');
  await vi.advanceTimersByTimeAsync(4_000);
  await expect(unlessEnded(outages, stop.signal, () => answer.promise)).rejects.toThrow('closed');
  const again = new AbortController();
  const given = expect(unlessEnded(outages, again.signal, () => answer.promise)).rejects.toThrow('closed');
  again.abort();
  await given;
  answer.resolve('answer');
  expect(await waited).toBe('answer');
});
