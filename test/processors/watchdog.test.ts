/**
 * No member lives without progress: the watchdog alone, over logs and shards that a test moves, with a fake clock; then
 * the command itself with a broker whose answers to fetches are swallowed on the way, or whose group belongs to others.
 */

import { afterEach, beforeEach, describe, expect, inject, it, vi } from 'vitest';
import { serveObservers } from '../../cli/observe.ts';
import { type LogBounds, UnknownTopic } from '../../kafka/bounds.ts';
import { freePorts } from '../../kafka/local/probe.ts';
import { Watchdog, type WatchedShard } from '../../processors/watchdog.ts';
import { exitCodes, ReelflowError } from '../../runtime/errors.ts';
import { createLogger } from '../../runtime/logger.ts';
import { schemaText } from '../../topics/registry.ts';
import { expectFailure, sendTo } from '../support/damage.ts';
import {
  broker,
  chunkType,
  Door,
  encodeChunk,
  headerOf,
  type Place,
  registerSchema,
  test,
  until,
} from '../support/harness.ts';
import { RequestGate } from '../support/request-gate.ts';

vi.setConfig({ testTimeout: 240_000 });

const topic = 'ratings';
const other = 'akas';
const deltas = 'deltas';

describe('the watchdog', () => {
  let ends: Record<string, number[]>;
  let shards: (WatchedShard & {
    publishedPosition: Record<string, number>;
    appliedPosition: Record<string, number>;
    deltasSeen: number;
    isWaiting: boolean;
  })[];
  let foreign: number;
  let failure: ReelflowError | undefined;
  let answer: () => Promise<ReadonlyMap<string, ReadonlyMap<number, LogBounds>>>;
  let watchdog: Watchdog;

  beforeEach(() => {
    vi.useFakeTimers();
    ends = { [topic]: [10, 10], [other]: [5, 5], [deltas]: [7, 7] };
    foreign = 0;
    failure = undefined;
    shards = [0, 1].map((number) => ({
      number,
      topics: [topic, other],
      publishedPosition: { [topic]: 10, [other]: 5 },
      appliedPosition: { [topic]: 10, [other]: 5 },
      deltasSeen: 7,
      isWaiting: false,
    }));
    answer = async () =>
      new Map(
        Object.entries(ends).map(([name, all]) => [
          name,
          new Map(all.map((end, partition) => [partition, { start: 0, end }])),
        ]),
      );
    watchdog = new Watchdog({
      bounds: () => answer(),
      deltas,
      onForeignDeltas: () => {
        foreign += 1;
      },
      shards: () => shards,
      expectedPartitions: 2,
      stuckAfterMs: 10_000,
      logger: createLogger('silent'),
      onFailure: (reason) => {
        failure ??= reason;
      },
    });
  });
  afterEach(() => {
    watchdog.stop();
    vi.useRealTimers();
  });

  const pass = (seconds: number) => vi.advanceTimersByTimeAsync(seconds * 1_000);

  it('is content with a log that does not move, for however long', async () => {
    await pass(3_600);
    expect(failure).toBeUndefined();
  });

  // An owner with nothing to publish would not notice that others have published, or reset.
  it('tells when there are deltas that the owner of a shard has not seen, and not of those that it has', async () => {
    await pass(60);
    expect(foreign).toBe(0);
    ends[deltas] = [7, 8];
    await pass(4);
    expect(foreign).toBeGreaterThan(0);
    (shards[1] as (typeof shards)[0]).deltasSeen = 8;
    const told = foreign;
    await pass(60);
    expect(foreign).toBe(told);
    expect(failure).toBeUndefined();
  });

  it('ends a shard that makes no progress for this long while its log has more', async () => {
    ends[other] = [5, 6];
    await pass(9);
    expect(failure).toBeUndefined();
    await pass(7);
    expect(failure).toMatchObject({ kind: 'stuck', exitCode: exitCodes.stuck });
    expect(failure?.message).toContain('Shard 1');
    expect(failure?.detail).toContain('ratings 10');
    expect(failure?.hint).not.toBe('');
  });

  it('does not mind a shard that is behind and moves, if only by applying what is not published', async () => {
    ends[topic] = [1_000, 10];
    for (let step = 1; step < 20; step++) {
      await pass(8);
      const [shard] = shards as [(typeof shards)[0]];
      if (step % 2 === 0) shard.publishedPosition = { ...shard.publishedPosition, [topic]: 10 + step };
      else shard.appliedPosition = { ...shard.appliedPosition, [topic]: 10 + step };
    }
    expect(failure).toBeUndefined();
  });

  // One loop feeds all shards, so none moves while one waits.
  it('waits with all shards while one of them waits for the registry, and looks again after it', async () => {
    ends[topic] = [11, 11];
    const [, second] = shards as [(typeof shards)[0], (typeof shards)[0]];
    second.isWaiting = true;
    await pass(600);
    expect(failure).toBeUndefined();
    second.isWaiting = false;
    await pass(16);
    expect(failure).toMatchObject({ kind: 'stuck' });
  });

  it('says nothing while no broker answers, and starts to count again', async () => {
    ends[topic] = [11, 11];
    await pass(9);
    const before = answer;
    answer = () => Promise.reject(new ReelflowError('brokerUnreachable', 'away'));
    await pass(600);
    answer = before;
    await pass(9);
    expect(failure).toBeUndefined();
    await pass(10);
    expect(failure).toMatchObject({ kind: 'stuck' });
  });

  // Method: the clock jumps between two looks, as it does for a process that was stopped.
  it('does not count the time in which the process was stopped', async () => {
    ends[topic] = [11, 11];
    await pass(7);
    const now = performance.now.bind(performance);
    vi.spyOn(performance, 'now').mockImplementation(() => now() + 600_000);
    await pass(3);
    expect(failure).toBeUndefined();
    await pass(10);
    expect(failure).toMatchObject({ kind: 'stuck' });
    vi.mocked(performance.now).mockRestore();
  });

  it('tells a topic that the brokers have not known for ten seconds', async () => {
    const unknown = () => Promise.reject(new UnknownTopic(other, undefined));
    // A broker that has just started; once it knows the topic then, once no broker answers.
    for (const meanwhile of [answer, () => Promise.reject(new Error('no answer')), unknown]) {
      answer = unknown;
      await pass(10);
      expect(failure).toBeUndefined();
      answer = meanwhile;
      await pass(4);
    }
    expect(failure).toMatchObject({ kind: 'sourceLost', detail: expect.stringContaining(other) });
  });

  it('tells a topic that is shorter than what was applied, or has another partition count', async () => {
    ends[topic] = [10, 9];
    await pass(4);
    expect(failure).toMatchObject({ kind: 'sourceReplaced', detail: expect.stringContaining('ratings/1') });
    failure = undefined;
    ends[topic] = [10, 10, 0];
    await pass(4);
    expect(failure).toMatchObject({ kind: 'topicMismatch' });
  });
});

const fetchKey = 1;

const health = async (port: number, path: string): Promise<number> =>
  fetch(`http://127.0.0.1:${port}${path}`).then(
    ({ status }) => status,
    () => 0,
  );

const aTitle = (place: Place, number: number) =>
  place.files(`title-${number}`, {
    'title.ratings.tsv': `${headerOf('title.ratings')}tt000000${number}\t5.7\t2\n`,
  });
const ratings = ['--datasets', 'title.ratings', '--shards', '1'];

describe('a process', () => {
  // Method: ready is asked for from the first moment on; then fetches are swallowed, and something new is produced.
  test('becomes healthy, then ready, and ends as stuck when its fetches get no answer', async ({ place }) => {
    const [host = '', ports = ''] = inject('brokers')[0]?.split(':') ?? [];
    const [port, healthPort] = (await freePorts(2)) as [number, number];
    const gate = await RequestGate.to({ host, port: Number(ports) }, port);
    place.onEnd(() => gate.close());
    await place.upsert(aTitle(place, 1), ...ratings);
    const member = place.start(
      place.args('process', '--stuck-after', '2s', '--listen', String(healthPort), '--shards', '1'),
      { KAFKA_BROKERS: `127.0.0.1:${port}` },
    );
    let wasUnready = false;
    await until('it is ready', async () => {
      const ready = await health(healthPort, '/readyz');
      if (ready === 503) {
        wasUnready = true;
        expect(await health(healthPort, '/healthz')).toBe(200);
      }
      return ready === 200;
    });
    expect(wasUnready).toBe(true);
    expect(await health(healthPort, '/healthz')).toBe(200);
    expect(await health(healthPort, '/other')).toBe(404);
    gate.stops = (request) => request.readInt16BE(4) === fetchKey;
    await place.upsert(aTitle(place, 2), ...ratings);
    const finished = await member.done;
    expect(expectFailure(finished, 'stuck')).toContain('Shard 0 makes no progress');
    expect(await health(healthPort, '/healthz')).toBe(0);
  });

  // Method: a chunk of a schema that only the registry can tell, which is shut by then; another one behind it.
  test('does not count as stuck while it waits for the registry', async ({ place }) => {
    const url = new URL(inject('registryUrl'));
    const [port] = (await freePorts(1)) as [number];
    const door = await Door.to({ host: url.hostname, port: Number(url.port) }, port);
    place.onEnd(() => door.shut());
    await place.upsert(aTitle(place, 1), ...ratings);
    const schema = JSON.parse(schemaText('imdb.title.ratings'));
    schema.fields.push({ name: 'note', type: 'string', default: '' });
    const id = await registerSchema(`${place.names.source('title.ratings')}-value`, schema);
    const behind = new URL(inject('registryUrl'));
    behind.port = String(port);
    const member = place.start(
      place.args('process', '--stuck-after', '10s', '--verbose', '--window', '50ms'),
      {
        SCHEMA_REGISTRY_URL: behind.href,
      },
    );
    await member.logged('the first micro-batch', ({ msg }) => msg === 'micro-batch');
    await door.shut();
    const records = [{ tconst: 'tt0000001', averageRating: 6.1, numVotes: 3 }];
    const value = Buffer.concat([encodeChunk(chunkType('title.ratings'), id, { records }), Buffer.from([0])]);
    await sendTo(place.names.source('title.ratings'), 0, [value]);
    const started = Date.now();
    await member.logged('waiting', ({ msg }) => msg === 'Schema Registry outage: waiting until it ends');
    await until('the period is over', () => Date.now() - started > 14_000);
    expect(member.isDone).toBe(false);
    await door.open();
    await member.logged(
      'the second micro-batch',
      () => member.log.filter(({ msg }) => msg === 'micro-batch').length > 1,
    );
    expect(await member.terminate()).toMatchObject({ code: 0 });
  });

  // Method: a plain kafkajs consumer is in the group first, with an assigner that ours does not know.
  test('ends when kafkajs gives up the membership', async ({ place }) => {
    await place.upsert(aTitle(place, 1), ...ratings);
    const groupId = place.names.processorGroup;
    const foreign = broker.kafka.consumer({ groupId });
    place.onEnd(() => foreign.disconnect());
    await foreign.connect();
    await foreign.subscribe({ topics: [place.names.source('title.ratings')] });
    const { promise, resolve } = Promise.withResolvers<void>();
    foreign.on(foreign.events.GROUP_JOIN, () => resolve());
    await foreign.run({ eachMessage: async () => undefined });
    await promise;
    const finished = await place.run(place.args('process'));
    expect(expectFailure(finished, 'busy')).toContain(groupId);
  });

  test('does not start when its port for health is taken', async ({ place }) => {
    const [port] = (await freePorts(1)) as [number];
    await serveObservers({ host: '127.0.0.1', port }, () => ({ isHealthy: false, isReady: false }));
    expect(await health(port, '/healthz')).toBe(503);
    expect(await health(port, '/readyz')).toBe(503);
    const finished = await place.run(place.args('process', '--listen', String(port)));
    expect(expectFailure(finished, 'usage')).toContain(String(port));
  });
});
