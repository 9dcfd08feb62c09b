/** Creating topics on a real broker. */

import kafkajs from 'kafkajs';
import { expect } from 'vitest';
import { type Broker, withAdmin } from '../../kafka/client.ts';
import { commonCount, deleteBefore, ensureRetainedTopics, partitionCounts } from '../../kafka/topics.ts';
import { broker, limitOf, test } from '../support/harness.ts';

// Method: fresh topics, some rounds, and as many clients at once as there may be stages on a new namespace.
test('clients that create the same topics at the same moment all find them', async ({ place }) => {
  for (let round = 0; round < 5; round++) {
    const specs = Array.from({ length: 6 }, (_, n) => ({
      topic: `${place.namespace}.${round}-${n}`,
      partitions: 4,
    }));
    await Promise.all(Array.from({ length: 4 }, () => ensureRetainedTopics(broker, specs)));
  }
});

test('a topic that is trimmed has the segments that were asked for', async ({ place }) => {
  const topic = `${place.namespace}.trimmed`;
  await ensureRetainedTopics(broker, [{ topic, partitions: 1, segmentBytes: 4_194_304 }]);
  const { resources } = await withAdmin(broker, (admin) =>
    admin.describeConfigs({
      includeSynonyms: false,
      resources: [{ type: kafkajs.ConfigResourceTypes.TOPIC, name: topic, configNames: ['segment.bytes'] }],
    }),
  );
  expect(resources[0]?.configEntries).toMatchObject([
    { configName: 'segment.bytes', configValue: '4194304' },
  ]);
});

test('a topic whose message limit is below the largest message is refused, with the setting', async ({
  place,
}) => {
  const topic = `${place.namespace}.small`;
  const spec = { topic, partitions: 1, valueBytesMax: 1_000_000 };
  await ensureRetainedTopics(broker, [spec]);
  await withAdmin(broker, (admin) => admin.alterConfigs(limitOf(topic, 50_000)));
  await expect(ensureRetainedTopics(broker, [spec])).rejects.toMatchObject({
    kind: 'brokerRefused',
    message: expect.stringContaining(topic),
    detail: expect.stringContaining('max.message.bytes is 50000'),
  });
  await ensureRetainedTopics(broker, [{ topic, partitions: 1, valueBytesMax: 10_000 }]);
});

test('a deletion behind the end of a topic says so', async ({ place }) => {
  const topic = `${place.namespace}.short`;
  await ensureRetainedTopics(broker, [{ topic, partitions: 1 }]);
  await expect(deleteBefore(broker, topic, [{ partition: 0, offset: 7 }])).rejects.toThrow(
    'not within the range of offsets',
  );
});

test('topics with several partition counts are named with their counts, as no other count fits them', () => {
  const counts = new Map([...'abc'].map((topic) => [topic, topic === 'c' ? 3 : 1] as const));
  expect(commonCount(counts, ['a', 'none', 'b'])).toBe(1);
  expect(commonCount(counts, ['none'])).toBeUndefined();
  expect(() => commonCount(counts, ['a', 'b', 'c', 'none'])).toThrow(
    expect.objectContaining({
      kind: 'topicMismatch',
      detail: expect.stringMatching(/^1 partition: a, b\. 3 partitions: c\. /),
      hint: expect.stringContaining('no --shards fits'),
    }),
  );
});

test('a topic with another partition count is refused before the missing ones are created', async ({
  place,
}) => {
  const [three, missing] = ['three', 'missing'].map((name) => `${place.namespace}.${name}`) as [
    string,
    string,
  ];
  await ensureRetainedTopics(broker, [{ topic: three, partitions: 3 }]);
  const specs = [three, missing].map((topic) => ({ topic, partitions: 1 }));
  await expect(ensureRetainedTopics(broker, specs)).rejects.toMatchObject({
    kind: 'topicMismatch',
    hint: expect.stringMatching(/^Use --shards 3,/),
  });
  expect(await partitionCounts(broker, [three, missing])).toEqual(new Map([[three, 3]]));
});

// Method: a real broker elects a leader too soon to be met without one, so a fake admin client answers.
test('a deletion waits until the partitions of a fresh topic have a leader', async () => {
  const deleted: unknown[] = [];
  let looks = 0;
  const admin = {
    connect: async () => undefined,
    disconnect: async () => undefined,
    fetchTopicOffsets: async () => {
      looks += 1;
      if (looks < 3) throw Object.assign(new Error('not the leader'), { type: 'NOT_LEADER_FOR_PARTITION' });
      return [];
    },
    deleteTopicRecords: async (request: unknown) => deleted.push(request),
  };
  const withFake = { ...broker, createAdmin: () => admin } as unknown as Broker;
  await deleteBefore(withFake, 'fresh', [{ partition: 0, offset: 7 }]);
  expect(deleted).toEqual([{ topic: 'fresh', partitions: [{ partition: 0, offset: '7' }] }]);
});
