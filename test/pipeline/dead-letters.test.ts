/**
 * Processor and sink send each invalid message to the dead letters once, continue with the partition and apply the valid
 * messages around it. Method: a raw producer alternates invalid and valid messages on the topics of one namespace, then
 * each stage runs once; the tests check different aspects of the result.
 */
import { randomBytes } from 'node:crypto';
import { join } from 'node:path';
import avsc from 'avsc';
import kafkajs, { CompressionTypes } from 'kafkajs';
import { afterAll, beforeAll, describe, expect, inject, vi } from 'vitest';
import { withAdmin } from '../../kafka/client.ts';
import { ensureRetainedTopics } from '../../kafka/topics.ts';
import type { Manifest } from '../../sinks/gold/manifest.ts';
import {
  type DatasetName,
  datasetNames,
  deadLetterBytesMax,
  idText,
  partitionOf,
} from '../../topics/catalog.ts';
import { Registry, schemaText } from '../../topics/registry.ts';
import {
  broker,
  type ChunkContent,
  chunkType,
  encodeChunk,
  headerOf,
  Place,
  readTopic,
  registerSchema,
  smallDataset,
  test,
  writeDatasets,
} from '../support/harness.ts';

// Several commands each, and other tests at the same time.
vi.setConfig({ testTimeout: 120_000, hookTimeout: 120_000 });

const { CompressionCodecs } = kafkajs;
const shards = 4;
/** All messages go to the partition of this block, unless a case needs another. */
const here = partitionOf('tt000', shards);
const title = (n: number) => idText('tt', n);
const rating = (n: number, averageRating = 5.5, numVotes = n) => ({
  tconst: title(n),
  averageRating,
  numVotes,
});

/** A title of another partition. */
const elsewhere = [1, 2, 3, 4, 5]
  .map((block) => block * 10_000)
  .find((n) => partitionOf(title(n).slice(0, -4), shards) !== here) as number;

interface Case {
  readonly name: string;
  readonly dataset: DatasetName;
  readonly value: Buffer | null;
  readonly reason: string;
  /** Number of records that it counts for. */
  readonly records: number;
  readonly partition?: number;
}

interface SentCase extends Case {
  readonly topic: string;
  readonly at: number;
  readonly offset: string;
}

type ChunkSchema = { fields: { name: string; type: { items: { fields: object[] } } }[] };

/** Our schema of ratings with other fields in its records, or without deletes. */
function ratingsSchema(change: {
  fields?: (fields: object[]) => object[];
  withoutDeletes?: boolean;
}): unknown {
  const schema = JSON.parse(schemaText('imdb.title.ratings')) as ChunkSchema;
  const records = schema.fields.find(({ name }) => name === 'records') as ChunkSchema['fields'][number];
  records.type.items.fields = change.fields?.(records.type.items.fields) ?? records.type.items.fields;
  return {
    ...schema,
    fields: schema.fields.filter(({ name }) => name !== 'deletes' || !change.withoutDeletes),
  };
}

/** The wire header, then run, chunk and date of any chunk, then the given bytes. */
function chunkStart(schemaId: number, ...rest: number[]): Buffer {
  const header = Buffer.alloc(5);
  header.writeInt32BE(schemaId, 1);
  return Buffer.concat([header, Buffer.from([0, 0, 0, ...rest])]);
}

/** 2^31 − 1 records, as Avro writes the count. */
const lyingCount = [0xfe, 0xff, 0xff, 0xff, 0x0f];

const place = new Place();
let sent: SentCase[];
let manifest: Manifest;
let letters: Awaited<ReturnType<Place['deadLetters']>>;
let lettersLater: typeof letters;
let expectedData: string;

beforeAll(async () => {
  const { names } = place;
  const registry = new Registry({ url: inject('registryUrl') });
  const ids = new Map<DatasetName, number>();
  for (const dataset of ['title.ratings', 'title.basics', 'name.basics'] as const) {
    ids.set(dataset, await registry.register(names.source(dataset), `imdb.${dataset}`));
  }
  const deltaId = await registry.register(names.deltas, 'reelflow.deltas');
  const specs = [...datasetNames.map((dataset) => names.source(dataset)), names.deltas, names.deadLetter];
  await ensureRetainedTopics(
    broker,
    specs.map((topic) => ({ topic, partitions: shards })),
  );
  const idOf = (dataset: DatasetName) => ids.get(dataset) as number;
  const chunk = (dataset: DatasetName, content: ChunkContent) =>
    encodeChunk(chunkType(dataset), idOf(dataset), content);
  const ratings = (...records: object[]) => chunk('title.ratings', { records });

  // Versions of the ratings schema that other producers may write.
  const widened = ratingsSchema({
    fields: ([tconst, ...rest]) => [
      { name: 'source', type: ['null', 'string'], default: null },
      ...rest.reverse(),
      tconst as object,
    ],
  });
  const older = ratingsSchema({ withoutDeletes: true });
  const subject = `${names.source('title.ratings')}-value`;
  const widenedId = await registerSchema(subject, widened);
  const olderId = await registerSchema(subject, older);
  const widenedType = avsc.Type.forSchema(widened as avsc.Schema);
  const olderType = avsc.Type.forSchema(older as avsc.Schema);

  const bad: Case[] = [
    { name: 'no value', dataset: 'title.ratings', value: null, reason: 'no_value', records: 1 },
    {
      name: 'a text',
      dataset: 'title.ratings',
      value: Buffer.from('{"tconst":"tt0000001"}'),
      reason: 'bad_magic_byte',
      records: 1,
    },
    {
      name: 'two bytes',
      dataset: 'title.ratings',
      value: Buffer.from([0, 0]),
      reason: 'bad_magic_byte',
      records: 1,
    },
    {
      name: 'a schema id that is not registered',
      dataset: 'title.ratings',
      value: encodeChunk(chunkType('title.ratings'), 999_999_999, { records: [rating(1)] }),
      reason: 'unknown_schema_id',
      records: 1,
    },
    {
      name: 'a chunk of ratings on the topic of titles',
      dataset: 'title.basics',
      value: ratings(rating(1)),
      reason: 'value_of_another_topic',
      records: 1,
    },
    {
      name: 'a chunk that is cut off',
      dataset: 'title.ratings',
      value: ratings(rating(1), rating(2)).subarray(0, -3),
      reason: 'undecodable',
      records: 1,
    },
    {
      name: 'a chunk of another version that is cut off',
      dataset: 'title.ratings',
      value: encodeChunk(olderType, olderId, { records: [rating(1), rating(2)] }).subarray(0, -3),
      reason: 'undecodable',
      records: 1,
    },
    {
      name: 'bytes behind the end',
      dataset: 'title.ratings',
      value: Buffer.concat([ratings(rating(1)), Buffer.from('more')]),
      reason: 'undecodable',
      records: 1,
    },
    {
      name: 'a count of records that is a lie',
      dataset: 'title.ratings',
      value: chunkStart(idOf('title.ratings'), ...lyingCount),
      reason: 'undecodable',
      records: 1,
    },
    {
      name: 'a count of records that is a lie, in another version',
      dataset: 'title.ratings',
      value: chunkStart(olderId, ...lyingCount),
      reason: 'undecodable',
      records: 1,
    },
    {
      name: 'a rating of 11.0 among good ones',
      dataset: 'title.ratings',
      value: ratings(rating(1, 9.9), rating(2, 11), rating(3, 9.9)),
      reason: 'invalid_value',
      records: 3,
    },
    {
      name: 'a rating of 11.0 before a count that is a lie',
      dataset: 'title.ratings',
      value: Buffer.concat([ratings(rating(2, 11)).subarray(0, -2), Buffer.from(lyingCount)]),
      reason: 'invalid_value',
      records: 1,
    },
    {
      name: 'an id without digits',
      dataset: 'title.ratings',
      value: ratings({ tconst: 'ttabcdefg', averageRating: 5, numVotes: 1 }),
      reason: 'invalid_value',
      records: 1,
    },
    {
      name: 'titles of another partition',
      dataset: 'title.ratings',
      value: chunk('title.ratings', {
        records: [rating(1, 9.9), rating(elsewhere)],
        deletes: [{ tconst: title(elsewhere) }],
      }),
      reason: 'wrong_partition',
      records: 3,
    },
    {
      name: '900 kB of garbage behind our schema id',
      dataset: 'title.ratings',
      value: Buffer.concat([chunkStart(idOf('title.ratings'), ...lyingCount), randomBytes(900_000)]),
      reason: 'undecodable',
      records: 1,
    },
    {
      name: 'names without magic byte',
      dataset: 'name.basics',
      value: Buffer.from('a name'),
      reason: 'bad_magic_byte',
      records: 1,
    },
    {
      name: 'names that are ratings',
      dataset: 'name.basics',
      value: ratings(rating(1)),
      reason: 'value_of_another_topic',
      records: 1,
    },
    {
      name: 'names of which one has no id',
      dataset: 'name.basics',
      value: chunk('name.basics', { records: [person(1, 'Wrong'), { ...person(2, 'Wrong'), nconst: 'x' }] }),
      reason: 'invalid_value',
      records: 2,
    },
    {
      name: 'names whose count is a lie',
      dataset: 'name.basics',
      value: chunkStart(idOf('name.basics'), ...lyingCount),
      reason: 'undecodable',
      records: 1,
    },
  ];

  const rows: Partial<Record<DatasetName, string>> = {};
  const addRow = (dataset: DatasetName, row: string) => {
    rows[dataset] = `${rows[dataset] ?? headerOf(dataset)}${row}\n`;
  };
  const producer = broker.kafka.producer({ allowAutoTopicCreation: false });
  await producer.connect();
  const send = async (
    topic: string,
    value: Buffer | null,
    compression: CompressionTypes,
    partition = here,
  ) => {
    const [record] = await producer.send({
      topic,
      compression,
      messages: [{ key: 'tt000', value, partition }],
    });
    return String(record?.baseOffset);
  };
  let next = 100;
  /** A valid rating of a title of its own, which must reach gold. */
  const good = async (
    compression: CompressionTypes = CompressionTypes.None,
    encode: (records: object[]) => Buffer = (records) => ratings(...records),
  ) => {
    const n = next++;
    addRow('title.ratings', `${title(n)}\t${(1 + (n % 9)).toFixed(1)}\t${n}`);
    await send(names.source('title.ratings'), encode([rating(n, 1 + (n % 9))]), compression);
  };

  try {
    for (let n = 100; n < 200; n++) {
      addRow('title.basics', `${title(n)}\tmovie\tT\tT\t0\t${1900 + n}\t\\N\t${n}\tDrama`);
      addRow('title.principals', `${title(n)}\t1\t${idText('nm', n % 3)}\tactor\t\\N\t\\N`);
    }
    await place.replay(
      writeDatasets(join(place.folder, 'titles'), {
        'title.basics': rows['title.basics'] as string,
        'title.ratings': headerOf('title.ratings'),
        'title.principals': rows['title.principals'] as string,
      }),
    );
    // Before the first delta: readers that search for the published position must skip it, too.
    await send(names.deltas, Buffer.from('no delta'), CompressionTypes.None);
    await send(names.deltas, chunkStart(deltaId, 0xff, 0xff, 0xff), CompressionTypes.None);

    sent = [];
    for (const one of bad) {
      await good();
      const topic = names.source(one.dataset);
      sent.push({ ...one, topic, at: here, offset: await send(topic, one.value, CompressionTypes.None) });
    }
    await good(CompressionTypes.GZIP);
    // A test below covers LZ4 with the broker's own compression: brokers refuse what lz4js compresses.
    await good(CompressionTypes.Snappy);
    await good(CompressionTypes.ZSTD);
    await good(CompressionTypes.None, (records) =>
      encodeChunk(
        widenedType,
        widenedId,
        // `source` is new, so the fields have another order.
        { records: records.map((record) => ({ source: 'elsewhere', ...record })) },
      ),
    );
    await good(CompressionTypes.None, (records) => encodeChunk(olderType, olderId, { records }));
    await send(
      names.source('name.basics'),
      chunk('name.basics', { records: [person(0, 'Zero'), person(1, 'One')] }),
      CompressionTypes.None,
    );
    addRow('name.basics', `${idText('nm', 0)}\tZero\t\\N\t\\N\t\\N\t\\N`);
    addRow('name.basics', `${idText('nm', 1)}\tOne\t\\N\t\\N\t\\N\t\\N`);
  } finally {
    await producer.disconnect();
  }
  expectedData = writeDatasets(join(place.folder, 'expected'), rows);

  await place.process();
  await place.sink();
  manifest = place.manifest;
  letters = await place.deadLetters();
  await place.process();
  await place.sink();
  lettersLater = await place.deadLetters();
});
afterAll(() => place.close(false));

const person = (n: number, primaryName: string) => ({
  nconst: idText('nm', n),
  primaryName,
  birthYear: null,
  deathYear: null,
  primaryProfession: null,
  knownForTitles: null,
});

describe('invalid messages', () => {
  test('each become one dead letter with reason and position', () => {
    for (const { name, topic, at, offset, reason, value, dataset } of sent) {
      const found = letters.filter(
        (letter) => letter.topic === topic && letter.partition === String(at) && letter.offset === offset,
      );
      expect(found, name).toHaveLength(1);
      expect(found[0], name).toMatchObject({
        stage: dataset === 'name.basics' ? 'sink' : 'processor',
        reason,
        originalBytes: String(value?.length ?? 0),
        time: expect.stringMatching(/^20\d\d-/),
      });
      expect(found[0]?.detail, name).not.toBe('');
      const kept = (value ?? Buffer.alloc(0)).subarray(0, deadLetterBytesMax);
      expect(found[0]?.value.equals(kept), name).toBe(true);
    }
  });

  test('on the delta topic become dead letters of the sink', () => {
    const found = letters.filter(({ topic }) => topic === place.names.deltas);
    expect(found.map(({ stage, reason, offset }) => ({ stage, reason, offset }))).toEqual([
      { stage: 'sink', reason: 'bad_magic_byte', offset: '0' },
      { stage: 'sink', reason: 'undecodable', offset: '1' },
    ]);
  });

  test('are the only dead letters, also after each stage has run again', () => {
    expect(letters).toHaveLength(sent.length + 2);
    expect(lettersLater).toHaveLength(letters.length);
  });

  test('count as rejected with their number of records', () => {
    for (const dataset of ['title.ratings', 'title.basics', 'name.basics'] as const) {
      const rejected = sent
        .filter((one) => one.dataset === dataset)
        .reduce((sum, { records }) => sum + records, 0);
      expect(manifest.accounting[place.names.source(dataset)], dataset).toMatchObject({ rejected });
    }
  });

  // This covers all codecs and chunks of other schema versions, too: the expected rows include their titles.
  test('do not affect the rows around them in gold', async () => {
    expect(await place.differences(expectedData)).toEqual([]);
    const ratings = manifest.accounting[place.names.source('title.ratings')];
    expect(ratings).toMatchObject({ applied: sent.length + 5, duplicate: 0 });
  });
});

// Method: topics on which the broker recompresses messages, each with another codec, so that Kafka's own libraries framed
// the batches that we read. A counter in kafkajs' decompression proves it.
test('batches that a broker compressed with any codec are read', async ({ place: other }) => {
  const { names, folder } = other;
  const codecs: [DatasetName, string, CompressionTypes][] = [
    ['title.basics', 'gzip', CompressionTypes.GZIP],
    ['title.principals', 'snappy', CompressionTypes.Snappy],
    ['title.akas', 'lz4', CompressionTypes.LZ4],
    ['name.basics', 'uncompressed', CompressionTypes.None],
  ];
  await withAdmin(broker, (admin) =>
    admin.createTopics({
      waitForLeaders: true,
      topics: codecs.map(([dataset, codec]) => ({
        topic: names.source(dataset),
        numPartitions: shards,
        configEntries: Object.entries({
          'cleanup.policy': 'delete',
          'retention.ms': '-1',
          'retention.bytes': '-1',
          'compression.type': codec,
        }).map(([name, value]) => ({ name, value })),
      })),
    }),
  );
  const data = await smallDataset(join(folder, 'data'), 500, 3);
  await other.pipeline(data);
  expect(await other.differences(data)).toEqual([]);

  for (const [dataset, codec, type] of codecs) {
    if (type === CompressionTypes.None) continue;
    const original = CompressionCodecs[type];
    let unpacked = 0;
    CompressionCodecs[type] = () => {
      unpacked += 1;
      return original();
    };
    const messages = await readTopic(names.source(dataset)).finally(() => {
      CompressionCodecs[type] = original;
    });
    expect(messages.length, codec).toBeGreaterThan(0);
    expect(unpacked, codec).toBeGreaterThan(0);
  }
});

describe('a crash right after the commit', () => {
  const ratings = `${headerOf('title.ratings')}tt0000001\t5.0\t5\n`;
  const basics = `${headerOf('title.basics')}tt0000001\tmovie\tA\tA\t0\t1999\t\\N\t1\tDrama\n`;

  async function garbageOn(topic: string): Promise<void> {
    const producer = broker.kafka.producer({ allowAutoTopicCreation: false });
    await producer.connect();
    await producer.send({ topic, messages: [{ value: 'garbage', partition: here }] });
    await producer.disconnect();
  }

  test.for([
    ['after-commit-before-publish', 'title.ratings'],
    ['after-delta-commit', 'name.basics'],
  ] as const)('loses no dead letter: %s', async ([point, dataset], { place: other }) => {
    await other.replay(other.files('data', { 'title.ratings.tsv': ratings, 'title.basics.tsv': basics }));
    await garbageOn(other.names.source(dataset));
    const stages = dataset === 'name.basics' ? (['process', 'sink'] as const) : (['process'] as const);
    for (const stage of stages) {
      const options = [stage === 'sink' ? '--once' : '--until-caught-up', '--json'];
      const finished = await other.run(other.args(stage, ...options), { REELFLOW_CRASH_AT: `${point}` });
      if (stage === stages.at(-1)) expect(finished.signal).toBe('SIGKILL');
    }
    await other.process();
    await other.sink();
    const found = await other.deadLetters();
    expect(found.length).toBeGreaterThan(0);
    for (const letter of found) {
      expect(letter).toMatchObject({ reason: 'bad_magic_byte', topic: other.names.source(dataset) });
    }
    expect(other.manifest.accounting[other.names.source(dataset)]).toMatchObject({ rejected: 1 });
  });
});
