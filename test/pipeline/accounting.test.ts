/**
 * Every record is accounted for: per partition and in total, the records that a reader who knows nothing of ours counts on
 * the topics in [start, next) are applied + duplicate + rejected, in the manifest and on `reelflow status`.
 */
import { cpSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, vi } from 'vitest';
import { type DatasetName, datasetNames } from '../../topics/catalog.ts';
import { schemaText } from '../../topics/registry.ts';
import { sendTo } from '../support/damage.ts';
import {
  type ChunkContent,
  chunkType,
  encodeChunk,
  lastJson,
  type Place,
  registerSchema,
  smallDataset,
  test,
} from '../support/harness.ts';
import { temporaryFolder } from '../support/temporary-folder.ts';

vi.setConfig({ testTimeout: 240_000 });

const shards = 3;

const data = await smallDataset(join(temporaryFolder(), 'data'), 600, 9);

interface StatusLine {
  readonly snapshot: string;
  readonly generation: number;
  readonly partitions: {
    readonly topic: string;
    readonly partition: number;
    readonly start: number;
    readonly next: number;
    readonly end: number | null;
    readonly applied: number;
    readonly duplicate: number;
    readonly rejected: number;
  }[];
  readonly accounting: Readonly<Record<string, { applied: number; duplicate: number; rejected: number }>>;
}

/** Records of each partition of a topic in [start, next), by avsc; what it cannot decode counts for one. */
async function countRecords(
  place: Place,
  dataset: DatasetName,
  within: (partition: number) => readonly [number, number],
): Promise<Map<number, number>> {
  const type = chunkType(dataset);
  const counts = new Map<number, number>();
  for (const { partition, offset, value } of await place.readTopic(place.names.source(dataset))) {
    const [start, next] = within(partition);
    if (offset < start || offset >= next) continue;
    let records = 1;
    try {
      const chunk = type.fromBuffer((value as Buffer).subarray(5)) as Required<ChunkContent>;
      records = chunk.records.length + chunk.deletes.length;
    } catch {
      // Rejected as a whole: the number of records is unknown.
    }
    counts.set(partition, (counts.get(partition) ?? 0) + records);
  }
  return counts;
}

/** That all accounts close. @returns what status says */
async function expectClosed(place: Place): Promise<StatusLine> {
  const status = lastJson<StatusLine>(
    await place.run(['status', '--gold', place.gold, '--namespace', place.namespace, '--json']),
  );
  const { manifest, names } = place;
  expect(status).toMatchObject({ snapshot: manifest.id, accounting: manifest.accounting });
  for (const dataset of datasetNames) {
    const topic = names.source(dataset);
    const input = manifest.input[topic] ?? {};
    const counted = await countRecords(place, dataset, (partition) => input[partition] ?? [0, 0]);
    let total = 0;
    for (let partition = 0; partition < shards; partition++) {
      const [start, next] = input[partition] ?? [0, 0];
      const counts =
        dataset === 'name.basics' ? manifest.names[partition] : manifest.shards[partition]?.sources[topic];
      const { applied, duplicate, rejected } = counts ?? { applied: 0, duplicate: 0, rejected: 0 };
      const records = counted.get(partition) ?? 0;
      expect(applied + duplicate + rejected, `${topic}/${partition}`).toBe(records);
      const line = status.partitions.find((of) => of.topic === topic && of.partition === partition);
      expect(line).toMatchObject({ start, next, end: next, applied, duplicate, rejected });
      total += records;
    }
    const { applied, duplicate, rejected } = manifest.accounting[topic] ?? {};
    expect(Number(applied) + Number(duplicate) + Number(rejected), topic).toBe(total);
  }
  return status;
}

const sumOf = ({ accounting }: StatusLine, count: 'applied' | 'duplicate' | 'rejected') =>
  Object.values(accounting).reduce((sum, of) => sum + of[count], 0);

// Method: a replay; the same one again with one other row, as equal tables are not published; messages that are rejected whole, with one, several or an unknown number of
// records, between good ones; then a sink that has lost its file.
test('accounts close after a replay, a second one, rejected messages, and a sink that lost its state', async ({
  place,
}) => {
  await place.pipeline(data, { replay: ['--shards', String(shards)] });
  const first = await expectClosed(place);
  expect(sumOf(first, 'rejected')).toBe(0);

  const corrected = join(place.folder, 'corrected');
  cpSync(data, corrected, { recursive: true });
  const ratings = join(corrected, 'title.ratings.tsv');
  writeFileSync(
    ratings,
    readFileSync(ratings, 'utf8').replace(/\t(\d)\.\d\t/, (_, whole) => `\t${whole === '5' ? 6 : 5}.0\t`),
  );
  await place.upsert(corrected);
  await place.process('--max-records', '500');
  await place.sink();
  const second = await expectClosed(place);
  expect(sumOf(second, 'applied')).toBe(sumOf(first, 'applied') + 1);
  expect(sumOf(second, 'duplicate')).toBe(2 * sumOf(first, 'duplicate') + sumOf(first, 'applied') - 1);

  const topic = place.names.source('title.ratings');
  const id = await registerSchema(`${topic}-value`, JSON.parse(schemaText('imdb.title.ratings')));
  const people = place.names.source('name.basics');
  const peopleId = await registerSchema(`${people}-value`, JSON.parse(schemaText('imdb.name.basics')));
  const rating = (tconst: string, averageRating: number) => ({ tconst, averageRating, numVotes: 1 });
  const type = chunkType('title.ratings');
  // Three records of which one cannot be; two that belong to another partition, whichever that is; bytes.
  const impossible = encodeChunk(type, id, {
    records: [rating('tt0000001', 5), rating('tt0000002', 99), rating('tt0000003', 5)],
  });
  const elsewhere = encodeChunk(type, id, { records: [rating('tt0000001', 5), rating('tt0000002', 5)] });
  for (let partition = 0; partition < shards; partition++) {
    await sendTo(topic, partition, [impossible, Buffer.from('what is this'), elsewhere]);
    await sendTo(people, partition, [Buffer.from([0, 0, 0, 0, peopleId, 0xff])]);
  }
  await place.process();
  await place.sink();
  const third = await expectClosed(place);
  // One of the partitions is the right one for `elsewhere`.
  expect(third.accounting[topic]?.rejected).toBe(shards * (3 + 1) + (shards - 1) * 2);
  expect(third.accounting[people]?.rejected).toBe(shards);

  rmSync(place.state, { recursive: true });
  await place.upsert(data, '--datasets', 'title.ratings');
  await place.process();
  await place.sink();
  const fourth = await expectClosed(place);
  expect(sumOf(fourth, 'rejected')).toBe(sumOf(third, 'rejected'));
  expect(sumOf(fourth, 'applied')).toBeGreaterThanOrEqual(sumOf(first, 'applied'));
});
