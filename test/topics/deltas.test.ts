/**
 * Deltas on the wire against avsc, and the chain against whatever order a partition may hold them in: sent twice, by
 * zombies, by other stores, cut off between parts.
 */
import avsc from 'avsc';
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { messageBytesMax } from '../../topics/catalog.ts';
import { RejectedMessage } from '../../topics/chunk.ts';
import {
  type CubeRows,
  cubePlan,
  cubesOnTheWire,
  DeltaChain,
  type DeltaHeader,
  type DeltaPart,
  decodeDeltaHeader,
  decodeDeltaRows,
  encodeDelta,
  fromOf,
  toOf,
} from '../../topics/deltas.ts';
import { Dictionary } from '../../topics/dictionary.ts';
import { type Gaps, notAfter, type Position, samePosition } from '../../topics/position.ts';
import { schemaText } from '../../topics/registry.ts';
import { Columns, nullInt } from '../../topics/rows.ts';

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

test('a delta is what avsc reads, header and rows', () => {
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

test('the parts of a long delta are short enough for any broker, and together they are its rows', () => {
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

test('a message that is no delta of ours is rejected, never half read as one', () => {
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

test('a range in blocks that name their length is read too', () => {
  const [message] = encodeDelta(schemaId, delta('', {}, { a: 1 }, { cubeSet: '' }), {}) as [Buffer];
  const count = 11;
  expect(message[count]).toBe(2);
  const named = Buffer.concat([
    message.subarray(0, count),
    Buffer.from([1, 14]),
    message.subarray(count + 1),
  ]);
  expect(decodeDeltaHeader(named, schemaId).header).toEqual(decodeDeltaHeader(message, schemaId).header);
});

// The chain

function delta(
  storeId: string,
  from: Position,
  to: Position,
  more: Partial<DeltaHeader> = {},
  gaps: Gaps = {},
): DeltaHeader {
  const topics = [...new Set([...Object.keys(from), ...Object.keys(to)])].sort();
  return {
    shard: 0,
    shards: 1,
    generation: 0,
    cubeSet: 'cubes',
    storeId,
    kind: 'delta',
    range: topics.map((topic) => ({
      topic,
      from: from[topic] ?? 0,
      to: to[topic] ?? 0,
      applied: 0,
      duplicate: 0,
      rejected: 0,
      gaps: gaps[topic] ?? [],
    })),
    recordTimeMs: 0,
    ...more,
  };
}

const part = (head: DeltaHeader, number = 1, parts = 1): DeltaPart => ({ ...head, part: number, parts });

const verdicts = (chain: DeltaChain, ...parts: DeltaPart[]) => parts.map((each) => chain.accept(each));

test('a delta is applied only where it starts, skipped where it is contained, and else refused', () => {
  const chain = new DeltaChain();
  const first = part(delta('s', {}, { a: 5 }));
  const second = part(delta('s', { a: 5 }, { a: 7, b: 3 }));
  expect(verdicts(chain, second, first, first, second, first)).toEqual([
    'refuse',
    'apply',
    'skip',
    'apply',
    'skip',
  ]);
  expect(chain.accept(part(delta('z', { a: 5 }, { a: 9 })))).toBe('refuse');
  expect(chain.accept(part(delta('z', { a: 7, b: 2 }, { a: 7, b: 9 })))).toBe('refuse');
  expect(chain.accept(part(delta('z', { a: 8, b: 3 }, { a: 9, b: 3 })))).toBe('refuse');
  expect(chain.accept(part(delta('z', { a: 6, b: 3 }, { a: 9, b: 3 })))).toBe('refuse');
  expect(chain.state.position).toEqual({ a: 7, b: 3 });
});

test('an overlap is refused even when its end is further', () => {
  const chain = new DeltaChain();
  chain.accept(part(delta('s', {}, { a: 5 })));
  expect(chain.accept(part(delta('z', {}, { a: 6 })))).toBe('refuse');
  expect(chain.accept(part(delta('z', { a: 4 }, { a: 6 })))).toBe('refuse');
});

test('a base replaces what is before it, and one that is behind is refused', () => {
  const chain = new DeltaChain();
  chain.accept(part(delta('s', {}, { a: 5 })));
  const base = { kind: 'base' as const, cubeSet: 'new' };
  expect(chain.accept(part(delta('s', {}, { a: 4 }, base)))).toBe('refuse');
  expect(chain.accept(part(delta('s', {}, { b: 9 }, base)))).toBe('refuse');
  expect(chain.accept(part(delta('s', {}, { a: 5 }, base)))).toBe('apply');
  expect(chain.state).toMatchObject({ cubeSet: 'new', position: { a: 5 } });
  expect(chain.accept(part(delta('s', { a: 5 }, { a: 6 })))).toBe('refuse');
  expect(chain.accept(part(delta('s', { a: 5 }, { a: 6 }, { cubeSet: 'new' })))).toBe('apply');
});

test('a delta of a store that has lost other messages is refused, and a base says what is lost from then on', () => {
  const gaps = { a: [[2, 4]] } as const;
  const chain = new DeltaChain();
  expect(chain.accept(part(delta('s', {}, { a: 2 })))).toBe('apply');
  expect(chain.accept(part(delta('s', { a: 2 }, { a: 5 }, {}, gaps)))).toBe('apply');
  expect(chain.state).toMatchObject({ position: { a: 5 }, gaps });
  expect(chain.accept(part(delta('z', { a: 5 }, { a: 6 })))).toBe('refuse');
  expect(chain.accept(part(delta('z', { a: 5 }, { a: 6 }, {}, { a: [[0, 4]] })))).toBe('refuse');
  expect(chain.accept(part(delta('s', { a: 5 }, { a: 6 }, {}, { a: [[2, 4]] })))).toBe('apply');
  expect(chain.accept(part(delta('z', {}, { a: 6 }, { kind: 'base' }, { a: [[0, 4]] })))).toBe('apply');
  expect(chain.accept(part(delta('s', { a: 6 }, { a: 7 }, {}, gaps)))).toBe('refuse');
  expect(
    chain.accept(
      part(
        delta(
          'z',
          { a: 6 },
          { a: 9 },
          {},
          {
            a: [
              [0, 4],
              [6, 8],
            ],
          },
        ),
      ),
    ),
  ).toBe('apply');

  const trimmed = new DeltaChain('trimmed');
  expect(
    trimmed.accept(
      part(
        delta(
          'z',
          { a: 6 },
          { a: 9 },
          {},
          {
            a: [
              [0, 4],
              [6, 8],
            ],
          },
        ),
      ),
    ),
  ).toBe('apply');
  expect(trimmed.state).toEqual(chain.state);
});

test('a reset begins the chain anew; what is older is dead, what is newer waits for its reset', () => {
  const chain = new DeltaChain();
  chain.accept(part(delta('s', {}, { a: 5 })));
  expect(chain.accept(part(delta('n', {}, { a: 2 }, { generation: 1 })))).toBe('refuse');
  const reset = part(delta('', {}, {}, { generation: 1, kind: 'reset' }));
  expect(verdicts(chain, reset, reset)).toEqual(['apply', 'skip']);
  expect(chain.state.position).toEqual({});
  expect(chain.accept(part(delta('s', { a: 5 }, { a: 6 })))).toBe('dead');
  expect(chain.accept(part(delta('n', {}, { a: 2 }, { generation: 1 })))).toBe('apply');
});

test('a delta counts when its last part comes behind all others of the same store', () => {
  const chain = new DeltaChain();
  const mine = delta('s', {}, { a: 5 });
  const theirs = delta('z', {}, { a: 5 });
  expect(
    verdicts(
      chain,
      part(mine, 1, 3),
      part(theirs, 1, 2),
      part(mine, 3, 3),
      part(theirs, 3, 3),
      part(mine, 2, 3),
    ),
  ).toEqual(['collect', 'collect', 'skip', 'skip', 'collect']);
  expect(chain.isBetweenParts).toBe(true);
  expect(verdicts(chain, part(mine, 3, 3), part(theirs, 2, 2))).toEqual(['apply', 'skip']);
  expect(chain.isBetweenParts).toBe(false);
});

test('a delta that is sent again from its first part is taken from there', () => {
  const chain = new DeltaChain();
  const mine = delta('s', {}, { a: 5 });
  expect(verdicts(chain, part(mine, 1, 3), part(mine, 2, 3), part(mine, 1, 3), part(mine, 3, 3))).toEqual([
    'collect',
    'collect',
    'collect',
    'skip',
  ]);
  expect(verdicts(chain, part(mine, 2, 3), part(mine, 3, 3))).toEqual(['collect', 'apply']);
});

/**
 * A partition as several owners may leave it: each went its own way through the same log from positions that others
 * published or from the beginning, and its messages come in runs, twice, cut off, and in between those of others.
 */
const partition: fc.Arbitrary<DeltaPart[]> = fc
  .array(
    fc.record({
      steps: fc.array(fc.record({ a: fc.nat(2), b: fc.nat(2), parts: fc.integer({ min: 1, max: 3 }) }), {
        minLength: 1,
        maxLength: 6,
      }),
      /** Where a run of messages starts and how long it is, again and again. */
      runs: fc.array(fc.tuple(fc.nat(), fc.integer({ min: 1, max: 8 })), { maxLength: 6 }),
    }),
    { minLength: 1, maxLength: 3 },
  )
  .chain((owners) => {
    const sent = owners.map(({ steps, runs }, owner) => {
      let position: Position = { a: 0, b: 0 };
      const all = steps.flatMap(({ a, b, parts }) => {
        const to = { a: (position.a ?? 0) + a, b: (position.b ?? 0) + b };
        const head = delta(`store-${owner}`, position, to);
        position = to;
        return Array.from({ length: parts }, (_, i) => part(head, i + 1, parts));
      });
      // First as it should be, then once more from anywhere.
      return [
        ...all,
        ...runs.flatMap(([at, length]) => all.slice(at % all.length, (at % all.length) + length)),
      ];
    });
    const turns = sent.reduce((sum, { length }) => sum + length, 0);
    return fc.array(fc.nat(sent.length - 1), { minLength: turns, maxLength: turns }).map((order) => {
      const queues = sent.map((messages) => [...messages]);
      const inTurn = order.flatMap((turn) => queues[turn]?.splice(0, 1) ?? []);
      return [...inTurn, ...queues.flat()];
    });
  });

test('whatever is sent twice, late, in part or by somebody else, what is applied is one chain of whole deltas', () => {
  fc.assert(
    fc.property(partition, fc.array(fc.nat(), { maxLength: 3 }), (log, lost) => {
      for (const at of lost) log.splice(at % log.length, 1);
      const chain = new DeltaChain();
      let position: Position = {};
      /** Parts since the first one, by store and range. */
      const collected = new Map<string, number[]>();
      for (const each of log) {
        const key = JSON.stringify([each.storeId, each.parts, each.range]);
        const before = chain.state;
        const verdict = chain.accept(each);
        if (verdict === 'collect' || verdict === 'apply') {
          const parts = each.part === 1 ? [1] : [...(collected.get(key) ?? []), each.part];
          collected.set(key, parts);
          expect(parts).toEqual(Array.from({ length: each.part }, (_, i) => i + 1));
        }
        if (verdict === 'apply') {
          expect(each.part).toBe(each.parts);
          expect(samePosition(fromOf(each), position)).toBe(true);
          expect(notAfter(position, toOf(each))).toBe(true);
          position = toOf(each);
          collected.clear();
        } else {
          expect(chain.state).toBe(before);
        }
        if (verdict === 'skip' && each.part === 1) expect(notAfter(toOf(each), position)).toBe(true);
        if (verdict === 'refuse') {
          expect(notAfter(toOf(each), position) || samePosition(fromOf(each), position)).toBe(false);
        }
        expect(samePosition(chain.state.position, position)).toBe(true);
      }
    }),
    { numRuns: 1_000 },
  );
});

test('an outbox that is sent whole, after whatever else of the same store, brings the chain to its end', () => {
  fc.assert(
    fc.property(partition, (log) => {
      const own = log.filter(({ storeId }) => storeId === 'store-0');
      const all = new Map(own.map((each) => [`${DeltaChain.keyOf(each)}/${each.part}`, each]));
      const chain = new DeltaChain();
      for (const each of own.slice(0, Math.floor(own.length / 2))) chain.accept(each);
      for (const each of all.values()) chain.accept(each);
      expect(samePosition(chain.state.position, toOf([...all.values()].at(-1) as DeltaPart))).toBe(true);
    }),
  );
});
