/**
 * `verify` on snapshots that the real pipeline makes on a real broker, of a dataset that fills all partitions. The first
 * snapshot is of the files alone. The second follows corrections, deletes, replaced groups, a chunk of a newer schema and
 * refused messages. Each later test damages one thing in a copy of gold, so that only the tested check can find it.
 */
import {
  appendFileSync,
  cpSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import avsc from 'avsc';
import { afterAll, afterEach, beforeAll, describe, expect, inject, it } from 'vitest';
import { withAdmin } from '../../../kafka/client.ts';
import { ReelflowError } from '../../../runtime/errors.ts';
import { fileSha256 } from '../../../runtime/files.ts';
import { type Manifest, snapshotFolder, tableFile } from '../../../sinks/gold/manifest.ts';
import { type Verification, type VerifyOptions, verifySnapshot } from '../../../sinks/verify/verify.ts';
import { blockKey, blockSize, type DatasetName, partitionOf } from '../../../topics/catalog.ts';
import { groupOf } from '../../../topics/id-groups.ts';
import { Registry, schemaText } from '../../../topics/registry.ts';
import { deleteTopic, onDatabase } from '../../support/damage.ts';
import {
  broker,
  chunkType,
  encodeChunk,
  lastJson,
  Place,
  registerSchema,
  smallDataset,
  spoken,
  test,
  textOf,
} from '../../support/harness.ts';

const registry = new Registry({ url: inject('registryUrl') });
const partitions = 4;
const partitionOfId = (id: string) =>
  partitionOf(blockKey(id.slice(0, 2), Math.floor(Number(id.slice(2)) / blockSize)), partitions);

let place: Place;
let data: string;
let temporary: string;
/** The snapshot of the files alone. */
let plain: Manifest;
/** The snapshot of all messages. `tail` is the last one. */
let mixed: Manifest;
/** The partition whose last message has no effect, because it cannot be decoded. */
let tail: { topic: string; partition: number };

beforeAll(async () => {
  place = new Place();
  temporary = join(place.folder, 'tmp');
  await mkdir(temporary);
  process.env.TMPDIR = temporary;
  data = await smallDataset(join(place.folder, 'data'), 1_500, 7);
  plain = await place.pipeline(data);
  tail = await sendMore();
  await place.process();
  const { snapshot } = await place.sink();
  mixed = manifestOf(place.gold, String(snapshot));
}, 120_000);

afterAll(async () => {
  await place.close(false);
  delete process.env.TMPDIR;
});

afterEach(() => {
  const left = readdirSync(temporary).filter((name) => name.startsWith('reelflow-verify-'));
  expect(left, 'databases that remain').toEqual([]);
});

interface Outgoing {
  readonly dataset: DatasetName;
  readonly partition: number;
  readonly value: Buffer;
}

async function send(messages: readonly Outgoing[]): Promise<void> {
  const producer = broker.kafka.producer();
  await producer.connect();
  // One after the other, because the order of some of them matters.
  for (const { dataset, partition, value } of messages) {
    await producer.send({ topic: place.names.source(dataset), messages: [{ partition, value }] });
  }
  await producer.disconnect();
}

const idsIn = (dataset: DatasetName, column = 0) =>
  textOf(data, dataset)
    .trim()
    .split('\n')
    .slice(1)
    .map((line) => line.split('\t')[column] as string);

/** A chunk of our own schema in the partition of its first row. */
async function chunk(
  dataset: DatasetName,
  records: Record<string, unknown>[],
  deletes: Record<string, unknown>[] = [],
  partition?: number,
  replaces: number[] = [],
): Promise<Outgoing> {
  const schemaId = await registry.register(place.names.source(dataset), `imdb.${dataset}`);
  const [id] = Object.values(records[0] ?? deletes[0] ?? {});
  return {
    dataset,
    partition: partition ?? partitionOfId(String(id)),
    value: encodeChunk(chunkType(dataset), schemaId, { records, deletes, replaces }),
  };
}

/** Sends messages that make the input differ from the files. @returns the partition of the last, undecodable message */
async function sendMore(): Promise<{ topic: string; partition: number }> {
  const partition = partitionOfId(idsIn('title.ratings')[0] as string);
  const [corrected, removed, returned, foreign, replaced, emptied] = idsIn('title.ratings').filter(
    (id) => partitionOfId(id) === partition,
  ) as [string, string, string, string, string, string];
  // The ids of the dataset are so far apart that each title has a group of its own.
  const groupsOf = (...ids: string[]) => ids.map((id) => groupOf(Number(id.slice(2))));
  const rating = (tconst: string, averageRating: number, numVotes: number) => ({
    tconst,
    averageRating,
    numVotes,
  });
  const people = [...new Set(idsIn('title.principals', 2))].filter((id) => partitionOfId(id) === 1);
  const name = (nconst: string | undefined, primaryName: string | null) => ({
    nconst,
    primaryName,
    birthYear: null,
    deathYear: null,
    primaryProfession: null,
    knownForTitles: null,
  });
  const garbage: Outgoing = { dataset: 'title.ratings', partition, value: Buffer.from('no chunk') };
  await send([
    await chunk(
      'title.ratings',
      [rating(corrected, 9.9, 1), rating(corrected, 1.1, 5_000_000)],
      [{ tconst: removed }, { tconst: returned }],
    ),
    await chunk('title.ratings', [rating(returned, 1.2, 6_000_000)]),
    await chunk('title.ratings', [rating(foreign, 10, 7_000_000)], [], (partition + 1) % partitions),
    { ...garbage, dataset: 'title.principals', value: Buffer.from([0, 0x7f, 0xff, 0xff, 0xf0, 1]) },
    await newerChunk(corrected),
    await chunk(
      'title.ratings',
      [rating(replaced, 1.3, 8_000_000)],
      [],
      partition,
      groupsOf(replaced, emptied),
    ),
    await chunk('title.akas', [], [], partition, groupsOf(replaced)),
    await chunk(
      'name.basics',
      [name(people[3], 'Replaced')],
      [],
      1,
      groupsOf(people[3] ?? '', people[4] ?? ''),
    ),
    await chunk('title.ratings', [], [], (partition + 1) % partitions, groupsOf(corrected)),
    await chunk(
      'name.basics',
      [name(people[0], 'Ünlü  Ŋame'), name(people[1], null)],
      [{ nconst: people[2] }],
    ),
    garbage,
  ]);
  return { topic: place.names.source('title.ratings'), partition };
}

/** A title in a schema with one more field, as a later version would write it. */
async function newerChunk(tconst: string): Promise<Outgoing> {
  const schema = JSON.parse(schemaText('imdb.title.basics'));
  const records = schema.fields.find((field: { name: string }) => field.name === 'records');
  records.type.items.fields.push({ name: 'tagline', type: ['null', 'string'], default: null });
  const id = await registerSchema(`${place.namespace}.newer-value`, schema);
  const title = {
    tconst,
    titleType: 'movie',
    primaryTitle: 'Newer',
    originalTitle: null,
    isAdult: false,
    startYear: 2042,
    endYear: null,
    runtimeMinutes: 7,
    genres: 'Newer,Schema',
    tagline: 'one more field',
  };
  return {
    dataset: 'title.basics',
    partition: partitionOfId(tconst),
    value: encodeChunk(avsc.Type.forSchema(schema), id, { records: [title] }),
  };
}

const manifestPath = (gold: string, id: string) => join(snapshotFolder(gold, id), 'manifest.json');
const manifestOf = (gold: string, id: string) =>
  JSON.parse(readFileSync(manifestPath(gold, id), 'utf8')) as Manifest;

/** A manifest that tests damage. */
// biome-ignore lint/suspicious/noExplicitAny: tests reach anywhere into it
type Writable = any;

let copies = 0;

/** A copy of gold with the newest manifest changed. */
function damaged(change: (manifest: Writable) => void = () => undefined): string {
  const gold = join(place.folder, `gold-${++copies}`);
  cpSync(place.gold, gold, { recursive: true });
  const manifest = manifestOf(gold, mixed.id);
  change(manifest);
  writeFileSync(manifestPath(gold, mixed.id), JSON.stringify(manifest));
  return gold;
}

/** Writes a table again. @param seal updates length and hash in the manifest */
async function rewrite(gold: string, table: string, select: string, seal: boolean): Promise<void> {
  const path = tableFile(gold, mixed.id, table);
  await onDatabase(
    ':memory:',
    `COPY (SELECT ${select} FROM read_parquet('${path}')) TO '${path}.new' (FORMAT parquet, COMPRESSION snappy)`,
  );
  renameSync(`${path}.new`, path);
  if (!seal) return;
  const manifest: Writable = manifestOf(gold, mixed.id);
  manifest.tables[table].bytes = statSync(path).size;
  manifest.tables[table].sha256 = await fileSha256(path);
  writeFileSync(manifestPath(gold, mixed.id), JSON.stringify(manifest));
}

const verify = (gold: string, more: Partial<VerifyOptions> = {}) =>
  verifySnapshot({
    gold,
    input: { broker, registry, names: place.names },
    memoryLimit: '500MB',
    signal: new AbortController().signal,
    ...more,
  });

const findingsOf = ({ findings }: Verification) => findings.map(({ about, text }) => `${about}: ${text}`);

/** The only finding. */
async function onlyFinding(gold: string, more: Partial<VerifyOptions> = {}): Promise<string> {
  const verification = await verify(gold, more);
  expect(verification.equal).toBe(false);
  expect(findingsOf(verification)).toHaveLength(1);
  return findingsOf(verification)[0] as string;
}

const failure = async (gold: string, more: Partial<VerifyOptions> = {}) => {
  const thrown = await verify(gold, more).catch((reason: unknown) => reason);
  expect(thrown).toBeInstanceOf(ReelflowError);
  return thrown as ReelflowError;
};

describe('a snapshot as it was published', () => {
  it('equals exactly its input, whatever arrived on the topics later', async () => {
    const verification = await verify(place.gold, { snapshot: plain.id });
    expect(findingsOf(verification)).toEqual([]);
    expect(verification).toMatchObject({ snapshot: plain.id, equal: true });
    expect(verification.tables).toEqual(
      Object.fromEntries(
        Object.entries(plain.tables).map(([name, { rows }]) => [name, { rows, differences: 0 }]),
      ),
    );
  });

  it('equals the files that were replayed', async () => {
    const verification = await verify(place.gold, { snapshot: plain.id, input: { folder: data } });
    expect(findingsOf(verification)).toEqual([]);
    expect(verification.accounting).toBeNull();
  });

  it('equals its input with corrections, deletes, replaced groups, a newer schema and refused messages', async () => {
    const verification = await verify(place.gold);
    expect(findingsOf(verification)).toEqual([]);
    expect(verification.snapshot).toBe(mixed.id);
    const { names } = place;
    const ratings = plain.accounting[names.source('title.ratings')]?.applied ?? 0;
    // Two versions, two deletes, one return, one replacement, one record in a wrong partition, and one undecodable message.
    expect(verification.accounting).toMatchObject({
      [names.source('title.ratings')]: { records: ratings + 8, rejected: 2 },
      [names.source('title.principals')]: { rejected: 1 },
    });
  });

  it('differs from files that are not its input', async () => {
    const verification = await verify(place.gold, { input: { folder: data } });
    expect(verification.equal).toBe(false);
    const texts = findingsOf(verification);
    expect(texts).toContain('decade_trends: decade=2040: the input gives no such row');
    expect(texts.some((text) => text.includes("manifest's content hash"))).toBe(true);
  });
});

describe('a snapshot with one damage', () => {
  it('in a figure, with length and hash of the file in the manifest', async () => {
    const gold = damaged();
    const select = `* REPLACE (total_votes + (decade = 2040)::BIGINT AS total_votes)`;
    await rewrite(gold, 'decade_trends', select, true);
    expect(await onlyFinding(gold)).toMatch(
      /^decade_trends: decade=2040: total_votes: \d+, the input gives \d+$/,
    );
  });

  it('in the bytes of a file, with the same content', async () => {
    const gold = damaged();
    await rewrite(gold, 'region_analysis', '*', false);
    const findings = findingsOf(await verify(gold));
    expect(
      findings.filter((text) => !/region_analysis.parquet (has \d+ bytes|was altered)/.test(text)),
    ).toEqual([]);
    expect(findings.join()).toContain('was altered: its SHA-256');
  });

  it('a missing file', async () => {
    const gold = damaged();
    rmSync(tableFile(gold, mixed.id, 'genre_analysis'));
    expect(await onlyFinding(gold)).toBe('genre_analysis: expected genre_analysis.parquet, found no file');
  });

  it('a truncated file', async () => {
    const gold = damaged();
    truncateSync(tableFile(gold, mixed.id, 'genre_analysis'), 100);
    const verification = await verify(gold);
    expect(findingsOf(verification).join('\n')).toMatch(
      /expected genre_analysis.parquet, found a file that cannot be read/,
    );
    expect(verification.tables.genre_analysis?.differences).toBe(3);
    expect(verification.tables.decade_trends?.differences).toBe(0);
  });

  it('in a cube, which only a sink without state reads', async () => {
    const gold = damaged();
    const cube = (name: string) => join(snapshotFolder(gold, mixed.id), 'cubes', `${name}.parquet`);
    appendFileSync(cube('region'), 'x');
    rmSync(cube('title'));
    expect(findingsOf(await verify(gold)).sort()).toEqual([
      expect.stringMatching(/^cubes\/region: cubes\/region.parquet has \d+ bytes, the manifest says \d+$/),
      expect.stringMatching(/^cubes\/region: cubes\/region.parquet was altered: its SHA-256 is/),
      'cubes/title: cubes/title.parquet is missing',
    ]);
    // The manifest of an earlier version does not name the cubes.
    const earlier = damaged((manifest) => {
      delete manifest.cubes;
    });
    rmSync(join(snapshotFolder(earlier, mixed.id), 'cubes', 'title.parquet'));
    expect(await verify(earlier)).toMatchObject({ equal: true });
  });

  it.each([
    ['bytes', 1, /has \d+ bytes, the manifest says 1$/],
    ['rows', 1, /the manifest says 1 row, the input gives \d+$/],
    ['sha256', 'feed', /was altered: its SHA-256 is .*, the manifest says feed$/],
    ['contentHash', 'feed', /the manifest's content hash is feed, the input gives/],
  ])("in the manifest's claim about a table: %s", async (claim, value, finding) => {
    const gold = damaged(({ tables }) => {
      tables.contributor_analysis[claim] = value;
    });
    expect(await onlyFinding(gold)).toMatch(finding);
  });

  it.each([
    [{ known: 1 }, { mean: 1999.5 }],
    [{ deviation: null }, undefined],
  ])("in the manifest's claims about standardised columns: %j, %j", async (years, minutes) => {
    const gold = damaged(({ tables }) => {
      const { scales } = tables.title_features;
      scales.startYear = { ...scales.startYear, ...years };
      if (minutes === undefined) delete scales.runtimeMinutes;
      else scales.runtimeMinutes = { ...scales.runtimeMinutes, ...minutes };
    });
    expect(findingsOf(await verify(gold))).toEqual([
      expect.stringMatching(/^title_features: startYear: .*; the input gives \d+ known values, mean \d/),
      expect.stringMatching(/^title_features: runtimeMinutes: .*; the input gives \d+ known values, mean \d/),
    ]);
  });

  it('in the end of its input, which leaves out a message without effect', async () => {
    const gold = damaged(({ input, shards }) => {
      input[tail.topic][tail.partition][1] -= 1;
      shards[tail.partition].sources[tail.topic].next -= 1;
    });
    expect(await onlyFinding(gold)).toMatch(
      /ratings: its range holds \d+ records, the manifest accounts for/,
    );
  });

  it('in the end of its input, with a matching accounting', async () => {
    const gold = damaged(({ input, accounting }) => {
      input[tail.topic][tail.partition][1] -= 1;
      accounting[tail.topic].rejected -= 1;
    });
    expect(await onlyFinding(gold)).toMatch(
      /ratings: the next offset of shard \d is \d+, the manifest's input ends at \d+$/,
    );
  });

  it('in the gap before its input', async () => {
    const gold = damaged(({ shards }) => {
      shards[tail.partition].sources[tail.topic].gaps = [[0, 1]];
    });
    expect(await onlyFinding(gold)).toMatch(
      /ratings: shard \d starts at offset 1, the manifest's input at 0$/,
    );
  });

  it('in the end of its input, which leaves out rows', async () => {
    const topic = place.names.source('title.basics');
    const gold = damaged(({ input }) => {
      input[topic][tail.partition][1] -= 1;
    });
    const findings = findingsOf(await verify(gold));
    expect(findings).toContain('decade_trends: decade=2040: the input gives no such row');
  });

  it('an unknown table', async () => {
    const gold = damaged(({ tables }) => {
      tables.more = tables.decade_trends;
    });
    expect(await onlyFinding(gold)).toBe('manifest: it names an unknown table more');
  });
});

describe('verify refuses', () => {
  it('a range beyond the end of the log', async () => {
    const gold = damaged(({ input }) => {
      input[tail.topic][tail.partition][1] += 1_000;
    });
    const { kind, detail } = await failure(gold);
    expect(kind).toBe('sourceReplaced');
    expect(detail).toContain(`${tail.topic}/${tail.partition} ends at offset`);
  });

  it('a topic that does not exist, and one without a dataset', async () => {
    const gone = damaged((manifest) => {
      manifest.input[place.names.source('title.crew')] = { 99: [0, 1] };
    });
    expect(await failure(gone)).toMatchObject({ kind: 'sourceLost', exitCode: 10 });
    const foreign = damaged((manifest) => {
      manifest.input.unknown = { 0: [0, 1] };
    });
    expect(await failure(foreign)).toMatchObject({ kind: 'goldUnusable' });
  });

  it('a missing snapshot, a folder without one, and one of another cluster', async () => {
    const unknown = await failure(place.gold, { snapshot: '20200101_000000_000001' });
    expect(unknown.message).toBe('There is no snapshot 20200101_000000_000001');
    expect(unknown.detail).toContain(mixed.id);
    expect((await failure(join(place.folder, 'empty'))).message).toBe('There is no snapshot to verify');
    const other = damaged((manifest) => {
      manifest.clusterId = 'another';
    });
    expect(await failure(other)).toMatchObject({ kind: 'foreignCluster' });
  });

  it('to continue after its signal', async () => {
    const stop = new AbortController();
    const verification = verify(place.gold, { signal: stop.signal, onProgress: () => stop.abort('enough') });
    await expect(verification).rejects.toBe('enough');
  });
});

describe('reelflow verify', () => {
  const command = (...more: string[]) => place.run(['verify', ...more]);

  it('takes the namespace from the manifest, prints one line of JSON and exits with 0 if all is equal', async () => {
    const finished = await command('--gold', place.gold, '--json');
    expect(finished, finished.stderr).toMatchObject({ code: 0 });
    expect(finished.stdout.trim().split('\n')).toHaveLength(1);
    expect(lastJson(finished)).toMatchObject({ snapshot: mixed.id, equal: true });
  });

  it('prints the differences and exits with 16', async () => {
    const gold = damaged();
    rmSync(tableFile(gold, mixed.id, 'region_analysis'));
    const finished = await command('--gold', gold, '--namespace', place.namespace);
    expect(finished.code).toBe(16);
    expect(finished.stdout).toMatch(/^region_analysis +\d+ +1$/m);
    expect(spoken(finished)).toContain('expected region_analysis.parquet, found no file');
    expect(spoken(finished)).toContain('Files were altered after publication: region_analysis.');
    expect(spoken(finished)).not.toContain('defect');
  });

  it('does not suggest a defect where other files than the replayed ones were given', async () => {
    const other = await smallDataset(join(place.folder, 'other-files'), 30, 99);
    const finished = await command(plain.id, '--gold', place.gold, '--data', other);
    expect(finished.code).toBe(16);
    expect(spoken(finished)).toContain(
      `If ${other} was replayed since then, wait for the next snapshot; otherwise the topics hold other rows`,
    );
    expect(spoken(finished)).not.toContain('defect');
    const alone = await place.run(['verify', plain.id, '--gold', place.gold, '--data', other], {
      KAFKA_BROKERS: '',
      SCHEMA_REGISTRY_URL: '',
    });
    expect(spoken(alone)).toContain('its input on the topics cannot be read');
    expect(spoken(alone)).not.toContain('defect');
  });

  it('suggests a defect where the topics hold the input, no file was altered, and the figures differ', async () => {
    const gold = damaged();
    const file = join(snapshotFolder(gold, mixed.id), 'manifest.json');
    const manifest = JSON.parse(readFileSync(file, 'utf8'));
    manifest.tables.decade_trends.contentHash = 'f'.repeat(64);
    writeFileSync(file, JSON.stringify(manifest));
    const finished = await command('--gold', gold);
    expect(finished.code).toBe(16);
    expect(spoken(finished)).toContain('this is a defect of reelflow');
  });

  it('refuses another namespace', async () => {
    expect(await command('--gold', place.gold, '--namespace', 'other')).toMatchObject({ code: 13 });
    const status = await place.run(['status', '--gold', place.gold, '--namespace', 'other']);
    expect(status.code).toBe(13);
    expect(spoken(status)).toContain(`is of namespace ${place.namespace}, not of namespace other`);
  });

  it('compares with files without a broker', async () => {
    const args = ['verify', plain.id, '--gold', place.gold, '--data', data];
    const finished = await place.run(args, { KAFKA_BROKERS: '', SCHEMA_REGISTRY_URL: '' });
    expect(finished, finished.stderr).toMatchObject({ code: 0 });
    expect(finished.stdout).toContain(
      `Snapshot ${plain.id} of namespace ${place.namespace} equals what ${data} gives`,
    );
  });
});

test('a trimmed topic is sourceLost, and --data still verifies the snapshot', async ({ place: own }) => {
  const files = await smallDataset(join(own.folder, 'data'), 300, 8);
  const { input } = await own.pipeline(files);
  const topic = own.names.source('title.principals');
  const [partition, [, end]] = Object.entries(input[topic] ?? {}).find(([, [, last]]) => last > 0) as [
    string,
    [number, number],
  ];
  await withAdmin(broker, async (admin) => {
    // kafkajs looks for the leader in metadata that it has not requested; this call makes it request them.
    await admin.fetchTopicOffsets(topic);
    const offset = String(end);
    await admin.deleteTopicRecords({ topic, partitions: [{ partition: Number(partition), offset }] });
  });
  const topics = { broker, registry, names: own.names };
  const { kind, detail } = await failure(own.gold, { input: topics });
  expect(kind).toBe('sourceLost');
  expect(detail).toContain(`${topic}/${partition} starts at offset ${end}`);
  expect(await verify(own.gold, { input: { folder: files } })).toMatchObject({ equal: true });

  await deleteTopic(topic);
  expect((await failure(own.gold, { input: topics })).detail).toContain(`${topic} does not exist`);
});
