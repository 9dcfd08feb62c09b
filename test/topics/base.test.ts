/**
 * Marks of a base on the wire, against avsc; and the search for a base at the start of a log, against the definition: the
 * first message is a begin, and a later one is its end.
 */
import avsc from 'avsc';
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { type BaseMark, baseMarkBytes, baseMarkOf, findBase, gapsAfterBase } from '../../topics/base.ts';
import { datasetNames } from '../../topics/catalog.ts';
import { ChunkDecoder, deleteColumns, recordColumns, schemaBefore } from '../../topics/chunk.ts';
import type { Gap } from '../../topics/position.ts';
import { schemaText } from '../../topics/registry.ts';
import { rating } from '../support/chunks.ts';

const name = 'title.ratings';
const id = 7;
const type = avsc.Type.forSchema(JSON.parse(schemaText(`imdb.${name}`)));

function chunkValue(content: object, runId = 'run', of = type): Buffer {
  const wire = Buffer.alloc(5);
  wire.writeInt32BE(id, 1);
  const chunk = { runId, chunk: 300, asOf: 1e12, records: [], deletes: [], ...content };
  return Buffer.concat([wire, of.toBuffer(chunk)]);
}

const decode = (value: Buffer) =>
  new ChunkDecoder(name, id, { writer: async () => undefined }).decode(
    value,
    recordColumns(name, ['tconst']),
    deleteColumns(name),
  );

const mark = fc.record({ id: fc.string({ minLength: 1 }), mark: fc.constantFrom('begin', 'end') });

test('a mark is the one that avsc wrote, and its bytes are those of avsc', () => {
  const union = type as avsc.types.RecordType;
  const field = union.fields.find((one) => one.name === 'base')?.type;
  fc.assert(
    fc.property(mark, (base) => {
      const value = chunkValue({ base }, base.id);
      expect(baseMarkOf(value)).toEqual({ ...base, asOfMs: 1e12 });
      expect(decode(value).base).toEqual(base);
      expect(baseMarkBytes(base as BaseMark)).toEqual(field?.toBuffer(base));
    }),
  );
});

test('chunks with rows, keys, groups or no mark are not marks, nor are damaged ones', () => {
  const base = { id: 'run', mark: 'begin' };
  for (const content of [
    {},
    { records: [rating(1, 5)] },
    { records: [rating(1, 5)], base },
    { deletes: [{ tconst: 'tt0000001' }], base },
    { replaces: [0], base },
  ]) {
    expect(baseMarkOf(chunkValue(content)), JSON.stringify(content)).toBeUndefined();
  }
  expect(baseMarkOf(null)).toBeUndefined();
  expect(baseMarkOf(chunkValue({ base }, 'another run'))).toBeUndefined();
  const whole = chunkValue({ base });
  for (let length = 0; length < whole.length; length++) {
    expect(baseMarkOf(whole.subarray(0, length))).toBeUndefined();
  }
  expect(baseMarkOf(Buffer.concat([whole, Buffer.of(0)]))).toBeUndefined();
});

test.each([
  ['rows', { records: [rating(1, 5)] }, 'run'],
  ['groups', { replaces: [3] }, 'run'],
  ['the id of another run', {}, 'another'],
])('a mark with %s is refused', (_, content, runId) => {
  const value = chunkValue({ ...content, base: { id: 'run', mark: 'end' } }, runId);
  expect(() => decode(value)).toThrow('a mark of a base with rows, or of another run');
});

test.each(datasetNames)('%s: a chunk of the schema before `base` is decoded as it is', async (dataset) => {
  const before = avsc.Type.forSchema(schemaBefore('base', dataset));
  const decoder = new ChunkDecoder(dataset, id + 1, { writer: async () => before });
  const value = chunkValue({ replaces: [4, 2] }, 'run', before);
  expect(await decoder.resolve(value)).toBe(value);
  const { replaces, base } = decoder.decode(value, recordColumns(dataset, []), deleteColumns(dataset));
  expect([...replaces]).toEqual([4, 2]);
  expect(base).toBeUndefined();
});

const marks = fc.array(
  fc.oneof(
    fc.constant(undefined),
    fc.record({ id: fc.constantFrom('a', 'b'), mark: fc.constantFrom('begin', 'end') }),
  ),
  { maxLength: 12 },
);

test('a log starts at a base if its first message is a begin and a later one is its end', async () => {
  await fc.assert(
    fc.asyncProperty(marks, fc.nat(5), fc.integer({ min: 1, max: 4 }), async (log, start, fetched) => {
      const messages = log.map((base, i) => ({
        offset: start + i,
        value: base === undefined ? chunkValue({ records: [rating(i, 5)] }) : chunkValue({ base }, base.id),
      }));
      const reader = {
        fetch: async ([want]: readonly { next: number }[]) => [
          { messages: messages.slice((want?.next ?? 0) - start).slice(0, fetched) },
        ],
      };
      const [first] = log;
      const endAt = log.findIndex((one) => one?.mark === 'end' && one.id === first?.id);
      const isWhole = first?.mark === 'begin' && endAt > 0;
      expect(
        await findBase(reader, { topic: 'topic', partition: 0 }, { start, end: start + log.length }),
      ).toEqual(isWhole ? { begin: start, end: start + endAt + 1 } : undefined);
    }),
  );
});

test('behind a base, gaps before its begin do not count; a gap inside makes nothing whole', () => {
  const base = { begin: 10, end: 20 };
  const cases: [readonly Gap[], readonly Gap[] | undefined][] = [
    [[], [[0, 10]]],
    [[[2, 5]], [[0, 10]]],
    [[[0, 10]], [[0, 10]]],
    [
      [
        [2, 5],
        [25, 30],
      ],
      [
        [0, 10],
        [25, 30],
      ],
    ],
    [[[5, 11]], undefined],
    [[[19, 25]], undefined],
  ];
  for (const [before, after] of cases) expect(gapsAfterBase(before, base)).toEqual(after);
  expect(gapsAfterBase([], { begin: 0, end: 20 })).toEqual([]);
});
