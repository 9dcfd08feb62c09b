/** Moments that kafkajs keeps, while the wall clock steps back by an hour. Method: its queue of requests, without a broker. */
import { setTimeout as sleep } from 'node:timers/promises';
import RequestQueue from 'kafkajs/src/network/requestQueue/index.js';
import { afterEach, expect, test, vi } from 'vitest';
import '../../kafka/clocks.ts';
import { until } from '../support/harness.ts';

const realNow = Date.now;
const stepBack = () => vi.spyOn(Date, 'now').mockImplementation(() => realNow() - 3_600_000);
afterEach(() => {
  vi.restoreAllMocks();
});

const queue = () =>
  new RequestQueue({
    maxInFlightRequests: null,
    requestTimeout: 200,
    enforceRequestTimeout: true,
    clientId: 'test',
    broker: 'test',
    logger: { debug: () => undefined },
  });

/** @returns how often the request was sent, and how it was refused */
function push(requests: RequestQueue) {
  const seen = { sent: 0, refused: '' };
  requests.push({
    entry: {
      correlationId: 1,
      reject: ({ name }) => {
        seen.refused = name;
      },
    },
    expectResponse: true,
    requestTimeout: null,
    sendRequest: () => {
      seen.sent++;
    },
  });
  return seen;
}

test('a request without an answer times out', async () => {
  const requests = queue();
  requests.scheduleRequestTimeoutCheck();
  const seen = push(requests);
  stepBack();
  await until('it is refused', () => seen.refused === 'KafkaJSRequestTimeoutError', 10_000);
  requests.destroy();
});

test('a throttled request is sent when the broker takes requests again, not before', async () => {
  const requests = queue();
  requests.maybeThrottle(500);
  const seen = push(requests);
  stepBack();
  await sleep(100);
  expect(seen.sent).toBe(0);
  await until('it is sent', () => seen.sent === 1, 10_000);
  requests.destroy();
});
