/**
 * lag distinguishes a stalled, a stopped, a slow and a healthy consumer on a real broker: a plain kafkajs consumer that
 * knows nothing of us, then our own processor; in reports, on the page in a real Chromium, in /metrics beside it, and on
 * the command line.
 *
 * Method: the span is short, and looks go on until the state that is expected is seen everywhere. Nothing is timed:
 * production goes on for as long as it takes, without a pause in which a slow consumer could appear to catch up.
 */
import { setTimeout as delay } from 'node:timers/promises';
import type { Consumer, Producer } from 'kafkajs';
import type { Browser, Page } from 'playwright-core';
import { afterAll, beforeAll, describe, expect, inject, vi } from 'vitest';
import { withAdmin } from '../../kafka/client.ts';
import { readGroups } from '../../kafka/groups.ts';
import { freePorts } from '../../kafka/local/probe.ts';
import type { State } from '../../monitor/judge.ts';
import type { GroupLag, LagReport, LagRow } from '../../monitor/lag.ts';
import { LagWatch } from '../../monitor/lag-watch.ts';
import { schemaText } from '../../topics/registry.ts';
import { hasBrowser, openBrowser, startMonitor } from '../support/browser.ts';
import { expectFailure, sendTo } from '../support/damage.ts';
import {
  broker,
  chunkType,
  Door,
  encodeChunk,
  headerOf,
  lastJson,
  type Place,
  type Running,
  registerSchema,
  test,
} from '../support/harness.ts';

vi.setConfig({ testTimeout: 600_000 });

const patienceMs = 200_000;

async function until(what: string, holds: () => Promise<boolean>): Promise<void> {
  const deadlineMs = Date.now() + patienceMs;
  while (!(await holds())) {
    if (Date.now() > deadlineMs) throw new Error(`not so for long: ${what}`);
    await delay(100);
  }
}

/** A span that is short, and yet long enough for a few steps on this machine now: with a hole a watch forgets. */
async function spanMsFor(step: () => Promise<unknown>): Promise<number> {
  const startedMs = performance.now();
  await step();
  await new LagWatch(broker).look([{ group: 'nobody', topics: [] }]);
  return Math.ceil(Math.max(3_000, 5 * (performance.now() - startedMs)));
}

/** Repeats a step until the work is done. */
async function meanwhile<T>(work: Promise<T>, step: () => Promise<unknown>): Promise<T> {
  let isDone = false;
  const end = () => {
    isDone = true;
  };
  work.then(end, end);
  while (!isDone) {
    await step();
    await delay(20);
  }
  return work;
}

let browser: Browser | undefined;
beforeAll(async () => {
  if (hasBrowser) browser = await openBrowser();
});
afterAll(() => browser?.close());
const everywhere = hasBrowser
  ? 'on the page too'
  : 'the page not looked at: there is no Chromium on the PATH';

/** The command that serves the page, and the page in the browser. */
class Monitor {
  readonly #url: string;
  readonly #page: Page | undefined;
  readonly #running: Running;

  private constructor(url: string, page: Page | undefined, running: Running) {
    this.#url = url;
    this.#page = page;
    this.#running = running;
  }

  static async start(place: Place, spanMs: number, groups: readonly string[]): Promise<Monitor> {
    const more = groups.flatMap((group) => ['--group', group]);
    const { url, running } = await startMonitor(place, '--over', `${spanMs}ms`, ...more);
    const page = await browser?.newPage();
    await page?.goto(url);
    return new Monitor(url, page, running);
  }

  async end(): Promise<void> {
    await this.#page?.close();
    await this.#running.terminate();
  }

  /** Whether /metrics and the page both say so. @param name of a group's table on the page */
  async says(group: string, topic: string, state: State, name = `Group ${group}`): Promise<boolean> {
    const metrics = await (await fetch(new URL('/metrics', this.#url))).text();
    const sample = `reelflow_group_state{group="${group}",topic="${topic}",partition="0",state="${state}"} 1`;
    if (!metrics.split('\n').includes(sample)) return false;
    const table = this.#page?.getByRole('region', { name: `${name}, in messages`, exact: true });
    const rows = table?.getByRole('row', { name: new RegExp(`^[\\w.-]+ / 0 ${state} `) });
    return rows === undefined || (await rows.count()) === 1;
  }
}

/** Looks until every group is in the state that is expected of it, and the monitor says so, too. */
async function lookUntil(
  watch: LagWatch,
  expected: Readonly<Record<string, State>>,
  says: (group: string, state: State) => Promise<boolean> = async () => true,
): Promise<LagReport> {
  const watched = Object.keys(expected).map((group) => ({ group, topics: [] }));
  const deadlineMs = Date.now() + patienceMs;
  for (;;) {
    const report = await watch.look(watched);
    const heard = await Promise.all(Object.entries(expected).map(([group, state]) => says(group, state)));
    if (report.groups.every(({ group, state }) => state === expected[group]) && heard.every(Boolean))
      return report;
    if (Date.now() > deadlineMs)
      throw new Error(`expected ${JSON.stringify(expected)}, heard ${heard}: ${JSON.stringify(report)}`);
    await delay(100);
  }
}

/** Asks `reelflow lag` until it says the same of the groups' first partition of a topic. */
async function commandSays(
  place: Place,
  topic: string,
  expected: Readonly<Record<string, State>>,
  spanMs: number,
): Promise<void> {
  const groups = Object.keys(expected).flatMap((group) => ['--group', group]);
  const args = ['lag', '--json', '--namespace', place.namespace, '--over', `${spanMs}ms`, ...groups];
  const deadlineMs = Date.now() + patienceMs;
  for (;;) {
    const rows = lastJson<LagRow[]>(await place.run(args));
    const heard = Object.fromEntries(
      rows.filter((row) => row.topic === topic).map(({ group, state }) => [group, state]),
    );
    if (Object.entries(expected).every(([group, state]) => heard[group] === state)) return;
    if (Date.now() > deadlineMs)
      throw new Error(`expected ${JSON.stringify(expected)}, heard ${JSON.stringify(heard)}`);
  }
}

const groupIn = ({ groups }: LagReport, name: string) =>
  groups.find(({ group }) => group === name) as GroupLag;

/** A consumer that takes as many messages as it is given leave to, and commits each; then it pauses. */
class Reader {
  readonly consumer: Consumer;
  readonly group: string;
  readonly #admin = broker.createAdmin();
  #topic = '';
  #taken = 0;
  #leave: number;

  constructor(place: Place, name: string, leave: number) {
    this.#leave = leave;
    this.group = `${place.namespace}.${name}`;
    this.consumer = broker.kafka.consumer({ groupId: this.group, sessionTimeout: 30_000 });
    place.onEnd(async () => {
      await this.consumer.disconnect();
      await this.#admin.disconnect();
      await until('the group can be deleted', () =>
        withAdmin(broker, (admin) => admin.deleteGroups([this.group])).then(
          () => true,
          () => false,
        ),
      );
    });
  }

  async start(topic: string): Promise<void> {
    this.#topic = topic;
    await this.#admin.connect();
    await this.consumer.connect();
    await this.consumer.subscribe({ topics: [topic], fromBeginning: true });
    await this.consumer.run({
      autoCommitThreshold: 1,
      eachMessage: async () => {
        this.#taken += 1;
        if (this.#taken >= this.#leave) this.consumer.pause([{ topic }]);
      },
    });
  }

  give(messages: number): void {
    this.#leave += messages;
    this.consumer.resume([{ topic: this.#topic }]);
  }

  /** Waits until so many messages are committed. One connection asks: opening one each time would take most of a step. */
  async committed(messages: number): Promise<void> {
    await until(`${this.group} has committed ${messages}`, async () => {
      const [topic] = await this.#admin.fetchOffsets({ groupId: this.group });
      return Number(topic?.partitions[0]?.offset) >= messages;
    });
  }
}

describe('a foreign group', () => {
  test(`is healthy, slow, stalled or stopped (${everywhere})`, async ({ place }) => {
    const topic = `${place.namespace}.numbers`;
    await withAdmin(broker, (admin) =>
      admin.createTopics({ topics: [{ topic, numPartitions: 1 }], waitForLeaders: true }),
    );
    const producer: Producer = broker.kafka.producer();
    await producer.connect();
    place.onEnd(() => producer.disconnect());
    let written = 0;
    const write = async (messages: number) => {
      await producer.send({ topic, messages: Array.from({ length: messages }, () => ({ value: 'x' })) });
      written += messages;
    };
    await write(30);
    const healthy = new Reader(place, 'healthy', Number.POSITIVE_INFINITY);
    const [slow, stalled, stopped] = ['slow', 'stalled', 'stopped'].map(
      (name) => new Reader(place, name, 10),
    ) as [Reader, Reader, Reader];
    await Promise.all([healthy, slow, stalled, stopped].map((reader) => reader.start(topic)));
    await Promise.all([slow, stalled, stopped].map((reader) => reader.committed(10)));
    await stopped.consumer.disconnect();

    // While the slow one reads a message, two or more are written; the healthy one has read them before the next step.
    let slowRead = 10;
    const step = async () => {
      slow.give(1);
      slowRead += 1;
      await meanwhile(slow.committed(slowRead), () => write(2));
      await healthy.committed(written);
    };
    const spanMs = await spanMsFor(step);
    const watch = new LagWatch(broker, spanMs);
    const expected = {
      [healthy.group]: 'OK',
      [slow.group]: 'WARN',
      [stalled.group]: 'STALL',
      [stopped.group]: 'STOP',
    } as const;
    const monitor = await Monitor.start(place, spanMs, Object.keys(expected));
    const said = lookUntil(watch, expected, (group, state) => monitor.says(group, topic, state));
    await meanwhile(
      said.then(() => commandSays(place, topic, expected, spanMs)),
      step,
    );
    await monitor.end();
    expect(watch.trendOf({ group: slow.group, topic, partition: 0 }).length).toBeGreaterThan(1);
    const report = await watch.look(Object.keys(expected).map((group) => ({ group, topics: [] })));
    expect(groupIn(report, healthy.group)).toMatchObject({ lag: 0, timeLagMs: 0, catchUpMs: 0 });
    for (const { group } of [slow, stalled, stopped]) {
      expect(groupIn(report, group), group).toMatchObject({
        lag: expect.any(Number),
        timeLagMs: expect.any(Number),
        catchUpMs: Number.POSITIVE_INFINITY,
        catchesUp: false,
      });
    }

    // Of one look alone the command line tells STOP only.
    const lag = (reader: Reader, ...more: string[]) =>
      place.run(['lag', '--json', '--group', reader.group, ...more]);
    const [one, unjudged, failed] = await Promise.all([
      lag(stopped),
      lag(stalled),
      lag(stalled, '--over', '4s', '--fail-on', 'STALL'),
    ]);
    expect(lastJson(one)).toMatchObject([{ topic, state: 'STOP', lag: written - 10, catchesUp: false }]);
    expect(lastJson(failed)).toMatchObject([{ topic, state: 'STALL', lag: written - 10, catchUpMs: null }]);
    expect(failed.code).toBe(22);
    expect(lastJson(unjudged)).toMatchObject([{ topic, state: null, lag: written - 10, catchesUp: null }]);
    const [notThat, misspelt] = await Promise.all([
      lag(stopped, '--over', '1ms', '--fail-on', 'STALL'),
      place.run(['lag', '--over', '1ms', '--fail-on', 'STOP', '--group', `${place.namespace}.nobody`]),
    ]);
    expect(notThat.code).toBe(0);
    expect(expectFailure(misspelt, 'lagging')).toContain('does not exist');

    // It reads on: its state is that of a consumer that catches up.
    stalled.give(Number.POSITIVE_INFINITY);
    await lookUntil(watch, { [stalled.group]: 'OK' });
  });

  test('tells its owners while it is stable, and none when it is empty', async ({ place }) => {
    const topic = `${place.namespace}.owned`;
    await withAdmin(broker, (admin) =>
      admin.createTopics({ topics: [{ topic, numPartitions: 2 }], waitForLeaders: true }),
    );
    const reader = new Reader(place, 'owner', 1);
    const ownersNow = async () => (await readGroups(broker, [reader.group])).get(reader.group)?.owners;
    expect(await ownersNow()).toEqual(new Map());
    await reader.start(topic);
    await until('both partitions are assigned', async () => (await ownersNow())?.get(topic)?.size === 2);
    expect([...((await ownersNow())?.get(topic)?.keys() ?? [])].sort()).toEqual([0, 1]);
    await reader.consumer.stop();
    await until('no member is assigned', async () => (await ownersNow())?.size === 0);
  });
});

describe('our processor', () => {
  // Method: one chunk is one micro-batch. It stalls on a chunk of a schema that only the registry can tell, which is shut;
  // it is slow when far more is written in each step than it can apply.
  test(`is healthy, stalled, slow or stopped (${everywhere})`, async ({ place }) => {
    const { processorGroup: group } = place.names;
    const source = place.names.source('title.ratings');
    const files = { 'title.ratings.tsv': `${headerOf('title.ratings')}tt0000001\t5.7\t2\n` };
    await place.replay(place.files('one', files), '--datasets', 'title.ratings', '--shards', '1');
    const url = new URL(inject('registryUrl'));
    const [port] = (await freePorts(1)) as [number];
    const door = await Door.to({ host: url.hostname, port: Number(url.port) }, port);
    place.onEnd(() => door.shut());
    const behind = new URL(url);
    behind.port = String(port);
    const member = place.start(
      place.args('process', '--max-records', '1', '--stuck-after', '10m', '--shards', '1'),
      { SCHEMA_REGISTRY_URL: behind.href },
    );
    const spanMs = await spanMsFor(() => place.hasCaughtUp());
    const watch = new LagWatch(broker, spanMs);
    const monitor = await Monitor.start(place, spanMs, []);
    const seen = async (state: State) => {
      const says = () => monitor.says(group, source, state, 'Processors');
      const report = await lookUntil(watch, { [group]: state }, says);
      await commandSays(place, source, { [group]: state }, spanMs);
      return report;
    };
    await until('it has caught up', () => place.hasCaughtUp());
    const healthy = await seen('OK');
    const row = healthy.rows.find(({ topic }) => topic === source);
    expect(row).toMatchObject({ lag: 0, lagRecords: 0, timeLagMs: 0 });
    // It commits its position also on topics without messages.
    const others = healthy.rows.filter(({ topic }) => topic !== source);
    expect(others.map(({ nextOffset }) => nextOffset)).toEqual(others.map(() => 0));
    expect(others.length).toBeGreaterThan(0);

    const chunkOf = (schemaId: number, ...tail: number[]) =>
      Buffer.concat([
        encodeChunk(chunkType('title.ratings'), schemaId, {
          records: [
            { tconst: 'tt0000001', averageRating: 6.1, numVotes: 3 },
            { tconst: 'tt0000002', averageRating: 6.2, numVotes: 3 },
          ],
        }),
        Buffer.from(tail),
      ]);
    const subject = `${source}-value`;
    const ownId = await registerSchema(subject, JSON.parse(schemaText('imdb.title.ratings')));
    const schema = JSON.parse(schemaText('imdb.title.ratings'));
    schema.fields.push({ name: 'note', type: 'string', default: '' });
    const newerId = await registerSchema(subject, schema);
    await door.shut();
    await sendTo(source, 0, [chunkOf(newerId, 0)]);
    const stalled = await seen('STALL');
    expect(groupIn(stalled, group)).toMatchObject({ lag: 1, lagRecords: 1, catchesUp: false });

    await door.open();
    await until('it has caught up', () => place.hasCaughtUp());
    const many = Array.from({ length: 100 }, () => chunkOf(ownId));
    const slow = await meanwhile(seen('WARN'), () => sendTo(source, 0, many));
    const { lag, lagRecords, timeLagMs } = groupIn(slow, group);
    // Chunks of two records each, but for the first.
    expect((lagRecords as number) / (lag as number)).toBeGreaterThan(1);
    expect((lagRecords as number) / (lag as number)).toBeLessThanOrEqual(2);
    expect(timeLagMs).toBeGreaterThan(0);

    await member.terminate();
    const stopped = await seen('STOP');
    await monitor.end();
    expect(groupIn(stopped, group)).toMatchObject({ state: 'STOP', catchesUp: false });
  });
});
