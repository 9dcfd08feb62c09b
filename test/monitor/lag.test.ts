/**
 * `lag`: the partitions of a group as a pure function of commits and ends of logs, then a foreign group and our own on a
 * real broker, and the command in its forms.
 */

import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { describe, expect, it } from 'vitest';
import { duration, sparkline } from '../../cli/figures.ts';
import { lagText } from '../../cli/lag-text.ts';
import { availableLogBounds } from '../../kafka/bounds.ts';
import { withAdmin } from '../../kafka/client.ts';
import type { Group } from '../../kafka/groups.ts';
import { commitAlone } from '../../kafka/membership.ts';
import { readMetadata } from '../../monitor/commit-metadata.ts';
import { type LagReport, partitionsOf } from '../../monitor/lag.ts';
import { LagWatch } from '../../monitor/lag-watch.ts';
import { exitCodes } from '../../runtime/errors.ts';
import {
  broker,
  lastJson,
  type Place,
  program,
  servicesEnv,
  smallDataset,
  spoken,
  test,
  until,
} from '../support/harness.ts';

const log = (start: number, end: number) => ({ start, end, highWatermark: end });
const at = (next: number) => ({ next, metadata: '' });
const watched = { group: 'g', topics: ['read', 'not-yet-created'] };
const group: Omit<Group, 'owners' | 'committed'> = {
  exists: true,
  members: 1,
  subscribed: null,
  problem: null,
};

describe('the partitions of a group', () => {
  const committed = new Map([
    ['read', new Map([[1, at(7)]])],
    ['deleted', new Map([[0, at(3)]])],
    ['another', new Map([[0, at(0)]])],
  ]);
  const owners = new Map([
    ['read', new Map([[2, 'member-1']])],
    ['assigned', new Map([[0, 'member-1']])],
    ['assigned-and-deleted', new Map([[0, 'member-1']])],
  ]);
  const bounds = new Map([
    ['read', new Map([0, 1, 2].map((partition) => [partition, log(2, 10)]))],
    ['another', new Map([[0, log(0, 0)]])],
    ['assigned', new Map([[0, log(0, 4)]])],
  ]);

  it('are those that it reads, is assigned or has committed, in order', () => {
    const seen = partitionsOf(watched, { ...group, owners, committed }, null, bounds);
    const short = seen.map(({ topic, partition, log, commit, owner }) =>
      [topic, partition, log?.start, log?.end, commit?.next, owner].join(' '),
    );
    expect(short).toEqual([
      'another 0 0 0 0 ',
      'assigned 0 0 4  member-1',
      'deleted 0   3 ',
      'read 0 2 10  ',
      'read 1 2 10 7 ',
      'read 2 2 10  member-1',
    ]);
  });

  it('have unknown owners while the assignment is unknown', () => {
    const seen = partitionsOf(watched, { ...group, owners: null, committed }, null, bounds);
    expect(seen.every(({ owner }) => owner === undefined)).toBe(true);
  });

  it('have no owners in a group that does not exist', () => {
    expect(partitionsOf(watched, undefined, null, bounds).map(({ owner }) => owner)).toEqual([
      null,
      null,
      null,
    ]);
  });

  it('are subscribed by the subscription, whatever was asked for, and while it is unknown', () => {
    const subscribed = (topic: string) => topic === 'another';
    const topicsOf = (subscription: Group['subscribed']) => {
      const found = partitionsOf(watched, { ...group, owners: new Map(), committed }, subscription, bounds);
      return [...new Set(found.filter(({ isSubscribed }) => isSubscribed).map(({ topic }) => topic))];
    };
    expect(topicsOf(subscribed)).toEqual(['another']);
    expect(topicsOf(null)).toEqual(['another', 'deleted', 'read']);
  });
});

describe('the metadata of a commit', () => {
  const none = { recordTs: null, committedAt: null, recordsPerMessage: null, readNext: null };
  it.each(['', 'null', '7', '[]', '{"recordTs":"yesterday","committedAt":0,"recordsPerMessage":null}', '{'])(
    'has no values when it is %j',
    (text) => expect(readMetadata(text)).toEqual(none),
  );

  it('has the values of our groups', () => {
    expect(
      readMetadata('{"recordTs":5,"committedAt":6,"recordsPerMessage":1.5,"readNext":9,"more":1}'),
    ).toEqual({
      recordTs: 5,
      committedAt: 6,
      recordsPerMessage: 1.5,
      readNext: 9,
    });
  });
});

describe('texts', () => {
  it.each([
    [null, 'unknown'],
    [Number.POSITIVE_INFINITY, 'never'],
    [0, '0 s'],
    [0.4, '1 ms'],
    [999, '999 ms'],
    [59_999, '59 s'],
    [60_000, '1 min'],
    [200_000, '3 min 20 s'],
    [7_500_000, '2 h 5 min'],
    [100 * 3_600_000, '4 d 4 h'],
  ])('%d ms are %s', (ms, text) => expect(duration(ms)).toBe(text));

  it('a trend is drawn from zero to its maximum, with a gap for unknown values', () => {
    expect(sparkline([0, 1, null, 4, 8])).toBe('▁▂ ▅█');
    expect(sparkline([0, 0])).toBe('▁▁');
    expect(sparkline([])).toBe('');
    expect(sparkline(Array.from({ length: 60 }, (_, i) => i))).toHaveLength(20);
  });
});

const sentMs = (partition: number, offset: number) => 1_700_000_000_000 + 1_000 * partition + offset;

/** A topic of three partitions with 5, 6 and 7 messages. */
async function foreignTopic({ namespace }: Place): Promise<string> {
  const topic = `${namespace}.foreign`;
  // Its messages are years old: without this setting the broker deletes them at its next check.
  const configEntries = [{ name: 'retention.ms', value: '-1' }];
  await withAdmin(broker, (admin) =>
    admin.createTopics({ topics: [{ topic, numPartitions: 3, configEntries }], waitForLeaders: false }),
  );
  const producer = broker.kafka.producer();
  await producer.connect();
  for (const partition of [0, 1, 2]) {
    const messages = Array.from({ length: 5 + partition }, (_, i) => ({
      partition,
      value: 'x',
      timestamp: String(sentMs(partition, i)),
    }));
    await producer.send({ topic, messages });
  }
  await producer.disconnect();
  return topic;
}

/** A group that has committed 5 and 2 on two of its partitions. */
async function foreignGroup(place: Place): Promise<{ topic: string; group: string }> {
  const topic = await foreignTopic(place);
  const group = `${place.namespace}.foreign-group`;
  place.onEnd(() => withAdmin(broker, (admin) => admin.deleteGroups([group])));
  await commitAlone(broker, group, [
    { topic, partition: 0, next: 5 },
    { topic, partition: 1, next: 2 },
  ]);
  return { topic, group };
}

/** The report in which it was seen: a later one may be of a group that just rebalances. */
async function reportWhen(
  what: string,
  group: string,
  holds: (report: LagReport) => boolean,
): Promise<LagReport> {
  let report: LagReport | undefined;
  await until(what, async () => {
    report = await new LagWatch(broker).look([{ group, topics: [] }]);
    return holds(report);
  });
  return report as LagReport;
}

describe('an observation', () => {
  test('reports any group of the cluster; unknown is null, never 0', async ({ place }) => {
    const { topic, group } = await foreignGroup(place);
    const { rows, groups, atMs } = await new LagWatch(broker).look([{ group, topics: [] }]);
    const never = { catchUpMs: Number.POSITIVE_INFINITY, catchesUp: false };
    const unknown = {
      ...{ lagRecords: null, consumedPerSecond: null, producedPerSecond: null },
      ...{ isSubscribed: true, blocked: 0, expiresMs: null },
    };
    expect(rows).toEqual([
      {
        ...{ group, topic, partition: 0, startOffset: 0, endOffset: 5, nextOffset: 5, lag: 0 },
        ...{ highWatermark: 5, lost: 0 },
        ...{
          ...unknown,
          lagRecords: 0,
          state: 'OK',
          whyUnknown: null,
          timeLagMs: 0,
          catchUpMs: 0,
          catchesUp: true,
        },
      },
      {
        ...{ group, topic, partition: 1, startOffset: 0, endOffset: 6, nextOffset: 2, lag: 4 },
        ...{ highWatermark: 6, lost: 0 },
        ...{ ...unknown, state: 'STOP', whyUnknown: null, timeLagMs: atMs - sentMs(1, 2), ...never },
      },
      {
        ...{ group, topic, partition: 2, startOffset: 0, endOffset: 7, nextOffset: null, lag: null },
        ...{ highWatermark: 7, lost: null },
        ...{ ...unknown, state: 'STOP', whyUnknown: null, timeLagMs: null, ...never },
      },
    ]);
    expect(groups).toMatchObject([
      { group, exists: true, state: 'STOP', lag: 4, lagUnknown: 1, timeLagMs: rows[1]?.timeLagMs },
    ]);
  });

  test('names a group that does not exist', async ({ place }) => {
    const group = `${place.namespace}.nobody`;
    const { rows, groups } = await new LagWatch(broker).look([{ group, topics: [] }]);
    expect(rows).toEqual([]);
    expect(groups).toMatchObject([{ group, exists: false, state: null, lag: null, catchUpMs: null }]);
    expect(groups[0]?.whyUnknown).toBe('it does not exist (yet)');
  });

  test('explains the unknown state of a group without commits', async ({ place }) => {
    const topic = await foreignTopic(place);
    const group = `${place.namespace}.silent`;
    const consumer = broker.kafka.consumer({ groupId: group });
    place.onEnd(() => consumer.disconnect());
    await consumer.connect();
    await consumer.subscribe({ topics: [topic], fromBeginning: true });
    await consumer.run({ autoCommit: false, eachMessage: async () => undefined });
    const report = await reportWhen('it is assigned the topic', group, ({ rows }) => rows.length > 0);
    expect(lagText(report)).toContain(
      `Group ${group}: state unknown (3 of 3 partitions: a member is assigned and has not committed), `,
    );
  });

  test('explains the unknown state of a group without partitions', async ({ place }) => {
    const group = `${place.namespace}.idle`;
    const consumer = broker.kafka.consumer({ groupId: group });
    place.onEnd(() => consumer.disconnect());
    await consumer.connect();
    await consumer.subscribe({ topics: [new RegExp(`^${place.namespace}\\.not-there$`)] });
    await consumer.run({ eachMessage: async () => undefined });
    const report = await reportWhen('it has joined', group, ({ groups }) => groups[0]?.exists === true);
    expect(lagText(report)).toBe(
      `Group ${group}: state unknown (nothing is committed, and no member is known to be assigned anything)`,
    );
  });

  test('reads the bounds of existing topics and leaves out missing ones', async ({ place }) => {
    const topic = await foreignTopic(place);
    const bounds = await availableLogBounds(broker, [topic, `${place.namespace}.gone`]);
    expect([...bounds.keys()]).toEqual([topic]);
    expect(bounds.get(topic)).toEqual(
      new Map([
        [0, log(0, 5)],
        [1, log(0, 6)],
        [2, log(0, 7)],
      ]),
    );
  });
});

interface Row {
  readonly group: string;
  readonly topic: string;
  readonly endOffset: number | null;
  readonly lag: number | null;
  readonly state: string | null;
}

describe('reelflow lag', () => {
  const command = (place: Place, ...more: string[]) => ['lag', '--namespace', place.namespace, ...more];

  test('reports our groups: STOP before they have started, no lag after they have caught up', async ({
    place,
  }) => {
    const data = await smallDataset(`${place.folder}/data`, 300, 5);
    await place.replay(data);
    const { names } = place;
    const before = await place.run(command(place, '--json'));
    expect(before, before.stderr).toMatchObject({ code: 0 });
    expect(before.stdout.trim().split('\n')).toHaveLength(1);
    const rows = lastJson<Row[]>(before);
    expect([...new Set(rows.map(({ group, topic }) => `${group} ${topic}`))].sort()).toEqual(
      [
        ...['akas', 'basics', 'crew', 'episode', 'principals', 'ratings'].map(
          (dataset) => `${names.processorGroup} ${place.namespace}.imdb.title.${dataset}`,
        ),
        `${names.sinkGroup} ${names.source('name.basics')}`,
      ].sort(),
    );
    // The commands that they name work on the same pipeline.
    const places = ['--gold', `${place.folder}/its gold`, '--state', `${place.folder}/other`];
    const inPlace = `--gold '${place.folder}/its gold' --state ${place.folder}/other --namespace ${place.namespace}`;
    for (const name of ['lag', 'status']) {
      const { stdout } = await place.run([name, '--namespace', place.namespace, ...places]);
      expect(stdout).toContain(`Run \`reelflow process ${inPlace}\`.`);
      expect(stdout).toContain(`Run \`reelflow sink ${inPlace}\`.`);
    }
    // No member runs, and messages wait.
    expect(rows.every(({ lag, state }) => lag === null && state === 'STOP')).toBe(true);
    const check = (state: string) => place.run(command(place, '--over', '1ms', '--fail-on', state));
    expect((await check('ERR')).code).toBe(exitCodes.lagging);
    expect((await check('STALL')).code).toBe(0);

    await place.process();
    const after = await place.run(command(place, '--json', '--group', names.processorGroup));
    const left = lastJson<Row[]>(after);
    expect(left).toHaveLength(24);
    expect(left.every(({ lag, state }) => lag === 0 && state === 'OK')).toBe(true);

    // A sink that runs once is not a member of its group, and commits its offsets there.
    await place.sink();
    const taken = lastJson<Row[]>(await place.run(command(place, '--json', '--group', names.sinkGroup)));
    const written = taken.filter(({ endOffset }) => endOffset !== 0);
    expect([...new Set(written.map(({ topic }) => topic))].sort()).toEqual(
      [names.deltas, names.source('name.basics')].sort(),
    );
    expect(written.filter(({ lag }) => lag !== 0)).toEqual([]);

    // Everything has to be processed again, and no member runs.
    expect(await place.run(place.args('reset'))).toMatchObject({ code: 0 });
    const reset = lastJson<Row[]>(
      await place.run(command(place, '--json', '--group', names.processorGroup)),
    ).filter(({ endOffset }) => endOffset !== 0);
    expect(reset.length).toBeGreaterThan(0);
    expect(reset.every(({ lag, endOffset, state }) => lag === endOffset && state === 'STOP')).toBe(true);
  });

  test('shows a table with total and unknown values, with --watch repeatedly until a signal', async ({
    place,
  }) => {
    const { group } = await foreignGroup(place);
    const missing = `${place.namespace}.nobody`;
    const { code, stdout } = await place.run(command(place, '--group', group, '--group', missing));
    expect(code).toBe(0);
    expect(stdout).toMatch(
      new RegExp(`Group ${group}: STOP, 4 \\+ 1 unknown messages left, .+ behind, caught up never\\n`),
    );
    expect(stdout).toMatch(/foreign +1 +0 +6 +2 +4 +STOP /);
    expect(stdout).toMatch(/foreign +2 +0 +7 +unknown +unknown +STOP +unknown /);
    expect(stdout).toContain(`Group ${missing} does not exist`);

    const watching = spawn(process.execPath, [program, ...command(place, '--watch', '--group', group)], {
      cwd: place.folder,
      env: {
        ...process.env,
        ...servicesEnv,
      },
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    place.onEnd(() => watching.kill('SIGKILL'));
    const ended = once(watching, 'exit');
    let drawn = '';
    watching.stdout.setEncoding('utf8').on('data', (text: string) => {
      drawn += text;
    });
    await until('two tables are drawn', () => drawn.split('4 + 1 unknown').length > 2);
    watching.kill('SIGINT');
    expect(await ended).toEqual([0, null]);
  });

  test('refuses --watch together with --json', async ({ place }) => {
    const finished = await place.run(command(place, '--watch', '--json'));
    expect(finished).toMatchObject({ code: 2, stdout: '' });
    expect(spoken(finished)).toContain('exclude each other');
  });

  test('reports that no broker answers', async ({ place }) => {
    const env = { KAFKA_BROKERS: '127.0.0.1:1', SCHEMA_REGISTRY_URL: 'http://127.0.0.1:1' };
    const finished = await place.run(command(place), env);
    expect(finished.code).toBe(4);
    expect(spoken(finished)).toContain('No Kafka broker answers');
  });
});
