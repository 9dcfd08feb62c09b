/**
 * Producers and the batch computation on the same files of random odd values. Both must accept the same rows, with the same
 * values, although they share no code for reading files and values.
 */
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import avsc from 'avsc';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { withDatabase } from '../../../database/duckdb.ts';
import { Chunker } from '../../../producers/chunker.ts';
import { layoutOf } from '../../../producers/file-layout.ts';
import { batchGold } from '../../../sinks/verify/file-gold.ts';
import { type DatasetName, datasets, idText } from '../../../topics/catalog.ts';
import { schemaText } from '../../../topics/registry.ts';

let folder: string;
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'reelflow-odd-'));
});
afterEach(() => rm(folder, { recursive: true }));

const oddValues = [
  ...[
    '0',
    '1',
    '0.0',
    '1.0',
    '1.00',
    '01',
    '+1',
    '-1',
    '-1.0',
    '1.',
    '.0',
    '1.5',
    '1e3',
    '0x1F',
    ' 1',
    '1 ',
    '1,234',
  ],
  ...[
    '1994',
    '1994.0',
    '2147483647',
    '2147483647.0',
    '2147483648',
    '-2147483647',
    '-2147483648',
    '00000000001',
  ],
  ...['7', '7.5', '7.50', '7.500', '7.55', '10', '10.0', '10.00', '10.1', '0.9', '07.5', '٣'],
  ...['', '\\N', '\\n', 'NaN', 'nan', 'NAN', 'None', 'NULL', 'null', '<NA>', 'NA', 'N/A', 'inf'],
  ...['true', 'True', 'TRUE', 'tRUE', 'false', 'False', 'FALSE', 't', 'T', 'f', 'yes'],
  ...[
    '"1"',
    '""',
    '"',
    '"""',
    '"a"',
    '"a""b"',
    '"""a"""',
    '"a"b"',
    '"NaN"',
    '"\\N"',
    'Drama',
    'Drama\r',
    '\r',
    'a\rb',
  ],
];

/** A small generator of pseudo-random numbers, so that each run has the same values. */
function randomOf(seed: number): () => number {
  let state = seed;
  return () => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    return state / 2 ** 32;
  };
}

/** Good rows, in which each field is odd with a probability. */
function fileOf(
  dataset: DatasetName,
  good: (id: string) => readonly string[],
  { seed, isQuoted, end }: { seed: number; isQuoted: boolean; end: string },
): Buffer {
  const random = randomOf(seed);
  const write = (field: string) => (isQuoted && random() < 0.7 ? `"${field.replaceAll('"', '""')}"` : field);
  const lines = [datasets[dataset].columns.map(({ name }) => (isQuoted ? `"${name}"` : name)).join('\t')];
  for (let id = 1; id <= 2_000; id++) {
    const fields = good(idText('tt', id)).map((field, n) => {
      const odd = oddValues[Math.floor(random() * oddValues.length)] as string;
      return n > 0 && random() < 0.25 ? odd : field;
    });
    lines.push(fields.map(write).join('\t') + (random() < 0.2 ? '\r' : ''));
  }
  return Buffer.from(lines.map((line) => line + end).join(''));
}

/** The rows that producers accept. */
function produced(dataset: DatasetName, file: Buffer): Record<string, unknown>[] {
  const type = avsc.Type.forSchema(JSON.parse(schemaText(`imdb.${dataset}`)));
  const rows: Record<string, unknown>[] = [];
  const chunker = new Chunker({
    dataset: datasets[dataset],
    layout: layoutOf(datasets[dataset], file.subarray(0, file.indexOf('\n')), 'file'),
    shards: 1,
    schemaId: 1,
    runId: 'run',
    asOf: new Date(0),
    onChunk: ({ value }) => rows.push(...type.fromBuffer(value.subarray(5)).records),
    onRejected: () => undefined,
  });
  chunker.push(file);
  chunker.end();
  return rows;
}

/** A query after the batch computation over the files. */
async function recomputed(files: Partial<Record<DatasetName, Buffer>>, query: string): Promise<string[]> {
  for (const [dataset, bytes] of Object.entries(files))
    await writeFile(join(folder, `${dataset}.tsv`), bytes);
  return withDatabase(async (connection) => {
    await batchGold(connection, folder);
    return (await connection.runAndReadAll(query)).getRowsJson().map((row) => JSON.stringify(row));
  });
}

const ratings = (id: string) => [id, '7.5', '10'];
const basics = (id: string) => [id, 'movie', 'One', 'One', '0', '1994', '\\N', '90', 'Drama'];
const akas = (id: string) => [id, '1', 'One', 'DE', 'de', '\\N', '\\N', '0'];
const plain = { seed: 0, isQuoted: false, end: '\n' };
const header = (dataset: DatasetName) => `${datasets[dataset].columns.map(({ name }) => name).join('\t')}\n`;
const goodFile = (dataset: DatasetName, good: (id: string) => readonly string[]) =>
  Buffer.from(
    header(dataset) +
      Array.from({ length: 2_000 }, (_, n) => `${good(idText('tt', n + 1)).join('\t')}\n`).join(''),
  );

const formats = [
  plain,
  { ...plain, seed: 1, end: '\r\n' },
  { ...plain, seed: 2, isQuoted: true },
  { seed: 3, isQuoted: true, end: '\r\n' },
];

test.each(formats)('ratings: %j', async (format) => {
  const file = fileOf('title.ratings', ratings, format);
  const rows = await recomputed(
    { 'title.ratings': file, 'title.basics': Buffer.from(header('title.basics')) },
    'SELECT tconst, averageRating, numVotes::VARCHAR FROM batch.title_features ORDER BY tconst',
  );
  expect(rows).toEqual(
    produced('title.ratings', file).map(({ tconst, averageRating, numVotes }) =>
      JSON.stringify([tconst, averageRating, String(numVotes)]),
    ),
  );
  expect(rows.length).toBeGreaterThan(1_000);
});

test.each(formats)('basics: %j', async (format) => {
  const file = fileOf('title.basics', basics, format);
  const rows = await recomputed(
    { 'title.ratings': goodFile('title.ratings', ratings), 'title.basics': file },
    `SELECT tconst, titleType, isAdult, startYear, runtimeMinutes, array_to_string(genres, ',')
     FROM batch.title_features WHERE isAdult IS NOT NULL ORDER BY tconst`,
  );
  expect(rows).toEqual(
    produced('title.basics', file).map(({ tconst, titleType, isAdult, startYear, runtimeMinutes, genres }) =>
      JSON.stringify([tconst, titleType, isAdult, startYear, runtimeMinutes, genres]),
    ),
  );
  expect(rows.length).toBeGreaterThan(500);
});

test.each(formats)('akas: %j', async (format) => {
  const file = fileOf('title.akas', akas, format);
  const rows = await recomputed(
    {
      'title.ratings': goodFile('title.ratings', ratings),
      'title.basics': Buffer.from(header('title.basics')),
      'title.akas': file,
    },
    'SELECT region, total_akas::INTEGER FROM batch.region_analysis ORDER BY region',
  );
  const counts = new Map<unknown, number>();
  for (const { region } of produced('title.akas', file)) {
    if (region !== null) counts.set(region, (counts.get(region) ?? 0) + 1);
  }
  const sorted = [...counts].sort(([a], [b]) =>
    Buffer.compare(Buffer.from(String(a)), Buffer.from(String(b))),
  );
  expect(rows).toEqual(sorted.map((row) => JSON.stringify(row)));
  expect(rows.length).toBeGreaterThan(5);
});
