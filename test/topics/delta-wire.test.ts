/** Deltas on the wire: avsc must read what we write, and damaged bytes must be rejected. */
import avsc from 'avsc';
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { messageBytesMax } from '../../topics/catalog.ts';
import { RejectedMessage } from '../../topics/chunk.ts';
import {
  type CubeRows,
  cubePlan,
  cubesOnTheWire,
  type DeltaHeader,
  decodeDeltaHeader,
  decodeDeltaRows,
  encodeDelta,
} from '../../topics/delta-wire.ts';
import { Dictionary } from '../../topics/dictionary.ts';
import { schemaText } from '../../topics/registry.ts';
import { nullInt } from '../../topics/row-plan.ts';
import { Columns } from '../../topics/rows.ts';

const schemaId = 4_711;
const type = avsc.Type.forSchema(JSON.parse(schemaText('reelflow.deltas')));

type Value = number | string | null;
type Tables = Record<string, Value[][]>;

const whole = fc.oneof(
  fc.integer({ min: -3, max: 3 }),
  fc.integer({ min: -(2 ** 50), max: 2 ** 50 }),
  fc.integer({ min: -(2 ** 31), max: 2 ** 31 }),
);
const int = fc.oneof(fc.nat(100), fc.integer({ min: nullInt + 1 }));
const word = fc.oneof(fc.constantFrom('', 'Drama', 'Comedy,Drama'), fc.string({ unit: 'grapheme' }));

const rowOf = (name: string): fc.Arbitrary<Value[]> =>
  fc.tuple(
    ...(cubesOnTheWire.find((wire) => wire.name === name)?.fields ?? []).map(
      ({ type: field }): fc.Arbitrary<Value> => {
        const base = Array.isArray(field) ? field[1] : field;
        const values: fc.Arbitrary<Value> = base === 'string' ? word : base === 'long' ? whole : int;
        return Array.isArray(field) ? fc.option(values) : values;
      },
    ),
  );

const tables: fc.Arbitrary<Tables> = fc.record(
  Object.fromEntries(cubesOnTheWire.map(({ name }) => [name, fc.array(rowOf(name), { maxLength: 20 })])),
);

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
const header: fc.Arbitrary<DeltaHeader> = fc.record({
  shard: fc.nat(100),
  shards: fc.nat(100),
  generation: fc.nat(5),
  cubeSet: fc.string(),
  storeId: fc.string(),
  kind: fc.constantFrom('delta' as const, 'base' as const, 'reset' as const),
  range,
  recordTimeMs: fc.nat(2 ** 42),
});

/** Rows as the encoder takes them: columns of numbers. */
function cubeRows(rows: Tables): Record<string, CubeRows> {
  const dictionary = new Dictionary();
  const toNumber = (value: Value) =>
    value === null ? nullInt : typeof value === 'string' ? dictionary.numberOfText(value) : value;
  return Object.fromEntries(
    cubesOnTheWire.map((wire) => {
      const own = rows[wire.name] ?? [];
      const columns = wire.fields.map((_, c) => Float64Array.from(own, (row) => toNumber(row[c] as Value)));
      return [wire.name, { plan: cubePlan(wire, dictionary), columns, length: own.length }];
    }),
  );
}

/** All parts as avsc reads them, rows put together. */
function readByAvsc(messages: readonly Buffer[]): { headers: Record<string, unknown>[]; rows: Tables } {
  const rows: Tables = Object.fromEntries(cubesOnTheWire.map(({ name }) => [name, []]));
  const headers = messages.map((message) => {
    expect(message[0]).toBe(0);
    expect(message.readInt32BE(1)).toBe(schemaId);
    const delta = type.fromBuffer(message.subarray(5)) as Record<string, unknown>;
    for (const { name, fields } of cubesOnTheWire) {
      for (const row of delta[name] as Record<string, Value>[]) {
        rows[name]?.push(fields.map((field) => row[field.name] as Value));
      }
      delete delta[name];
    }
    return { ...delta };
  });
  return { headers, rows };
}

/** All parts as our decoder reads them. */
function readByUs(messages: readonly Buffer[]): Tables {
  const dictionary = new Dictionary();
  const columns = Object.fromEntries(
    cubesOnTheWire.map((wire) => [wire.name, new Columns(cubePlan(wire, dictionary))]),
  );
  for (const message of messages) {
    decodeDeltaRows(message, decodeDeltaHeader(message, schemaId).at, columns);
  }
  return Object.fromEntries(
    Object.entries(columns).map(([name, out]) => [
      name,
      Array.from({ length: out.length }, (_, row) =>
        out.plan.forms.map((form, c) => {
          const value = out.column(c)[row] as number;
          if (form !== 'long' && value === nullInt) return null;
          return form === 'dictionary' ? dictionary.textOf(value) : value;
        }),
      ),
    ]),
  );
}

test('avsc decodes the same header and rows as our decoder', () => {
  fc.assert(
    fc.property(header, tables, (head, rows) => {
      const messages = encodeDelta(schemaId, head, cubeRows(rows));
      expect(messages).toHaveLength(1);
      const read = readByAvsc(messages);
      const { recordTimeMs, ...rest } = head;
      const range = head.range.map(({ gaps, ...of }) => ({
        ...of,
        gaps: gaps.map(([from, to]) => ({ from, to })),
      }));
      expect(read.headers).toEqual([{ ...rest, range, recordTime: recordTimeMs, part: 1, parts: 1 }]);
      expect(read.rows).toEqual(rows);
      expect(readByUs(messages)).toEqual(rows);
      expect(decodeDeltaHeader(messages[0] as Buffer, schemaId).header).toEqual({
        ...head,
        part: 1,
        parts: 1,
      });
    }),
  );
});

test('a long delta is cut into parts below the message limit that together hold all its rows', () => {
  const sizes = fc.record(
    Object.fromEntries(cubesOnTheWire.map(({ name }) => [name, fc.constantFrom(0, 1, 300, 40_000)])),
  );
  fc.assert(
    fc.property(header, sizes, fc.constantFrom(5, 2_000, 30_000), (head, counts, wordLength) => {
      const rows: Tables = Object.fromEntries(
        cubesOnTheWire.map(({ name, fields }) => {
          const isWord = fields.map(({ type: field }) => String(field).includes('string'));
          // As many as make a few messages, whatever their words are long.
          const count = isWord.includes(true)
            ? Math.min(counts[name] ?? 0, 4_000_000 / wordLength)
            : counts[name];
          return [
            name,
            Array.from({ length: count ?? 0 }, (_, i) =>
              isWord.map((each) => (each ? String(i).padEnd(wordLength, 'ä') : i * 7_919)),
            ),
          ];
        }),
      );
      const messages = encodeDelta(schemaId, head, cubeRows(rows));
      for (const message of messages) expect(message.length).toBeLessThanOrEqual(messageBytesMax);
      const total = messages.reduce((sum, { length }) => sum + length, 0);
      // A part closes when it is full, not before.
      expect(messages.length).toBeLessThanOrEqual(Math.ceil(total / (messageBytesMax - 100_000)));
      const read = readByAvsc(messages);
      expect(read.headers.map(({ part, parts }) => [part, parts])).toEqual(
        messages.map((_, i) => [i + 1, messages.length]),
      );
      expect(read.rows).toEqual(rows);
      expect(readByUs(messages)).toEqual(rows);
    }),
    { numRuns: 12 },
  );
});

test('a damaged or foreign message is rejected and never partly decoded', () => {
  const damage = fc.tuple(fc.nat(), fc.nat(255));
  fc.assert(
    fc.property(header, tables, damage, fc.boolean(), (head, rows, [at, byte], cutOff) => {
      const [message] = encodeDelta(schemaId, head, cubeRows(rows)) as [Buffer];
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
  const [other] = encodeDelta(schemaId + 1, fc.sample(header, 1)[0] as DeltaHeader, {});
  expect(() => decodeDeltaHeader(other as Buffer, schemaId)).toThrow('schema');
});

test('decodes a range whose Avro blocks carry their size in bytes', () => {
  const oneRange: DeltaHeader = {
    shard: 0,
    shards: 1,
    generation: 0,
    cubeSet: '',
    storeId: '',
    kind: 'delta',
    range: [{ topic: 'a', from: 0, to: 1, applied: 0, duplicate: 0, rejected: 0, removed: 0, gaps: [] }],
    recordTimeMs: 0,
  };
  const [message] = encodeDelta(schemaId, oneRange, {}) as [Buffer];
  const count = 11;
  expect(message[count]).toBe(2);
  const named = Buffer.concat([
    message.subarray(0, count),
    Buffer.from([1, 14]),
    message.subarray(count + 1),
  ]);
  expect(decodeDeltaHeader(named, schemaId).header).toEqual(decodeDeltaHeader(message, schemaId).header);
});
