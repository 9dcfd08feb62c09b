/**
 * Names on their way into the sink's store: whatever comes in a chunk, the last version of a person counts, and it takes
 * one statement however often people repeat.
 */
import avsc from 'avsc';
import fc from 'fast-check';
import { afterAll, beforeAll, expect, test } from 'vitest';
import type { CubeStore } from '../../sinks/cube-store.ts';
import { StagedTexts } from '../../sinks/staged-texts.ts';
import { namesOfPeople, namesOfTitles, writeTexts } from '../../sinks/text-table.ts';
import { blockKey, blockSize, idText, partitionOf } from '../../topics/catalog.ts';
import { ChunkDecoder, RejectedMessage } from '../../topics/chunk.ts';
import { IdSet } from '../../topics/id-set.ts';
import { Ownership } from '../../topics/ownership.ts';
import { schemaText } from '../../topics/registry.ts';
import { openCubes } from '../support/gold-lab.ts';
import { temporaryFolder } from '../support/temporary-folder.ts';

const schemaId = 1;
const type = avsc.Type.forSchema(JSON.parse(schemaText('imdb.name.basics')));
const decoder = new ChunkDecoder('name.basics', schemaId, { writer: async () => undefined });
const owner = { ownership: new Ownership('nm', 1), partition: 0 };

const folder = temporaryFolder();
let store: CubeStore;

beforeAll(async () => {
  store = await openCubes(folder);
});
afterAll(() => store.close());

type Named = readonly [number, string | null];
interface NameChunk {
  readonly records: readonly Named[];
  readonly deletes: readonly number[];
  readonly replaces?: readonly number[];
}

function chunkOf({ records, deletes, replaces = [] }: NameChunk): Buffer {
  const header = Buffer.alloc(5);
  header.writeInt32BE(schemaId, 1);
  const rows = records.map(([id, primaryName]) => ({
    nconst: idText('nm', id),
    primaryName,
    birthYear: null,
    deathYear: null,
    primaryProfession: null,
    knownForTitles: null,
  }));
  const keys = deletes.map((id) => ({ nconst: idText('nm', id) }));
  return Buffer.concat([
    header,
    type.toBuffer({ runId: 'run', chunk: 0, asOf: 0, records: rows, deletes: keys, replaces }),
  ]);
}

/** Writes chunks as one transaction of the sink does. @returns how often rows were written, and how many changed */
async function write(chunks: readonly NameChunk[]): Promise<{ writes: number; changed: number }> {
  const staged = new StagedTexts(namesOfPeople, store.personIds);
  let writes = 0;
  let changed = 0;
  const flush = async () => {
    writes += 1;
    changed += (await store.writePeople(staged.take())).changed;
  };
  await store.transaction(async () => {
    for (const chunk of chunks) await staged.add(chunkOf(chunk), decoder, owner, flush);
    if (!staged.isEmpty) await flush();
  });
  return { writes, changed };
}

async function stored(): Promise<Map<number, string | null>> {
  const rows = await store.connection.runAndReadAll('SELECT nconst, primaryName FROM names ORDER BY nconst');
  return new Map(rows.getRows().map(([id, name]) => [Number(id), name === null ? null : String(name)]));
}

async function clear(): Promise<void> {
  await store.transaction(() => store.clearPeople());
}

// Method: a file in which each person comes twice in a row. A statement for each repetition held the sink up for minutes.
test('repeated people take one statement, and the last version counts', async () => {
  await clear();
  const twice = Array.from({ length: 2_000 }, (_, i): Named => [(i >> 1) + 1, `Name ${i}`]);
  expect(await write([{ records: twice, deletes: [] }])).toEqual({ writes: 1, changed: 1_000 });
  const names = await stored();
  expect(names.size).toBe(1_000);
  expect(names.get(1)).toBe('Name 1');
  expect(names.get(1_000)).toBe('Name 1999');
  expect(await write([{ records: twice.slice(0, 2), deletes: [] }])).toEqual({ writes: 1, changed: 0 });
});

test('the stored names equal those of a map, with any character in a name', async () => {
  const id = fc.constantFrom(1, 2, 3, 9_999, 10_000_001);
  const name = fc.oneof(
    fc.constantFrom(null, '', 'Ada', 'Übermut', '\u001f', 'a\u001eb', '\u0001', '\u0001x'),
    fc.string({ maxLength: 5 }),
  );
  const records = fc.array(fc.tuple(id, name), { maxLength: 8 });
  const deletes = fc.oneof({ weight: 3, arbitrary: fc.constant([]) }, fc.array(id, { maxLength: 2 }));
  const replaces = fc.oneof(
    { weight: 2, arbitrary: fc.constant<number[]>([]) },
    fc.uniqueArray(fc.constantFrom<number[]>(0, 199, 200_000), { maxLength: 2 }),
  );
  const chunks = fc.array(fc.record({ records, deletes, replaces }), { maxLength: 4 });
  await fc.assert(
    fc.asyncProperty(fc.array(chunks, { maxLength: 3 }), async (transactions) => {
      await clear();
      const expected = new Map<number, string | null>();
      for (const transaction of transactions) {
        await write(transaction);
        for (const chunk of transaction) {
          for (const person of [...expected.keys()]) {
            if (chunk.replaces.includes(Math.floor(person / 50))) expected.delete(person);
          }
          for (const [person, primaryName] of chunk.records) expected.set(person, primaryName);
          for (const person of chunk.deletes) expected.delete(person);
        }
        expect(await stored()).toEqual(new Map([...expected].sort(([a], [b]) => a - b)));
      }
    }),
    { numRuns: 60 },
  );
});

test('a refused chunk between two others leaves no name, and theirs stay whole', async () => {
  await clear();
  const ownership = new Ownership('nm', 2);
  const partition = partitionOf(blockKey('nm', 0), 2);
  const other = [1, 2, 3, 4, 5].find(
    (block) => partitionOf(blockKey('nm', block), 2) !== partition,
  ) as number;
  const staged = new StagedTexts(namesOfPeople, store.personIds);
  const add = (...records: Named[]) =>
    staged.add(chunkOf({ records, deletes: [] }), decoder, { ownership, partition }, async () => undefined);
  await add([1, 'Ada'], [2, null]);
  await expect(add([3, 'Grace'], [other * blockSize, 'Refused'])).rejects.toThrow(RejectedMessage);
  await add([4, 'Übermut']);
  await store.transaction(async () => void (await store.writePeople(staged.take())));
  expect([...(await stored())]).toEqual([
    [1, 'Ada'],
    [2, null],
    [4, 'Übermut'],
  ]);
});

const titleType = avsc.Type.forSchema(JSON.parse(schemaText('imdb.title.basics')));
const titleDecoder = new ChunkDecoder('title.basics', schemaId, { writer: async () => undefined });
const titleOwner = { ownership: new Ownership('tt', 1), partition: 0 };

type Titled = readonly [id: number, primaryTitle: string | null, originalTitle: string | null];

function titlesOf(records: readonly Titled[], deletes: readonly number[]): Buffer {
  const header = Buffer.alloc(5);
  header.writeInt32BE(schemaId, 1);
  const rows = records.map(([id, primaryTitle, originalTitle]) => ({
    ...{ tconst: idText('tt', id), titleType: 'movie', primaryTitle, originalTitle, isAdult: false },
    ...{ startYear: null, endYear: null, runtimeMinutes: null, genres: null },
  }));
  const keys = deletes.map((id) => ({ tconst: idText('tt', id) }));
  const chunk = { runId: 'run', chunk: 0, asOf: 0, records: rows, deletes: keys, replaces: [] };
  return Buffer.concat([header, titleType.toBuffer(chunk)]);
}

// Method: the second title is stored only where it differs from the first; `title_names` must show both as they came.
test('both titles come out as they went in, whether they are equal, different or null', async () => {
  const text = fc.oneof(
    fc.constantFrom(null, '', '-', '=', '=-', 'Reel', 'Übermut', '\u001f', 'a\u001eb', '\u0001'),
    fc.string({ maxLength: 3 }),
  );
  const titled = fc.tuple(fc.constantFrom(1, 2, 10_000_001), text, text, fc.boolean());
  const records = fc.array(titled, { maxLength: 6 });
  const deletes = fc.oneof({ weight: 3, arbitrary: fc.constant([]) }, fc.array(fc.constantFrom(1, 2)));
  const ids = new IdSet();
  const expected = new Map<number, (string | null)[]>();
  await fc.assert(
    fc.asyncProperty(fc.array(fc.record({ records, deletes }), { maxLength: 3 }), async (chunks) => {
      const staged = new StagedTexts(namesOfTitles, ids, ['tconst', 'startYear']);
      const flush = async () => {
        await writeTexts(store.connection, namesOfTitles, staged.take(), async () => undefined);
      };
      for (const chunk of chunks) {
        const rows = chunk.records.map(
          ([id, first, other, isSame]): Titled => [id, first, isSame ? first : other],
        );
        await staged.add(titlesOf(rows, chunk.deletes), titleDecoder, titleOwner, flush);
        for (const [id, ...titles] of rows) expected.set(id, titles);
        for (const id of chunk.deletes) expected.delete(id);
      }
      await flush();
      const found = await store.connection.runAndReadAll('FROM title_names ORDER BY tconst');
      expect(new Map(found.getRows().map(([id, ...titles]) => [Number(id), titles]))).toEqual(
        new Map([...expected].sort(([a], [b]) => a - b)),
      );
    }),
    { numRuns: 60 },
  );
});
