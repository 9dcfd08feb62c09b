/**
 * The index is true of a prefix of the log, or its groups are unknown: whatever happens to index and topic on a real
 * broker, the next undisturbed replay leaves exactly its dump, and the one after it has nothing to send.
 */
import { utimesSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, it, vi } from 'vitest';
import { withAdmin } from '../../../kafka/client.ts';
import { scanTopic } from '../../../kafka/scan.ts';
import { deleteBefore } from '../../../kafka/topics.ts';
import { Appender } from '../../../producers/appender.ts';
import { createProducer } from '../../../producers/producer.ts';
import { redeliver } from '../../../producers/redelivery/redelivery.ts';
import { idText, partitionOf } from '../../../topics/catalog.ts';
import { originOf, wireHeaderBytes } from '../../../topics/chunk.ts';
import { deadLetterMessage } from '../../../topics/dead-letter.ts';
import {
  broker,
  DumpPlace,
  deleteTopics,
  fileOf,
  folder,
  many,
  ratings,
  registry,
  votesOf,
} from '../../support/dump-place.ts';
import { failureOf } from '../../support/failure.ts';
import { chunkType, encodeChunk, until } from '../../support/harness.ts';

/** Three groups: two of one block, one of another. */
const a = { 10000: 1, 10001: 2, 10050: 3, 20000: 4 };
const b = { 10000: 1, 10002: 2, 10050: 7, 20000: 4 };
const all = { maxRemoved: 100 };

const dump = (place: DumpPlace, votes: Readonly<Record<number, number>>, day?: number) =>
  place.dump({ 'title.ratings': ratings(votes) }, day);

/** Replays the ratings, and nothing else of a dump. */
const replay = (place: DumpPlace, directory: string, more = {}) =>
  place.replay(directory, { datasets: ['title.ratings'], ...all, ...more });

async function expectExact(place: DumpPlace, votes: Readonly<Record<number, number>>): Promise<void> {
  const directory = dump(place, votes);
  await replay(place, directory);
  expect(await votesOf(place)).toEqual(votes);
  expect(await replay(place, directory)).toMatchObject({ produced: 0, unchanged: Object.keys(votes).length });
  expect(await votesOf(place)).toEqual(votes);
}

async function send(
  topic: string,
  messages: { key?: string; value: Buffer | null; partition: number; headers?: Record<string, string> }[],
): Promise<number> {
  const producer = createProducer(broker);
  await producer.connect();
  try {
    const [receipt] = await producer.send({ topic, messages });
    return Number(receipt?.baseOffset);
  } finally {
    await producer.disconnect();
  }
}

/** The index as it is, by key. */
async function indexOf(place: DumpPlace): Promise<Map<string, Buffer>> {
  const found = new Map<string, Buffer>();
  for await (const { messages } of scanTopic(broker, place.options.names.dumpIndex)) {
    for (const { key, value } of messages) if (value !== null) found.set(String(key), value);
  }
  found.delete('clock');
  return found;
}

it('each message of the index is deleted or damaged', async () => {
  const place = new DumpPlace();
  const { dumpIndex } = place.options.names;
  await replay(place, dump(place, a));
  const keys = [...(await indexOf(place)).keys()];
  expect(keys.sort()).toEqual(['title.ratings', 'title.ratings/1', 'title.ratings/2']);
  let votes: Readonly<Record<number, number>> = b;
  for (const key of keys) {
    for (const spoil of ['deleted', 'damaged']) {
      const value = Buffer.from((await indexOf(place)).get(key) as Buffer);
      value[value.length - 1] = (value.at(-1) as number) ^ 1;
      await send(dumpIndex, [{ key, value: spoil === 'deleted' ? null : value, partition: 0 }]);
      await expectExact(place, votes);
      votes = votes === b ? a : b;
    }
  }
});

it('an index of a newer version is left alone', async () => {
  const place = new DumpPlace();
  await replay(place, dump(place, a));
  const value = Buffer.from((await indexOf(place)).get('title.ratings') as Buffer);
  value[0] = 99;
  await send(place.options.names.dumpIndex, [{ key: 'title.ratings', value, partition: 0 }]);
  const messages = await place.messages();
  expect(await failureOf(replay(place, dump(place, b)))).toMatchObject({ kind: 'newerIndex' });
  expect(await place.messages()).toBe(messages);
  expect((await indexOf(place)).get('title.ratings')).toEqual(value);
});

it('a topic lost its beginning while the index stayed', async () => {
  const place = new DumpPlace();
  await replay(place, dump(place, a));
  await deleteBefore(
    broker,
    place.options.names.source('title.ratings'),
    [0, 1].map((partition) => ({ partition, offset: -1 })),
  );
  expect(await votesOf(place)).toEqual({});
  await expectExact(place, a);
});

// Method: the letter that a consumer writes about a message, while the dump stays the same.
it('a consumer refused a chunk: the next replay sends its groups again, and only once', async () => {
  const place = new DumpPlace();
  const { names } = place.options;
  const topic = names.source('title.ratings');
  const directory = dump(place, a);
  await replay(place, directory);
  const refuse = (partition: number, offset: number) => {
    const source = { topic, partition, offset: String(offset) };
    const letter = { stage: 'processor', reason: 'undecodable', detail: 'of a test', source } as const;
    const message = deadLetterMessage({ ...letter, original: Buffer.of(1), time: new Date() });
    return send(names.deadLetter, [{ ...message, key: '1', partition: 1 }]);
  };
  const home = partitionOf(idText('tt', 10_000).slice(0, -4), 2);
  await refuse(home, 0);
  // Block 1 has three of the rows; the other block is in that chunk if it lies in the same partition.
  const again = await replay(place, directory);
  expect(again.plan?.['title.ratings']?.unknown.groups).toBeGreaterThanOrEqual(2);
  expect(again.produced).toBeGreaterThanOrEqual(3);
  expect(await replay(place, directory)).toMatchObject({ produced: 0, unchanged: 4 });

  // An undecodable message lies before the mark when its letter comes: it may have held any group.
  const garbage = await send(topic, [{ value: Buffer.from('garbage'), partition: home }]);
  expect(await replay(place, directory)).toMatchObject({ produced: 0, unchanged: 4 });
  await refuse(home, garbage);
  expect((await replay(place, directory)).produced).toBeGreaterThanOrEqual(3);
  await expectExact(place, b);
});

it('rows of a foreign producer in groups of a dump and of none', async () => {
  const place = new DumpPlace();
  const { names } = place.options;
  const topic = names.source('title.ratings');
  await replay(place, dump(place, a));
  const id = await registry.register(topic, 'imdb.title.ratings');
  const rows = (...ids: number[]) =>
    encodeChunk(chunkType('title.ratings'), id, {
      records: ids.map((n) => ({ tconst: idText('tt', n), averageRating: 9.9, numVotes: 99 })),
    });
  for (const n of [10_001, 10_990, 20_000, 30_000]) {
    await send(topic, [{ value: rows(n), partition: partitionOf(idText('tt', n).slice(0, -4), 2) }]);
  }
  expect(await votesOf(place)).toMatchObject({ 10990: 99, 30000: 99 });
  await expectExact(place, a);
});

// Method: the other producer writes right behind the first message of the load.
it('rows that others write during a first load are replaced, by chunks whose numbers the run uses once', async () => {
  const place = new DumpPlace();
  const topic = place.options.names.source('title.ratings');
  const id = await registry.register(topic, 'imdb.title.ratings');
  const record = { tconst: idText('tt', 10_001), averageRating: 9.9, numVotes: 99 };
  const value = encodeChunk(chunkType('title.ratings'), id, { records: [record] });
  const partition = partitionOf(record.tconst.slice(0, -4), 2);
  const { append } = Appender.prototype;
  vi.spyOn(Appender.prototype, 'append').mockImplementationOnce(async function (this: Appender, ...batch) {
    const offset = await append.apply(this, batch);
    await send(topic, [{ value, partition }]);
    return offset;
  });
  const directory = dump(place, a);
  await replay(place, directory);
  vi.restoreAllMocks();
  expect(await votesOf(place)).toEqual(a);
  const chunks: string[] = [];
  for await (const { partition: of, messages } of scanTopic(broker, topic)) {
    for (const { value: bytes } of messages) {
      const { runId, chunk } = originOf(bytes as Buffer);
      chunks.push(`${of} ${runId} ${chunk}`);
    }
  }
  // A chunk of each block, the other producer's, and the one that replaces its group.
  expect(chunks.length).toBeGreaterThanOrEqual(3);
  expect(new Set(chunks).size).toBe(chunks.length);
  expect(await replay(place, directory)).toMatchObject({ produced: 0, unchanged: 4 });
});

it('a first load that is resumed sends no group again', async () => {
  const place = new DumpPlace();
  const directory = place.dump({ 'title.ratings': ratings(many((id) => id)) });
  const stop = new AbortController();
  const stopped = await replay(place, directory, {
    rate: 1_000,
    signal: stop.signal,
    onProgress: ({ read }: { read: number }) => {
      if (read >= 500) stop.abort();
    },
  });
  expect(stopped).toMatchObject({ interrupted: true });
  expect(stopped.produced).toBeGreaterThan(0);
  expect(await replay(place, directory, { resume: true })).toMatchObject({ produced: 2_000 });
  for await (const { messages } of scanTopic(broker, place.options.names.source('title.ratings'))) {
    for (const { value } of messages) {
      const { replaces } = chunkType('title.ratings').fromBuffer(value?.subarray(wireHeaderBytes) as Buffer);
      expect(replaces).toEqual([]);
    }
  }
});

it('a dead letter of a row that a later dump lacks is replayed', async () => {
  const place = new DumpPlace();
  const { names, state } = place.options;
  const broken = place.dump({ 'title.ratings': `${ratings(a)}tt0020001\tfive\t5\n` });
  await replay(place, broken, { maxRejected: 50 });
  const [letter] = await lettersOf(place);
  expect(letter).toContain('tt0020001');
  const repaired = deadLetterMessage({
    stage: 'producer',
    reason: 'rating',
    detail: 'of a test',
    original: Buffer.from('tt0020001\t5.0\t5'),
    source: { file: 'title.ratings.tsv', line: 6 },
    time: new Date(),
  });
  await send(names.deadLetter, [{ ...repaired, key: '1', partition: 0 }]);
  await replay(place, dump(place, b));
  await redeliver({ broker, registry, names, state, select: () => true, dryRun: false });
  await expectExact(place, b);
});

async function lettersOf(place: DumpPlace): Promise<string[]> {
  const found: string[] = [];
  for await (const { messages } of scanTopic(broker, place.options.names.deadLetter)) {
    found.push(...messages.map(({ value }) => String(value)));
  }
  return found;
}

// Method: each host has a state folder of its own, so no lock of a folder keeps them apart.
it('two hosts replay different dumps at once, again and again', async () => {
  const place = new DumpPlace();
  await replay(place, dump(place, a));
  for (const votes of [b, a, b]) {
    const dumps = [dump(place, { ...votes, 10003: 3 }), dump(place, { 10004: 5, 20000: 9 })];
    const ends = await Promise.allSettled(
      dumps.map((directory) => replay(place, directory, { state: folder(), allowOlder: true })),
    );
    for (const end of ends) if (end.status === 'rejected') expect(end.reason).toMatchObject({ kind: 'busy' });
    await expectExact(place, votes);
  }
});

it.each([
  ['with its size', (text: string) => text],
  ['with other rows', (text: string) => text.replace('\t5.0\t7', '\t5.0\t8')],
])(
  'a file that is replaced between two readings, %s, is refused; the next replay is exact',
  async (_, change) => {
    const place = new DumpPlace();
    await replay(place, dump(place, a));
    const directory = dump(place, b);
    const path = join(directory, 'title.ratings.tsv');
    const basics = fileOf('title.basics', [`${idText('tt', 10_000)}\tmovie\tA\tA\t0\t1994\t\\N\t90\tDrama`]);
    writeFileSync(join(directory, 'title.basics.tsv'), basics);
    const isSame = change('\t5.0\t7') === '\t5.0\t7';
    const failure = await failureOf(
      place.replay(directory, {
        ...all,
        spoolBytesMax: -1,
        onProgress: ({ dataset, pass, bytesRead, bytesTotal }) => {
          if (dataset !== 'title.ratings' || pass !== 'compare' || bytesRead < bytesTotal) return;
          writeFileSync(path, change(ratings(b)));
          const later = isSame ? 1_000_000_000 : Date.UTC(2026, 0, 2) / 1000 + 0.0006;
          setImmediate(() => utimesSync(path, later, later));
        },
      }),
    );
    expect(failure).toMatchObject({ kind: 'inputChanged' });
    await expectExact(place, b);
  },
);

it('a topic that is recreated and has its last messages again, with the same bytes', async () => {
  const place = new DumpPlace();
  const source = place.options.names.source('title.ratings');
  const more = { 10060: 5 };
  for (const votes of [{ 10001: 2 }, { 10001: 3 }, { 10001: 4 }]) {
    await replay(place, dump(place, { ...more, ...votes }));
  }
  const all: { key: string; value: Buffer | null; partition: number }[] = [];
  for await (const { partition, messages } of scanTopic(broker, source)) {
    all.push(...messages.map(({ key, value }) => ({ key: String(key), value, partition })));
  }
  expect(all.length).toBeGreaterThanOrEqual(3);
  await deleteTopics(source);
  const configEntries = [{ name: 'retention.ms', value: '-1' }];
  await withAdmin(broker, async (admin) => {
    await admin.createTopics({
      topics: [{ topic: source, numPartitions: 2, replicationFactor: 1, configEntries }],
    });
    // A busy broker may not know at once what it has created.
    await until('the topic has leaders', () =>
      admin.fetchTopicOffsets(source).then(
        () => true,
        () => false,
      ),
    );
  });
  // The first message, which alone has the row of 10060, is another one now.
  await send(source, all.with(0, all.at(-1) as (typeof all)[number]));
  await expectExact(place, { ...more, 10001: 4 });
});

it('a topic of the index that is deleted and one of the source that is recreated at once', async () => {
  const place = new DumpPlace();
  const { names } = place.options;
  await replay(place, dump(place, a));
  await deleteTopics(names.source('title.ratings'), names.dumpIndex);
  await expectExact(place, b);
});
