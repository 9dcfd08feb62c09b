/** A sink and a list of topics that lacks one, which is not a proof that it was deleted. */
import { afterEach, beforeEach, expect, test, vi } from 'vitest';
import { type Broker, createBroker } from '../../kafka/client.ts';
import { isPassing } from '../../kafka/failures.ts';
import { createLogger } from '../../runtime/logger.ts';
import { CubeStore } from '../../sinks/cube-store.ts';
import { Intake } from '../../sinks/intake.ts';
import { LevelIntake } from '../../sinks/level-intake.ts';
import { topicNamesIn } from '../../topics/catalog.ts';
import { temporaryFolder } from '../support/temporary-folder.ts';

let folder: string;
beforeEach(() => {
  folder = temporaryFolder();
});
afterEach(() => vi.restoreAllMocks());

const names = topicNamesIn('missing');
const all = [names.deltas, names.source('name.basics')];

// Method: brokers that list topics, and whose logs cannot be read, so that each step is an interruption.
test('a topic counts as deleted after ten seconds in which the brokers do not know it', async () => {
  let listed: readonly string[] | undefined = all;
  const refused = Object.assign(new Error('connect ECONNREFUSED'), { code: 'ECONNREFUSED' });
  const cluster = {
    connect: async () => undefined,
    disconnect: async () => undefined,
    refreshMetadata: () => (listed === undefined ? Promise.reject(refused) : Promise.resolve()),
    addMultipleTargetTopics: () => Promise.reject(refused),
    get brokerPool() {
      const topicMetadata = (listed ?? []).map((topic) => ({ topic, partitionMetadata: [0] }));
      return { metadata: { clusterId: 'cluster', topicMetadata } };
    },
  };
  const unknown = Object.assign(new Error('unknown'), { type: 'UNKNOWN_TOPIC_OR_PARTITION' });
  const admin = {
    connect: async () => undefined,
    disconnect: async () => undefined,
    fetchTopicMetadata: () => Promise.reject(unknown),
  };
  const real = createBroker({ brokers: ['none:1'], registryUrl: 'http://none' }, createLogger('silent'));
  const broker = { ...real, createCluster: () => cluster, createAdmin: () => admin } as unknown as Broker;
  const store = await CubeStore.open(folder, { clusterId: 'cluster', namespace: 'missing' }, '500MB');
  const intake = new Intake({
    gold: '/none',
    ...{ broker, names, store, deltaSchemaId: 1, signal: new AbortController().signal },
    decoder: undefined as never,
    onCommit: () => undefined,
  });
  await intake.open();
  let nowMs = performance.now();
  vi.spyOn(performance, 'now').mockImplementation(() => nowMs);

  listed = [names.deltas];
  await intake.step();
  nowMs += 9_000;
  await intake.step();
  expect([...intake.partitions.keys()]).toEqual(all);
  listed = all;
  await intake.step();
  // No broker answers for a while, and then one that has just started.
  listed = [names.deltas];
  await intake.step();
  nowMs += 9_000;
  listed = undefined;
  await intake.step();
  nowMs += 9_000;
  listed = [names.deltas];
  await intake.step();
  nowMs += 2_000;
  await expect(intake.step()).rejects.toMatchObject({
    kind: 'sourceLost',
    detail: names.source('name.basics'),
  });
  store.close();
});

// Method: a clock that goes on by half a second with each look at it, and brokers that know no topic.
test('what is read beside the cubes is waited for as long', async () => {
  const unknown = Object.assign(new Error('unknown'), { type: 'UNKNOWN_TOPIC_OR_PARTITION' });
  const cluster = {
    connect: async () => undefined,
    disconnect: async () => undefined,
    refreshMetadata: async () => undefined,
    addMultipleTargetTopics: () => Promise.reject(unknown),
    brokerPool: { metadata: { clusterId: 'cluster', topicMetadata: [] } },
  };
  const real = createBroker({ brokers: ['none:1'], registryUrl: 'http://none' }, createLogger('silent'));
  const broker = { ...real, createCluster: () => cluster } as unknown as Broker;
  const store = await CubeStore.open(folder, { clusterId: 'cluster', namespace: 'missing' }, '500MB');
  const topic = names.source('title.basics');
  const chain = { generation: 0, cubeSet: '', position: { [topic]: 5 }, gaps: {} };
  store.shards.set(0, { shard: 0, shards: 1, next: 0, lastDelta: -1, counts: {}, heldUntil: {}, chain });
  const decoder = undefined as never;
  store.titles.readFrom({ topic, decoder, checked: [] });
  const { signal } = new AbortController();
  const options = { broker, store, topic, signal, crashPoint: 'after-titles-commit' };
  const intake = new LevelIntake({ ...options, dataset: store.titles });
  let nowMs = 0;
  vi.spyOn(performance, 'now').mockImplementation(() => (nowMs += 500));
  const failure = () => intake.advance().catch((thrown: unknown) => thrown);
  expect(isPassing(await failure())).toBe(true);
  nowMs += 10_000;
  const last = await failure();
  expect(last).toMatchObject({ kind: 'sourceLost' });
  // The sink ends with it, and does not wait on.
  expect(isPassing(last)).toBe(false);
  store.close();
});
