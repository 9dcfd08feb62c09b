/** Creating topics on a real broker. */

import kafkajs from 'kafkajs';
import { expect } from 'vitest';
import { withAdmin } from '../../kafka/client.ts';
import { ensureRetainedTopics } from '../../kafka/topics.ts';
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
