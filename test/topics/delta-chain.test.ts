/**
 * The chain against any order in which a partition may hold deltas: sent twice, by zombies, by other stores, cut off
 * between parts.
 */
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { cubeSetText } from '../../topics/cube-versions.ts';
import { DeltaChain } from '../../topics/delta-chain.ts';
import { type DeltaHeader, type DeltaPart, fromOf, toOf } from '../../topics/delta-wire.ts';
import { type Gaps, notAfter, type Position, samePosition } from '../../topics/position.ts';
import { deltaHeader } from '../support/deltas.ts';

const delta = (
  storeId: string,
  from: Position,
  to: Position,
  more: Partial<DeltaHeader> = {},
  gaps: Gaps = {},
) => deltaHeader(from, to, { storeId, ...more }, gaps);

const part = (head: DeltaHeader, number = 1, parts = 1): DeltaPart => ({ ...head, part: number, parts });

const verdicts = (chain: DeltaChain, ...parts: DeltaPart[]) => parts.map((each) => chain.accept(each));

test('a delta is applied where it begins, skipped where it is contained, and refused anywhere else', () => {
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

test('an overlapping delta is refused even if it ends further on', () => {
  const chain = new DeltaChain();
  chain.accept(part(delta('s', {}, { a: 5 })));
  expect(chain.accept(part(delta('z', {}, { a: 6 })))).toBe('refuse');
  expect(chain.accept(part(delta('z', { a: 4 }, { a: 6 })))).toBe('refuse');
});

const setOf = (versions: Record<string, string>) => ({
  cubeSet: cubeSetText(new Map(Object.entries(versions))),
});
const baseOf = (versions: Record<string, string>, keeps: string[]) => ({
  kind: 'base' as const,
  ...setOf(versions),
  ...(keeps.length > 0 && { keeps }),
});

test('a base that keeps cubes counts only at the position, gaps and versions of the chain', () => {
  const start = { generation: 0, position: { a: 5, b: 3 }, gaps: { a: [[0, 2] as const] } };
  const accept = (
    to: Position,
    versions: Record<string, string>,
    keeps: string[],
    gaps: Gaps = start.gaps,
  ) => {
    const chain = new DeltaChain({ ...start, ...setOf({ one: '1', two: '1' }) });
    return [chain.accept(part(delta('s', {}, to, baseOf(versions, keeps), gaps))), chain.state] as const;
  };
  const [verdict, state] = accept({ a: 5, b: 3 }, { one: '1', two: '2' }, ['one']);
  expect([verdict, state]).toMatchObject(['apply', { ...start, ...setOf({ one: '1', two: '2' }) }]);
  expect(accept({ a: 5, b: 4 }, { one: '1', two: '2' }, ['one'])[0]).toBe('refuse');
  expect(accept({ a: 4, b: 3 }, { one: '1', two: '2' }, ['one'])[0]).toBe('refuse');
  expect(accept({ a: 5, b: 3 }, { one: '1', two: '2' }, ['one'], {})[0]).toBe('refuse');
  expect(accept({ a: 5, b: 3 }, { one: '2', two: '2' }, ['one'])[0]).toBe('refuse');
  expect(accept({ a: 5, b: 3 }, { one: '1', three: '1' }, ['three'])[0]).toBe('refuse');
});

test('a topic leaves the chain with the cubes that read it, and with no others', () => {
  const chain = () =>
    new DeltaChain({ generation: 0, position: { a: 5, b: 3 }, gaps: {}, ...setOf({ one: '1', two: '1' }) });
  const leaving = chain();
  expect(leaving.accept(part(delta('s', {}, { a: 5 }, baseOf({ one: '1' }, ['one']))))).toBe('apply');
  expect(leaving.state.position).toEqual({ a: 5 });
  // Named, and nothing of it was read.
  const unread = part(delta('s', { b: 0 }, { a: 5, b: 0 }, baseOf({ one: '1' }, ['one'])));
  expect(chain().accept(unread)).toBe('refuse');
  const same = part(delta('s', {}, { a: 9 }, baseOf({ one: '1', two: '1' }, [])));
  expect(chain().accept(same)).toBe('refuse');
});

test('a trimmed log may begin with a base that keeps cubes', () => {
  const chain = new DeltaChain('trimmed');
  expect(chain.accept(part(delta('s', {}, { a: 5 }, baseOf({ one: '1', two: '1' }, ['one']))))).toBe('apply');
  expect(chain.state).toMatchObject({ position: { a: 5 }, ...setOf({ one: '1', two: '1' }) });
});

test('a base replaces everything before it, and a base behind the chain is refused', () => {
  const chain = new DeltaChain();
  chain.accept(part(delta('s', {}, { a: 5 })));
  const base = { kind: 'base' as const, cubeSet: 'new' };
  expect(chain.accept(part(delta('s', {}, { a: 4 }, base)))).toBe('refuse');
  expect(chain.accept(part(delta('s', {}, { a: 5 }, base)))).toBe('apply');
  expect(chain.state).toMatchObject({ cubeSet: 'new', position: { a: 5 } });
  expect(chain.accept(part(delta('s', { a: 5 }, { a: 6 })))).toBe('refuse');
  expect(chain.accept(part(delta('s', { a: 5 }, { a: 6 }, { cubeSet: 'new' })))).toBe('apply');
});

test('a delta of a store with other gaps is refused, and a base sets the gaps of the chain', () => {
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
  const both: Gaps = {
    a: [
      [0, 4],
      [6, 8],
    ],
  };
  const later = part(delta('z', { a: 6 }, { a: 9 }, {}, both));
  expect(chain.accept(later)).toBe('apply');

  const trimmed = new DeltaChain('trimmed');
  expect(trimmed.accept(later)).toBe('apply');
  expect(trimmed.state).toEqual(chain.state);
});

test('a reset restarts the chain: older generations are dead, newer ones are refused until their reset', () => {
  const chain = new DeltaChain();
  chain.accept(part(delta('s', {}, { a: 5 })));
  expect(chain.accept(part(delta('n', {}, { a: 2 }, { generation: 1 })))).toBe('refuse');
  const reset = part(delta('', {}, {}, { generation: 1, kind: 'reset' }));
  expect(verdicts(chain, reset, reset)).toEqual(['apply', 'skip']);
  expect(chain.state.position).toEqual({});
  expect(chain.accept(part(delta('s', { a: 5 }, { a: 6 })))).toBe('dead');
  expect(chain.accept(part(delta('n', {}, { a: 2 }, { generation: 1 })))).toBe('apply');
});

test('a delta is applied when its last part follows all its other parts', () => {
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

test('a delta that is sent again from its first part is collected from that part', () => {
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

test('whatever arrives twice, late, in part or from another owner, the applied deltas form one chain of whole deltas', () => {
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

test('an outbox that is sent completely brings the chain to its end, whatever the store sent before', () => {
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
