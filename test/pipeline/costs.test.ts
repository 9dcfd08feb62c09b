/**
 * What a million records cost, in counts: messages, bytes, buffers, SQL statements. Seconds differ from machine to machine
 * and from hour to hour; these are the same everywhere, and most changes that make the pipeline slower move one of them.
 *
 * The rows are a synthetic dataset of fixed seed, 0.4 million in the four datasets that processors read. A bound is what
 * was counted when it was set, in brackets, and about a tenth more. Where a count falls, take its bound down.
 */
import { createReadStream } from 'node:fs';
import { Session } from 'node:inspector/promises';
import { join } from 'node:path';
import { setImmediate } from 'node:timers/promises';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { beforeAll, describe, expect, it, vi } from 'vitest';
import { applyMicroBatch } from '../../processors/apply.ts';
import { MicroBatch } from '../../processors/micro-batch.ts';
import type { ShardStore } from '../../processors/shard-store.ts';
import { marginBytes } from '../../producers/chunk-header.ts';
import type { Chunk } from '../../producers/chunk-writer.ts';
import { Chunker } from '../../producers/chunker.ts';
import { layoutOf } from '../../producers/file-layout.ts';
import { batchOfPacked, packRecord, packRecordSync } from '../../producers/record-batch.ts';
import { generate } from '../../producers/synthetic/synthetic.ts';
import { datasets, messageBytesMax } from '../../topics/catalog.ts';
import { Ownership } from '../../topics/ownership.ts';
import { type CubeDataset, cubeDatasets, schemaIdOf } from '../support/chunks.ts';
import { createStore, decoders, deltaSchemaId, identity } from '../support/shard-lab.ts';
import { temporaryFolder } from '../support/temporary-folder.ts';

const titles = 30_000;
const shards = 4;

const stamp = { producerId: 1n, epoch: 0, sequence: 0 };

interface Sent {
  readonly dataset: CubeDataset;
  readonly value: Buffer;
  readonly records: number;
  /** As it goes to the broker, packed. */
  readonly batchBytes: number;
}

const folder = temporaryFolder();
let sent: Sent[];
let rooms: number;

beforeAll(async () => {
  await generate({ titles, seed: 1, out: join(folder, 'data'), datasets: cubeDatasets });
  sent = [];
  const seen = new Set<object>();
  await produce((dataset, chunk) => {
    const { memory, value, records } = chunk;
    const kept = Buffer.from(value);
    const packed = packRecordSync(chunk);
    const batch = batchOfPacked(packed, 0, stamp);
    sent.push({ dataset, value: kept, records, batchBytes: batch.length });
    seen.add(memory);
  });
  rooms = seen.size;
});

/** Cuts the datasets into chunks. */
async function produce(take: (dataset: CubeDataset, chunk: Chunk) => void): Promise<void> {
  for (const dataset of cubeDatasets) {
    const layout = layoutOf(
      datasets[dataset],
      Buffer.from(datasets[dataset].columns.map(({ name }) => name).join('\t')),
      dataset,
    );
    const chunker = new Chunker({
      dataset: datasets[dataset],
      layout,
      shards,
      schemaId: schemaIdOf(dataset),
      runId: 'costs',
      asOf: new Date(0),
      onChunk: (chunk) => {
        take(dataset, chunk);
        chunker.recycle(chunk);
      },
      onRejected: ({ reason }) => expect.unreachable(`a row was rejected: ${reason}`),
    });
    for await (const piece of createReadStream(join(folder, 'data', `${dataset}.tsv`))) {
      for (let at = 0; at < piece.length; ) at = chunker.push(piece, at);
    }
    chunker.end();
  }
}

/** Bytes of the buffers that `work` asks for, without those that others made for it before. */
async function bufferBytes(work: () => unknown): Promise<number> {
  let bytes = 0;
  const spies = (['alloc', 'allocUnsafe', 'allocUnsafeSlow'] as const).map((name) => {
    const allocate = Buffer[name] as (size: number, ...more: unknown[]) => Buffer;
    return vi.spyOn(Buffer, name).mockImplementation((size: number, ...more: unknown[]) => {
      bytes += size;
      return allocate.call(Buffer, size, ...more) as never;
    });
  });
  await work();
  for (const spy of spies) spy.mockRestore();
  return bytes;
}

/** Bytes of the objects that `work` creates on the heap, by V8's sampling of its allocations; buffers lie outside. */
async function allocatedBytes(work: () => unknown): Promise<number> {
  const session = new Session();
  session.connect();
  await session.post('HeapProfiler.startSampling', {
    samplingInterval: 4096,
    includeObjectsCollectedByMajorGC: true,
    includeObjectsCollectedByMinorGC: true,
  } as object);
  await work();
  const { profile } = await session.post('HeapProfiler.stopSampling');
  session.disconnect();
  const sizeOf = ({ selfSize, children }: typeof profile.head): number =>
    children.reduce((sum, child) => sum + sizeOf(child), selfSize);
  return sizeOf(profile.head);
}

/** Collects all garbage. */
function collector(): () => void {
  setFlagsFromString('--expose-gc');
  return runInNewContext('gc') as () => void;
}

const total = (of: (sent: Sent) => number) => sent.reduce((sum, each) => sum + of(each), 0);

describe('the producer', () => {
  it('sends a million records in few messages', () => {
    const records = total((each) => each.records);
    expect(records).toBeGreaterThan(400_000);
    expect((sent.length * 1_000_000) / records).toBeLessThan(132); // [120]
  });

  it('writes few bytes a record, before and after compression', () => {
    const records = total((each) => each.records);
    expect(total(({ value }) => value.length) / records).toBeLessThan(51); // [46.9]
    expect(total(({ batchBytes }) => batchBytes) / records).toBeLessThan(12.6); // [11.4]
  });

  it('creates few objects for the records that it reads', async () => {
    const records = total((each) => each.records);
    const bytes = await allocatedBytes(() => produce(() => undefined));
    expect(bytes / records).toBeLessThan(15); // [9.8; an object a record would add 24]
  });

  it('asks for few buffers for the records that it packs', async () => {
    const records = total((each) => each.records);
    const memory = Buffer.allocUnsafe(messageBytesMax + 2 * marginBytes);
    const bytes = await bufferBytes(async () => {
      for (const { value } of sent) {
        const end = marginBytes + value.copy(memory, marginBytes);
        const message = { memory, value: memory.subarray(marginBytes, end), key: 'key' };
        batchOfPacked(await packRecord(message), 0, stamp);
      }
    });
    expect(bytes / records).toBeLessThan(47); // [42.9]
  });

  it('writes each dataset into as many buffers as there are partitions, however many chunks there are', () => {
    expect(sent.length).toBeGreaterThan(cubeDatasets.length * shards * 2);
    expect(rooms).toBeLessThanOrEqual(cubeDatasets.length * shards);
  });
});

/** Runs `work` and counts the statements that DuckDB executes meanwhile; an appender's flush is one. */
async function statementsOf({ connection }: ShardStore, work: () => Promise<unknown>): Promise<number> {
  await connection.run('CALL truncate_duckdb_logs()');
  await connection.run("CALL enable_logging('QueryLog')");
  await work();
  await connection.run('CALL disable_logging()');
  const counted = await connection.runAndReadAll("SELECT count(*) FROM duckdb_logs WHERE type = 'QueryLog'");
  return Number(counted.getRows()[0]?.[0]) - 1; // the one that ends the counting
}

const apply = (store: ShardStore, batch: MicroBatch) =>
  applyMicroBatch(store, batch, {
    deltaSchemaId,
    silently: false,
    deadLetterOf: () => expect.unreachable('nothing is rejected'),
    publishedEntry: store.nextEntry - 1,
  });

/** Makes micro-batches of messages, each of which continues where the one before ended. */
function stagerOf(store: ShardStore): (messages: readonly Sent[], spent?: MicroBatch) => MicroBatch {
  const next = new Map<CubeDataset, number>();
  return (messages, spent) => {
    const ownership = new Ownership('tt', identity.shards);
    const batch = new MicroBatch(identity.shard, store, store.projection, ownership, spent);
    for (const { dataset, value } of messages) {
      const offset = next.get(dataset) ?? 0;
      next.set(dataset, offset + 1);
      const decoder = decoders[dataset] as (typeof decoders)[string];
      decoder.isOwn(value);
      batch.add({ topic: `imdb.${dataset}`, dataset, offset, timestampMs: 0, value }, decoder, value);
    }
    return batch;
  };
}

describe('a micro-batch', () => {
  it('creates few objects for the records that it stages', async () => {
    const staged = stagerOf(await createStore());
    const records = total((each) => each.records);
    // The decoders are generated at the first use.
    staged(sent);
    const bytes = await allocatedBytes(() => staged(sent.slice(1)));
    expect(bytes / records).toBeLessThan(6); // [2.4; an object a record would add 24]
  });

  it('allocates few bytes for a million records that it stages and applies into the memory of the one before it', async () => {
    const store = await createStore();
    const staged = stagerOf(store);
    const isFirst = ({ dataset }: Sent, i: number) => i % 2 === 0 || dataset === 'title.ratings';
    const first = staged(sent.filter(isFirst));
    await apply(store, first);
    const second = sent.filter((each, i) => !isFirst(each, i));
    const millions = second.reduce((sum, { records }) => sum + records, 0) / 1_000_000;
    collector()();
    const before = process.memoryUsage().arrayBuffers;
    let bufferBytes = 0;
    const heapBytes = await allocatedBytes(async () => {
      await apply(store, staged(second, first));
      bufferBytes = process.memoryUsage().arrayBuffers - before;
    });
    const mebibytes = (bytes: number) => bytes / millions / 2 ** 20;
    // Deltas are most of both.
    expect(mebibytes(heapBytes)).toBeLessThan(26); // [17 to 19; an object a record would add 24]
    expect(mebibytes(bufferBytes)).toBeLessThan(35); // [30.5; without the memory of the batch before, 47]
  });

  it('makes a delta of few bytes a row', async () => {
    const store = await createStore();
    const { entry, deltaRows } = await apply(store, stagerOf(store)(sent));
    expect(deltaRows).toBeGreaterThan(40_000);
    const bytes = entry?.messages.reduce((sum, { length }) => sum + length, 0) ?? Number.NaN;
    expect(bytes / deltaRows).toBeLessThan(12); // [10.7]
  });

  it('takes few SQL statements, and no more for eight times the rows', async () => {
    const store = await createStore();
    const staged = stagerOf(store);
    const chunksOf = (from: number, to: number) =>
      cubeDatasets.flatMap((dataset) => sent.filter((each) => each.dataset === dataset).slice(from, to));
    const count = (messages: readonly Sent[]) => statementsOf(store, () => apply(store, staged(messages)));
    const some = { fresh: await count(chunksOf(0, 1)), known: await count(chunksOf(0, 1)) };
    const more = { fresh: await count(chunksOf(1, 9)), known: await count(chunksOf(1, 9)) };
    expect(some.known).toBe(more.known);
    for (const statements of [some.fresh, some.known, more.fresh, more.known]) {
      expect(statements).toBeLessThanOrEqual(52); // [41 to 49]
    }
  });

  it('takes over the memory of the one before it and lets all others go', async () => {
    const collect = collector();
    const store = await createStore();
    const next = (spent?: MicroBatch) =>
      new MicroBatch(identity.shard, store, store.projection, new Ownership('tt', identity.shards), spent);
    let last = next();
    const before: WeakRef<MicroBatch>[] = [];
    for (let i = 0; i < 5; i++) {
      before.push(new WeakRef(last));
      last = next(last);
    }
    // What was looked up through a weak reference stays until the turn ends.
    await setImmediate();
    collect();
    expect(before.map((batch) => batch.deref())).toEqual(before.map(() => undefined));
    expect(last.isEmpty).toBe(true);
  });
});
