/** Start and end offsets of partitions. */
import { expect } from 'vitest';
import { availableLogBounds, existingLogBounds, logBounds, UnknownTopic } from '../../kafka/bounds.ts';
import { ensureRetainedTopics } from '../../kafka/topics.ts';
import { broker, test } from '../support/harness.ts';

interface ListedTopic {
  readonly topic: string;
  readonly partitions: readonly { readonly timestamp: number }[];
}

/** A broker whose cluster fails the first requests for offsets with these protocol errors. */
function failing(types: string[]): typeof broker {
  const cluster = {
    connect: async () => undefined,
    disconnect: async () => undefined,
    addMultipleTargetTopics: async () => undefined,
    findTopicPartitionMetadata: () => [{ partitionId: 0, leader: 0 }],
    findLeaderForPartitions: () => ({ 0: [0] }),
    findBroker: async () => ({
      listOffsets: async ({ topics: [request] }: { topics: ListedTopic[] }) => {
        const type = types.shift();
        if (type !== undefined) throw Object.assign(new Error(type), { type });
        const isStart = request?.partitions[0]?.timestamp === -2;
        const partitions = [{ partition: 0, offset: isStart ? '2' : '7' }];
        return { responses: [{ topic: request?.topic, partitions }] };
      },
    }),
  };
  return { ...broker, createCluster: () => cluster as never };
}

/** The real broker, but one topic has no leader at the first three requests for its offsets. */
function leaderlessAtFirst(leaderless: string): typeof broker {
  let refusals = 3;
  const createCluster: typeof broker.createCluster = (retry) => {
    const cluster = broker.createCluster(retry);
    const findLeaders = cluster.findLeaderForPartitions.bind(cluster);
    cluster.findLeaderForPartitions = (topic, partitions) => {
      if (topic !== leaderless || refusals === 0) return findLeaders(topic, partitions);
      refusals -= 1;
      throw Object.assign(new Error('no leader'), { type: 'LEADER_NOT_AVAILABLE' });
    };
    return cluster;
  };
  return { ...broker, createCluster };
}

// Method: a cluster whose first answers are those of a broker that does not lead yet; a real broker gives them only
// for moments after a topic was created.
test('bounds are requested again while a topic has no leader or is not known everywhere', async () => {
  const between = failing(['NOT_LEADER_FOR_PARTITION', 'LEADER_NOT_AVAILABLE', 'UNKNOWN_TOPIC_OR_PARTITION']);
  const bounds = await logBounds(between, ['topic']);
  expect(bounds.get('topic')?.get(0)).toEqual({ start: 2, end: 7 });
});

test('an error that is not about leaders is not repeated', async () => {
  const types = ['CLUSTER_AUTHORIZATION_FAILED', 'never'];
  await expect(logBounds(failing(types), ['topic'])).rejects.toMatchObject({ kind: 'accessRefused' });
  expect(types).toEqual(['never']);
});

test('a missing topic is an error by name, and absent where only available bounds are wanted', async ({
  place,
}) => {
  const topic = `${place.namespace}.missing`;
  const failure = await logBounds(broker, [topic]).catch((thrown: unknown) => thrown);
  expect(failure).toBeInstanceOf(UnknownTopic);
  expect(String(failure)).toContain(topic);
  expect(await availableLogBounds(broker, [topic])).toEqual(new Map());
});

test('a topic that exists is not left out while it has no leader, and one that is missing is', async ({
  place,
}) => {
  const topics = ['one', 'other'].map((name) => `${place.namespace}.${name}`);
  await ensureRetainedTopics(
    broker,
    topics.map((topic) => ({ topic, partitions: 1 })),
  );
  const asked = [...topics, `${place.namespace}.missing`];
  const found = await existingLogBounds(leaderlessAtFirst(`${place.namespace}.other`), asked);
  expect([...found]).toEqual(topics.map((topic) => [topic, new Map([[0, { start: 0, end: 0 }]])]));
});
