/** Deltas on the wire: avsc must read what we write, and damaged bytes must be rejected. */
import avsc from 'avsc';
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { messageBytesMax } from '../../topics/catalog.ts';
import { RejectedMessage } from '../../topics/chunk.ts';
import type { CubeColumn, CubeColumnKind, CubeRows } from '../../topics/cube-rows.ts';
import {
  type DeltaHeader,
  decodeDeltaHeader,
  decodeDeltaRows,
  encodeDelta,
} from '../../topics/delta-wire.ts';
import { Dictionary } from '../../topics/dictionary.ts';
import { schemaText } from '../../topics/registry.ts';
import { nullInt } from '../../topics/row-plan.ts';
import { deltaHeader } from '../support/deltas.ts';

const schemaId = 4_711;
const type = avsc.Type.forSchema(JSON.parse(schemaText('reelflow.deltas')));

type Value = number | string | null;
/** A cube with its rows. */
interface Table {
  readonly cube: string;
  readonly columns: readonly CubeColumn[];
  readonly rows: readonly (readonly Value[])[];
}

const small = fc.integer({ min: -130, max: 130 });
const medium = fc.integer({ min: -33_000, max: 33_000 });
const int = fc.oneof(small, medium, fc.integer({ min: nullInt + 1 }));
const long = fc.oneof(
  small,
  medium,
  fc.integer({ min: -(2 ** 31) - 2, max: 2 ** 31 + 2 }),
  fc.integer({ min: -(2 ** 50), max: 2 ** 50 }),
);
const word = fc.oneof(fc.constantFrom('', 'Drama', 'Comedy,Drama'), fc.string({ unit: 'grapheme' }));
const valuesOf: Readonly<Record<CubeColumnKind, fc.Arbitrary<Value>>> = {
  int: fc.option(int),
  string: fc.option(word),
  long,
};

/** Any cube: the wire knows none. A column is all of one magnitude as often as not, so that every width occurs. */
const table: fc.Arbitrary<Table> = fc
  .record({
    cube: fc.constantFrom('title', 'Region_2', 'x'),
    columns: fc.uniqueArray(
      fc.record({
        name: fc.stringMatching(/^[a-z][a-zA-Z0-9_]{0,9}$/).filter((name) => name !== 'shard'),
        kind: fc.constantFrom<CubeColumnKind>('int', 'string', 'long'),
      }),
      { minLength: 1, maxLength: 6, selector: ({ name }) => name.toLowerCase() },
    ),
  })
  .chain(({ cube, columns }) =>
    fc
      .tuple(...columns.map(({ kind }) => (kind === 'string' ? fc.constant(false) : fc.boolean())))
      .chain((areSmall) => {
        const row = fc.tuple(
          ...columns.map(({ kind }, c) =>
            areSmall[c] === true ? (small as fc.Arbitrary<Value>) : valuesOf[kind],
          ),
        );
        return fc.array(row, { minLength: 1, maxLength: 20 }).map((rows) => ({ cube, columns, rows }));
      }),
  );

const tables = fc.array(table, { maxLength: 5 });

const range = fc.array(
  fc.record({
    topic: fc.string({ minLength: 1 }),
    from: fc.nat(),
    to: fc.nat(),
    applied: fc.nat(),
    duplicate: fc.nat(),
    rejected: fc.nat(),
    removed: fc.nat(),
    gaps: fc.array(fc.tuple(fc.nat(), fc.nat()), { maxLength: 3 }),
  }),
  { maxLength: 5 },
);
const header: fc.Arbitrary<DeltaHeader> = fc.record(
  {
    keeps: fc.array(fc.stringMatching(/^[a-z_]+$/), { minLength: 1 }),
    shard: fc.nat(100),
    shards: fc.nat(100),
    generation: fc.nat(5),
    cubeSet: fc.string(),
    storeId: fc.string(),
    kind: fc.constantFrom('delta' as const, 'base' as const, 'reset' as const),
    range,
    recordTimeMs: fc.nat(2 ** 42),
  },
  {
    requiredKeys: ['shard', 'shards', 'generation', 'cubeSet', 'storeId', 'kind', 'range', 'recordTimeMs'],
  },
);

/** Rows as the encoder takes them: columns of numbers. */
function cubeRows(given: readonly Table[], dictionary: Dictionary): CubeRows[] {
  return given.map(({ cube, columns, rows }) => ({
    cube,
    length: rows.length,
    columns: columns.map((column, c) => {
      const numbers = rows.map((row) => {
        const value = row[c] as Value;
        if (value === null) return nullInt;
        return typeof value === 'string' ? dictionary.numberOfText(value) : value;
      });
      // Columns may be longer than their rows.
      const values =
        column.kind === 'long' ? Float64Array.from([...numbers, 5]) : Int32Array.from([...numbers, 5]);
      return { ...column, values };
    }),
  }));
}

function encode(head: DeltaHeader, given: readonly Table[]): Buffer[] {
  const dictionary = new Dictionary();
  return encodeDelta(schemaId, head, cubeRows(given, dictionary), dictionary);
}

/** The pieces of a cube that follow each other as one. */
function joined(pieces: readonly Table[]): Table[] {
  const whole: Table[] = [];
  for (const piece of pieces) {
    const last = whole.at(-1);
    const isSame =
      last?.cube === piece.cube && JSON.stringify(last.columns) === JSON.stringify(piece.columns);
    if (last !== undefined && isSame) whole.splice(-1, 1, { ...last, rows: [...last.rows, ...piece.rows] });
    else whole.push(piece);
  }
  return whole;
}

/** All parts as avsc reads them, by what the doc of the schema says about values. */
function readByAvsc(messages: readonly Buffer[]): { headers: Record<string, unknown>[]; read: Table[] } {
  const pieces: Table[] = [];
  const headers = messages.map((message) => {
    expect(message[0]).toBe(0);
    expect(message.readInt32BE(1)).toBe(schemaId);
    const { cubes, ...header } = type.fromBuffer(message.subarray(5)) as Record<string, unknown>;
    for (const { cube, rows, columns } of cubes as {
      cube: string;
      rows: number;
      columns: { name: string; kind: CubeColumnKind; words: string[]; width: number; values: Buffer }[];
    }[]) {
      const values = columns.map(({ kind, words, width, values }) =>
        Array.from({ length: rows }, (_, row): Value => {
          if (width === 8) return values.readDoubleLE(row * width);
          const value = values.readIntLE(row * width, width);
          if (kind === 'string') return value === -1 ? null : (words[value] as string);
          return kind === 'int' && value === -(2 ** (8 * width - 1)) ? null : value;
        }),
      );
      pieces.push({
        cube,
        columns: columns.map(({ name, kind }) => ({ name, kind })),
        rows: Array.from({ length: rows }, (_, row) => values.map((of) => of[row] as Value)),
      });
    }
    return header;
  });
  return { headers, read: joined(pieces) };
}

/** All parts as our decoder reads them. */
function readByUs(messages: readonly Buffer[]): Table[] {
  const dictionary = new Dictionary();
  return joined(
    messages.flatMap((message) =>
      decodeDeltaRows(message, decodeDeltaHeader(message, schemaId).at, dictionary).map(
        ({ cube, columns, length }) => ({
          cube,
          columns: columns.map(({ name, kind }) => ({ name, kind })),
          rows: Array.from({ length }, (_, row) =>
            columns.map(({ kind, values: { [row]: value = Number.NaN } }): Value => {
              if (kind !== 'long' && value === nullInt) return null;
              return kind === 'string' ? dictionary.textOf(value) : value;
            }),
          ),
        }),
      ),
    ),
  );
}

test('avsc decodes the same header and rows as our decoder', () => {
  fc.assert(
    fc.property(header, tables, (head, rows) => {
      const messages = encode(head, rows);
      expect(messages).toHaveLength(1);
      const { headers, read } = readByAvsc(messages);
      const { recordTimeMs, keeps = [], ...rest } = head;
      const cubeSet = keeps.length === 0 ? head.cubeSet : `${head.cubeSet} keeps ${keeps.join(' ')}`;
      const range = head.range.map(({ gaps, ...of }) => ({
        ...of,
        gaps: gaps.map(([from, to]) => ({ from, to })),
      }));
      expect(headers).toEqual([{ ...rest, cubeSet, range, recordTime: recordTimeMs, part: 1, parts: 1 }]);
      expect(read).toEqual(joined(rows));
      expect(readByUs(messages)).toEqual(joined(rows));
      expect(decodeDeltaHeader(messages[0] as Buffer, schemaId).header).toEqual({
        ...head,
        part: 1,
        parts: 1,
      });
    }),
  );
});

test('a long delta is cut into parts below the message limit that together hold all its rows', () => {
  const sizes = fc.array(fc.constantFrom(1, 300, 40_000, 120_000), { minLength: 1, maxLength: 4 });
  const kinds: readonly CubeColumnKind[] = ['int', 'long', 'string', 'int'];
  fc.assert(
    fc.property(header, sizes, fc.constantFrom(0, 5, 2_000, 30_000), (head, counts, wordLength) => {
      const given = counts.map((size, n): Table => {
        const own = kinds.filter((kind) => kind !== 'string' || wordLength > 0);
        // As many rows as make a few messages, whatever the length of the words.
        const count = wordLength > 0 ? Math.min(size, Math.ceil(4_000_000 / wordLength), 40_000) : size;
        const rows = Array.from({ length: count }, (_, i) =>
          own.map((kind, c) =>
            kind === 'string' ? String(i).padEnd(wordLength, 'ä') : c < 2 ? i * 7_919 * (c + 1) : 1,
          ),
        );
        return { cube: `cube${n}`, columns: own.map((kind, c) => ({ name: `column${c}`, kind })), rows };
      });
      const messages = encode(head, given);
      for (const message of messages) expect(message.length).toBeLessThanOrEqual(messageBytesMax);
      const total = messages.reduce((sum, { length }) => sum + length, 0);
      // A part closes when it is full, not before.
      expect(messages.length).toBeLessThanOrEqual(Math.ceil(total / (messageBytesMax - 100_000)));
      const { headers, read } = readByAvsc(messages);
      expect(headers.map(({ part, parts }) => [part, parts])).toEqual(
        messages.map((_, i) => [i + 1, messages.length]),
      );
      expect(read).toEqual(given);
      expect(readByUs(messages)).toEqual(given);
    }),
    { numRuns: 12 },
  );
});

test('a damaged or foreign message is rejected and never partly decoded', () => {
  const damage = fc.tuple(fc.nat(), fc.nat(255));
  fc.assert(
    fc.property(header, tables, damage, fc.boolean(), (head, rows, [at, byte], cutOff) => {
      const [message] = encode(head, rows) as [Buffer];
      const place = at % message.length;
      const spoiled = cutOff ? message.subarray(0, place) : Buffer.from(message);
      if (!cutOff) spoiled[place] = byte;
      try {
        decodeDeltaHeader(spoiled, schemaId);
        readByUs([spoiled]);
        // Damage that leaves a delta is one that avsc reads too.
        expect(cutOff).toBe(false);
        type.fromBuffer(spoiled.subarray(5));
      } catch (thrown) {
        expect(thrown).toBeInstanceOf(RejectedMessage);
      }
    }),
    { numRuns: 500 },
  );
  expect(() => decodeDeltaHeader(null, schemaId)).toThrow(RejectedMessage);
  const [other] = encodeDelta(schemaId + 1, fc.sample(header, 1)[0] as DeltaHeader);
  expect(() => decodeDeltaHeader(other as Buffer, schemaId)).toThrow('schema');
});

test('decodes a range whose Avro blocks carry their size in bytes', () => {
  const oneRange = deltaHeader({ a: 0 }, { a: 1 }, { cubeSet: '', storeId: '' });
  const [message] = encodeDelta(schemaId, oneRange) as [Buffer];
  const count = 11;
  expect(message[count]).toBe(2);
  const named = Buffer.concat([
    message.subarray(0, count),
    Buffer.from([1, 14]),
    message.subarray(count + 1),
  ]);
  expect(decodeDeltaHeader(named, schemaId).header).toEqual(decodeDeltaHeader(message, schemaId).header);
});
