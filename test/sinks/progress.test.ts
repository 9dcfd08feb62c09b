/** When a snapshot may follow another, by a table: what the sink holds, and what CURRENT holds. */
import { describe, expect, test } from 'vitest';
import { type Current, type Held, hasReached, isAhead, otherCubes } from '../../sinks/progress.ts';
import type { Gaps, Position } from '../../topics/position.ts';

const peopleTopic = 'names';

interface Shard {
  readonly generation?: number;
  readonly position: Position;
  readonly heldUntil?: Position;
  readonly gaps?: Gaps;
}

/** What the sink holds: shards by number, and the next offset of each partition of the names. */
const held = (shards: readonly Shard[], names: readonly number[] = []): Held => ({
  shards: new Map(
    shards.map(({ generation = 0, position, heldUntil = {}, gaps = {} }, shard) => [
      shard,
      {
        shard,
        shards: shards.length,
        chain: { generation, position, gaps, cubeSet: 'cubes' },
        next: 9,
        lastDelta: 8,
        counts: {},
        heldUntil,
      },
    ]),
  ),
  people: new Map(names.map((next, partition) => [partition, { partition, next }])),
  peopleTopic,
});

const current = (shards: readonly Shard[], names: readonly number[] = []): Current => {
  const input: Record<string, Record<string, [number, number]>> = {};
  const none = { applied: 0, duplicate: 0, rejected: 0 };
  for (const [shard, { position }] of shards.entries()) {
    for (const [topic, next] of Object.entries(position))
      input[topic] = { ...input[topic], [shard]: [0, next] };
  }
  if (names.length > 0) {
    input[peopleTopic] = Object.fromEntries(names.map((next, partition) => [partition, [0, next]]));
  }
  const states = shards.map(({ generation = 0, position, gaps = {} }, shard) => [
    shard,
    {
      generation,
      cubeSet: 'cubes',
      shards: shards.length,
      lastDelta: 8,
      sources: Object.fromEntries(
        Object.entries(position).map(([topic, next]) => [
          topic,
          { ...none, next, gaps: [...(gaps[topic] ?? [])].map(([from, to]): [number, number] => [from, to]) },
        ]),
      ),
    },
  ]);
  return { input, shards: Object.fromEntries(states) };
};

describe('the sink holds something that CURRENT does not hold', () => {
  const table: [string, Held, Current, boolean][] = [
    ['there is no snapshot', held([{ position: {} }]), undefined, true],
    ['all is the same', held([{ position: { a: 5 } }], [3]), current([{ position: { a: 5 } }], [3]), false],
    ['a shard is further', held([{ position: { a: 6 } }]), current([{ position: { a: 5 } }]), true],
    [
      'one of two shards is further',
      held([{ position: { a: 5 } }, { position: { a: 1 } }]),
      current([{ position: { a: 5 } }]),
      true,
    ],
    ['a topic is new', held([{ position: { a: 5, b: 1 } }]), current([{ position: { a: 5 } }]), true],
    ['names are further', held([{ position: { a: 5 } }], [4]), current([{ position: { a: 5 } }], [3]), true],
    [
      'only the generation is another',
      held([{ generation: 1, position: { a: 5 } }]),
      current([{ position: { a: 5 } }]),
      true,
    ],
    [
      'the same offsets, and others are lost',
      held([{ position: { a: 5 }, gaps: { a: [[0, 2]] } }]),
      current([{ position: { a: 5 } }]),
      true,
    ],
    [
      'the same offsets, and the same are lost',
      held([{ position: { a: 5 }, gaps: { a: [[0, 2]] } }]),
      current([{ position: { a: 5 }, gaps: { a: [[0, 2]] } }]),
      false,
    ],
    ['it is behind', held([{ position: { a: 4 } }], [2]), current([{ position: { a: 5 } }], [3]), false],
  ];
  test.for(table)('%s', ([, has, newest, expected]) => {
    expect(isAhead(has, newest)).toBe(expected);
  });
});

describe('the sink holds everything that CURRENT holds or a reset asked for', () => {
  const table: [string, Held, Current, boolean][] = [
    ['there is no snapshot', held([{ position: {} }]), undefined, true],
    ['all is the same', held([{ position: { a: 5 } }], [3]), current([{ position: { a: 5 } }], [3]), true],
    ['a shard is behind', held([{ position: { a: 4, b: 9 } }]), current([{ position: { a: 5 } }]), false],
    [
      'a shard is missing',
      held([{ position: { a: 9 } }]),
      current([{ position: { a: 5 } }, { position: { a: 5 } }]),
      false,
    ],
    [
      'a partition of the names is behind',
      held([{ position: { a: 5 } }], [3, 2]),
      current([{ position: { a: 5 } }], [3, 3]),
      false,
    ],
    ['names are missing', held([{ position: { a: 5 } }]), current([{ position: { a: 5 } }], [3]), false],
    [
      'a shard was reset, and nothing was there',
      held([{ generation: 1, position: {} }]),
      current([{ position: { a: 5 } }], [3]),
      true,
    ],
    [
      'a reset asked for more',
      held([{ generation: 1, position: { a: 6 }, heldUntil: { a: 7 } }]),
      current([{ position: { a: 5 } }]),
      false,
    ],
    [
      'a reset asked for as much',
      held([{ generation: 1, position: { a: 7 }, heldUntil: { a: 7 } }]),
      current([{ position: { a: 5 } }]),
      true,
    ],
    [
      'a reset asked for names',
      held([{ generation: 1, position: { a: 7 }, heldUntil: { a: 7, [peopleTopic]: 4 } }], [3]),
      current([{ position: { a: 5 } }], [9]),
      false,
    ],
    [
      'a reset asked for as many names',
      held([{ generation: 1, position: { a: 7 }, heldUntil: { a: 7, [peopleTopic]: 9 } }], [9]),
      current([{ position: { a: 5 } }], [9]),
      true,
    ],
    // The mark of a reset that was killed may arrive when CURRENT is behind what it names.
    [
      'a late mark asked for less than CURRENT holds',
      held([{ generation: 1, position: { a: 4 }, heldUntil: { a: 3 } }]),
      current([{ position: { a: 5 } }]),
      false,
    ],
    [
      'a late mark asked for fewer names than CURRENT holds',
      held([{ generation: 1, position: { a: 5 }, heldUntil: { a: 3, [peopleTopic]: 1 } }], [2]),
      current([{ position: { a: 5 } }], [3]),
      false,
    ],
    [
      'the source holds less than CURRENT',
      held([{ generation: 1, position: { short: 4 }, heldUntil: { short: 4 } }]),
      current([{ position: { short: 9 } }]),
      true,
    ],
    [
      'the source holds less than CURRENT, and more than the sink',
      held([{ generation: 1, position: { short: 3 }, heldUntil: { short: 2 } }]),
      current([{ position: { short: 9 } }]),
      false,
    ],
    [
      'cubes do not read a topic any more',
      held([{ generation: 1, position: { a: 5 }, heldUntil: { a: 5 } }]),
      current([{ position: { a: 5, b: 5 } }]),
      true,
    ],
    [
      'a reset asked before the first snapshot',
      held([{ generation: 1, position: {}, heldUntil: { a: 1 } }]),
      undefined,
      false,
    ],
    [
      'one shard was reset, the other is behind',
      held([{ generation: 1, position: {} }, { position: { a: 4 } }]),
      current([{ position: { a: 5 } }, { position: { a: 5 } }]),
      false,
    ],
  ];
  test.for(table)('%s', ([, has, newest, expected]) => {
    expect(hasReached(has, newest, (topic) => (topic === 'short' ? 4 : 100))).toBe(expected);
  });
});

test('a cube is another on shards that send another version or none, but not after a reset mark', () => {
  const { shards } = held([{ position: { a: 1 } }, { position: { a: 1 } }, { position: {} }]);
  const sets = ['one:1 two:1', 'one:1 two:2', ''];
  const states = new Map(
    [...shards].map(([shard, state]) => [
      shard,
      { ...state, chain: { ...state.chain, cubeSet: sets[shard] as string } },
    ]),
  );
  const declared = new Map(Object.entries({ one: '1', two: '1', three: '1' }));
  expect([...otherCubes(states, declared)]).toEqual([
    ['three', [0, 1]],
    ['two', [1]],
  ]);
  expect([...otherCubes(states, new Map([['one', '1']]))]).toEqual([]);
});

test('a topic that left the chain with its cubes holds no snapshot back, and any other does', () => {
  const newest = current([{ position: { a: 5, b: 5 } }]);
  const reached = (position: Position, topics: string[]) =>
    hasReached({ ...held([{ position }]), topics: new Set(topics) }, newest, () => 100);
  expect(reached({ a: 5 }, ['a'])).toBe(true);
  expect(reached({ a: 5 }, ['a', 'b'])).toBe(false);
  expect(reached({ a: 5, b: 4 }, ['a'])).toBe(false);
  const marked = held([{ generation: 1, position: { a: 5 }, heldUntil: { a: 5, b: 5 } }]);
  expect(hasReached({ ...marked, topics: new Set(['a']) }, newest, () => 100)).toBe(true);
  expect(hasReached({ ...marked, topics: new Set(['a', 'b']) }, newest, () => 100)).toBe(false);
});
