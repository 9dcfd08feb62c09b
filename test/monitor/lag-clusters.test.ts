/**
 * Lag on logs and groups that our own clients do not make: deleted messages, open and finished transactions, groups of the
 * consumer protocol (KIP-848), groups that change their subscription, many groups at once, and a wall clock that steps
 * back. On a real broker, with Kafka's own Java client where kafkajs lacks the feature.
 */
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, inject, vi } from 'vitest';
import { logBounds } from '../../kafka/bounds.ts';
import { clusterTopics, createBroker, withAdmin } from '../../kafka/client.ts';
import { startJvmBroker } from '../../kafka/local/jvm.ts';
import { freePorts } from '../../kafka/local/probe.ts';
import { commitAlone } from '../../kafka/membership.ts';
import { deleteBefore } from '../../kafka/topics.ts';
import type { LagReport, LagRow } from '../../monitor/lag.ts';
import { LagWatch } from '../../monitor/lag-watch.ts';
import type { Endpoints } from '../../runtime/config.ts';
import { createLogger } from '../../runtime/logger.ts';
import { broker, headerOf, lastJson, type Place, test, until } from '../support/harness.ts';
import { JavaClient } from '../support/java-client.ts';
import { jars, skippedText, whyNoJava } from '../support/jvm.ts';
import { temporaryFolder } from '../support/temporary-folder.ts';

vi.setConfig({ testTimeout: 300_000 });

async function topicOf(
  place: Place,
  name: string,
  settings: { partitions?: number; retentionMs?: number } = {},
): Promise<string> {
  const topic = `${place.namespace}.${name}`;
  const { partitions: numPartitions = 1, retentionMs } = settings;
  const configEntries =
    retentionMs === undefined ? [] : [{ name: 'retention.ms', value: String(retentionMs) }];
  await withAdmin(broker, (admin) =>
    admin.createTopics({ topics: [{ topic, numPartitions, configEntries }], waitForLeaders: false }),
  );
  await logBounds(broker, [topic]);
  return topic;
}

async function write(topic: string, messages: number, timestampMs = Date.now()): Promise<void> {
  const producer = broker.kafka.producer();
  await producer.connect();
  const message = { value: 'x', partition: 0, timestamp: String(timestampMs) };
  await producer.send({ topic, messages: Array.from({ length: messages }, () => message) });
  await producer.disconnect();
}

async function commit(place: Place, group: string, topic: string, next: number): Promise<void> {
  place.onEnd(() => withAdmin(broker, (admin) => admin.deleteGroups([group])).catch(() => undefined));
  await commitAlone(broker, group, [{ topic, partition: 0, next }]);
}

const lookOnce = (group: string) => new LagWatch(broker).look([{ group, topics: [] }]);
const rowOf = ({ rows }: LagReport) => rows[0] as LagRow;

describe('deleted messages', () => {
  test('are LOST with their number, and only the readable rest is lag', async ({ place }) => {
    const topic = await topicOf(place, 'trimmed');
    await write(topic, 10);
    const group = `${place.namespace}.late`;
    await commit(place, group, topic, 3);
    await deleteBefore(broker, topic, [{ partition: 0, offset: 8 }]);
    expect(rowOf(await lookOnce(group))).toMatchObject({ state: 'LOST', lost: 5, lag: 2, startOffset: 8 });
    const { stdout } = await place.run(['lag', '--group', group]);
    expect(stdout).toContain('LOST, 2 messages left, 5 lost before they were read');
    const failed = await place.run(['lag', '--over', '1ms', '--fail-on', 'LOST', '--group', group]);
    expect(failed.code).toBe(22);
    await commit(place, group, topic, 8);
    expect(rowOf(await lookOnce(group))).toMatchObject({ state: 'STOP', lost: 0, lag: 2 });
  });

  test('do not make a purged topic STOP', async ({ place }) => {
    const topic = await topicOf(place, 'purged');
    await write(topic, 10);
    const [read, unread] = [`${place.namespace}.read`, `${place.namespace}.unread`];
    await commit(place, read, topic, 10);
    await commit(place, unread, topic, 4);
    await deleteBefore(broker, topic, [{ partition: 0, offset: 10 }]);
    expect(rowOf(await lookOnce(read))).toMatchObject({ state: 'OK', lost: 0, lag: 0 });
    expect(rowOf(await lookOnce(unread))).toMatchObject({ state: 'LOST', lost: 6, lag: 0 });
  });

  test('are announced: the time until the oldest unread message expires', async ({ place }) => {
    const hourMs = 3_600_000;
    const topic = await topicOf(place, 'expiring', { retentionMs: 10 * hourMs });
    const sentMs = Date.now() - 4 * hourMs;
    await write(topic, 2, sentMs);
    const group = `${place.namespace}.behind`;
    await commit(place, group, topic, 1);
    const report = await lookOnce(group);
    const { expiresMs, timeLagMs } = rowOf(report);
    expect(timeLagMs).toBe(report.atMs - sentMs);
    expect(expiresMs).toBe(10 * hourMs - (timeLagMs as number));
    expect(report.groups[0]?.expiresMs).toBe(expiresMs);
    await commit(place, group, topic, 2);
    expect(rowOf(await lookOnce(group)).expiresMs).toBe(null);
  });
});

describe.skipIf(whyNoJava !== undefined)(`transactions${skippedText()}`, () => {
  test('a marker at the end is not lag; an open transaction is no error, and blocks', async ({ place }) => {
    const topic = await topicOf(place, 'transactions');
    const producer = await JavaClient.start(place, 'produce', topic);
    const [committed, uncommitted] = [`${place.namespace}.committed`, `${place.namespace}.uncommitted`];
    // A message and its marker, then an aborted message and its marker.
    await producer.do('b');
    await producer.do('c');
    await producer.do('b');
    await producer.do('a');
    const plain = `${place.namespace}.plain`;
    await commit(place, plain, topic, 1);
    await until('the markers are written', async () => rowOf(await lookOnce(plain)).endOffset === 4);
    expect(rowOf(await lookOnce(plain))).toMatchObject({ lag: 0, state: 'OK', nextOffset: 1 });
    await commit(place, plain, topic, 0);
    expect(rowOf(await lookOnce(plain))).toMatchObject({ lag: 4, state: 'STOP' });

    await producer.do('b');
    await commit(place, committed, topic, 4);
    // A consumer of uncommitted messages commits beyond the last stable offset.
    await commit(place, uncommitted, topic, 5);
    const watch = new LagWatch(broker);
    const watched = [committed, uncommitted].map((group) => ({ group, topics: [] }));
    await watch.look(watched);
    const open = await watch.look(watched);
    const offsets = { endOffset: 4, highWatermark: 5, lag: 0, state: 'OK', blocked: 1 };
    expect(open.rows).toMatchObject([offsets, offsets]);
    const { stdout } = await place.run(['lag', '--group', committed]);
    expect(stdout).toContain('1 withheld by an open transaction');

    await producer.do('c');
    await until('the marker is written', async () => rowOf(await watch.look(watched)).endOffset === 6);
    const { rows } = await watch.look(watched);
    expect(rows).toMatchObject([
      { group: committed, lag: 2, blocked: 0 },
      { group: uncommitted, lag: 0, blocked: 0, state: 'OK' },
    ]);
    await producer.quit();
  });
});

describe.skipIf(whyNoJava !== undefined)('a group of the consumer protocol', () => {
  test('has members and assignments, so that STALL and STOP differ', async ({ place }) => {
    const topic = await topicOf(place, 'newer', { partitions: 2 });
    await write(topic, 3);
    const group = `${place.namespace}.newer`;
    const consumer = await JavaClient.start(place, 'consume', group, topic);
    const watch = new LagWatch(broker, 3_000);
    const look = async () => (await watch.look([{ group, topics: [] }])) as LagReport;
    await until('it has caught up', async () => (await look()).groups[0]?.state === 'OK');
    expect((await look()).groups).toMatchObject([{ exists: true, members: 1, lag: 0 }]);
    consumer.send('p');
    await until('it is paused', async () => {
      await write(topic, 1);
      return (rowOf(await look()).lag ?? 0) > 1;
    });
    await until('it is stalled', async () => rowOf(await look()).state === 'STALL');
    await consumer.quit();
    await until('it has stopped', async () => rowOf(await look()).state === 'STOP');
    expect((await look()).groups).toMatchObject([{ members: 0, consumedPerSecond: 0 }]);
  });

  test('is judged by its present subscription, also by an expression', async ({ place }) => {
    const [first, second] = [await topicOf(place, 'sub.a'), await topicOf(place, 'sub.b')];
    await write(first, 1);
    await write(second, 1);
    const group = `${place.namespace}.changing`;
    const consumer = await JavaClient.start(place, 'consume', group, `${first},${second}`);
    const watch = new LagWatch(broker);
    const rows = async () => (await watch.look([{ group, topics: [] }])).rows;
    await until('it has read both', async () => (await rows()).filter(({ lag }) => lag === 0).length === 2);
    consumer.send('s');
    await until('it has left the second topic', async () =>
      (await rows()).some(({ topic, isSubscribed }) => topic === second && !isSubscribed),
    );
    await write(second, 5);
    const { groups, rows: now } = await watch.look([{ group, topics: [] }]);
    expect(groups).toMatchObject([{ state: 'OK', lag: 0 }]);
    expect(now.find(({ topic }) => topic === second)).toMatchObject({
      isSubscribed: false,
      state: null,
      lag: 5,
    });
    await consumer.quit();
    // Its last subscription still counts.
    await until(
      'it is gone',
      async () => (await watch.look([{ group, topics: [] }])).groups[0]?.members === 0,
    );
    expect((await watch.look([{ group, topics: [] }])).groups).toMatchObject([{ state: 'OK', lag: 0 }]);

    const byPattern = `${place.namespace}.by-pattern`;
    const expression = `/${place.namespace}\\.sub\\..*/`;
    const other = await JavaClient.start(place, 'consume', byPattern, expression);
    const look = async () => (await new LagWatch(broker).look([{ group: byPattern, topics: [] }])).rows;
    await until('it has read both', async () => (await look()).filter(({ lag }) => lag === 0).length === 2);
    expect((await look()).every(({ isSubscribed }) => isSubscribed)).toBe(true);
    await other.quit();
  });
});

// Method: the broker deletes what a group without members has committed on a topic together with the topic.
test('a group of ours is not OK without a topic that it reads', async ({ place }) => {
  const [deltas, names] = [await topicOf(place, 'deltas'), await topicOf(place, 'names')];
  const group = `${place.namespace}.sink`;
  await commit(place, group, deltas, 0);
  const look = async () => (await new LagWatch(broker).look([{ group, topics: [deltas, names] }])).groups;
  expect(await look()).toMatchObject([{ state: 'OK', problem: null }]);
  await withAdmin(broker, (admin) => admin.deleteTopics({ topics: [names] }));
  await until('its topic is gone', async () => !(await clusterTopics(broker)).partitions.has(names));
  expect(await look()).toMatchObject([
    { exists: true, state: null, problem: `${names}: the topic does not exist, or does not answer` },
  ]);
});

describe.skipIf(whyNoJava !== undefined)('a broker with other settings than ours', () => {
  const folder = temporaryFolder();
  let stop = async () => {};
  let endpoints: Endpoints;

  beforeAll(async () => {
    const [brokerPort, controllerPort] = (await freePorts(2)) as [number, number];
    const started = await startJvmBroker({
      folder,
      jars,
      brokerPort,
      controllerPort,
      env: process.env,
      brokerProperties: {
        // The default of Kafka 3.7 to 3.9, which name the request of the consumer protocol among their versions, and refuse it.
        'group.coordinator.rebalance.protocols': 'classic',
        // Kafka's own default.
        'auto.create.topics.enable': 'true',
      },
    });
    stop = () => started.stop();
    endpoints = { brokers: [`127.0.0.1:${brokerPort}`], registryUrl: inject('registryUrl') };
  });
  afterAll(() => stop());

  test('without the consumer protocol, a group that does not exist is no problem', async () => {
    const classic = createBroker(endpoints, createLogger('silent'));
    const { groups } = await new LagWatch(classic).look([{ group: 'nobody', topics: [] }]);
    expect(groups).toMatchObject([{ exists: false, problem: null, whyUnknown: 'it does not exist (yet)' }]);
  });

  test('where brokers create the topics that clients name, commands that only look create none', async ({
    place,
  }) => {
    const data = place.files('data', {
      'title.ratings.tsv': `${headerOf('title.ratings')}tt0000001\t5.7\t2\n`,
    });
    const common = ['--namespace', place.namespace];
    for (const args of [
      ['lag', ...common],
      ['status', ...common],
      ['dlq', 'list', ...common],
      place.args('replay', '--dry-run', join(data, 'title.ratings.tsv')),
    ]) {
      const finished = await place.run(args, { KAFKA_BROKERS: endpoints.brokers.join(',') });
      expect(finished.code, `${args.join(' ')}: ${finished.stderr}`).toBe(0);
    }
    const { partitions } = await clusterTopics(createBroker(endpoints, createLogger('silent')));
    expect([...partitions.keys()].filter((topic) => topic.startsWith(place.namespace))).toEqual([]);
  });
});

describe.skipIf(whyNoJava !== undefined)('a group of another kind', () => {
  test('of Kafka Streams (KIP-1071) is judged by its commits, also by a pattern', async ({ place }) => {
    const topic = await topicOf(place, 'streams');
    await write(topic, 3);
    const group = `${place.namespace}.streams`;
    const consumer = await JavaClient.start(place, 'stream', group, topic);
    const watch = new LagWatch(broker, 3_000);
    const look = async () => (await watch.look([{ group: `${group}*`, topics: [] }])) as LagReport;
    await until('it has caught up', async () => (await look()).groups[0]?.state === 'OK');
    expect((await look()).groups).toMatchObject([{ group, exists: true, members: null, lag: 0 }]);
    consumer.send('p');
    await until('it is paused', async () => {
      await write(topic, 1);
      return (rowOf(await look()).lag ?? 0) > 1;
    });
    expect(rowOf(await lookOnce(group)).state).toBeNull();
    await until('it has stopped', async () => rowOf(await look()).state === 'STOP');
    await consumer.quit();
  });

  test('that shares its messages (KIP-932) has no lag here, and says why', async ({ place }) => {
    const topic = await topicOf(place, 'share');
    const group = `${place.namespace}.share`;
    const consumer = await JavaClient.start(place, 'share', group, topic);
    await until('it exists', async () => (await lookOnce(group)).groups[0]?.exists === true);
    expect((await lookOnce(group)).groups).toMatchObject([
      { group, state: null, problem: expect.stringContaining('share group') },
    ]);
    consumer.send('q');
  });
});

describe('many groups', () => {
  test('a pattern matches groups that appear later', async ({ place }) => {
    const topic = await topicOf(place, 'patterns');
    await write(topic, 2);
    const pattern = `${place.namespace}.team-*`;
    const watch = new LagWatch(broker);
    const names = async () => (await watch.look([{ group: pattern, topics: [] }])).groups;
    expect(await names()).toMatchObject([{ group: pattern, exists: false }]);
    const failed = await place.run(['lag', '--over', '1ms', '--fail-on', 'STOP', '--group', pattern]);
    expect(failed.code).toBe(22);
    await commit(place, `${place.namespace}.team-a`, topic, 2);
    expect(await names()).toMatchObject([{ group: `${place.namespace}.team-a`, state: 'OK' }]);
    await commit(place, `${place.namespace}.team-b`, topic, 1);
    await commit(place, `${place.namespace}.steam-c`, topic, 1);
    expect(await names()).toMatchObject([
      { state: 'OK' },
      { group: `${place.namespace}.team-b`, state: 'STOP' },
    ]);
    const rows = lastJson<LagRow[]>(await place.run(['lag', '--json', '--group', pattern]));
    expect(rows.map(({ group }) => group.slice(place.namespace.length + 1))).toEqual(['team-a', 'team-b']);
  });

  // Method: the broker's answers for one group are replaced by an error; a permission of a real broker needs its own.
  test('a group that cannot be read does not hide the others', async ({ place }) => {
    const topic = await topicOf(place, 'shared');
    await write(topic, 2);
    const [good, bad] = [`${place.namespace}.good`, `${place.namespace}.bad`];
    await commit(place, good, topic, 2);
    await commit(place, bad, topic, 2);
    const refusing = {
      ...broker,
      createAdmin: () => {
        const admin = broker.createAdmin();
        const refused = Object.assign(new Error('Not authorized to access group'), {
          name: 'KafkaJSProtocolError',
          type: 'GROUP_AUTHORIZATION_FAILED',
        });
        return {
          ...admin,
          describeGroups: async (names: string[]) => {
            if (names.includes(bad)) throw refused;
            return admin.describeGroups(names);
          },
          fetchOffsets: async (options: { groupId: string }) => {
            if (options.groupId === bad) throw refused;
            return admin.fetchOffsets(options);
          },
        };
      },
    } as unknown as typeof broker;
    const watched = [bad, good].map((group) => ({ group, topics: [] }));
    const { groups } = await new LagWatch(refusing).look(watched);
    expect(groups).toMatchObject([
      { group: bad, exists: true, state: null, problem: expect.stringContaining('Not authorized') },
      { group: good, state: 'OK', lag: 0, problem: null },
    ]);
  });
});

describe('the wall clock', () => {
  test('changes no judgement when it steps back an hour', async ({ place }) => {
    const topic = await topicOf(place, 'clock');
    await write(topic, 2);
    const group = `${place.namespace}.clock`;
    const consumer = broker.kafka.consumer({ groupId: group });
    place.onEnd(() => consumer.disconnect());
    await consumer.connect();
    await consumer.subscribe({ topics: [topic], fromBeginning: true });
    await consumer.run({
      autoCommitThreshold: 1,
      eachMessage: async () => {
        consumer.pause([{ topic }]);
      },
    });
    const watch = new LagWatch(broker, 2_000);
    const look = async () => rowOf(await watch.look([{ group, topics: [] }]));
    await until('it has committed', async () => (await look())?.nextOffset === 1);
    const [realNow, hourMs] = [Date.now.bind(Date), 3_600_000];
    const clock = vi.spyOn(Date, 'now').mockImplementation(() => realNow() - hourMs);
    try {
      await until('it is stalled', async () => (await look()).state === 'STALL', 30_000);
      expect((await look()).lag).toBe(1);
    } finally {
      clock.mockRestore();
    }
  });
});
