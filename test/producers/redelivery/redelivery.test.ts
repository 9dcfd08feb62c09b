/**
 * Redelivery keeps the newest row of each key. Method: letters as stages write them, and chunks, on the topics of a new
 * namespace; a redelivery; then a fold of the topic as readers do it: the last row of a key wins. The first test uses the
 * command line instead, with a message that a real processor refused.
 */
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { expect, inject, vi } from 'vitest';
import { printable } from '../../../cli/figures.ts';
import { clusterIdOf } from '../../../kafka/client.ts';
import { ensureRetainedTopics } from '../../../kafka/topics.ts';
import type { LetterGroup } from '../../../monitor/dead-letters.ts';
import { DeadLetterView } from '../../../monitor/dead-letters.ts';
import { journalFolder } from '../../../producers/journal.ts';
import { createProducer } from '../../../producers/producer.ts';
import {
  type RedeliveryOptions,
  type RedeliveryReport,
  redeliver,
} from '../../../producers/redelivery/redelivery.ts';
import { withFolderLock } from '../../../runtime/folder-lock.ts';
import { deadLetterBytesMax, idText, partitionOf } from '../../../topics/catalog.ts';
import { type DeadLetter, deadLetterMessage } from '../../../topics/dead-letter.ts';
import { Registry } from '../../../topics/registry.ts';
import {
  broker,
  chunkType,
  encodeChunk,
  headerOf,
  lastJson,
  type Place,
  readTopic,
  test,
  writeDatasets,
} from '../../support/harness.ts';

vi.setConfig({ testTimeout: 300_000, hookTimeout: 300_000 });

const shards = 4;
const title = (n: number) => idText('tt', n);
const home = (n: number) => partitionOf(title(n).slice(0, -4), shards);
const rating = (n: number, numVotes: number) => ({ tconst: title(n), averageRating: 5.5, numVotes });
const elsewhere = [1, 2, 3, 4, 5].map((block) => block * 10_000).find((n) => home(n) !== home(1)) as number;

/** Topics of a place, and functions that write to them. */
class Lab {
  readonly place: Place;
  readonly registry = new Registry({ url: inject('registryUrl') });
  readonly topic: string;
  readonly #producer = createProducer(broker);
  #schemaId = 0;

  private constructor(place: Place) {
    this.place = place;
    this.topic = place.names.source('title.ratings');
  }

  static async at(place: Place): Promise<Lab> {
    const lab = new Lab(place);
    const { names } = place;
    const topics = [lab.topic, names.deadLetter];
    await ensureRetainedTopics(
      broker,
      topics.map((topic) => ({ topic, partitions: shards })),
    );
    lab.#schemaId = await lab.registry.register(lab.topic, 'imdb.title.ratings');
    await lab.#producer.connect();
    place.onEnd(() => lab.#producer.disconnect());
    return lab;
  }

  chunk(...records: object[]): Buffer {
    return encodeChunk(chunkType('title.ratings'), this.#schemaId, { records });
  }

  /** @returns its offset */
  async put(
    value: Buffer,
    partition = home(1),
    headers: Readonly<Record<string, string>> = {},
  ): Promise<number> {
    const [sent] = await this.#producer.send({
      topic: this.topic,
      messages: [{ partition, value, headers: { ...headers } }],
    });
    return Number(sent?.baseOffset);
  }

  async #letter(letter: Omit<DeadLetter, 'time' | 'detail'> & { time?: Date }): Promise<void> {
    const message = deadLetterMessage({ time: new Date(), detail: 'of a test', ...letter });
    await this.#producer.send({
      topic: this.place.names.deadLetter,
      messages: [{ ...message, partition: 0 }],
    });
  }

  /** Writes a chunk and the letter of a processor that refused it. */
  async putRefused(value: Buffer, reason = 'unknown_schema_id', partition = home(1)): Promise<void> {
    const offset = await this.put(value, partition);
    const source = { topic: this.topic, partition, offset: String(offset) };
    await this.#letter({ stage: 'processor', reason, original: value, source });
  }

  /** The letter of a producer that refused a row. */
  refuseRow(row: string, more: Partial<DeadLetter> = {}): Promise<void> {
    const source = { file: 'dump/title.ratings.tsv.gz', line: 7 };
    return this.#letter({
      stage: 'producer',
      reason: 'integer',
      original: Buffer.from(row),
      source,
      ...more,
    });
  }

  redeliver(more: Partial<RedeliveryOptions> = {}): Promise<RedeliveryReport> {
    const { names, state } = this.place;
    return redeliver({
      broker,
      registry: this.registry,
      names,
      state,
      select: () => true,
      dryRun: false,
      ...more,
    });
  }

  /** Votes by title after a reader folded the topic, without the messages at these offsets of title 1's partition. */
  async votes(refusedOffsets: readonly number[] = []): Promise<Record<string, number>> {
    const votes: Record<string, number> = {};
    for (const { partition, offset, value } of await readTopic(this.topic)) {
      if (partition === home(1) && refusedOffsets.includes(offset)) continue;
      const { records } = chunkType('title.ratings').fromBuffer((value as Buffer).subarray(5)) as {
        records: { tconst: string; numVotes: number }[];
      };
      for (const { tconst, numVotes } of records)
        if (home(Number(tconst.slice(2))) === partition) votes[tconst] = numVotes;
    }
    return votes;
  }

  get messages() {
    return readTopic(this.topic);
  }

  async groups(): Promise<readonly LetterGroup[]> {
    return (await new DeadLetterView(broker, this.place.names, { latestMax: 1 }).read()).groups;
  }
}

test('a chunk on the wrong partition is refused, redelivered to the right one, and then applied', async ({
  place,
}) => {
  const row = (n: number, votes: number) => `${title(n)}\t5.5\t${votes}\n`;
  const basics = (n: number) => `${title(n)}\tmovie\tA\tA\t0\t2000\t\\N\t90\tDrama\n`;
  const [first, moved] = [1, elsewhere];
  const titles = headerOf('title.basics') + basics(first) + basics(moved);
  const before = writeDatasets(join(place.folder, 'before'), {
    'title.basics': titles,
    'title.ratings': `num_votes\ttconst\taverage_rating\n1\t${title(first)}\t5.5\nmany\t${title(first)}\t5.5\n`,
  });
  const whole = writeDatasets(join(place.folder, 'whole'), {
    'title.basics': titles,
    'title.ratings': headerOf('title.ratings') + row(first, 1) + row(moved, 2),
  });
  await place.replay(before, '--shards', String(shards), '--max-rejected', '100');
  const lab = await Lab.at(place);
  await lab.put(lab.chunk(rating(moved, 2)), home(first));
  await place.process();
  const dlq = async <T>(...args: string[]) => {
    const common = ['--namespace', place.namespace, '--state', place.state, '--json'];
    const finished = await place.run(['dlq', ...args, ...common]);
    expect(finished, finished.stderr).toMatchObject({ code: 0 });
    return lastJson<T>(finished);
  };

  const letters = await place.deadLetters();
  expect(letters.find(({ stage }) => stage === 'producer')?.columns).toBe('numVotes\ttconst\taverageRating');
  const [group, other] = await dlq<LetterGroup[]>('list');
  expect(other).toMatchObject({ stage: 'producer', reason: 'integer', letters: 1, open: 1 });
  expect(group).toMatchObject({
    stage: 'processor',
    reason: 'wrong_partition',
    source: lab.topic,
    letters: 1,
    open: 1,
  });
  expect(await dlq('show', group?.newest as string)).toMatchObject({
    reason: 'wrong_partition',
    today: { dataset: 'title.ratings', records: 1, rows: [{ tconst: title(moved), numVotes: 2 }] },
  });
  const messages = (await lab.messages).length;
  expect(await dlq('replay', '--dry-run')).toMatchObject({
    letters: 2,
    replayed: 1,
    rowsSent: 1,
    dryRun: true,
  });
  expect(await lab.messages).toHaveLength(messages);
  expect(await dlq('replay', '--reason', 'wrong_partition')).toMatchObject({
    letters: 1,
    replayed: 1,
    rowsSent: 1,
  });
  expect(await dlq('replay')).toMatchObject({ letters: 1, before: 1, rowsSent: 0, refused: { integer: 1 } });

  await place.process();
  await place.sink();
  expect(await place.differences(whole)).toEqual([]);
  // Each record in the log counts once: the refused message, and the redelivered one.
  const { applied, duplicate, rejected } = place.manifest.accounting[lab.topic] ?? {};
  expect({ applied, duplicate, rejected }).toEqual({ applied: 2, duplicate: 0, rejected: 1 });
});

test('a row of a refused chunk is sent only if the topic holds no newer row of its key', async ({
  place,
}) => {
  const lab = await Lab.at(place);
  await lab.putRefused(lab.chunk(rating(1, 10), rating(2, 10)));
  await lab.put(lab.chunk(rating(1, 20)));
  const state = join(place.folder, 'absent');
  expect(await lab.redeliver({ dryRun: true, state })).toMatchObject({ replayed: 1, dryRun: true });
  expect(existsSync(state)).toBe(false);
  expect(await lab.redeliver()).toMatchObject({ replayed: 1, superseded: 0, rowsSent: 1, rowsSuperseded: 1 });
  expect(await lab.votes([0])).toEqual({ [title(1)]: 20, [title(2)]: 10 });
});

test('a letter whose rows all have newer versions is marked as superseded', async ({ place }) => {
  const lab = await Lab.at(place);
  await lab.putRefused(lab.chunk(rating(1, 10)));
  await lab.refuseRow(`${title(2)}\t5.5\t10`, { time: new Date(Date.now() - 60_000) });
  await lab.put(lab.chunk(rating(1, 20), rating(2, 20)));
  expect(await lab.redeliver()).toMatchObject({ letters: 2, replayed: 0, superseded: 2, rowsSent: 0 });
  expect(await lab.messages).toHaveLength(2);
  expect(await lab.groups()).toMatchObject([
    { open: 0, superseded: 1 },
    { open: 0, superseded: 1 },
  ]);
});

test.for([
  ['older', 'newer'],
  ['newer', 'older'],
])(
  'of two refused versions of a row the newer one remains when the %s one is redelivered first',
  async ([first, second], { place }) => {
    const lab = await Lab.at(place);
    await lab.putRefused(lab.chunk(rating(1, 10)), 'older');
    await lab.putRefused(lab.chunk(rating(1, 20)), 'newer');
    for (const reason of [first, second])
      await lab.redeliver({ select: (letter) => letter.reason === reason });
    expect(await lab.votes([0, 1])).toEqual({ [title(1)]: 20 });
  },
);

test('rows of a file are read again with the columns of that file', async ({ place }) => {
  const lab = await Lab.at(place);
  await lab.refuseRow(`${title(1)}\t5.5\t10`);
  await lab.refuseRow(`20\t${title(elsewhere)}\tx\t7.5`, {
    columns: ['numVotes', 'tconst', 'more', 'averageRating'],
  });
  await lab.refuseRow(`${title(3)}\tmany\t10`);
  await lab.refuseRow(`${title(4)}\t5.5\t10`, { originalBytes: 300_000 });
  await lab.refuseRow(`${title(5)}\t5.5\t10`, { source: { file: 'notes.txt', line: 2 } });
  const report = await lab.redeliver();
  expect(report).toMatchObject({
    letters: 5,
    replayed: 2,
    refused: { rating: 1, cut: 1, not_replayable: 1 },
  });
  expect(await lab.votes()).toEqual({ [title(1)]: 10, [title(elsewhere)]: 20 });
  expect((await lab.groups()).reduce((sum, { open }) => sum + open, 0)).toBe(3);
});

test('a chunk that its letter holds only in part is read whole from its topic', async ({ place }) => {
  const lab = await Lab.at(place);
  const records = Array.from({ length: 9_999 }, (_, i) => rating(i + 1, 3));
  const many = lab.chunk(...records, ...records, ...records);
  expect(many.length).toBeGreaterThan(deadLetterBytesMax);
  await lab.putRefused(many);
  expect(await lab.redeliver()).toMatchObject({ replayed: 1, rowsSent: records.length });
  expect(Object.keys(await lab.votes([0]))).toHaveLength(records.length);
});

test('a letter whose offset now holds another message stays as it is', async ({ place }) => {
  const lab = await Lab.at(place);
  await lab.put(lab.chunk(rating(1, 10)));
  const source = { topic: lab.topic, partition: home(1) };
  const original = lab.chunk(rating(2, 10));
  await lab.refuseRow('', { stage: 'processor', original, source: { ...source, offset: '0' } });
  await lab.refuseRow('', { stage: 'processor', original, source: { ...source, offset: '7' } });
  await lab.refuseRow('', {
    stage: 'sink',
    original,
    source: { ...source, topic: place.names.deltas, offset: '0' },
  });
  expect(await lab.redeliver()).toMatchObject({ letters: 3, refused: { source_gone: 2, not_replayable: 1 } });
  expect(await lab.messages).toHaveLength(1);
});

test('a newer row that arrives during a redelivery ends up last', async ({ place }) => {
  const lab = await Lab.at(place);
  await lab.putRefused(lab.chunk(rating(1, 10), rating(2, 10)));
  let sends = 0;
  const report = await lab.redeliver({
    send: async ({ value, partition, headers }) => {
      sends += 1;
      if (sends === 1) await lab.put(lab.chunk(rating(1, 20), rating(3, 20)));
      return lab.put(value, partition, headers);
    },
  });
  expect(sends).toBe(2);
  expect(report).toMatchObject({ replayed: 1 });
  expect(await lab.votes([0])).toEqual({ [title(1)]: 20, [title(2)]: 10, [title(3)]: 20 });
});

test('while other producers keep writing, redelivery ends as busy and the letter stays open', async ({
  place,
}) => {
  const lab = await Lab.at(place);
  await lab.putRefused(lab.chunk(rating(1, 10)));
  let votes = 20;
  const never = lab.redeliver({
    // Each attempt meets another newer row.
    send: async ({ value, partition, headers }) => {
      await lab.put(lab.chunk(rating(1, votes++)));
      return lab.put(value, partition, headers);
    },
  });
  await expect(never).rejects.toMatchObject({ kind: 'busy' });
  expect(await lab.groups()).toMatchObject([{ open: 1, replayed: 0 }]);
});

test('a running replay of files excludes a redelivery', async ({ place }) => {
  const lab = await Lab.at(place);
  await lab.putRefused(lab.chunk(rating(1, 10)));
  const folder = journalFolder(place.state, await clusterIdOf(broker), place.namespace);
  await withFolderLock(folder, { patienceMs: 0 }, async () => {
    await expect(lab.redeliver()).rejects.toMatchObject({ kind: 'busy' });
  });
});

test('control characters of a letter do not reach the terminal', () => {
  expect(printable('a\tb\nc é 猫')).toBe('a\tb\nc é 猫');
  expect(printable('\u001b[31m\u009b2J\r\u0007\u202ereversed')).toBe('�[31m�2J���reversed');
});

test('after a kill between sending and marking, the next run completes the redelivery', async ({ place }) => {
  const lab = await Lab.at(place);
  await lab.putRefused(lab.chunk(rating(1, 10), rating(2, 10)));
  const killed = lab.redeliver({
    send: async ({ value, partition, headers }) => {
      await lab.put(lab.chunk(rating(1, 20)));
      await lab.put(value, partition, headers);
      throw new Error('killed');
    },
  });
  await expect(killed).rejects.toThrow('killed');
  expect(await lab.votes([0])).toEqual({ [title(1)]: 10, [title(2)]: 10 });
  expect(await lab.redeliver()).toMatchObject({ letters: 1, replayed: 1 });
  expect(await lab.votes([0])).toEqual({ [title(1)]: 20, [title(2)]: 10 });
  const messages = await lab.messages;
  expect(await lab.redeliver()).toMatchObject({ letters: 0, before: 1 });
  expect(await lab.messages).toHaveLength(messages.length);
});

test('deletes of a refused chunk remove rows, unless a newer row exists', async ({ place }) => {
  const lab = await Lab.at(place);
  await lab.put(lab.chunk(rating(1, 1), rating(2, 1)));
  const value = lab.chunk();
  const deletes = [{ tconst: title(1) }, { tconst: title(2) }];
  const chunk = encodeChunk(chunkType('title.ratings'), value.readInt32BE(1), { records: [], deletes });
  await lab.putRefused(chunk);
  await lab.put(lab.chunk(rating(2, 5)));
  expect(await lab.redeliver()).toMatchObject({ replayed: 1, rowsSent: 1, rowsSuperseded: 1 });
  const last = (await lab.messages).at(-1)?.value as Buffer;
  expect(chunkType('title.ratings').fromBuffer(last.subarray(5))).toMatchObject({
    records: [],
    deletes: [{ tconst: title(1) }],
  });
});

test('a refused row whose group was replaced later stays removed', async ({ place }) => {
  const lab = await Lab.at(place);
  await lab.putRefused(lab.chunk(rating(1, 9)));
  const value = lab.chunk();
  const chunk = { records: [rating(2, 5)], replaces: [0] };
  await lab.put(encodeChunk(chunkType('title.ratings'), value.readInt32BE(1), chunk));
  const messages = (await lab.messages).length;
  expect(await lab.redeliver()).toMatchObject({ rowsSent: 0, rowsSuperseded: 1 });
  expect(await lab.messages).toHaveLength(messages);
});

test('a refused chunk that replaces groups is left to the next refresh', async ({ place }) => {
  const lab = await Lab.at(place);
  const value = lab.chunk();
  const chunk = { records: [rating(2, 5)], replaces: [0] };
  await lab.putRefused(encodeChunk(chunkType('title.ratings'), value.readInt32BE(1), chunk));
  const messages = (await lab.messages).length;
  expect(await lab.redeliver()).toMatchObject({ rowsSent: 0, replayed: 0 });
  expect(await lab.messages).toHaveLength(messages);
});
