/**
 * Flink itself, on the real broker and registry, through the command line: its bounded tables against those of the sink and
 * of the batch computation, those of a user among them, and the tables on topics across a kill.
 */
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import type { DuckDBConnection } from '@duckdb/node-api';
import avsc from 'avsc';
import { describe, expect, inject, vi } from 'vitest';
import { withDatabase } from '../../../database/duckdb.ts';
import { schemaOfGoldTable } from '../../../flink/gold-topic.ts';
import { flinkJars } from '../../../flink/local.ts';
import { logBounds } from '../../../kafka/bounds.ts';
import { findJvm } from '../../../kafka/local/jars.ts';
import { currentSnapshot, snapshotFolder } from '../../../sinks/gold/manifest.ts';
import { batchGold } from '../../../sinks/verify/file-gold.ts';
import { goldTables } from '../../../tables/gold-tables.ts';
import { type DatasetName, datasetNames, partitionOf } from '../../../topics/catalog.ts';
import { schemaBefore } from '../../../topics/chunk.ts';
import { groupOf } from '../../../topics/id-groups.ts';
import { schemaText } from '../../../topics/registry.ts';
import { onDatabase, sendTo } from '../../support/damage.ts';
import { dumpOfDay } from '../../support/dump-days.ts';
import { compareGold } from '../../support/gold-differences.ts';
import {
  broker,
  type ChunkContent,
  chunkType,
  encodeChunk,
  lastJson,
  type Place,
  registerSchema,
  sample,
  smallDataset,
  spoken,
  test,
  textOf,
  until,
  writeDatasets,
} from '../../support/harness.ts';
import { userFolder } from '../../support/user-folder.ts';
import { startCluster } from './cluster.ts';

// Flink starts in ten seconds on a quiet machine, and in minutes on a busy one.
vi.setConfig({ testTimeout: 1_800_000, hookTimeout: 120_000 });

/** The bound for each wait on a condition. */
const patienceMs = 600_000;

/** The tables that Flink computes. */
const shared = goldTables.filter(({ onlyDuckdb }) => onlyDuckdb === undefined);

const root = fileURLToPath(new URL('../../..', import.meta.url));
const jars = join(root, '.reelflow', 'jars');
const java = await findJvm(process.env, jars, flinkJars);
if ('why' in java) process.stderr.write(`Flink: skipped, ${java.why}\n`);

const flinkArgs = (place: Place, ...more: string[]) => [
  ...['flink', 'run', '--namespace', place.namespace, '--state', place.state, '--jars', jars, ...more],
];

async function succeed(place: Place, args: readonly string[]): Promise<void> {
  const finished = await place.run(args);
  expect(finished, `${args.join(' ')}\n${finished.stderr.slice(-4_000)}`).toMatchObject({ code: 0 });
}

/** The differences between the tables in a folder and those in a schema that `fill` makes. */
async function differencesFrom(folder: string, fill: (connection: DuckDBConnection) => Promise<unknown>) {
  return withDatabase(async (connection) => {
    await fill(connection);
    const found = await compareGold(connection, 'expected', folder);
    return found.filter(({ table }) => shared.some(({ name }) => name === table));
  });
}

/** Replays the ratings after everything else, then some rows again, changed, repeated and deleted. */
async function replayUnevenly(place: Place, data: string): Promise<void> {
  const texts = Object.fromEntries(datasetNames.map((dataset) => [dataset, textOf(data, dataset)]));
  const rows = (dataset: DatasetName) => (texts[dataset] as string).trimEnd().split('\n');
  const file = (name: string, dataset: DatasetName, lines: readonly string[]) =>
    writeDatasets(join(place.folder, name), { [dataset]: `${lines.join('\n')}\n` });
  const others = datasetNames.filter((dataset) => dataset !== 'title.ratings');
  const replay = (folder: string, ...names: DatasetName[]) =>
    succeed(place, place.args('replay', folder, '--upsert', '--shards', '3', '--datasets', names.join(',')));
  await replay(data, ...others);
  await replay(data, 'title.ratings');
  await replay(data, 'title.akas');

  const [header = '', ...ratings] = rows('title.ratings');
  const changed = ratings
    .filter((_, n) => n % 4 === 0)
    .map((row, n) => `${row.split('\t')[0]}\t${1 + (n % 9)}.${n % 10}\t${n}`);
  // Some rows are twice in one chunk: the later one wins.
  await replay(
    file('changed', 'title.ratings', [header, ...ratings.slice(0, 50), ...changed]),
    'title.ratings',
  );

  const topic = place.names.source('title.principals');
  const registered = await fetch(`${inject('registryUrl')}/subjects/${topic}-value/versions/latest`);
  const { id } = (await registered.json()) as { id: number };
  const principals = rows('title.principals')
    .slice(1)
    .filter((_, n) => n % 7 === 0);
  for (const row of principals.slice(0, 40)) {
    const [tconst = '', ordering] = row.split('\t');
    const key = { tconst, ordering: Number(ordering) };
    const partition = partitionOf(tconst.slice(0, -4), 3);
    // A record and its delete in one chunk: the delete applies last.
    const record = { ...key, nconst: 'nm0000001', category: null, job: null, characters: null };
    const chunk = { records: [record], deletes: [key] };
    await sendTo(topic, partition, [encodeChunk(chunkType('title.principals'), id, chunk)]);
  }
}

/**
 * Chunks that replace the groups of some titles and people, with and without rows of their own, then rows of removed keys, then a chunk
 * in the schema before `replaces`.
 */
async function replaceGroups(place: Place, data: string): Promise<void> {
  const ids = textOf(data, 'title.ratings')
    .trimEnd()
    .split('\n')
    .slice(1, 61)
    .map((row) => row.split('\t')[0] as string);
  const send = async (dataset: DatasetName, of: string, content: ChunkContent, before = false) => {
    const topic = place.names.source(dataset);
    const schema = before ? schemaBefore('replaces', dataset) : JSON.parse(schemaText(`imdb.${dataset}`));
    const id = await registerSchema(`${topic}-value`, schema);
    const partition = partitionOf(of.slice(0, -4), 3);
    await sendTo(topic, partition, [encodeChunk(avsc.Type.forSchema(schema), id, content)]);
  };
  const people = textOf(data, 'name.basics').trimEnd().split('\n').slice(1, 21);
  for (const nconst of people.map((row) => row.split('\t')[0] as string)) {
    await send('name.basics', nconst, { records: [], replaces: [groupOf(Number(nconst.slice(2)))] });
  }
  const rating = (tconst: string) => ({ tconst, averageRating: 2.5, numVotes: 7 });
  for (const [n, tconst] of ids.entries()) {
    const replaces = [groupOf(Number(tconst.slice(2)))];
    const principal = {
      tconst,
      ordering: 1,
      nconst: 'nm0000001',
      category: null,
      job: null,
      characters: null,
    };
    const aka = { titleId: tconst, ordering: 1, title: 'One', region: 'ZZ', language: null, types: null };
    if (n % 3 === 0) await send('title.ratings', tconst, { records: [], replaces });
    if (n % 6 === 0) await send('title.ratings', tconst, { records: [rating(tconst)] }, n % 12 === 0);
    if (n % 3 === 1) await send('title.principals', tconst, { records: [principal], replaces });
    if (n % 3 === 2) {
      const records = [{ ...aka, attributes: null, isOriginalTitle: null }];
      const deletes = n % 2 === 0 ? [{ titleId: tconst, ordering: 1 }] : [];
      await send('title.akas', tconst, { records, deletes, replaces });
    }
  }
}

describe.skipIf('why' in java)('Flink', () => {
  test.skipIf(!existsSync(sample))(
    'bounded, on real files: equal to the batch computation',
    async ({ place }) => {
      await place.upsert(sample, '--shards', '2');
      const out = join(place.folder, 'tables');
      await succeed(place, flinkArgs(place, '--bounded', '--out', out));
      expect(await differencesFrom(out, (connection) => batchGold(connection, sample, 'expected'))).toEqual(
        [],
      );
    },
  );

  test("bounded, with late, changed, repeated, deleted and replaced rows and a user's folder: equal to the sink", async ({
    place,
  }) => {
    const data = await smallDataset(join(place.folder, 'data'), 600, 5);
    await replayUnevenly(place, data);
    await replaceGroups(place, data);
    const tables = ['--tables', place.files('tables-of-user', userFolder)];
    await place.process(...tables);
    await place.sink(...tables);
    const out = join(place.folder, 'tables');
    await succeed(place, flinkArgs(place, '--bounded', '--out', out, ...tables));

    const ours = snapshotFolder(place.gold, currentSnapshot(place.gold) ?? 'none');
    const differences = await differencesFrom(out, async (connection) => {
      await connection.run('CREATE SCHEMA expected');
      for (const { name } of goldTables) {
        await connection.run(`CREATE TABLE expected.${name} AS FROM '${join(ours, `${name}.parquet`)}'`);
      }
    });
    expect(differences).toEqual([]);
    for (const name of ['category_analysis', 'type_counts']) {
      const [byFlink, bySink] = await Promise.all(
        [out, ours].map((of) => onDatabase(':memory:', `FROM '${join(of, `${name}.parquet`)}'`)),
      );
      expect(byFlink).toEqual(bySink);
      expect(byFlink?.length).toBeGreaterThan(1);
    }
  });

  test('bounded, after three dumps and behind a base: equal to the batch computation over the newest dump', async ({
    place,
  }) => {
    const whole = await smallDataset(join(place.folder, 'data'), 600, 5);
    const dump = (day: number) => dumpOfDay(join(place.folder, `day ${day}`), whole, day, day === 2);
    const refresh = (day: number, ...more: string[]) =>
      place.pipeline(dump(day), {
        replay: ['--shards', '3', '--max-removed', '50', ...more],
        sink: ['--keep', '1', '--history', '0'],
      });
    for (const day of [1, 2]) await refresh(day, '--base-above', '100');
    const out = join(place.folder, 'tables');
    await succeed(place, flinkArgs(place, '--bounded', '--out', out));
    expect(await differencesFrom(out, (to) => batchGold(to, dump(2), 'expected'))).toEqual([]);

    // The base repeats every row, so that everything before it is deleted.
    await refresh(3, '--base-above', '1');
    const topic = place.names.source('title.principals');
    const bounds = [...((await logBounds(broker, [topic])).get(topic)?.values() ?? [])];
    expect(bounds.map(({ start }) => start > 0)).toEqual([true, true, true]);
    await succeed(place, flinkArgs(place, '--bounded', '--out', out));
    expect(await differencesFrom(out, (to) => batchGold(to, dump(3), 'expected'))).toEqual([]);
  });

  test('on topics, after a kill and a start from a checkpoint: the tables of all rows, without replaced ones', async ({
    place,
  }) => {
    const data = await smallDataset(join(place.folder, 'data'), 300, 6);
    await place.upsert(data, '--shards', '2');
    const first = place.start(flinkArgs(place));
    const state = join(place.state, 'flink', place.namespace);
    const gateway = () => JSON.parse(readFileSync(join(state, 'gateway.pid'), 'utf8')) as { pid: number };
    await untilTables(place, data);
    first.kill('SIGKILL');
    await first.done;
    process.kill(gateway().pid, 'SIGKILL');

    const texts = Object.fromEntries(datasetNames.map((dataset) => [dataset, textOf(data, dataset)]));
    texts['title.ratings'] = (texts['title.ratings'] as string).replaceAll(/\t\d\.\d\t/g, '\t3.3\t');
    const later = writeDatasets(join(place.folder, 'later'), texts);
    await place.upsert(later);
    const second = place.start(flinkArgs(place));
    await untilTables(place, later);

    // The ids of the dataset are so far apart that each title has a group of its own.
    const [header = '', ...ratings] = (texts['title.ratings'] as string).trimEnd().split('\n');
    for (const row of ratings.slice(0, 10)) await replace(place, row.split('\t')[0] as string);
    texts['title.ratings'] = [header, ...ratings.slice(10), ''].join('\n');
    await untilTables(place, writeDatasets(join(place.folder, 'replaced'), texts));
    expect(second.log.some(({ msg }) => msg.includes('starting from') && msg.includes('chk-'))).toBe(true);
    expect((await second.terminate()).code).toBe(0);
  });
});

/** Replaces the group of a title's rating by nothing, on topics with two partitions. */
async function replace(place: Place, tconst: string): Promise<void> {
  const topic = place.names.source('title.ratings');
  const id = await registerSchema(`${topic}-value`, JSON.parse(schemaText('imdb.title.ratings')));
  const chunk = { records: [], replaces: [groupOf(Number(tconst.slice(2)))] };
  const partition = partitionOf(tconst.slice(0, -4), 2);
  await sendTo(topic, partition, [encodeChunk(chunkType('title.ratings'), id, chunk)]);
}

/** The parts of a cluster's REST answers that the tests read. */
interface Checkpoints {
  readonly counts: { readonly completed: number; readonly restored: number };
  readonly latest: { readonly completed?: { readonly external_path: string } };
}

describe.skipIf('why' in java)('a cluster', () => {
  test('takes the job by its REST address and by its SQL gateway, and continues after the loss of a task manager', async ({
    place,
  }) => {
    const clusterOf = async (name: string, connectors: boolean) => {
      const folder = join(place.folder, name);
      mkdirSync(folder);
      const cluster = await startCluster(folder, { jars, connectors });
      place.onEnd(() => cluster.stop());
      return cluster;
    };
    const submit = (...more: string[]) =>
      place.run([
        ...[
          'flink',
          'submit',
          '--json',
          '--namespace',
          place.namespace,
          '--state',
          place.state,
          '--jars',
          jars,
        ],
        ...more,
      ]);
    const submitted = async (...more: string[]) => {
      const finished = await submit(...more);
      expect(finished, finished.stderr.slice(-4_000)).toMatchObject({ code: 0 });
      return lastJson<{ job: string }>(finished).job;
    };
    const cluster = await clusterOf('cluster', false);
    const state = async (id: string) => (await cluster.ask<{ state: string }>(`/jobs/${id}`)).state;
    const checkpoints = (id: string, of = cluster) => of.ask<Checkpoints>(`/jobs/${id}/checkpoints`);

    const data = await smallDataset(join(place.folder, 'data'), 300, 7);
    await place.upsert(data, '--shards', '2');
    const first = await submitted('--rest', cluster.rest);
    await untilTables(place, data);
    expect(await state(first)).toBe('RUNNING');
    await until(
      'checkpoints of all messages',
      async () => {
        const lag = await place.run(['lag', '--json', '--group', place.names.flinkGroup]);
        const rows = lastJson<{ lag: number | null }[]>(lag);
        return rows.length > 0 && rows.every((row) => row.lag === 0);
      },
      patienceMs,
    );
    for (const table of shared) {
      const { name } = table;
      const subject = `${place.names.goldTable(name)}-value`;
      const registered = await fetch(`${inject('registryUrl')}/subjects/${subject}/versions/latest`);
      const { schema } = (await registered.json()) as { schema: string };
      expect(JSON.parse(schema)).toEqual(schemaOfGoldTable(table));
    }

    const second = await submit('--rest', cluster.rest);
    expect(spoken(second)).toContain(`Job ${first}`);
    expect(second.code).toBe(19);

    cluster.killTaskManager();
    const rated = (rating: string) => {
      const texts = Object.fromEntries(datasetNames.map((dataset) => [dataset, textOf(data, dataset)]));
      texts['title.ratings'] = (texts['title.ratings'] as string).replaceAll(/\t\d\.\d\t/g, `\t${rating}\t`);
      return writeDatasets(join(place.folder, `rated-${rating}`), texts);
    };
    const later = rated('3.3');
    await place.upsert(later);
    await untilTables(place, later);
    const { counts } = await checkpoints(first);
    // Each attempt before the new task manager started counts, too.
    expect(counts.restored).toBeGreaterThan(0);

    await until(
      'one more checkpoint',
      async () => (await checkpoints(first)).counts.completed > counts.completed,
      patienceMs,
    );
    await fetch(`${cluster.rest}/jobs/${first}?mode=cancel`, { method: 'PATCH' });
    await until('the end of the first job', async () => (await state(first)) === 'CANCELED', patienceMs);
    const from = (await checkpoints(first)).latest.completed?.external_path ?? '';
    const without = await submit('--gateway', await cluster.startGateway(), '--from', from);
    expect(spoken(without)).toContain('The cluster lacks a jar');
    expect(without.code).toBe(24);
    await cluster.stop();

    const whole = await clusterOf('whole', true);
    const last = rated('8.1');
    await place.upsert(last);
    const third = await submitted('--gateway', await whole.startGateway(), '--from', from);
    await untilTables(place, last);
    expect((await checkpoints(third, whole)).counts.restored).toBeGreaterThan(0);
  });
});

/** Waits until the committed messages on the topics equal the batch computation over the files. */
async function untilTables(place: Place, data: string): Promise<void> {
  const deadline = Date.now() + 900_000;
  for (;;) {
    const folder = join(place.folder, `seen-${Date.now()}`);
    mkdirSync(folder);
    const found = (await fold(place, folder))
      ? await differencesFrom(folder, (connection) => batchGold(connection, data, 'expected'))
      : 'no rows yet';
    if (found.length === 0) return;
    if (Date.now() > deadline) expect(found).toEqual([]);
    await delay(5_000);
  }
}

/** Writes the newest row of each key on the result topics into one Parquet file per table. @returns whether all have rows */
async function fold(place: Place, folder: string): Promise<boolean> {
  return withDatabase(async (connection) => {
    for (const table of shared) {
      const { name, order } = table;
      const columns = Object.entries(table.columns);
      const rows = await newestRows(
        place.names.goldTable(name),
        avsc.Type.forSchema(schemaOfGoldTable(table) as avsc.Schema),
      );
      if (rows.size === 0) return false;
      const lines = join(folder, `${name}.json`);
      writeFileSync(lines, [...rows.values()].map((row) => `${JSON.stringify(row)}\n`).join(''));
      const types = columns.map(([column, type]) => `'${column}': '${type}'`).join(', ');
      await connection.run(`COPY (SELECT * FROM read_json('${lines}', format = 'newline_delimited', columns = {${types}})
        ORDER BY ${order}) TO '${join(folder, `${name}.parquet`)}'`);
    }
    return true;
  });
}

async function newestRows(topic: string, type: avsc.Type): Promise<Map<string, unknown>> {
  const rows = new Map<string, unknown>();
  const bounds = await logBounds(broker, [topic]).catch(() => new Map());
  const ends: Map<number, { end: number }> = bounds.get(topic) ?? new Map();
  if ([...ends.values()].every(({ end }) => end === 0)) return rows;
  const consumer = broker.kafka.consumer({ groupId: `${topic}.look-${Date.now()}`, readUncommitted: false });
  const reached = new Set([...ends].filter(([, { end }]) => end === 0).map(([partition]) => partition));
  await consumer.connect();
  try {
    await consumer.subscribe({ topic, fromBeginning: true });
    // An open transaction hides all messages after its start, so no message may arrive for a while.
    let quietSince = Date.now();
    await consumer.run({
      autoCommit: false,
      eachBatchAutoResolve: true,
      eachBatch: async ({ batch }) => {
        quietSince = Date.now();
        for (const { key, value } of batch.messages) {
          const text = String(key);
          if (value === null) rows.delete(text);
          else rows.set(text, type.fromBuffer(value.subarray(5)));
        }
        // The last offsets may be transaction markers, which are not messages.
        if (Number(batch.lastOffset()) >= (ends.get(batch.partition)?.end ?? 0) - 3)
          reached.add(batch.partition);
      },
    });
    while (reached.size < ends.size && Date.now() - quietSince < 15_000) await delay(200);
    return rows;
  } finally {
    await consumer.disconnect();
  }
}
