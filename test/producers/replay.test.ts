/**
 * Replays on a real broker and registry, each test in a namespace of its own. The tests read topics
 * from the first offset; avsc decodes them with the registry's schema for the id in the message.
 */
import { spawn } from 'node:child_process';
import { existsSync, readFileSync, utimesSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { gunzipSync, gzipSync } from 'node:zlib';
import { describe, expect, it } from 'vitest';
import { replayText } from '../../cli/replay-text.ts';
import { createBroker, withAdmin } from '../../kafka/client.ts';
import { scanTopic } from '../../kafka/scan.ts';
import { partitionCounts } from '../../kafka/topics.ts';
import { type ReplayOptions, replay } from '../../producers/replay.ts';
import type { ReplayCounts } from '../../producers/replay-report.ts';
import { type DatasetName, datasetNames, datasets, partitionOf, topicNamesIn } from '../../topics/catalog.ts';
import { Registry } from '../../topics/registry.ts';
import { broker, folder, logger, newNamespace, registry } from '../support/dump-place.ts';
import { failureOf } from '../support/failure.ts';

type Row = Record<string, unknown>;

interface Message {
  readonly partition: number;
  readonly key: string | null;
  readonly value: Buffer;
}

/** Options of a replay in a namespace and a state folder of its own. */
function optionsFor(inputs: string | string[], more: Partial<ReplayOptions> = {}): ReplayOptions {
  return {
    broker,
    registry,
    logger,
    names: topicNamesIn(newNamespace()),
    inputs: typeof inputs === 'string' ? [inputs] : inputs,
    state: folder(),
    mode: 'upsert',
    ...more,
  };
}

async function messagesOf(topic: string): Promise<Message[]> {
  if (!(await partitionCounts(broker, [topic])).has(topic)) return [];
  const all: Message[] = [];
  for await (const { partition, messages } of scanTopic(broker, topic)) {
    for (const { key, value } of messages) {
      all.push({ partition, key: key === null ? null : String(key), value: value ?? Buffer.alloc(0) });
    }
  }
  return all;
}

interface ReadChunk extends Message {
  readonly chunk: { runId: string; chunk: number; records: Row[] };
}

async function chunksOf({ names }: ReplayOptions, dataset: DatasetName): Promise<ReadChunk[]> {
  const chunks: ReadChunk[] = [];
  for (const message of await messagesOf(names.source(dataset))) {
    expect(message.value[0]).toBe(0);
    const type = await registry.writer(message.value.readInt32BE(1));
    chunks.push({ ...message, chunk: type?.fromBuffer(message.value.subarray(5)) });
  }
  return chunks;
}

function keyOf(dataset: DatasetName, row: Row): string {
  const { columns, keyColumns } = datasets[dataset];
  return columns
    .slice(0, keyColumns)
    .map(({ name }) => String(row[name]))
    .join(' ');
}

/** The last version of each row of a dataset's topic, in partition order. */
async function fold(options: ReplayOptions, dataset: DatasetName): Promise<Map<string, Row>> {
  const last = new Map<string, Row>();
  for (const { chunk } of await chunksOf(options, dataset)) {
    for (const row of chunk.records) last.set(keyOf(dataset, row), { ...row });
  }
  return last;
}

/** The last version of each row of a file, by splitting strings. */
function foldFile(dataset: DatasetName, text: string): Map<string, Row> {
  const last = new Map<string, Row>();
  for (const line of text.trimEnd().split('\n').slice(1)) {
    const values = line.split('\t');
    const row = Object.fromEntries(
      datasets[dataset].columns.map(({ name, type }, index) => {
        const raw = values[index] as string;
        if (raw === '\\N') return [name, null];
        if (type.endsWith('int') || type === 'tenths') return [name, Number(raw)];
        return [name, type.endsWith('boolean') ? raw === '1' : raw];
      }),
    );
    last.set(keyOf(dataset, row), row);
  }
  return last;
}

const id = (number: number) => `tt${String(number).padStart(7, '0')}`;
const ratingsHeader = 'tconst\taverageRating\tnumVotes\n';
const basicsHeader =
  'tconst\ttitleType\tprimaryTitle\toriginalTitle\tisAdult\tstartYear\tendYear\truntimeMinutes\tgenres\n';

/** Ratings of ids that spread over all partitions, with some ids twice. */
function ratings(rows: number): string {
  const lines = Array.from(
    { length: rows },
    (_, i) => `${id(((i * 7_919) % rows) * 37 + (i % 3))}\t${(1 + (i % 91) / 10).toFixed(1)}\t${i}`,
  );
  return `${ratingsHeader}${lines.join('\n')}\n`;
}

const basics = `${basicsHeader}${id(1)}\tshort\tCarmencita\tCarmencita\t0\t1894\t\\N\t1\tDocumentary,Short\n`;

describe('a replay', () => {
  const sample = fileURLToPath(new URL('../../../shared/imdb-sample', import.meta.url));

  it.skipIf(!existsSync(sample))(
    'of real files puts each row on its topic, in its partition, once',
    async () => {
      const options = optionsFor(sample);
      const report = await replay(options);
      expect(report).toMatchObject({ read: 350_007, produced: 350_007, rejected: 0, absent: [] });
      for (const dataset of datasetNames) {
        const text = gunzipSync(readFileSync(join(sample, `${dataset}.tsv.gz`))).toString();
        expect(await fold(options, dataset)).toEqual(foldFile(dataset, text));
        const chunks = await chunksOf(options, dataset);
        expect(chunks.reduce((sum, { chunk }) => sum + chunk.records.length, 0)).toBe(50_001);
        expect(chunks).toHaveLength(report.datasets[dataset]?.chunks ?? -1);
        for (const { key, partition, chunk } of chunks) {
          expect(partitionOf(key ?? '', 4)).toBe(partition);
          for (const row of chunk.records) {
            expect(partitionOf(keyOf(dataset, row).split(' ')[0]?.slice(0, -4) ?? '', 4)).toBe(partition);
          }
        }
      }
    },
    300_000,
  );

  it('keeps the order of the file within each partition, and numbers chunks without a gap', async () => {
    const text = ratings(200_000);
    const options = optionsFor(folder({ 'title.ratings.tsv': text, 'title.basics.tsv': basics }));
    const report = await replay(options);
    expect(report.datasets['title.ratings']?.read).toBe(200_000);
    const chunks = await chunksOf(options, 'title.ratings');
    for (const partition of [0, 1, 2, 3]) {
      const own = chunks.filter((chunk) => chunk.partition === partition);
      const votes = own.flatMap(({ chunk }) => chunk.records.map(({ numVotes }) => numVotes as number));
      expect(votes).toEqual([...votes].sort((a, b) => a - b));
      expect(own.map(({ chunk }) => chunk.chunk)).toEqual(own.map((_, index) => index));
      expect(new Set(own.map(({ chunk }) => chunk.runId))).toEqual(new Set([report.runId]));
    }
  });

  it('names the optional datasets that the directory lacks', async () => {
    const report = await replay(
      optionsFor(folder({ 'title.ratings.tsv': ratings(10), 'title.basics.tsv.gz': gzipSync(basics) })),
    );
    expect(report.absent).toEqual([
      'title.principals',
      'title.akas',
      'title.crew',
      'title.episode',
      'name.basics',
    ]);
    expect(Object.keys(report.datasets)).toEqual(['title.ratings', 'title.basics']);
  });

  it('accepts single files, and datasets by name, without the required ones', async () => {
    const files = folder({ 'title.ratings.tsv': ratings(10), 'title.basics.tsv': basics });
    const one = await replay(optionsFor(join(files, 'title.basics.tsv')));
    expect(Object.keys(one.datasets)).toEqual(['title.basics']);
    const other = await replay(optionsFor(files, { datasets: ['title.ratings'] }));
    expect(Object.keys(other.datasets)).toEqual(['title.ratings']);
  });

  it('uses the partition count of existing topics, and refuses a different --shards', async () => {
    const options = optionsFor(folder({ 'title.ratings.tsv': ratings(100), 'title.basics.tsv': basics }));
    await replay({ ...options, shards: 3 });
    await replay(options);
    const counts = await partitionCounts(broker, datasetNames.map(options.names.source));
    expect([...counts.values()]).toEqual(datasetNames.map(() => 3));
    expect((await failureOf(replay({ ...options, shards: 5 }))).kind).toBe('topicMismatch');
  });

  it('with a rate reads evenly at that rate', async () => {
    const options = optionsFor(folder({ 'title.ratings.tsv': ratings(3_000), 'title.basics.tsv': basics }), {
      rate: 2_000,
    });
    const seen: [ms: number, read: number][] = [];
    const started = performance.now();
    const report = await replay({
      ...options,
      datasets: ['title.ratings'],
      onProgress: ({ read }) => seen.push([performance.now() - started, read]),
    });
    const seconds = report.datasets['title.ratings']?.seconds ?? 0;
    expect(seconds).toBeGreaterThan(1.4);
    // Chunks were sent during the run, not only at its end.
    expect((await chunksOf(options, 'title.ratings')).length).toBeGreaterThan(4);
  });
});

describe('rejected rows', () => {
  it('are dead letters with file, line and reason, exactly as many as were rejected', async () => {
    const bad = [`${id(5)}\t11.0\t3`, 'x\t5.0\t3', `${id(6)}\t5.0`, '', `${id(70_000)}\t5.0\tmany`];
    const lines = ratings(50).trimEnd().split('\n');
    bad.forEach((line, index) => {
      lines.splice(10 * (index + 1), 0, line);
    });
    const files = folder({ 'title.ratings.tsv': `${lines.join('\n')}\n`, 'title.basics.tsv': basics });
    const options = optionsFor(files);
    const report = await replay(options);
    expect(report.datasets['title.ratings']).toMatchObject({ read: 55, produced: 50, rejected: 5 });
    expect(report).toMatchObject({ read: 56, produced: 51, rejected: 5 });

    const letters = await readHeaders(options);
    expect(letters.sort((a, b) => Number(a.line) - Number(b.line))).toMatchObject(
      bad.map((line, index) => ({
        value: line,
        line: String(10 * (index + 1) + 1),
        file: join(files, 'title.ratings.tsv'),
        stage: 'producer',
        reason: ['rating', 'id', 'columns', 'columns', 'integer'][index],
        originalBytes: String(line.length),
      })),
    );
  });

  it('may fill a whole file', async () => {
    const lines = Array.from({ length: 50_000 }, (_, i) => `bad row ${i}`);
    const options = optionsFor(
      folder({ 'title.ratings.tsv': `${ratingsHeader}${lines.join('\n')}\n`, 'title.basics.tsv': basics }),
    );
    const report = await replay({ ...options, maxRejected: 100 });
    expect(report).toMatchObject({ read: 50_001, produced: 1, rejected: 50_000 });
    const letters = await messagesOf(options.names.deadLetter);
    expect(new Set(letters.map(({ value }) => String(value)))).toEqual(new Set(lines));
    expect(letters).toHaveLength(50_000);
  }, 300_000);

  it('end the run early if the first 10,000 rows are all rejected', async () => {
    const lines = Array.from({ length: 500_000 }, (_, i) => `${id(i)}\t5.0\t4,321`);
    const options = optionsFor(
      folder({ 'title.ratings.tsv': `${ratingsHeader}${lines.join('\n')}\n`, 'title.basics.tsv': basics }),
    );
    const failure = await failureOf(replay(options));
    expect(failure.kind).toBe('rowsRejected');
    expect(failure.detail).toMatch(
      /title\.ratings: ([\d,]+) of \1 rows rejected; integer \1 times.*4,321.*\n.*the rest of the file was not read/,
    );
    const letters = await messagesOf(options.names.deadLetter);
    expect(failure.detail).toContain(`${letters.length.toLocaleString('en-US')} of`);
    expect(letters.length).toBeLessThan(lines.length / 2);
  }, 300_000);

  it('are cut when they are huge', async () => {
    const huge = `${id(1)}\t5.0\t${'9'.repeat(2_000_000)}`;
    const options = optionsFor(
      folder({
        'title.ratings.tsv': `${ratingsHeader}${huge}\n${id(2)}\t5.0\t1\n`,
        'title.basics.tsv': basics,
      }),
    );
    expect(await replay(options)).toMatchObject({ read: 3, produced: 2, rejected: 1 });
    const [letter] = await readHeaders(options);
    expect(letter).toMatchObject({ reason: 'too_large', originalBytes: String(huge.length) });
    expect(letter?.value).toBe(huge.slice(0, 256_000));
  });

  /** Dead letters with their headers, through kafkajs' own consumer. */
  async function readHeaders({ names }: ReplayOptions): Promise<Record<string, string>[]> {
    const expected = (await messagesOf(names.deadLetter)).length;
    const consumer = broker.kafka.consumer({ groupId: `${names.namespace}.test` });
    const letters: Record<string, string>[] = [];
    await consumer.connect();
    try {
      await consumer.subscribe({ topic: names.deadLetter, fromBeginning: true });
      await new Promise<void>((resolve, reject) => {
        consumer
          .run({
            eachMessage: async ({ message }) => {
              const headers = Object.entries(message.headers ?? {});
              letters.push({
                ...Object.fromEntries(headers.map(([name, value]) => [name, String(value)])),
                value: String(message.value),
              });
              if (letters.length === expected) resolve();
            },
          })
          .catch(reject);
      });
    } finally {
      await consumer.disconnect();
    }
    return letters;
  }
});

describe('a replay that is resumed', () => {
  const rows = 120_000;
  const text = ratings(rows)
    .split('\n')
    .flatMap((line, index) => (index > 0 && index % 1_000 === 0 ? [line, `bad ${index}`] : [line]))
    .join('\n');
  const good = text
    .split('\n')
    .filter((line) => !line.startsWith('bad'))
    .join('\n');

  it('continues after any interruption, and the topics hold the rows of the files', async () => {
    const files = folder({ 'title.ratings.tsv': text, 'title.basics.tsv': basics });
    const options = optionsFor(files, { rate: 150_000 });
    let interruptions = 0;
    let earlier: ReplayCounts | undefined;
    for (let attempt = 0; ; attempt++) {
      const controller = new AbortController();
      const stopAt = 9_000 + 23_000 * attempt;
      const report = await replay({
        ...options,
        resume: true,
        signal: controller.signal,
        onProgress: ({ read }) => {
          if (read >= stopAt) controller.abort();
        },
      });
      expect(report.read).toBe(report.produced + report.rejected);
      expect(report.before).toEqual(earlier);
      if (!report.interrupted) {
        expect(replayText(report)).toContain(
          `Of the total, its earlier attempts read ${earlier?.read.toLocaleString('en-US')} rows and`,
        );
        expect(report).toMatchObject({ read: rows + 121, produced: rows + 1, rejected: 120 });
        break;
      }
      interruptions++;
      const { read, unchanged, produced, rejected, chunks, bytes, seconds, recordsPerSecond } = report;
      earlier = { read, unchanged, produced, rejected, chunks, bytes, seconds, recordsPerSecond };
    }
    expect(interruptions).toBeGreaterThan(2);
    expect(await fold(options, 'title.ratings')).toEqual(foldFile('title.ratings', good));
    expect(await messagesOf(options.names.deadLetter)).toHaveLength(120);
    await chunkNumbersAreUnique(options);

    const again = await replay({ ...options, resume: true });
    expect(again).toMatchObject({ nothingToDo: true, read: rows + 121, produced: rows + 1, rejected: 120 });
  }, 300_000);

  it.each([1, 2, 4, 6])(
    'after SIGKILL at the %i. passage of after-ack-before-journal',
    async (passage) => {
      const files = folder({ 'title.ratings.tsv': text, 'title.basics.tsv': basics });
      const options = optionsFor(files, { resume: true });
      const script = join(folder(), 'replay.mjs');
      const module = (path: string) => JSON.stringify(new URL(`../../${path}`, import.meta.url).href);
      writeFileSync(
        script,
        `import { createBroker } from ${module('kafka/client.ts')};
       import { createLogger } from ${module('runtime/logger.ts')};
       import { replay } from ${module('producers/replay.ts')};
       import { topicNamesIn } from ${module('topics/catalog.ts')};
       import { Registry } from ${module('topics/registry.ts')};
       const { endpoints, namespace, ...rest } = JSON.parse(process.argv[2]);
       const logger = createLogger('silent');
       await replay({ ...rest, logger, broker: createBroker(endpoints, logger),
         registry: new Registry({ url: endpoints.registryUrl }), names: topicNamesIn(namespace) });`,
      );
      const { inputs, state, names } = options;
      const child = spawn(
        process.execPath,
        [
          script,
          JSON.stringify({
            endpoints: broker.endpoints,
            namespace: names.namespace,
            inputs,
            state,
            mode: options.mode,
            rate: 100_000,
          }),
        ],
        {
          env: { ...process.env, REELFLOW_CRASH_AT: `after-ack-before-journal:${passage}` },
          stdio: 'inherit',
        },
      );
      const signal = await new Promise((resolve) => child.once('exit', (_, name) => resolve(name)));
      expect(signal).toBe('SIGKILL');

      const report = await replay(options);
      expect(report).toMatchObject({ read: rows + 121, produced: rows + 1, rejected: 120 });
      expect(await fold(options, 'title.ratings')).toEqual(foldFile('title.ratings', good));
      const letters = (await messagesOf(options.names.deadLetter)).map(({ value }) => String(value));
      expect(new Set(letters).size).toBe(120);
      await chunkNumbersAreUnique(options);
    },
    300_000,
  );

  // Method: the run in between fails where one that is killed in its first second would end.
  it('is not the run before one that has ended before its first row', async () => {
    const files = folder({ 'title.ratings.tsv': ratings(10), 'title.basics.tsv': basics });
    const options = optionsFor(files);
    await replay(options);
    expect(await failureOf(replay({ ...options, shards: 3 }))).toMatchObject({ kind: 'topicMismatch' });
    const resumed = await replay({ ...options, resume: true });
    expect(resumed).toMatchObject({ read: 11, nothingToDo: false });
    const again = await replay({ ...options, resume: true });
    expect(again).toMatchObject({ nothingToDo: true, runId: resumed.runId });
    const begin = resumed.runId.slice(0, 19).replace('T', ' ');
    expect(replayText(again)).toContain(`Nothing to do: the run that began ${begin} UTC is complete.`);
  });

  it('starts without a journal, and refuses other inputs', async () => {
    const files = folder({ 'title.ratings.tsv': ratings(10), 'title.basics.tsv': basics });
    const options = optionsFor(files, { resume: true });
    expect(await replay(options)).toMatchObject({ read: 11, nothingToDo: false });
    utimesSync(join(files, 'title.ratings.tsv'), new Date(), new Date(Date.now() + 5_000));
    const failure = await failureOf(replay(options));
    expect(failure.kind).toBe('input');
    expect(failure.detail).toContain('title.ratings.tsv');
    expect(failure.hint).toContain('without --resume');
  });

  async function chunkNumbersAreUnique(options: ReplayOptions): Promise<void> {
    const chunks = await chunksOf(options, 'title.ratings');
    const numbers = chunks.map(({ partition, chunk }) => `${partition}/${chunk.runId}/${chunk.chunk}`);
    expect(new Set(numbers).size).toBe(numbers.length);
  }
});

describe('an error that the user can fix', () => {
  const good = { 'title.ratings.tsv': ratings(3), 'title.basics.tsv': basics };
  const cases: [name: string, inputs: () => string | string[], message: string][] = [
    ['a directory that does not exist', () => join(folder(), 'none'), 'does not exist'],
    ['an empty directory', () => folder(), 'is empty'],
    ['without title.ratings', () => folder({ 'title.basics.tsv': basics }), 'title.ratings not found'],
    ['only other files', () => folder({ 'ratings.tsv': '' }), 'title.ratings and title.basics not found'],
    ['a dataset twice', () => folder({ ...good, 'title.ratings.tsv.gz': '' }), 'title.ratings occurs twice'],
    ['an empty file', () => folder({ ...good, 'title.akas.tsv': '' }), 'title.akas.tsv is empty'],
    ['an empty gzip', () => folder({ ...good, 'title.akas.tsv.gz': gzipSync('') }), 'is empty'],
    ['a file of zero bytes called gzip', () => folder({ ...good, 'title.akas.tsv.gz': '' }), 'is '],
    [
      'a file that only begins like gzip',
      () => folder({ ...good, 'title.akas.tsv.gz': Buffer.from('1f8b01', 'hex') }),
      'is damaged',
    ],
    [
      'a header without a column',
      () => folder({ ...good, 'title.akas.tsv': 'titleId\n' }),
      'lacks the columns ordering',
    ],
    [
      'a file of another name',
      () => join(folder({ 'movies.tsv': 'x\n' }), 'movies.tsv'),
      'not named after a dataset',
    ],
    [
      'a directory among files',
      () => [folder(good), join(folder(good), 'title.basics.tsv')],
      'among several',
    ],
    ['no input', () => [], 'No input'],
  ];

  it.each(cases)('%s: nothing is sent, not even a topic', async (_, inputs, message) => {
    const options = optionsFor(inputs());
    const failure = await failureOf(replay(options));
    expect(['input', 'usage']).toContain(failure.kind);
    expect(failure.message).toContain(message);
    expect(failure.hint).not.toBe('');
    expect((await partitionCounts(broker, [options.names.source('title.basics')])).size).toBe(0);
  });

  it.each([
    ['truncated', (packed: Buffer) => packed.subarray(0, packed.length >> 1)],
    ['partly zero', (_: Buffer, text: string) => gzipSync(Buffer.from(text).fill(0, 2_000_000, 2_000_500))],
    [
      'damaged',
      (packed: Buffer) => Buffer.concat([packed.subarray(0, packed.length >> 1), Buffer.alloc(500, 7)]),
    ],
  ])('a %s gzip stops the run at a row; the complete rows before it are sent', async (_, harm) => {
    const whole = ratings(200_000);
    const options = optionsFor(
      folder({ 'title.ratings.tsv.gz': harm(gzipSync(whole), whole), 'title.basics.tsv': basics }),
    );
    const failure = await failureOf(replay(options));
    expect(failure.kind).toBe('input');
    expect(failure.message).toContain('title.ratings.tsv.gz is damaged');
    const line = Number(/line ([\d]+)/.exec(failure.detail)?.[1]);
    expect(line).toBeGreaterThan(10_000);
    const chunks = await chunksOf(options, 'title.ratings');
    const records = chunks.reduce((sum, { chunk }) => sum + chunk.records.length, 0);
    // Damaged data may decompress to invented rows, most of which are rejected.
    const rejected = (await messagesOf(options.names.deadLetter)).length;
    expect(records + rejected).toBe(line - 1);
    if (rejected > 0) return;
    const sent = whole.split('\n').slice(0, line).join('\n');
    expect(await fold(options, 'title.ratings')).toEqual(foldFile('title.ratings', sent));
  });

  it('no broker', async () => {
    const port = await closedPort();
    const away = createBroker({ ...broker.endpoints, brokers: [`127.0.0.1:${port}`] }, logger);
    const failure = await failureOf(replay(optionsFor(folder(good), { broker: away })));
    expect(failure.kind).toBe('brokerUnreachable');
    expect(failure.detail).toContain(String(port));
  }, 120_000);

  it('a broker but no registry', async () => {
    const url = `http://127.0.0.1:${await closedPort()}`;
    const failure = await failureOf(
      replay(optionsFor(folder(good), { registry: new Registry({ url, patienceMs: 500 }) })),
    );
    expect(failure.kind).toBe('registryUnreachable');
    expect(failure.detail).toContain(url);
  }, 120_000);

  it('a state folder that is a file', async () => {
    const state = join(folder({ state: 'x' }), 'state');
    expect((await failureOf(replay(optionsFor(folder(good), { state })))).kind).toBe('stateUnusable');
  });

  it('a journal that is damaged', async () => {
    const options = optionsFor(folder(good), { resume: true });
    await replay(options);
    const clusterId = await withAdmin(broker, async (admin) => (await admin.describeCluster()).clusterId);
    const journal = join(options.state, clusterId, options.names.namespace, 'replay', 'journal.json');
    expect(JSON.parse(readFileSync(journal, 'utf8'))).toMatchObject({ finished: true });
    writeFileSync(journal, '{"version": 2}');
    const failure = await failureOf(replay(options));
    expect(failure.kind).toBe('stateUnusable');
    expect(failure.detail).toContain(journal);
  });

  it('a second replay at the same time', async () => {
    const options = optionsFor(folder({ ...good, 'title.ratings.tsv': ratings(5_000) }), { rate: 2_000 });
    const controller = new AbortController();
    let begun = () => {};
    const begins = new Promise<void>((resolve) => {
      begun = resolve;
    });
    const first = replay({ ...options, signal: controller.signal, onProgress: () => begun() });
    await begins;
    expect((await failureOf(replay(options))).kind).toBe('busy');
    controller.abort();
    expect(await first).toMatchObject({
      interrupted: true,
      unfinished: expect.arrayContaining(['title.ratings']),
    });
  });
});

async function closedPort(): Promise<number> {
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const { port } = server.address() as { port: number };
  await new Promise((resolve) => server.close(resolve));
  return port;
}
