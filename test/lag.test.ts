/**
 * `lag`: the rows as a pure function of commits and ends of logs, then a foreign group and our own on a real broker, and
 * the command in its forms.
 */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';
import { describe, expect, inject, it } from 'vitest';
import { withAdmin } from '../kafka/client.ts';
import { readBounds } from '../kafka/groups.ts';
import { lagRows, readLag } from '../monitor/lag.ts';
import { broker, lastJson, type Place, smallDataset, spoken, test, until } from './harness.ts';

const program = fileURLToPath(new URL('../cli/reelflow.js', import.meta.url));

const log = (start: number, end: number) => ({ start, end });
const at = (next: number) => ({ next, metadata: '' });
const watched = { group: 'g', topics: ['read', 'not-yet-created'] };

describe('lagRows', () => {
  const committed = new Map([
    ['read', new Map([[1, at(7)]])],
    ['deleted', new Map([[0, at(3)]])],
    ['another', new Map([[0, at(0)]])],
  ]);
  const bounds = new Map([
    ['read', new Map([0, 1, 2].map((partition) => [partition, log(2, 10)]))],
    ['another', new Map([[0, log(0, 0)]])],
  ]);
  const rows = lagRows(watched, { exists: true, committed }, bounds);
  const short = rows.map(({ topic, partition, startOffset, endOffset, nextOffset, lag }) =>
    [topic, partition, startOffset, endOffset, nextOffset, lag].join(' '),
  );

  it('tells every partition of what the group reads or has committed, in order', () => {
    expect(short).toEqual([
      'another 0 0 0 0 0',
      'deleted 0   3 ',
      'read 0 2 10  ',
      'read 1 2 10 7 3',
      'read 2 2 10  ',
    ]);
  });

  it('leaves unknown what is not known, and never says 0 for it', () => {
    expect(rows[1]).toEqual({
      group: 'g',
      topic: 'deleted',
      partition: 0,
      startOffset: null,
      endOffset: null,
      nextOffset: 3,
      lag: null,
      state: null,
      timeLagMs: null,
      catchUpMs: null,
    });
    expect(rows[2]).toMatchObject({ nextOffset: null, lag: null });
  });

  it('does not know the lag where the log ends before what was processed', () => {
    const replaced = new Map([['read', new Map([[1, log(0, 6)]])]]);
    const [, row] = lagRows({ group: 'g', topics: [] }, { exists: true, committed }, replaced).filter(
      ({ topic }) => topic !== 'another',
    );
    expect(row).toMatchObject({ endOffset: 6, nextOffset: 7, lag: null });
  });

  it('tells the topics of a group that has never been there', () => {
    expect(lagRows(watched, undefined, bounds)).toHaveLength(3);
  });
});

/** A topic of three partitions with 5, 6 and 7 messages. */
async function foreignTopic({ namespace }: Place): Promise<string> {
  const topic = `${namespace}.foreign`;
  await withAdmin(broker, (admin) =>
    admin.createTopics({ topics: [{ topic, numPartitions: 3 }], waitForLeaders: true }),
  );
  const producer = broker.kafka.producer();
  await producer.connect();
  for (const partition of [0, 1, 2]) {
    const messages = Array.from({ length: 5 + partition }, () => ({ partition, value: 'x' }));
    await producer.send({ topic, messages });
  }
  await producer.disconnect();
  return topic;
}

/** A group that has read 5, 2 and none of these messages. */
async function foreignGroup(place: Place): Promise<{ topic: string; group: string }> {
  const topic = await foreignTopic(place);
  const group = `${place.namespace}.foreign-group`;
  place.onEnd(() => withAdmin(broker, (admin) => admin.deleteGroups([group])));
  const partitions = [
    { partition: 0, offset: '5' },
    { partition: 1, offset: '2' },
  ];
  await withAdmin(broker, (admin) => admin.setOffsets({ groupId: group, topic, partitions }));
  return { topic, group };
}

describe('readLag', () => {
  test('tells any group of the cluster', async ({ place }) => {
    const { topic, group } = await foreignGroup(place);
    const { rows, absent } = await readLag(broker, [{ group, topics: [] }]);
    expect(absent).toEqual([]);
    expect(rows).toMatchObject([
      { group, topic, partition: 0, startOffset: 0, endOffset: 5, nextOffset: 5, lag: 0 },
      { group, topic, partition: 1, startOffset: 0, endOffset: 6, nextOffset: 2, lag: 4 },
      { group, topic, partition: 2, startOffset: 0, endOffset: 7, nextOffset: null, lag: null },
    ]);
  });

  test('names a group that does not exist', async ({ place }) => {
    const group = `${place.namespace}.nobody`;
    expect(await readLag(broker, [{ group, topics: [] }])).toEqual({ rows: [], absent: [group] });
  });

  test('reads the ends of many topics, without those that are gone', async ({ place }) => {
    const topic = await foreignTopic(place);
    const bounds = await readBounds(broker, [topic, `${place.namespace}.gone`]);
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
  readonly lag: number | null;
}

describe('reelflow lag', () => {
  const command = (place: Place, ...more: string[]) => ['lag', '--namespace', place.namespace, ...more];

  test('tells our groups: unknown before they have begun, nothing left when they have caught up', async ({
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
        ...['akas', 'basics', 'principals', 'ratings'].map(
          (dataset) => `${names.processorGroup} ${place.namespace}.imdb.title.${dataset}`,
        ),
        `${names.sinkGroup} ${names.source('name.basics')}`,
      ].sort(),
    );
    expect(rows.every(({ lag }) => lag === null)).toBe(true);

    await place.process();
    const after = await place.run(command(place, '--json', '--group', names.processorGroup));
    const left = lastJson<Row[]>(after);
    expect(left).toHaveLength(16);
    expect(left.every(({ lag }) => lag === 0)).toBe(true);
  });

  test('shows a table with a total and what is unknown, with --watch again and again until a signal', async ({
    place,
  }) => {
    const { group } = await foreignGroup(place);
    const missing = `${place.namespace}.nobody`;
    const { code, stdout } = await place.run(command(place, '--group', group, '--group', missing));
    expect(code).toBe(0);
    expect(stdout).toContain(`Group ${group}, in messages`);
    expect(stdout).toMatch(/foreign +│ +1 │ +0 │ +6 │ +2 │ +4 │/);
    expect(stdout).toMatch(/foreign +│ +2 │ +0 │ +7 │ unknown │ +unknown │/);
    expect(stdout).toMatch(/total .* 4 \+ 1 unknown │/);
    expect(stdout).toContain(`Group ${missing} does not exist`);

    const watching = spawn(process.execPath, [program, ...command(place, '--watch', '--group', group)], {
      cwd: place.folder,
      env: {
        ...process.env,
        KAFKA_BROKERS: inject('brokers').join(','),
        SCHEMA_REGISTRY_URL: inject('registryUrl'),
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

  test('says that no broker answers', async ({ place }) => {
    const env = { KAFKA_BROKERS: '127.0.0.1:1', SCHEMA_REGISTRY_URL: 'http://127.0.0.1:1' };
    const finished = await place.run(command(place), env);
    expect(finished.code).toBe(4);
    expect(spoken(finished)).toContain('No Kafka broker answers');
  });
});
