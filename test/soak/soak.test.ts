/**
 * An hour in fast motion: sixty dumps, one a minute in the slow world, each correcting half of all rows while the
 * same processor member and the same sink go on. The rows that count stay as many as they were, so whatever is kept of
 * the past has to stop growing: memory of both, files of the stores, deltas on the topic, gold. After a warm-up the last
 * rounds must not need more than the ones before them. In the end gold equals the batch computation of all rows.
 *
 * Memory is read from /proc, so this runs on Linux only.
 */
import { existsSync, readdirSync, readFileSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import type { DuckDBConnection } from '@duckdb/node-api';
import { expect } from 'vitest';
import { withDatabase } from '../../database/duckdb.ts';
import { logBounds } from '../../kafka/bounds.ts';
import { storeFiles } from '../../processors/store-folder.ts';
import { systemCodeOf } from '../../runtime/errors.ts';
import { cubeTable } from '../../sinks/cube-sql.ts';
import { currentSnapshot, listSnapshots, readManifest } from '../../sinks/gold/manifest.ts';
import { columnsOf } from '../../tables/cubes/cube.ts';
import { cubes } from '../../tables/cubes/cube-set.ts';
import { datasetNames } from '../../topics/catalog.ts';
import { Chance } from '../chaos/chance.ts';
import { Dumps } from '../chaos/dumps.ts';
import { broker, type Place, type Running, test } from '../support/harness.ts';

const rounds = Number(process.env.SOAK_ROUNDS ?? 60);
const titles = Number(process.env.SOAK_TITLES ?? 10_000);
const share = 0.5;
const shards = 2;
const keep = 3;
const roundPatienceMs = 600_000;
const MB = 1e6;
const megabytes = (bytes: number) => `${(bytes / MB).toFixed(1)} MB`;
/** How many times the room of its rows a file of DuckDB may have taken: a checkpoint writes a copy beside the old data. */
const roomMax = 3;
/** DuckDB takes the log of a database into its file when it reaches 16 MiB. */
const logBytesMax = 16 * 2 ** 20;

/** Figures after a round, in bytes where the name has no other unit. */
type Sample = Record<(typeof figures)[number], number>;
const figures = ['processMemory', 'sinkMemory', 'stores', 'sinkFile', 'gold', 'snapshots', 'deltas'] as const;

const memoryOf = ({ pid }: Running) =>
  Number(/^VmRSS:\s+(\d+) kB$/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1]) * 1024;

/** Bytes of the files below a folder whose names match; what goes while it is looked at counts as gone. */
function bytesBelow(folder: string, matches: (name: string) => boolean = () => true): number {
  let bytes = 0;
  let names: string[] = [];
  try {
    names = readdirSync(folder);
  } catch (thrown) {
    if (systemCodeOf(thrown) !== 'ENOENT') throw thrown;
  }
  for (const name of names) {
    const path = join(folder, name);
    const found = statSync(path, { throwIfNoEntry: false });
    if (found?.isDirectory()) bytes += bytesBelow(path, matches);
    else if (matches(name)) bytes += found?.size ?? 0;
  }
  return bytes;
}

/** Rows of a query on a file that no process has open. */
const countIn = (path: string, query: string) =>
  inDatabase(path, async (connection) => {
    await connection.run('USE old');
    return Number((await connection.runAndReadAll(`SELECT count(*) FROM (${query})`)).value(0, 0));
  });

/** Bytes that the rows of a database take in a file of their own, in which nothing was ever deleted. */
async function bytesOfRows(path: string): Promise<number> {
  const copy = `${path}.copy`;
  await inDatabase(path, async (connection) => {
    for (const statement of [`ATTACH '${copy}' AS fresh`, 'COPY FROM DATABASE old TO fresh', 'DETACH fresh'])
      await connection.run(statement);
  });
  return statSync(copy).size;
}

/** Waits until CURRENT holds all that the topics hold. */
async function caughtUp({ names, gold }: Place, stages: readonly Running[]): Promise<void> {
  const topics = datasetNames.map((dataset) => names.source(dataset));
  const bounds = await logBounds(broker, topics);
  const deadline = Date.now() + roundPatienceMs;
  for (;;) {
    for (const stage of stages)
      if (stage.isDone) throw new Error(`a stage has ended\n${(await stage.done).stderr}`);
    const id = currentSnapshot(gold);
    const input = id === undefined ? {} : readManifest(gold, id).input;
    const isThere = topics.every((topic) =>
      [...(bounds.get(topic) ?? [])].every(
        ([partition, { end }]) => (input[topic]?.[partition]?.[1] ?? 0) >= end,
      ),
    );
    if (isThere) return;
    if (Date.now() > deadline) throw new Error('gold has not reached the ends of the topics');
    await delay(100);
  }
}

async function sample(place: Place, processor: Running, sink: Running): Promise<Sample> {
  const bounds = (await logBounds(broker, [place.names.deltas])).get(place.names.deltas) ?? new Map();
  return {
    processMemory: memoryOf(processor),
    sinkMemory: memoryOf(sink),
    stores: bytesBelow(place.state, (name) => name.startsWith('shard-')),
    sinkFile: bytesBelow(place.state, (name) => name.startsWith('sink.duckdb')),
    gold: bytesBelow(place.gold),
    snapshots: listSnapshots(place.gold).length,
    deltas: [...bounds.values()].reduce((sum, { start, end }) => sum + end - start, 0),
  };
}

/** Works on a database that no process has open, attached as `old`. */
async function inDatabase<T>(path: string, work: (connection: DuckDBConnection) => Promise<T>): Promise<T> {
  return withDatabase(async (connection) => {
    await connection.run(`ATTACH '${path}' AS old (READ_ONLY)`);
    return await work(connection);
  });
}

test.skipIf(!existsSync('/proc/self/status'))(
  'memory and disk stop growing',
  async ({ place }) => {
    const dumps = await Dumps.make(join(place.folder, 'data'), titles, 1, new Chance(1));
    await place.upsert(dumps.next(share), '--shards', String(shards));
    const processor = place.start(place.args('process', '--window', '200ms'));
    const sink = place.start(place.args('sink', '--interval', '500ms', '--keep', String(keep)));
    const samples: Sample[] = [];
    for (let round = 0; round < rounds; round++) {
      // About 1 % of the corrected ratings fit no rule.
      await place.upsert(dumps.next(share), '--max-rejected', '5');
      await caughtUp(place, [processor, sink]);
      const now = await sample(place, processor, sink);
      samples.push(now);
      const texts = figures.map((name) =>
        name === 'snapshots' || name === 'deltas'
          ? `${name} ${now[name]}`
          : `${name} ${megabytes(now[name])}`,
      );
      process.stdout.write(`round ${round + 1}: ${texts.join(', ')}\n`);
    }
    for (const stage of [processor, sink]) expect((await stage.terminate()).code).toBe(0);

    expect(await place.differences(dumps.all)).toEqual([]);

    // 1. nothing needs more in the last third than it ever did in the second
    const third = Math.floor(rounds / 3);
    const highest = (from: number, to: number, name: (typeof figures)[number]) =>
      Math.max(...samples.slice(from, to).map((of) => of[name]));
    for (const name of figures) {
      const before = highest(third, 2 * third, name);
      const slack: Partial<Sample> = {
        processMemory: 48 * MB,
        sinkMemory: 48 * MB,
        stores: shards * logBytesMax,
        sinkFile: logBytesMax,
        deltas: shards * keep,
      };
      expect(highest(2 * third, rounds, name), name).toBeLessThanOrEqual(before * 1.2 + (slack[name] ?? 0));
    }
    expect(highest(0, rounds, 'snapshots')).toBeLessThanOrEqual(keep + 1);

    // 2. what was published has left the outboxes but for the last entry, and the cubes of the sink are summed
    const folder = join(place.state, String(readdirSync(place.state)[0]), place.namespace);
    const stores = Array.from({ length: shards }, (_, shard) => storeFiles(folder, shard));
    expect(stores.map((files) => files.length)).toEqual(stores.map(() => 1));
    const storePaths = stores.flat();
    for (const path of storePaths)
      expect(await countIn(path, 'SELECT DISTINCT number FROM outbox')).toBeLessThanOrEqual(2);
    const sinkPath = join(folder, 'sink.duckdb');
    for (const cube of cubes) {
      const table = cubeTable({ name: cube.name, columns: columnsOf(cube) });
      expect(await countIn(sinkPath, `FROM ${table}`), table).toBeLessThanOrEqual(200_000);
    }

    // 3. what was deleted takes no more room in the files than a few times what is there: dead rows leave them, and
    // the blocks that they leave are filled again
    const files = { stores: storePaths, sinkFile: [sinkPath] };
    for (const name of ['stores', 'sinkFile'] as const) {
      let needed = 0;
      for (const path of files[name]) needed += await bytesOfRows(path);
      const had = highest(0, rounds, name);
      process.stdout.write(`${name}: at most ${megabytes(had)}, the rows alone take ${megabytes(needed)}\n`);
      // The log, and what the last one brought into the file.
      const logs = files[name].length * logBytesMax * 2;
      expect(had, name).toBeLessThanOrEqual(needed * roomMax + logs);
    }
  },
  7_200_000,
);
