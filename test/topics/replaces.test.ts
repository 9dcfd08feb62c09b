/**
 * `replaces` on the wire: what avsc writes is what the decoder gives, a chunk of the schema before it is decoded as it
 * is, and a group that no id has, or that lies in another partition, is refused.
 */
import avsc from 'avsc';
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { blockKey, datasetNames, partitionOf } from '../../topics/catalog.ts';
import {
  ChunkDecoder,
  deleteColumns,
  type RejectedMessage,
  recordColumns,
  schemaBefore,
} from '../../topics/chunk.ts';
import { blockOfGroup, groupMax } from '../../topics/id-groups.ts';
import { Ownership } from '../../topics/ownership.ts';
import { schemaText } from '../../topics/registry.ts';
import { rating } from '../support/chunks.ts';

const ownId = 7;
const olderId = 3;
const name = 'title.ratings';
const ownType = avsc.Type.forSchema(JSON.parse(schemaText(`imdb.${name}`)));
const olderType = avsc.Type.forSchema(schemaBefore('replaces', name));
const header = { runId: 'run', chunk: 0, asOf: 0 };

function chunkValue(type: avsc.Type, id: number, content: object): Buffer {
  const wire = Buffer.alloc(5);
  wire.writeInt32BE(id, 1);
  return Buffer.concat([wire, type.toBuffer({ ...header, records: [], deletes: [], ...content })]);
}

const decoderWith = (writer: avsc.Type | undefined) =>
  new ChunkDecoder(name, ownId, { writer: async () => writer });

function decode(decoder: ChunkDecoder, value: Buffer) {
  const records = recordColumns(name, ['tconst', 'numVotes']);
  const { replaces, records: count } = decoder.decode(value, records, deleteColumns(name));
  return { replaces: [...replaces], count, ids: [...records.column(0)] };
}

const group = fc.oneof(fc.nat(400), fc.nat(groupMax));

test('the groups of a chunk are those that avsc wrote', () => {
  const decoder = decoderWith(undefined);
  fc.assert(
    fc.property(fc.array(group, { maxLength: 300 }), fc.array(fc.nat(999)), (replaces, ids) => {
      const value = chunkValue(ownType, ownId, { records: ids.map((id) => rating(id, 5)), replaces });
      expect(decode(decoder, value)).toEqual({ replaces, count: ids.length, ids });
    }),
  );
});

test.each(datasetNames)(
  '%s: a chunk of the schema before `replaces` is decoded as it is',
  async (dataset) => {
    const before = avsc.Type.forSchema(schemaBefore('replaces', dataset));
    const decoder = new ChunkDecoder(dataset, ownId, { writer: async () => before });
    const value = chunkValue(before, olderId, {});
    expect(decoder.isOwn(value)).toBe(false);
    // Resolving by avsc would give another buffer.
    expect(await decoder.resolve(value)).toBe(value);
    expect(decoder.isOwn(value)).toBe(true);
    const columns = recordColumns(dataset, []);
    expect(decoder.decode(value, columns, deleteColumns(dataset)).replaces).toHaveLength(0);
  },
);

test('chunks of both schemas may alternate', async () => {
  const decoder = decoderWith(olderType);
  const older = chunkValue(olderType, olderId, { records: [rating(1, 5)] });
  const own = chunkValue(ownType, ownId, { records: [rating(2, 5)], replaces: [0] });
  await decoder.resolve(older);
  expect(decode(decoder, older)).toEqual({ replaces: [], count: 1, ids: [1] });
  expect(decode(decoder, own)).toEqual({ replaces: [0], count: 1, ids: [2] });
  expect(decode(decoder, older)).toEqual({ replaces: [], count: 1, ids: [1] });
});

test.each([-1, groupMax + 1])(
  'group %i is not a group: the message is refused and counts its records',
  (bad) => {
    const value = chunkValue(ownType, ownId, { records: [rating(1, 5), rating(2, 5)], replaces: [1, bad] });
    expect(() => decode(decoderWith(undefined), value)).toThrow(
      expect.objectContaining<Partial<RejectedMessage>>({ reason: 'invalid_value', records: 2 }),
    );
  },
);

test('every truncation of the groups is refused', () => {
  const value = chunkValue(ownType, ownId, { records: [rating(1, 5)], replaces: [1, 200, 90_000] });
  for (let end = 5; end < value.length; end++) {
    expect(() => decode(decoderWith(undefined), value.subarray(0, end))).toThrow();
  }
});

test('a group belongs to the partition of its block', () => {
  const shards = 4;
  const ownership = new Ownership('tt', shards);
  fc.assert(
    fc.property(group, fc.nat(shards - 1), (one, partition) => {
      const owner = partitionOf(blockKey('tt', blockOfGroup(one)), shards);
      const check = () => ownership.checkGroups(Int32Array.of(one), partition, 3);
      if (owner === partition) check();
      else expect(check).toThrow(expect.objectContaining({ reason: 'wrong_partition', records: 3 }));
    }),
  );
});

test('chunks of both schemas are read as objects', async () => {
  const decoder = decoderWith(olderType);
  const older = chunkValue(olderType, olderId, { records: [rating(1, 5)] });
  await decoder.resolve(older);
  expect(decoder.read(older)).toMatchObject({ records: [{ tconst: 'tt0000001' }] });
  const own = chunkValue(ownType, ownId, { records: [rating(2, 5)], replaces: [0] });
  expect(decoder.read(own)).toMatchObject({ records: [{ tconst: 'tt0000002' }], replaces: [0] });
});
