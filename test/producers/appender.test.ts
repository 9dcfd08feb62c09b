/**
 * Appends to a real broker: each batch once, and none of a run that a later one has replaced. A held request of a dead
 * run is played by an appender that goes on after its successor has written.
 */
import { randomBytes } from 'node:crypto';
import { afterEach, beforeEach, expect, inject, test } from 'vitest';
import { createBroker } from '../../kafka/client.ts';
import { scanTopic } from '../../kafka/scan.ts';
import { deleteBefore, ensureRetainedTopics } from '../../kafka/topics.ts';
import { Appender } from '../../producers/appender.ts';
import { marginBytes } from '../../producers/chunk-header.ts';
import type { ProducerStamp } from '../../producers/producer-identity.ts';
import { batchOfPacked, packRecordSync } from '../../producers/record-batch.ts';
import { createLogger } from '../../runtime/logger.ts';

const broker = createBroker(
  { brokers: inject('brokers'), registryUrl: inject('registryUrl') },
  createLogger('silent'),
);
let topic: string;
let appenders: Appender[];

beforeEach(async () => {
  topic = `appender-${randomBytes(6).toString('hex')}`;
  appenders = [];
  await ensureRetainedTopics(broker, [{ topic, partitions: 2 }]);
});
afterEach(async () => {
  await Promise.all(appenders.map((each) => each.close()));
});

async function newRun(): Promise<Appender> {
  const appender = new Appender(broker);
  appenders.push(appender);
  await appender.connect();
  return appender;
}

function messageOf(text: string) {
  const memory = Buffer.alloc(2 * marginBytes + text.length);
  memory.write(text, marginBytes);
  return { memory, value: memory.subarray(marginBytes, marginBytes + text.length), key: 'key' };
}

function append(
  appender: Appender,
  partition: number,
  text: string,
  { skips = 0, onlyBehind = false } = {},
): Promise<number | undefined> {
  const message = messageOf(text);
  const build = ({ sequence, ...stamp }: ProducerStamp) => {
    const skipping = { ...stamp, sequence: sequence + skips };
    return batchOfPacked(packRecordSync(message), Date.now(), skipping);
  };
  return appender.append(topic, partition, build, onlyBehind);
}

async function texts(): Promise<string[]> {
  const found: string[] = [];
  for await (const { messages } of scanTopic(broker, topic)) {
    found.push(...messages.map(({ value }) => String(value)));
  }
  return found.sort();
}

test('a batch of an earlier run is refused once a later run has written to the partition', async () => {
  const earlier = await newRun();
  await append(earlier, 0, 'earlier');
  const later = await newRun();
  await append(later, 0, 'later');
  await expect(append(earlier, 0, 'late')).rejects.toMatchObject({
    kind: 'busy',
    message: expect.stringContaining('later replay'),
  });
  // The earlier run's epoch is still the newest one that partition 1 has seen.
  await append(earlier, 1, 'not fenced yet');
  expect(await texts()).toEqual(['earlier', 'later', 'not fenced yet']);
});

test('a producer whose state the broker has lost continues with a new epoch', async () => {
  const appender = await newRun();
  await append(appender, 0, 'first');
  await deleteBefore(broker, topic, [{ partition: 0, offset: 1 }]);
  await append(appender, 0, 'second');
  expect(await texts()).toEqual(['second']);
});

// Method: a sequence number that skips one, which is what the broker sees when it has lost the batch before.
test('a batch that may only follow the one before is not appended when the broker has lost that one', async () => {
  const appender = await newRun();
  await append(appender, 0, 'first');
  expect(await append(appender, 0, 'refused', { skips: 1, onlyBehind: true })).toBeUndefined();
  expect(await texts()).toEqual(['first']);
  expect(appender.renewals(topic)).toBe(1);
  // The new identity has appended nothing that the broker could have lost.
  expect(await append(appender, 1, 'refused', { onlyBehind: true })).toBeUndefined();
  expect(await append(appender, 0, 'second')).toBe(1);
});

// Method: the stamp of a batch that the broker holds, which is what a repeated request carries.
test('a batch that is sent again with its sequence number is in the log once', async () => {
  const appender = await newRun();
  const message = messageOf('x');
  let first: ProducerStamp | undefined;
  for (let i = 0; i < 2; i++) {
    await appender.append(topic, 0, (stamp) => {
      first ??= stamp;
      return batchOfPacked(packRecordSync(message), 0, first);
    });
  }
  expect(await texts()).toEqual(['x']);
});
