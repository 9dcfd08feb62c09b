/**
 * The chunker without a broker. The expected values are independent of it: avsc decodes chunks with the registered
 * schema, and rows are parsed by splitting strings.
 */
import { existsSync, readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { gunzipSync } from 'node:zlib';
import avsc from 'avsc';
import fc from 'fast-check';
import kafkajs from 'kafkajs';
import { describe, expect, it } from 'vitest';
import { type Chunk, chunkBytesTarget, type FilePosition } from '../../producers/chunk-writer.ts';
import { Chunker, type RejectedRow } from '../../producers/chunker.ts';
import { layoutOf } from '../../producers/file-layout.ts';
import { crc32c } from '../../producers/record-batch.ts';
import {
  blockKey,
  blockSize,
  type DatasetName,
  datasetNames,
  datasets,
  messageBytesMax,
  partitionOf,
} from '../../topics/catalog.ts';
import { schemaText } from '../../topics/registry.ts';

const runId = '2026-02-11T00:00:00Z-00000000';
const asOf = new Date('2026-02-10T00:00:00Z');
const schemaId = 7;

type Row = Record<string, unknown>;

interface Decoded {
  readonly partition: number;
  readonly key: string;
  readonly from: FilePosition;
  readonly bytes: number;
  readonly value: { runId: string; chunk: number; asOf: number; records: Row[]; deletes: Row[] };
}

interface Result {
  readonly chunks: Decoded[];
  readonly rejected: RejectedRow[];
  readonly read: FilePosition;
}

const types = new Map<DatasetName, avsc.Type>();

function decode(dataset: DatasetName, chunk: Chunk): Decoded {
  const type = types.get(dataset) ?? avsc.Type.forSchema(JSON.parse(schemaText(`imdb.${dataset}`)));
  types.set(dataset, type);
  expect(chunk.value[0]).toBe(0);
  expect(chunk.value.readInt32BE(1)).toBe(schemaId);
  const value = type.fromBuffer(chunk.value.subarray(5));
  expect(value.records).toHaveLength(chunk.records);
  const { partition, key, from } = chunk;
  return { partition, key, from, bytes: chunk.value.length, value };
}

/** Chunks of a file that comes in the given pieces. */
function chunksOf(
  dataset: DatasetName,
  pieces: readonly Buffer[],
  options: { start?: FilePosition; rowsMax?: number; header?: string } = {},
): Result {
  const file = Buffer.concat(pieces);
  const headerEnd = file.indexOf(0x0a);
  const layout = layoutOf(
    datasets[dataset],
    file.subarray(0, headerEnd < 0 ? file.length : headerEnd),
    'file',
  );
  const chunks: Decoded[] = [];
  const rejected: RejectedRow[] = [];
  const chunker = new Chunker({
    dataset: datasets[dataset],
    layout,
    shards: 4,
    schemaId,
    runId,
    asOf,
    ...(options.start !== undefined && { start: options.start }),
    onChunk: (chunk) => {
      chunks.push(decode(dataset, chunk));
      // The chunker reuses recycled memory at once: chunks must not share memory.
      chunk.value.fill(0xff);
      chunker.recycle(chunk);
    },
    onRejected: (row) => rejected.push(row),
  });
  for (const piece of pieces) {
    for (let at = 0; at < piece.length; ) at = chunker.push(piece, at, options.rowsMax);
  }
  chunker.end();
  expect(chunker.handedOver).toEqual(chunker.read);
  return { chunks, rejected, read: chunker.read };
}

function header(dataset: DatasetName): string {
  return datasets[dataset].columns.map(({ name }) => name).join('\t');
}

function fileOf(dataset: DatasetName, rows: readonly (string | Buffer)[], end = '\n'): Buffer {
  return Buffer.concat(
    [header(dataset), ...rows].flatMap((row) => [
      Buffer.isBuffer(row) ? row : Buffer.from(row),
      Buffer.from(end),
    ]),
  );
}

/** The rows that a well-formed text holds, by splitting strings. */
function parse(dataset: DatasetName, text: string): Row[] {
  const [first = '', ...lines] = text.split('\n');
  const names = first.split('\t');
  if (lines.at(-1) === '') lines.pop();
  return lines.map((line) => {
    const values = line.split('\t');
    return Object.fromEntries(
      datasets[dataset].columns.map(({ name, type }) => {
        const raw = values[names.indexOf(name)] as string;
        if (raw === '\\N') return [name, null];
        if (type.endsWith('int') || type === 'tenths') return [name, Number(raw)];
        if (type.endsWith('boolean')) return [name, raw === '1'];
        return [name, raw];
      }),
    );
  });
}

function rowsByPartition(dataset: DatasetName, rows: readonly Row[], shards = 4): Row[][] {
  const byPartition: Row[][] = Array.from({ length: shards }, () => []);
  const [id] = datasets[dataset].columns;
  for (const row of rows) {
    const text = row[id?.name ?? ''] as string;
    (byPartition[partitionOf(text.slice(0, -4), shards)] as Row[]).push(row);
  }
  return byPartition;
}

function recordsByPartition(chunks: readonly Decoded[]): Row[][] {
  return [0, 1, 2, 3].map((partition) =>
    chunks.filter((chunk) => chunk.partition === partition).flatMap(({ value }) => value.records),
  );
}

/** A valid row of each dataset. */
const goodRows: Record<DatasetName, string> = {
  'title.ratings': 'tt0000001\t5.7\t2169',
  'title.basics': 'tt0000001\tshort\tCarmencita\tCarmencita\t0\t1894\t\\N\t1\tDocumentary,Short',
  'title.principals': 'tt0000001\t1\tnm1588970\tself\t\\N\t["Self"]',
  'title.akas': 'tt0000001\t1\tCarmencita\tDE\t\\N\t\\N\tliteral title\t0',
  'title.crew': 'tt0000001\tnm0005690\t\\N',
  'title.episode': 'tt0041951\ttt0041038\t1\t9',
  'name.basics': 'nm0000001\tFred Astaire\t1899\t1987\tactor,producer\ttt0072308,tt0050419',
};

function withColumn(dataset: DatasetName, column: string, value: string | Buffer): Buffer {
  const values = (goodRows[dataset] as string).split('\t').map((text) => Buffer.from(text));
  values[datasets[dataset].columns.findIndex(({ name }) => name === column)] = Buffer.from(value);
  return Buffer.concat(
    values.flatMap((bytes, index) => (index === 0 ? [bytes] : [Buffer.from('\t'), bytes])),
  );
}

const sample = fileURLToPath(new URL('../../../shared/imdb-sample', import.meta.url));

describe.skipIf(!existsSync(sample))('real rows', () => {
  it.each(datasetNames)('all rows of %s are decoded by avsc as they were written', (dataset) => {
    const bytes = gunzipSync(readFileSync(`${sample}/${dataset}.tsv.gz`));
    const { chunks, rejected, read } = chunksOf(dataset, [bytes]);
    const rows = parse(dataset, bytes.toString());
    expect(rejected).toEqual([]);
    expect(read.row).toBe(rows.length);
    expect(recordsByPartition(chunks)).toEqual(rowsByPartition(dataset, rows));
  });
});

describe('a chunk', () => {
  const rows = Array.from({ length: 60_000 }, (_, i) => {
    const id = Math.floor(i / 9) * 3 + 1;
    return `tt${String(id).padStart(7, '0')}\t${i % 9}\tnm${String(i + 1).padStart(7, '0')}\tactor\t\\N\t["${'Self '.repeat(i % 40)}"]`;
  });
  const { chunks } = chunksOf('title.principals', [fileOf('title.principals', rows)]);

  it('holds its run, number and date; numbers are consecutive within a partition', () => {
    for (const partition of [0, 1, 2, 3]) {
      const own = chunks.filter((chunk) => chunk.partition === partition);
      own.forEach(({ value }, index) => {
        expect(value).toMatchObject({ runId, chunk: index, asOf: asOf.getTime(), deletes: [] });
      });
    }
  });

  it('has the block of its first record as key, which any default partitioner sends to its partition', () => {
    const partition = kafkajs.Partitioners.DefaultPartitioner();
    const partitionMetadata = [0, 1, 2, 3].map((partitionId) => ({ partitionId, leader: 1 }));
    for (const chunk of chunks) {
      const [first] = chunk.value.records;
      expect(chunk.key).toBe(String(first?.tconst).slice(0, -4));
      const message = { key: chunk.key, value: '' };
      expect(partition({ topic: 'any', partitionMetadata: partitionMetadata as never, message })).toBe(
        chunk.partition,
      );
    }
  });

  it('closes after its target size at a change of title, so that no title lies in two chunks', () => {
    expect(chunks.length).toBeGreaterThan(4);
    const seen = new Set<unknown>();
    for (const { value, bytes } of chunks) {
      expect(bytes).toBeLessThan(chunkBytesTarget + 10_000);
      for (const id of new Set(value.records.map(({ tconst }) => tconst))) {
        expect(seen.has(id)).toBe(false);
        seen.add(id);
      }
    }
  });

  it('never exceeds the largest message, even if one title has more rows', () => {
    const long = Array.from({ length: 3_000 }, (_, i) => withTitle(i, 'x'.repeat(900)));
    const result = chunksOf('title.akas', [fileOf('title.akas', long)]);
    expect(result.rejected).toEqual([]);
    expect(result.chunks.length).toBeGreaterThan(2);
    for (const { bytes } of result.chunks) expect(bytes).toBeLessThanOrEqual(messageBytesMax);
    expect(result.chunks.flatMap(({ value }) => value.records)).toHaveLength(3_000);
  });
});

function withTitle(ordering: number, title: string): string {
  return `tt0000001\t${ordering}\t${title}\tDE\t\\N\t\\N\t\\N\t0`;
}

describe('a partition', () => {
  it('is the one that kafkajs and Java choose, for each length of key', () => {
    const choose = kafkajs.Partitioners.DefaultPartitioner();
    const partitionMetadata = Array.from({ length: 7 }, (_, partitionId) => ({ partitionId, leader: 1 }));
    fc.assert(
      fc.property(fc.constantFrom('tt', 'nm'), fc.integer({ min: 0, max: 999_999_999 }), (prefix, id) => {
        const key = blockKey(prefix, Math.floor(id / blockSize));
        const message = { key, value: '' };
        expect(partitionOf(key, 7)).toBe(
          choose({ topic: 'any', partitionMetadata: partitionMetadata as never, message }),
        );
      }),
    );
  });
});

/** Cases with a short name each, as values may be long. */
function named<Case extends readonly unknown[]>(cases: readonly Case[]): [string, ...Case][] {
  return cases.map((fields) => [
    fields.map((field) => JSON.stringify(field).slice(0, 40)).join(' '),
    ...fields,
  ]);
}

describe('an invalid row is rejected with its reason', () => {
  const cases: [DatasetName, string, string | Buffer, string][] = [
    ['title.ratings', 'averageRating', '11.0', 'rating'],
    ['title.ratings', 'averageRating', '0.9', 'rating'],
    ['title.ratings', 'averageRating', '10.1', 'rating'],
    ['title.ratings', 'averageRating', '100', 'rating'],
    ['title.ratings', 'averageRating', '7.25', 'rating'],
    ['title.ratings', 'averageRating', '7.', 'rating'],
    ['title.ratings', 'averageRating', '-7', 'rating'],
    ['title.ratings', 'averageRating', 'good', 'rating'],
    ['title.ratings', 'averageRating', '', 'rating'],
    ['title.ratings', 'averageRating', '\\N', 'null'],
    ['title.ratings', 'numVotes', '-1', 'integer'],
    ['title.ratings', 'numVotes', '12a', 'integer'],
    ['title.ratings', 'numVotes', '2147483648', 'integer'],
    ['title.ratings', 'numVotes', '99999999999999999999', 'integer'],
    ['title.ratings', 'numVotes', '', 'integer'],
    ['title.ratings', 'numVotes', '\\N', 'null'],
    ['title.basics', 'startYear', 'Reality-TV', 'integer'],
    ['title.basics', 'startYear', '1894.5', 'integer'],
    ['title.basics', 'startYear', '--1', 'integer'],
    ['title.basics', 'startYear', '-', 'integer'],
    ['title.basics', 'startYear', ' 1894', 'integer'],
    ['title.basics', 'startYear', '-2147483648', 'integer'],
    ['title.basics', 'isAdult', '2', 'boolean'],
    ['title.basics', 'isAdult', '2020', 'boolean'],
    ['title.basics', 'isAdult', '', 'boolean'],
    ['title.basics', 'isAdult', 'yes', 'boolean'],
    ['title.basics', 'isAdult', 'tRUE', 'boolean'],
    ['title.basics', 'isAdult', '\\N', 'null'],
    ['title.basics', 'tconst', 'abc', 'id'],
    ['title.basics', 'tconst', 'tt', 'id'],
    ['title.basics', 'tconst', '', 'id'],
    ['title.basics', 'tconst', 'nm0000001', 'id'],
    ['title.basics', 'tconst', 'tm0000001', 'id'],
    ['title.basics', 'tconst', 'tt000001', 'id'],
    ['title.basics', 'tconst', 'tt01234567', 'id'],
    ['title.basics', 'tconst', 'tt1234567890', 'id'],
    ['title.basics', 'tconst', 'tt12345x7', 'id'],
    ['title.basics', 'tconst', '\\N', 'null'],
    ['title.basics', 'primaryTitle', Buffer.from([0x61, 0xff, 0x62]), 'utf8'],
    ['title.basics', 'primaryTitle', Buffer.from([0xc3]), 'utf8'],
    ['title.principals', 'ordering', '-1', 'integer'],
    ['title.principals', 'nconst', 'tt0000001', 'id'],
    ['title.principals', 'nconst', '\\N', 'null'],
    ['title.akas', 'isOriginalTitle', 'x', 'boolean'],
    ['title.episode', 'parentTconst', 'nm0000001', 'id'],
    ['title.episode', 'parentTconst', '\\N', 'null'],
    ['name.basics', 'birthYear', '1899?', 'integer'],
    ['name.basics', 'nconst', 'tt0000001', 'id'],
    ['title.crew', 'directors', `nm1\tnm2`, 'columns'],
    ['title.akas', 'title', 'x'.repeat(messageBytesMax), 'too_large'],
    ['title.akas', 'title', 'x'.repeat(3 * messageBytesMax), 'too_large'],
  ];

  it.each(named(cases))('%s', (_, dataset, column, value, reason) => {
    const bad = withColumn(dataset, column, value);
    const good = Buffer.from(goodRows[dataset] as string);
    const whole = fileOf(dataset, [good, bad, good]);
    for (const pieces of [[whole], cutEvery(whole, 1_000)]) {
      const { chunks, rejected, read } = chunksOf(dataset, pieces);
      expect(rejected).toHaveLength(1);
      expect(rejected[0]).toMatchObject({ row: 1, line: 3, reason, originalBytes: bad.length });
      expect(rejected[0]?.original.equals(bad.subarray(0, 256_000))).toBe(true);
      expect(rejected[0]?.detail).not.toBe('');
      expect(read).toEqual({ row: 3, rejected: 1 });
      expect(chunks.flatMap(({ value: { records } }) => records)).toHaveLength(2);
    }
  });

  it.each(datasetNames)('%s: too few, too many, no columns', (dataset) => {
    const good = goodRows[dataset] as string;
    const bad = [
      good.slice(0, good.lastIndexOf('\t')),
      `${good}\t`,
      `${good}\tx`,
      '',
      '\t',
      good.split('\t')[0],
    ];
    const { chunks, rejected } = chunksOf(dataset, [fileOf(dataset, [good, ...(bad as string[]), good])]);
    expect(rejected.map(({ reason }) => reason)).toEqual(bad.map(() => 'columns'));
    expect(rejected.map(({ line }) => line)).toEqual([3, 4, 5, 6, 7, 8]);
    expect(chunks.flatMap(({ value }) => value.records)).toHaveLength(2);
  });

  it('keys the rejected row by its block if its id is valid', () => {
    const rows = [withColumn('title.ratings', 'numVotes', 'x'), withColumn('title.ratings', 'tconst', 'x')];
    const { rejected } = chunksOf('title.ratings', [fileOf('title.ratings', rows)]);
    expect(rejected.map(({ key }) => key)).toEqual(['tt000', null]);
  });
});

function cutEvery(bytes: Buffer, length: number): Buffer[] {
  const pieces: Buffer[] = [];
  for (let at = 0; at < bytes.length; at += length) pieces.push(Buffer.from(bytes.subarray(at, at + length)));
  return pieces;
}

describe('odd rows that are valid', () => {
  const cases: [DatasetName, string, string, unknown][] = [
    ['title.ratings', 'averageRating', '7', 7],
    ['title.ratings', 'averageRating', '1.0', 1],
    ['title.ratings', 'averageRating', '10', 10],
    ['title.ratings', 'averageRating', '10.0', 10],
    ['title.ratings', 'averageRating', '9.3', 9.3],
    ['title.ratings', 'numVotes', '0', 0],
    ['title.ratings', 'numVotes', '2147483647', 2147483647],
    ['title.basics', 'startYear', '-2147483647', -2147483647],
    ['title.basics', 'runtimeMinutes', '51420', 51420],
    ['title.basics', 'tconst', 'tt0000000', 'tt0000000'],
    ['title.basics', 'tconst', 'tt999999999', 'tt999999999'],
    ['title.basics', 'genres', '\\N', null],
    ['title.basics', 'primaryTitle', '\\Nope', '\\Nope'],
    ['title.basics', 'primaryTitle', '\\', '\\'],
    ['title.basics', 'primaryTitle', '"quoted"', '"quoted"'],
    ['title.basics', 'primaryTitle', 'None', 'None'],
    ['title.basics', 'primaryTitle', '日本語 Ünïcödé 🎬', '日本語 Ünïcödé 🎬'],
    ['title.basics', 'primaryTitle', 'a\rb', 'a\rb'],
    ['title.akas', 'attributes', 'one\x02two\x02', 'one\x02two\x02'],
    ['title.akas', 'attributes', '\x00\x01\x08\x0b', '\x00\x01\x08\x0b'],
    ['title.akas', 'isOriginalTitle', '\\N', null],
    ['title.crew', 'directors', 'x'.repeat(63), 'x'.repeat(63)],
    ['title.crew', 'directors', 'x'.repeat(64), 'x'.repeat(64)],
    ['title.crew', 'directors', 'x'.repeat(8_191), 'x'.repeat(8_191)],
    ['title.crew', 'directors', 'x'.repeat(8_192), 'x'.repeat(8_192)],
    ['title.crew', 'directors', 'x'.repeat(900_000), 'x'.repeat(900_000)],
  ];

  it.each(named(cases))('%s', (_, dataset, column, text, value) => {
    const { chunks, rejected } = chunksOf(dataset, [fileOf(dataset, [withColumn(dataset, column, text)])]);
    expect(rejected).toEqual([]);
    expect(chunks.flatMap(({ value: { records } }) => records)[0]).toHaveProperty(column, value);
  });
});

/** The same value as pandas, Excel, R or Windows write it. */
describe('a value of equal meaning is accepted', () => {
  const cases: [DatasetName, string, string, unknown][] = [
    ['title.ratings', 'numVotes', '43.0', 43],
    ['title.ratings', 'numVotes', '43.00', 43],
    ['title.ratings', 'averageRating', '7.00', 7],
    ['title.ratings', 'averageRating', '7.50', 7.5],
    ['title.basics', 'startYear', '1894.0', 1894],
    ['title.basics', 'startYear', '-5.0', -5],
    ['title.basics', 'startYear', '', null],
    ['title.basics', 'startYear', 'NaN', null],
    ['title.basics', 'startYear', 'nan', null],
    ['title.basics', 'endYear', 'None', null],
    ['title.basics', 'endYear', '<NA>', null],
    ['title.basics', 'runtimeMinutes', 'NULL', null],
    ['title.basics', 'isAdult', '1.0', true],
    ['title.basics', 'isAdult', 'True', true],
    ['title.basics', 'isAdult', 'FALSE', false],
    ['title.akas', 'isOriginalTitle', 'true', true],
    ['title.basics', 'isAdult', 't', true],
    ['title.akas', 'isOriginalTitle', 'f', false],
    ['title.basics', 'genres', '', null],
    ['title.basics', 'genres', 'NaN', null],
    ['title.basics', 'genres', 'Drama\r', 'Drama'],
    ['title.basics', 'genres', '\\N\r', null],
    ['title.basics', 'genres', 'Drama\r\r', 'Drama'],
    ['title.basics', 'primaryTitle', '"""Swords"" of Time"', '"Swords" of Time'],
    ['title.basics', 'primaryTitle', '', null],
    ['title.principals', 'characters', '"[""Self""]"', '["Self"]'],
    ['title.akas', 'region', 'nan', null],
    ['title.akas', 'region', 'NA', 'NA'],
    ['title.akas', 'language', 'nan', 'nan'],
    ['title.akas', 'title', 'NaN', 'NaN'],
    ['title.akas', 'title', '"Rome"', '"Rome"'],
    ['title.akas', 'title', '"Rome" and "Milan"', '"Rome" and "Milan"'],
    ['title.akas', 'isOriginalTitle', '0.0', false],
    ['title.akas', 'isOriginalTitle', '', null],
    ['name.basics', 'birthYear', '1899.0', 1899],
  ];

  it.each(named(cases))('%s', (_, dataset, column, text, value) => {
    const odd = withColumn(dataset, column, text);
    const good = Buffer.from(goodRows[dataset]);
    const whole = fileOf(dataset, [good, odd, good]);
    for (const pieces of [[whole], cutEvery(whole, 7)]) {
      const { chunks, rejected } = chunksOf(dataset, pieces);
      expect(rejected).toEqual([]);
      const [before, found, after] = chunks.flatMap(({ value: { records } }) => records);
      expect(found).toEqual({ ...before, [column]: value });
      expect(after).toEqual(before);
    }
  });

  const ambiguous: [DatasetName, string, string, string][] = [
    ['title.ratings', 'numVotes', '1,234', 'integer'],
    ['title.ratings', 'numVotes', '43.5', 'integer'],
    ['title.ratings', 'numVotes', '1e3', 'integer'],
    ['title.ratings', 'numVotes', 'NaN', 'integer'],
    ['title.ratings', 'averageRating', '7.05', 'rating'],
    ['title.ratings', 'averageRating', '7,5', 'rating'],
    ['title.basics', 'isAdult', 'NaN', 'boolean'],
    ['title.ratings', 'numVotes', 'True', 'integer'],
  ];

  it.each(named(ambiguous))(
    'but not one that may mean something else: %s',
    (_, dataset, column, text, reason) => {
      const { rejected } = chunksOf(dataset, [fileOf(dataset, [withColumn(dataset, column, text)])]);
      expect(rejected).toMatchObject([{ reason }]);
      expect(rejected[0]?.original.toString()).toContain(text);
    },
  );
});

describe('the header', () => {
  const rows = ['tt0000001\t5.7\t2169', 'tt0000002\t5.5\t298'];
  const expected = [
    { tconst: 'tt0000001', averageRating: 5.7, numVotes: 2169 },
    { tconst: 'tt0000002', averageRating: 5.5, numVotes: 298 },
  ];
  const recordsOf = (text: string) => {
    const { chunks, rejected } = chunksOf('title.ratings', [Buffer.from(text)]);
    expect(rejected).toEqual([]);
    return chunks.flatMap(({ value }) => value.records);
  };

  it.each([
    ['official', `tconst\taverageRating\tnumVotes\n${rows.join('\n')}\n`],
    ['without the last newline', `tconst\taverageRating\tnumVotes\n${rows.join('\n')}`],
    ['snake_case', `tconst\taverage_rating\tnum_votes\n${rows.join('\n')}\n`],
    ['with a byte order mark', `\uFEFFtconst\taverageRating\tnumVotes\n${rows.join('\n')}\n`],
    ['with CR LF', `tconst\taverageRating\tnumVotes\r\n${rows.join('\r\n')}\r\n`],
    ['with LF before rows with CR LF', `tconst\taverageRating\tnumVotes\n${rows.join('\r\n')}\r\n`],
    ['with CR LF before rows with LF', `tconst\taverageRating\tnumVotes\r\n${rows.join('\n')}\n`],
    ['with mixed line ends', `tconst\taverageRating\tnumVotes\n${rows.join('\r\n')}\n`],
    ['in lower case', `tconst\taveragerating\tnumvotes\n${rows.join('\n')}\n`],
    [
      'with quotes around everything',
      `"tconst"\t"averageRating"\t"numVotes"\n${rows.map((row) => `"${row.replaceAll('\t', '"\t"')}"`).join('\n')}\n`,
    ],
    [
      'with quotes around texts',
      `"tconst"\t"averageRating"\t"numVotes"\n"tt0000001"\t5.7\t2169\n"tt0000002"\t5.5\t298\n`,
    ],
    [
      "with pandas' index",
      `\ttconst\taverageRating\tnumVotes\n${rows.map((row, n) => `${n}\t${row}`).join('\n')}\n`,
    ],
    [
      'with empty columns at the end',
      `tconst\taverageRating\tnumVotes\t\t\n${rows.map((row) => `${row}\t\t`).join('\n')}\n`,
    ],
    ['with CR LF, without the last', `tconst\taverageRating\tnumVotes\r\n${rows.join('\r\n')}`],
    ['in another order', 'numVotes\ttconst\taverageRating\n2169\ttt0000001\t5.7\n298\ttt0000002\t5.5\n'],
    [
      'with more columns',
      'x\ttconst\taverageRating\ty\tnumVotes\n\ttt0000001\t5.7\t?\t2169\n1\ttt0000002\t5.5\t2\t298\n',
    ],
  ])('%s', (_, text) => expect(recordsOf(text)).toEqual(expected));

  it('of a file without rows yields no chunk', () => {
    expect(recordsOf('tconst\taverageRating\tnumVotes\n')).toEqual([]);
    expect(recordsOf('tconst\taverageRating\tnumVotes')).toEqual([]);
  });

  it('that lacks columns is refused with their names', () => {
    expect(() => layoutOf(datasets['title.ratings'], Buffer.from('tconst\tvotes'), 'a.tsv')).toThrow(
      'a.tsv lacks the columns averageRating, numVotes',
    );
  });

  it.each([',', ';', '|'])('with columns separated by %s is refused, naming the separator', (separator) => {
    const line = Buffer.from(['tconst', 'averageRating', 'numVotes'].join(separator));
    expect(() => layoutOf(datasets['title.ratings'], line, 'a.tsv')).toThrow(
      expect.objectContaining({ hint: expect.stringContaining(`"${separator}"`) }),
    );
  });

  it('that has a column twice is refused', () => {
    const twice = Buffer.from('tconst\taverageRating\tnumVotes\tnum_votes');
    expect(() => layoutOf(datasets['title.ratings'], twice, 'a.tsv')).toThrow('numVotes twice');
  });

  it('keeps the raw line of a rejected row, in the order of the file', () => {
    const text = 'numVotes\ttconst\taverageRating\r\nmany\ttt0000001\t5.7\r\n1\ttt0000001\r\n';
    const { rejected } = chunksOf('title.ratings', [Buffer.from(text)]);
    expect(rejected.map(({ original, reason }) => [String(original), reason])).toEqual([
      ['many\ttt0000001\t5.7', 'integer'],
      ['1\ttt0000001', 'columns'],
    ]);
  });
});

/** Files of a few rows, valid and invalid, short and long, with both line ends. */
const anyFile = fc
  .record({
    dataset: fc.constantFrom(...datasetNames),
    rows: fc.array(
      fc.tuple(
        fc.integer({ min: 0, max: 40_000 }),
        fc.constantFrom('', '\\N', 'x', 'ä', '\x02', 'long '.repeat(30)),
        fc.constantFrom('good', 'good', 'good', 'columns', 'utf8', 'blank'),
      ),
      { maxLength: 12 },
    ),
    end: fc.constantFrom('\n', '\r\n'),
    lastEnd: fc.boolean(),
  })
  .map(({ dataset, rows, end, lastEnd }) => {
    const { idPrefix, columns } = datasets[dataset];
    const string = columns.find(({ type, name }) => type === 'nullable-string' && name !== 'tconst')?.name;
    const lines = rows.map(([id, text, how]) => {
      if (how === 'blank') return Buffer.alloc(0);
      const values = (
        string === undefined ? goodRows[dataset] : withColumn(dataset, string, text).toString()
      ) as string;
      const line = [idPrefix + String(id).padStart(7, '0'), ...values.split('\t').slice(1)].join('\t');
      if (how === 'columns') return Buffer.from(`${line}\tx`);
      return how === 'utf8' ? Buffer.concat([Buffer.from(line), Buffer.of(0xff)]) : Buffer.from(line);
    });
    const file = fileOf(dataset, lines, end);
    return { dataset, file: lastEnd ? file : file.subarray(0, file.length - end.length) };
  });

describe('the result does not depend on pieces', () => {
  it('cut at each byte', () => {
    fc.assert(
      fc.property(anyFile, ({ dataset, file }) => {
        const whole = chunksOf(dataset, [file]);
        for (let cut = 1; cut < file.length; cut++) {
          expect(chunksOf(dataset, [file.subarray(0, cut), file.subarray(cut)])).toEqual(whole);
        }
      }),
      { numRuns: 8 },
    );
  });

  it('many pieces, read some rows at a time', () => {
    fc.assert(
      fc.property(
        anyFile,
        fc.integer({ min: 1, max: 50 }),
        fc.integer({ min: 1, max: 5 }),
        (any, length, rowsMax) => {
          const { dataset, file } = any;
          expect(chunksOf(dataset, cutEvery(file, length), { rowsMax })).toEqual(chunksOf(dataset, [file]));
        },
      ),
      { numRuns: 200 },
    );
  });

  it('a later start skips the rows before it', () => {
    fc.assert(
      fc.property(anyFile, fc.nat(12), fc.integer({ min: 1, max: 100 }), ({ dataset, file }, row, length) => {
        const whole = chunksOf(dataset, [file]);
        fc.pre(row <= whole.read.row);
        const rejectedBefore = whole.rejected.filter((rejected) => rejected.row < row);
        const start = { row, rejected: rejectedBefore.length };
        const rest = chunksOf(dataset, cutEvery(file, length), { start });
        expect(rest.read).toEqual(whole.read);
        expect(rest.rejected).toEqual(whole.rejected.slice(rejectedBefore.length));
        const restRecords = recordsByPartition(rest.chunks);
        recordsByPartition(whole.chunks).forEach((records, partition) => {
          const own = restRecords[partition] as Row[];
          expect(records.slice(records.length - own.length)).toEqual(own);
        });
        expect(restRecords.flat().length).toBe(whole.read.row - whole.read.rejected - (row - start.rejected));
      }),
      { numRuns: 200 },
    );
  });
});

describe('marks', () => {
  it('stay at the oldest open chunk, with the rows rejected before it', () => {
    const chunks: Chunk[] = [];
    const chunker = new Chunker({
      dataset: datasets['title.ratings'],
      layout: layoutOf(datasets['title.ratings'], Buffer.from(header('title.ratings')), 'file'),
      shards: 4,
      schemaId,
      runId,
      asOf,
      onChunk: (chunk) => chunks.push(chunk),
      onRejected: () => undefined,
    });
    chunker.push(fileOf('title.ratings', ['bad', 'tt0000001\t5.7\t1', 'bad', 'bad', 'tt0000002\t5.7\t1']));
    chunker.push(Buffer.from('\n'));
    expect(chunker.read).toEqual({ row: 6, rejected: 4 });
    expect(chunker.handedOver).toEqual({ row: 1, rejected: 1 });
    chunker.cut(1);
    expect(chunks).toHaveLength(0);
    chunker.cut(2);
    expect(chunks).toHaveLength(1);
    expect(chunks[0]?.from).toEqual({ row: 1, rejected: 1 });
    expect(chunker.handedOver).toEqual({ row: 6, rejected: 4 });
  });
});

describe('the checksum of a record batch', () => {
  it('is CRC-32C: it gives the published check value, for any alignment', () => {
    expect(crc32c(Buffer.from('123456789')) >>> 0).toBe(0xe3069283);
    const bytes = Buffer.from(Array.from({ length: 100 }, (_, i) => (i * 37) & 0xff));
    for (let start = 0; start < bytes.length; start++) {
      expect(crc32c(bytes, start)).toBe(crc32c(Buffer.from(bytes.subarray(start))));
      expect(crc32c(bytes, start)).toBe(bitwiseCrc32c(bytes.subarray(start)));
    }
  });
});

function bitwiseCrc32c(bytes: Uint8Array): number {
  let crc = -1;
  for (const byte of bytes) {
    crc ^= byte;
    for (let bit = 0; bit < 8; bit++) crc = (crc >>> 1) ^ (crc & 1 ? 0x82f63b78 : 0);
  }
  return ~crc;
}
