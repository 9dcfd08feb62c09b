/** What an owner does with a store, by a table of the store's position, the published position and the outbox. */
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { type Plan, planShard } from '../../processors/plan.ts';
import { type ChainState, DeltaChain } from '../../topics/delta-chain.ts';
import { type DeltaHeader, type DeltaKind, toOf } from '../../topics/delta-wire.ts';
import { type Gaps, notAfter, type Position, samePosition } from '../../topics/position.ts';
import { deltaHeader } from '../support/deltas.ts';

type Entry = { number: number; header: DeltaHeader };

const entry = (
  number: number,
  from: Position,
  to: Position,
  kind: DeltaKind = 'delta',
  gaps: Gaps = {},
): Entry => ({ number, header: deltaHeader(from, to, { cubeSet: 'now', kind }, gaps) });

const published = (position: Position, cubeSet = 'now'): ChainState => ({
  generation: 0,
  position,
  gaps: {},
  cubeSet,
});
const nothing = published({}, '');

const table: [string, Position, Entry[], ChainState, Partial<Plan>][] = [
  ['a new store and nothing published: begin', {}, [], nothing, { kind: 'continue', publish: [] }],
  [
    'the store stands at the published position',
    { a: 5 },
    [],
    published({ a: 5 }),
    { kind: 'continue', publish: [] },
  ],
  [
    'an outbox that is published already is not published again',
    { a: 5 },
    [entry(1, {}, { a: 3 }), entry(2, { a: 3 }, { a: 5 })],
    published({ a: 5 }),
    { kind: 'continue', publish: [] },
  ],
  [
    'the outbox leads from the published position to the store',
    { a: 5, b: 2 },
    [entry(7, { a: 3 }, { a: 5 }), entry(8, { a: 5 }, { a: 5, b: 2 })],
    published({ a: 3 }),
    { kind: 'continue', publish: [7, 8] },
  ],
  [
    'only the rest of a half published outbox',
    { a: 9 },
    [entry(7, { a: 3 }, { a: 5 }), entry(8, { a: 5 }, { a: 9 })],
    published({ a: 5 }),
    { kind: 'continue', publish: [8] },
  ],
  [
    'the first delta of a shard',
    { a: 5 },
    [entry(1, {}, { a: 5 })],
    nothing,
    { kind: 'continue', publish: [1] },
  ],
  [
    'a base in the outbox that was not published',
    { a: 5 },
    [entry(4, {}, { a: 5 }, 'base')],
    nothing,
    { kind: 'continue', publish: [4] },
  ],
  ['the store is behind', { a: 3 }, [], published({ a: 5 }), { kind: 'catch-up', to: { a: 5 } }],
  ['a new store, and others have published', {}, [], published({ a: 5 }), { kind: 'catch-up', to: { a: 5 } }],
  [
    'the store is behind in one topic',
    { a: 5, b: 1 },
    [],
    published({ a: 5, b: 2 }),
    { kind: 'catch-up', to: { a: 5, b: 2 } },
  ],
  [
    'the store is behind, whatever its outbox holds',
    { a: 3 },
    [entry(2, { a: 1 }, { a: 3 })],
    published({ a: 5 }),
    { kind: 'catch-up', to: { a: 5 } },
  ],
  ['the store is ahead and its outbox is gone', { a: 9 }, [], published({ a: 5 }), { kind: 'rebuild' }],
  [
    'the outbox does not start where the published position is',
    { a: 9 },
    [entry(3, { a: 6 }, { a: 9 })],
    published({ a: 5 }),
    { kind: 'rebuild' },
  ],
  [
    'the outbox has a gap',
    { a: 9 },
    [entry(3, { a: 5 }, { a: 6 }), entry(4, { a: 7 }, { a: 9 })],
    published({ a: 5 }),
    { kind: 'rebuild' },
  ],
  [
    'the outbox ends before the store',
    { a: 9 },
    [entry(3, { a: 5 }, { a: 8 })],
    published({ a: 5 }),
    { kind: 'rebuild' },
  ],
  [
    'ahead in one topic and behind in another: the paths have split',
    { a: 9, b: 1 },
    [entry(3, { a: 5, b: 1 }, { a: 9, b: 1 })],
    published({ a: 5, b: 2 }),
    { kind: 'rebuild' },
  ],
  ['ahead, and no delta of the shard is left', { a: 9 }, [], nothing, { kind: 'base' }],
  ['the published cubes are of another cube set', { a: 5 }, [], published({ a: 5 }, 'old'), { kind: 'base' }],
  [
    'behind cubes of another cube set: first to exactly their position',
    { a: 3 },
    [],
    published({ a: 5 }, 'old'),
    { kind: 'catch-up', to: { a: 5 } },
  ],
  [
    'ahead of cubes of another cube set, though the outbox leads here',
    { a: 9 },
    [entry(3, { a: 5 }, { a: 9 })],
    published({ a: 5 }, 'old'),
    { kind: 'rebuild' },
  ],
];

test('cubes that are published in the same version are kept, and a topic that no cube reads is passed over', () => {
  const state = { gaps: {}, cubeSet: 'one:1 three:1 two:2', topics: ['a'] };
  const chain = published({ a: 5, b: 3 }, 'one:1 two:1');
  expect(planShard({ ...state, position: { a: 5, b: 2 } }, [], chain)).toMatchObject({
    kind: 'base',
    keeps: ['one'],
  });
  expect(planShard({ ...state, position: { a: 4, b: 3 } }, [], chain)).toEqual({
    kind: 'catch-up',
    to: { a: 5 },
  });
  const left = { ...entry(1, { a: 5, b: 3 }, { a: 6, b: 3 }) };
  const outbox = [{ ...left, header: { ...left.header, cubeSet: 'one:1 two:1' } }];
  expect(planShard({ ...state, position: { a: 6, b: 3 } }, outbox, chain)).toEqual({
    kind: 'continue',
    publish: [1],
  });
});

/** Position and gaps of the store, its outbox, position and gaps of the published deltas. */
const losses: [string, Position, Gaps, Entry[], ChainState, Gaps, Partial<Plan>][] = [
  [
    'what is published has lost the same',
    { a: 5 },
    { a: [[0, 2]] },
    [],
    published({ a: 5 }),
    { a: [[0, 2]] },
    { kind: 'continue', publish: [] },
  ],
  ['it holds more than the store', { a: 5 }, { a: [[0, 2]] }, [], published({ a: 5 }), {}, { kind: 'base' }],
  ['it holds less than the store', { a: 5 }, {}, [], published({ a: 5 }), { a: [[0, 2]] }, { kind: 'base' }],
  [
    'the store is behind: what it has lost is seen at the end of catching up',
    { a: 3 },
    { a: [[0, 2]] },
    [],
    published({ a: 5 }),
    {},
    { kind: 'catch-up', to: { a: 5 } },
  ],
  [
    'a loss behind what is published, which the outbox passes',
    { a: 9 },
    { a: [[5, 7]] },
    [entry(3, { a: 5 }, { a: 9 }, 'delta', { a: [[5, 7]] })],
    published({ a: 5 }),
    {},
    { kind: 'continue', publish: [3] },
  ],
  [
    'the outbox leads here from a state that is not the published one',
    { a: 9 },
    { a: [[0, 2]] },
    [entry(3, { a: 5 }, { a: 9 }, 'delta', { a: [[0, 2]] })],
    published({ a: 5 }),
    {},
    { kind: 'base' },
  ],
  [
    'the loss began before the published position and ends behind it',
    { a: 9 },
    { a: [[0, 9]] },
    [],
    published({ a: 5 }),
    {},
    { kind: 'base' },
  ],
  [
    'the loss was passed while catching up in another topic, silently',
    { a: 9, b: 2 },
    { a: [[5, 9]] },
    [],
    published({ a: 5, b: 2 }),
    {},
    { kind: 'base' },
  ],
  [
    'and not all is caught up with',
    { a: 9, b: 1 },
    { a: [[5, 9]] },
    [],
    published({ a: 5, b: 2 }),
    {},
    { kind: 'rebuild' },
  ],
];

test.each(losses)('%s', (_, position, gaps, outbox, chain, lost, plan) => {
  expect(
    planShard({ position, gaps, cubeSet: 'now', topics: ['a', 'b'] }, outbox, { ...chain, gaps: lost }),
  ).toMatchObject(plan);
});

test.each(table)('%s', (_, position, outbox, chain, plan) => {
  expect(planShard({ position, gaps: {}, cubeSet: 'now', topics: ['a', 'b'] }, outbox, chain)).toMatchObject(
    plan,
  );
});

test('after the planned deltas the chain ends at the position of the store; catching up never moves backwards', () => {
  const step = fc.tuple(fc.nat(2), fc.nat(2));
  const steps = fc.array(step, { maxLength: 6 });
  fc.assert(
    fc.property(steps, fc.nat(6), fc.nat(6), fc.nat(3), (moves, at, kept, lost) => {
      // A store that went through `moves`; its chain is published up to `at`, its outbox holds what comes after `kept`.
      let position: Position = {};
      const entries = moves.map(([a, b], i) => {
        const to = { a: (position.a ?? 0) + a, b: (position.b ?? 0) + b };
        const each = entry(i + 1, position, to);
        position = to;
        return each;
      });
      const chain = new DeltaChain();
      for (const { header } of entries.slice(0, at)) chain.accept({ ...header, part: 1, parts: 1 });
      const before = chain.state.position;
      const outbox = entries.slice(kept).filter((_, i) => i + 1 !== lost);
      const plan = planShard({ position, gaps: {}, cubeSet: 'now', topics: ['a', 'b'] }, outbox, chain.state);
      if (plan.kind === 'continue') {
        for (const { number, header } of outbox) {
          if (plan.publish.includes(number)) chain.accept({ ...header, part: 1, parts: 1 });
        }
        expect(samePosition(chain.state.position, position)).toBe(true);
      } else if (plan.kind === 'catch-up') {
        expect(notAfter(position, plan.to)).toBe(true);
      } else {
        // Never while the whole way from the published position to the store is in the outbox.
        const whole = entries.filter(({ header }) => !notAfter(toOf(header), before));
        expect(whole.every((each) => outbox.includes(each))).toBe(false);
      }
    }),
  );
});
