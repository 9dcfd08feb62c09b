/**
 * What goes wrong outside, as a person at the command line sees it: each case ends with its own exit code, says what
 * happened and what to do about it, shows no stack trace, and leaves nothing behind that a later run has to fear.
 */
import { execFileSync } from 'node:child_process';
import { mkdirSync, readFileSync, rmSync, statfsSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { gzipSync } from 'node:zlib';
import avsc from 'avsc';
import { afterAll, beforeAll, describe, expect, inject, vi } from 'vitest';
import { freePorts } from '../../kafka/local/probe.ts';
import { exitCodes, type FailureKind } from '../../runtime/errors.ts';
import { currentSnapshot, readManifest, snapshotFolder } from '../../sinks/gold/manifest.ts';
import { type DatasetName, idText, partitionOf } from '../../topics/catalog.ts';
import { schemaText } from '../../topics/registry.ts';
import {
  broker,
  encodeChunk,
  type Finished,
  headerOf,
  type LogLine,
  lastJson,
  logOf,
  Place,
  registerSchema,
  smallDataset,
  spoken,
  test,
  textOf,
} from '../support/harness.ts';
import { ingressPage, RegistryProxy } from '../support/registry-proxy.ts';

// Several commands each, and other tests at the same time.
vi.setConfig({ testTimeout: 120_000, hookTimeout: 120_000 });

const stackTrace = /^\s+at .+:\d+:\d+\)?$/m;

/** Exit code and words of a failure; what it says after `Error:`, `Detail:` and `Hint:` has to match. */
function expectFailure(
  finished: Finished,
  kind: FailureKind,
  words: { what: RegExp; detail?: RegExp; hint: RegExp },
): void {
  const text = spoken(finished);
  expect(finished.code, finished.stderr).toBe(exitCodes[kind]);
  const part = (name: string) =>
    new RegExp(`^${name}: ([^]*?)(?=^\\w+: |$(?![^]))`, 'm').exec(text)?.[1] ?? '';
  expect(part('Error')).toMatch(words.what);
  if (words.detail !== undefined) expect(part('Detail')).toMatch(words.detail);
  expect(part('Hint')).toMatch(words.hint);
  expect(text).not.toMatch(stackTrace);
  expect(finished.stdout).toBe('');
}

const ratings = `${headerOf('title.ratings')}tt0000001\t5.7\t2000\ntt0000002\t6.1\t30\n`;
const basics =
  `${headerOf('title.basics')}tt0000001\tshort\tA\tA\t0\t1894\t\\N\t1\tDocumentary,Short\n` +
  'tt0000002\tshort\tB\tB\t0\t\\N\t\\N\t\\N\t\\N\n';
const both = { 'title.ratings.tsv': ratings, 'title.basics.tsv': basics };

/** A finished pipeline over two titles, for tests that need gold and state which they do not change. */
const base = new Place();
let tiny: string;

beforeAll(async () => {
  tiny = base.files('tiny', both);
  await base.pipeline(tiny);
});
afterAll(() => base.close(false));

describe('the input of a replay is refused with words about', () => {
  type Words = { what: RegExp; detail?: RegExp; hint: RegExp };
  const cases: [string, Record<string, string | Buffer> | undefined, Words][] = [
    ['a directory that is missing', undefined, { what: /input does not exist/, hint: /reelflow download/ }],
    ['a directory that is empty', {}, { what: /input is empty/, hint: /reelflow download/ }],
    [
      'a directory without title.ratings',
      { 'title.basics.tsv': basics, 'title.ratings.csv': ratings },
      { what: /title\.ratings not found in/, detail: /Found title\.ratings\.csv/, hint: /tab-separated/ },
    ],
    [
      'a dataset that is there twice',
      { ...both, 'title.ratings.tsv.gz': gzipSync(ratings) },
      { what: /title\.ratings occurs twice/, detail: /title\.ratings\.tsv/, hint: /Remove one/ },
    ],
    [
      'an empty file',
      { ...both, 'title.ratings.tsv': '' },
      { what: /title\.ratings\.tsv is empty/, detail: /header/, hint: /reelflow download/ },
    ],
    [
      'an empty file that is packed',
      { 'title.ratings.tsv': ratings, 'title.basics.tsv.gz': gzipSync('') },
      { what: /title\.basics\.tsv\.gz is empty/, detail: /header/, hint: /reelflow download/ },
    ],
    [
      'a header without a required column',
      { ...both, 'title.ratings.tsv': ratings.replace('numVotes', 'votes') },
      { what: /title\.ratings\.tsv.*numVotes/, detail: /votes/, hint: /\w/ },
    ],
    [
      'a ZIP archive under a name of gzip',
      { 'title.ratings.tsv': ratings, 'title.basics.tsv.gz': Buffer.from('504b0304140000', 'hex') },
      { what: /title\.basics\.tsv\.gz is a ZIP archive/, hint: /Unpack/ },
    ],
    [
      'a file that only begins like gzip',
      { 'title.ratings.tsv': ratings, 'title.basics.tsv.gz': Buffer.from('1f8b01', 'hex') },
      { what: /title\.basics\.tsv\.gz is damaged/, detail: /header/, hint: /Fetch the file again/ },
    ],
  ];

  test.for(cases)('%s', async ([, files, words], { place }) => {
    const input = join(place.folder, 'input');
    if (files !== undefined) place.files('input', files);
    const finished = await place.run(place.args('replay', input));
    expectFailure(finished, 'input', words);
  });

  test('a missing directory, and with --verbose a stack trace as well', async ({ place }) => {
    const finished = await place.run(place.args('replay', 'nowhere', '--verbose'));
    expect(finished.code).toBe(exitCodes.input);
    expect(spoken(finished)).toMatch(/^Error: nowhere does not exist/);
    expect(spoken(finished)).toMatch(stackTrace);
  });
});

describe('rows that do not fit', () => {
  type BadRow = [reason: string, row: string | Buffer];
  const badRatings: BadRow[] = [
    ['columns', 'tt0000003\t5.0'],
    ['columns', 'tt0000003\t5.0\t10\tmore'],
    ['columns', ''],
    ['integer', 'tt0000003\t5.0\tten'],
    ['integer', 'tt0000003\t5.0\t-1'],
    ['integer', 'tt0000003\t5.0\t4000000000'],
    ['rating', 'tt0000003\t11.0\t10'],
    ['rating', 'tt0000003\t0.9\t10'],
    ['rating', 'tt0000003\t5.55\t10'],
    ['id', 'ttabcdefg\t5.0\t10'],
    ['id', 'tt\t5.0\t10'],
    ['id', 'tt003\t5.0\t10'],
    ['null', 'tt0000003\t\\N\t10'],
  ];
  const badBasics: BadRow[] = [
    ['integer', 'tt0000004\tmovie\tA\tA\t0\tMCMXC\t\\N\t1\tDrama'],
    ['boolean', 'tt0000004\tmovie\tA\tA\tno\t1990\t\\N\t1\tDrama'],
    ['utf8', Buffer.from('tt0000004\tmovie\tcaf\xe9\tA\t0\t1990\t\\N\t1\tDrama', 'latin1')],
    ['columns', 'tt0000004\tmovie\tA\tA\t0\t1990\t\\N\t1'],
  ];

  /** A file whose good and bad rows come by turns. */
  function mixed(header: string, bad: readonly BadRow[], good: (n: number) => string): Buffer {
    const rows = bad.flatMap(([, row], n) => [Buffer.from(good(n)), Buffer.from(row)]);
    return Buffer.concat([Buffer.from(header), ...rows.flatMap((row) => [row, Buffer.from('\n')])]);
  }

  test('end with their own exit code and reasons when they are too many, after the good ones were sent', async ({
    place,
  }) => {
    const rows = (count: number, votes: (n: number) => string) =>
      Array.from({ length: count }, (_, n) => `${idText('tt', n)}\t5.0\t${votes(n)}\n`).join('');
    const data = place.files('data', {
      'title.basics.tsv': basics,
      'title.ratings.tsv': `${headerOf('title.ratings') + rows(200, (n) => (n % 50 === 49 ? '43.5' : '43.0'))}\n\nx\t5.0\t1\n`,
    });
    const words = {
      what: /More than 1 % of the rows of title\.ratings are rejected/,
      detail:
        /7 of 203 rows rejected; integer 4 times, first at line 51: numVotes: .*43\.5.*; columns 2 times.*; id 1 time, /,
      hint: /--max-rejected/,
    };
    const dry = await place.run(place.args('replay', data, '--json', '--dry-run'));
    expectFailure({ ...dry, stdout: '' }, 'rowsRejected', words);
    expect(dry.stderr).toContain('Nothing was sent.');
    const plan = { rows: 203, refused: 7, new: { ids: 196 } };
    expect(lastJson(dry)).toMatchObject({ read: 0, plan: { 'title.ratings': plan } });
    const failed = await place.run(place.args('replay', data, '--json'));
    expectFailure({ ...failed, stdout: '' }, 'rowsRejected', words);
    expect(failed.stderr).toContain('The valid rows were sent.');
    expect(failed.stderr).toContain('Run `reelflow dlq list --limit 20 --');
    expect(lastJson(failed)).toMatchObject({
      datasets: { 'title.ratings': { read: 203, produced: 196, rejected: 7 } },
    });
    expect(await place.deadLetters()).toHaveLength(7);

    // A finished run is not a success either until the limit allows it.
    const again = await place.run(place.args('replay', data, '--json', '--resume'));
    expect(again.code).toBe(exitCodes.rowsRejected);
    expect(lastJson(again)).toMatchObject({ nothingToDo: true });
    const allowed = await place.run(
      place.args('replay', data, '--json', '--resume', '--max-rejected', '3.5'),
    );
    expect(allowed, allowed.stderr).toMatchObject({ code: 0 });
  });

  // Method: the expected gold comes from the batch computation over the same files, which has rules of its own.
  test('become dead letters with file and line, one each, and the rest is right in gold', async ({
    place,
  }) => {
    const data = place.files('data', {
      'title.ratings.tsv': mixed(
        headerOf('title.ratings'),
        badRatings,
        (n) => `${idText('tt', 100 + n)}\t${1 + (n % 9)}.${n % 10}\t${n}`,
      ),
      'title.basics.tsv.gz': gzipSync(
        mixed(
          headerOf('title.basics'),
          badBasics,
          (n) => `${idText('tt', 100 + n)}\tmovie\tA\tA\t0\t${1990 + n}\t\\N\t\\N\tDrama`,
        ),
      ),
    });
    const report = await place.replay(data, '--max-rejected', '100');
    expect(report.datasets).toMatchObject({
      'title.ratings': { read: 26, produced: 13, rejected: 13 },
      'title.basics': { read: 8, produced: 4, rejected: 4 },
    });
    expect(report.read).toBe(report.produced + report.rejected);

    const letters = await place.deadLetters();
    expect(letters).toHaveLength(report.rejected);
    for (const [file, bad] of [
      ['title.ratings.tsv', badRatings],
      ['title.basics.tsv.gz', badBasics],
    ] as const) {
      for (const [n, [reason, row]] of bad.entries()) {
        // The header is line 1, and a good row goes before each bad one.
        const line = String(2 * n + 3);
        const found = letters.filter((letter) => letter.file?.endsWith(file) && letter.line === line);
        expect(found, `${file} line ${line}`).toHaveLength(1);
        expect(found[0], `${file} line ${line}`).toMatchObject({ reason, stage: 'producer' });
        expect(found[0]?.value.equals(Buffer.from(row)), `${file} line ${line}`).toBe(true);
      }
    }

    const { rejected } = await place.process();
    expect(rejected).toBe(0);
    await place.sink();
    expect(await place.differences(data)).toEqual([]);
    expect(place.manifest.accounting[place.names.source('title.ratings')]).toEqual({
      applied: 13,
      duplicate: 0,
      rejected: 0,
      removed: 0,
    });
  });
});

test('a gzip that breaks off is reported with the line, and the whole file replayed later makes gold right', async ({
  place,
}) => {
  const data = await smallDataset(join(place.folder, 'data'), 400, 17);
  const file = 'title.principals.tsv.gz';
  const whole = readFileSync(join(data, file));
  const cut = place.files('cut', {
    'title.ratings.tsv': textOf(data, 'title.ratings'),
    'title.basics.tsv': textOf(data, 'title.basics'),
    [file]: whole.subarray(0, whole.length / 2),
  });
  const finished = await place.run(place.args('replay', cut));
  expectFailure(finished, 'input', {
    what: /title\.principals\.tsv\.gz is damaged/,
    detail: /after line \d+/,
    hint: /Fetch the file again/,
  });
  // The files of the cut dump were written later.
  await place.pipeline(data, { replay: ['--allow-older'] });
  expect(await place.differences(data)).toEqual([]);
});

describe('services that are not there', () => {
  const stages = (place: Place) => [
    place.args('replay', tiny),
    place.args('process', '--until-caught-up'),
    place.args('sink', '--once'),
  ];

  test('no broker ends every stage with words about it', async ({ place }) => {
    const [port] = await freePorts(1);
    const env = { KAFKA_BROKERS: `127.0.0.1:${port}` };
    for (const finished of await Promise.all(stages(place).map((args) => place.run(args, env)))) {
      expectFailure(finished, 'brokerUnreachable', {
        what: /No Kafka broker answers/,
        detail: new RegExp(`127\\.0\\.0\\.1:${port}`),
        hint: /Check KAFKA_BROKERS/,
      });
      expect(finished.seconds).toBeLessThan(30);
    }
  });

  test('a broker without a registry ends every stage with words about it', async ({ place }) => {
    const [port] = await freePorts(1);
    const env = { SCHEMA_REGISTRY_URL: `http://127.0.0.1:${port}` };
    for (const finished of await Promise.all(stages(place).map((args) => place.run(args, env)))) {
      expectFailure(finished, 'registryUnreachable', {
        what: /Schema Registry does not answer/,
        detail: new RegExp(`http://127\\.0\\.0\\.1:${port}`),
        hint: /SCHEMA_REGISTRY_URL/,
      });
      expect(finished.stderr).not.toContain('outage is over');
      expect(finished.seconds).toBeLessThan(30);
    }
  });

  test('where neither is there, the error is about the broker, and nothing follows it', async ({ place }) => {
    const [broker, registry] = await freePorts(2);
    const env = {
      KAFKA_BROKERS: `127.0.0.1:${broker}`,
      SCHEMA_REGISTRY_URL: `http://127.0.0.1:${registry}`,
    };
    for (const finished of await Promise.all(stages(place).map((args) => place.run(args, env)))) {
      expectFailure(finished, 'brokerUnreachable', {
        what: /No Kafka broker answers/,
        hint: /KAFKA_BROKERS/,
      });
      expect(logOf(finished.stderr).map(({ msg }) => msg)).toEqual(['started']);
    }
  });

  test('neither named nor started ends with the way to start them', async ({ place }) => {
    const env = { KAFKA_BROKERS: '', SCHEMA_REGISTRY_URL: '' };
    const finished = await place.run(place.args('process'), env);
    expectFailure(finished, 'services', {
      what: /no running broker and registry/,
      detail: /KAFKA_BROKERS/,
      hint: /reelflow services up/,
    });
  });

  test('only one of them named is bad usage', async ({ place }) => {
    const finished = await place.run(place.args('sink', '--once'), { SCHEMA_REGISTRY_URL: '' });
    expectFailure(finished, 'usage', {
      what: /KAFKA_BROKERS is set but SCHEMA_REGISTRY_URL is not/,
      hint: /Set SCHEMA_REGISTRY_URL/,
    });
  });
});

describe('a registry that goes away in mid-run', () => {
  /** Our schema of a dataset with one more field, as another program may have registered it. */
  function foreignSchema(dataset: DatasetName): {
    fields: { name: string; type: { items: { fields: object[] } } }[];
  } {
    const schema = JSON.parse(schemaText(`imdb.${dataset}`));
    const records = schema.fields.find(({ name }: { name: string }) => name === 'records');
    records.type.items.fields.push({ name: 'note', type: ['null', 'string'], default: null });
    return schema;
  }

  /** A stage whose registry is away at the moment when it needs a schema that it does not know. */
  async function waiting(
    place: Place,
    args: string[],
    hasBegun: (line: LogLine) => boolean,
    dataset: DatasetName,
    record: object,
  ) {
    const proxy = await RegistryProxy.before(inject('registryUrl'));
    place.onEnd(() => proxy.close());
    const stage = place.start(args, { SCHEMA_REGISTRY_URL: proxy.url });
    await stage.logged('that it has begun', hasBegun);
    proxy.answer = () => ingressPage;
    const topic = place.names.source(dataset);
    const schema = foreignSchema(dataset);
    const id = await registerSchema(`${topic}-value`, schema);
    const type = avsc.Type.forSchema(schema as unknown as avsc.Schema);
    const value = encodeChunk(type, id, { records: [{ ...record, note: 'by others' }] });
    const key = dataset === 'name.basics' ? 'nm000' : 'tt000';
    const producer = broker.kafka.producer({ allowAutoTopicCreation: false });
    await producer.connect();
    await producer.send({ topic, messages: [{ key, value, partition: partitionOf(key, 4) }] });
    await producer.disconnect();
    await stage.logged('that it waits', ({ msg }) => msg === 'Schema Registry outage: waiting until it ends');
    return { proxy, stage };
  }

  const waitingProcessor = (place: Place) =>
    waiting(
      place,
      place.args('process', '--json', '--verbose'),
      ({ msg }) => msg === 'micro-batch',
      'title.ratings',
      { tconst: 'tt0000002', averageRating: 9.5, numVotes: 77 },
    );
  const changed = { ...both, 'title.ratings.tsv': ratings.replace('6.1\t30', '9.5\t77') };

  // Method: an ingress before the registry has no backend, then the registry is overloaded.
  test('is waited for; when it is back, nothing is lost and nothing becomes a dead letter', async ({
    place,
  }) => {
    await place.replay(tiny);
    const { proxy, stage } = await waitingProcessor(place);
    expect(stage.isDone).toBe(false);
    const busy = { status: 429, headers: { 'retry-after': '1' } };
    let overloaded = 2;
    proxy.answer = ({ path }) => (path.includes('/schemas/ids/') && overloaded-- > 0 ? busy : undefined);
    await stage.logged(
      'the chunk',
      ({ msg, applied, records }) => msg === 'micro-batch' && records === 1 && applied === 1,
    );
    expect(await stage.terminate()).toMatchObject({ code: 0 });
    await place.sink();
    expect(await place.differences(place.files('changed', changed))).toEqual([]);
    const accounts = place.manifest.accounting[place.names.source('title.ratings')];
    expect(accounts).toEqual({ applied: 3, duplicate: 0, rejected: 0, removed: 0 });
    expect(await place.deadLetters()).toEqual([]);
  });

  test('keeps neither processor nor sink from ending on SIGTERM, and the next run has it all', async ({
    place,
  }) => {
    await place.replay(tiny);
    const { stage: processor } = await waitingProcessor(place);
    const person = { nconst: 'nm0000001', primaryName: 'One', birthYear: null, deathYear: null };
    const { stage: sink } = await waiting(
      place,
      place.args('sink', '--json', '--interval', '50ms'),
      ({ msg }) => msg === 'snapshot published',
      'name.basics',
      { ...person, primaryProfession: null, knownForTitles: null },
    );
    for (const end of await Promise.all([processor.terminate(), sink.terminate()])) {
      expect(end, end.stderr).toMatchObject({ code: 0 });
      expect(end.secondsToEnd).toBeLessThan(10);
    }
    await place.process();
    await place.sink();
    expect(await place.differences(place.files('changed', changed))).toEqual([]);
    const accounts = place.manifest.accounting[place.names.source('name.basics')];
    expect(accounts).toEqual({ applied: 1, duplicate: 0, rejected: 0, removed: 0 });
    expect(await place.deadLetters()).toEqual([]);
  });
});

/** Mounts something for one test, where this user may; says why not where not. */
function mount(place: Place, at: string, ...args: string[]): string | undefined {
  mkdirSync(at, { recursive: true });
  try {
    execFileSync('mount', [...args, at], { stdio: 'pipe' });
  } catch (thrown) {
    return `mounting needs rights that this run does not have: ${String(thrown).split('\n')[0]}`;
  }
  place.onEnd(() => execFileSync('umount', ['--lazy', at]));
  return undefined;
}

/** Leaves so many bytes free in the file system of a folder. */
function fill(folder: string, bytesLeft: number): void {
  const filler = join(folder, 'filler');
  rmSync(filler, { force: true });
  const { bavail, bsize } = statfsSync(folder);
  writeFileSync(filler, Buffer.alloc(Math.max(0, bavail * bsize - bytesLeft)));
}

describe('a full disk', () => {
  // Method: gold lies on a small file system in memory, which a filler leaves full to the last page, then with room for
  // some of the files of a snapshot, then as it was.
  test('under gold leaves CURRENT as it was, and a run after making room publishes', async ({
    place,
    skip,
  }) => {
    const why = mount(place, place.gold, '-t', 'tmpfs', '-o', 'size=8m', 'tmpfs');
    if (why !== undefined) skip(why);
    await place.pipeline(tiny);
    const before = currentSnapshot(place.gold) as string;
    const data = place.files('changed', { ...both, 'title.ratings.tsv': ratings.replace('5.7', '5.8') });
    await place.replay(data);
    await place.process();
    for (const bytesLeft of [0, 16_384]) {
      fill(place.gold, bytesLeft);
      const finished = await place.run(place.args('sink', '--once'));
      expectFailure(finished, 'diskFull', {
        what: /disk .*full/i,
        detail: /gold/,
        hint: /Free disk space|Make room/,
      });
      expect(currentSnapshot(place.gold)).toBe(before);
      expect(readManifest(place.gold, before).id).toBe(before);
      expect(await place.differences(tiny)).toEqual([]);
    }
    rmSync(join(place.gold, 'filler'));
    const { snapshot } = await place.sink();
    expect(currentSnapshot(place.gold)).toBe(snapshot);
    expect(await place.differences(data)).toEqual([]);
  });

  test('under the state ends a processor; after making room it goes on', async ({ place, skip }) => {
    const why = mount(place, place.state, '-t', 'tmpfs', '-o', 'size=32m', 'tmpfs');
    if (why !== undefined) skip(why);
    const data = await smallDataset(join(place.folder, 'data'), 1_000, 5);
    await place.replay(data);
    fill(place.state, 200_000);
    const finished = await place.run(place.args('process', '--until-caught-up'));
    expectFailure(finished, 'diskFull', {
      what: /disk .*full/i,
      detail: /state/,
      hint: /Free disk space|Make room/,
    });
    rmSync(join(place.state, 'filler'));
    await place.process();
    await place.sink();
    expect(await place.differences(data)).toEqual([]);
  });
});

describe('a folder that cannot be written', () => {
  test('as gold, because it is a file, ends the sink and its readers', async ({ place }) => {
    place.files('.', { gold: 'not a folder' });
    const ends = [base.args('sink', '--once', '--gold', place.gold), ['gold', 'list', '--gold', place.gold]];
    for (const finished of await Promise.all(ends.map((args) => place.run(args)))) {
      expectFailure(finished, 'goldUnusable', { what: /gold folder/, detail: /gold/, hint: /--gold/ });
    }
  });

  test('as state, because it is a file, ends every stage', async ({ place }) => {
    place.files('.', { state: 'not a folder' });
    const ends = [
      base.args('replay', tiny, '--state', place.state),
      base.args('process', '--until-caught-up', '--state', place.state),
      base.args('sink', '--once', '--state', place.state),
    ].map((args) => place.run(args));
    for (const finished of await Promise.all(ends)) {
      expectFailure(finished, 'stateUnusable', { what: /state|journal/i, detail: /state/, hint: /--state/ });
    }
  });

  // Method: folders that a pipeline has used are mounted read-only over themselves, as root may write anywhere else.
  test('because it is read-only ends the stages that write to it, and changes nothing', async ({
    place,
    skip,
  }) => {
    await place.pipeline(tiny);
    const before = currentSnapshot(place.gold);
    const data = place.files('changed', { ...both, 'title.ratings.tsv': ratings.replace('5.7', '5.8') });
    await place.replay(data);
    await place.process();
    const why = mount(place, place.gold, '--bind', '-o', 'ro', place.gold);
    if (why !== undefined) skip(why);
    const sink = await place.run(place.args('sink', '--once'));
    expectFailure(sink, 'goldUnusable', { what: /gold folder/, detail: /gold/, hint: /--gold/ });
    mount(place, place.state, '--bind', '-o', 'ro', place.state);
    const ends = [
      place.args('replay', tiny),
      place.args('process', '--until-caught-up'),
      place.args('sink', '--once', '--gold', join(place.folder, 'other-gold')),
    ].map((args) => place.run(args));
    for (const finished of await Promise.all(ends)) {
      expectFailure(finished, 'stateUnusable', { what: /state|journal/i, detail: /state/, hint: /--state/ });
    }
    expect(currentSnapshot(place.gold)).toBe(before);
    expect(await place.differences(tiny)).toEqual([]);
  });
});

describe('gold of another pipeline', () => {
  test('is refused by a sink of another namespace, and stays as it is', async ({ place }) => {
    await place.replay(tiny);
    await place.process();
    const before = currentSnapshot(base.gold);
    const finished = await place.run(place.args('sink', '--once', '--gold', base.gold));
    expectFailure(finished, 'foreignCluster', {
      what: /belongs to another cluster or namespace/,
      detail: new RegExp(`${base.namespace}.*${place.namespace}`),
      hint: /--gold/,
    });
    expect(currentSnapshot(base.gold)).toBe(before);
  });

  test('is refused when it is of another cluster', async ({ place }) => {
    const id = currentSnapshot(base.gold) as string;
    const manifest = { ...readManifest(base.gold, id), clusterId: 'another-cluster' };
    mkdirSync(snapshotFolder(place.gold, id), { recursive: true });
    writeFileSync(join(snapshotFolder(place.gold, id), 'manifest.json'), JSON.stringify(manifest));
    writeFileSync(join(place.gold, 'CURRENT'), `${id}\n`);
    const finished = await place.run(base.args('sink', '--once', '--gold', place.gold));
    expectFailure(finished, 'foreignCluster', {
      what: /another cluster/,
      detail: /another-cluster/,
      hint: /--gold/,
    });
  });
});

describe('bad usage ends with exit code 2 and words about', () => {
  const cases: [string[], RegExp][] = [
    [['reply', 'data'], /Unknown command 'reply'/],
    [['replay'], /Missing required argument 'inputs'/],
    [['replay', 'data', '--fast'], /Unknown option '--fast'/],
    [['replay', 'data', '--datasets', 'title.basics,films'], /Unknown dataset: films/],
    [['replay', 'data', '--rate', 'fast'], /whole number/],
    [['replay', 'data', '--shards', '0'], /whole number from 1/],
    [['replay', 'data', '--upsert', '--full'], /options exclude each other/],
    [['process', '--window', '5'], /period such as/],
    [['process', '--max-bytes', '5 parsecs'], /size such as/],
    [['process', '--memory', 'lots'], /size of at least 16MB/],
    [['process', '--memory', '150%'], /share of the memory/],
    [['sink', '--memory', '1MB'], /size of at least 16MB/],
    [['verify', '--memory', '-1GB'], /size of at least 16MB/],
    [['process', '--namespace', 'Not One'], /lower-case letters/],
    [['sink', '--keep', '0'], /whole number from 1/],
    [['generate', '--titles', '10'], /Required option '--out/],
  ];

  test.concurrent.for(cases)('reelflow %j', async ([args, words], { place, expect: check }) => {
    const finished = await place.run(args);
    check(finished.code, finished.stderr).toBe(2);
    check(finished.stderr).toMatch(words);
    check(finished.stderr).not.toMatch(stackTrace);
  });
});
