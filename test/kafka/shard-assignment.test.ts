/** Which member gets which shard: properties of the pure function over any claims. */
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { type Claim, dealShards, electOne } from '../../kafka/shard-assignment.ts';

const claims: fc.Arbitrary<Claim[]> = fc.uniqueArray(
  fc.record({
    memberId: fc.string({ minLength: 1, maxLength: 4 }),
    freshness: fc
      .array(fc.tuple(fc.nat(15), fc.nat(5)))
      .map((entries): ReadonlyMap<number, number> => new Map(entries)),
  }),
  { minLength: 1, maxLength: 6, selector: ({ memberId }) => memberId },
);
const count = fc.integer({ min: 0, max: 12 });

const claimsOf = (stores: Record<string, Record<number, number>>): Claim[] =>
  Object.entries(stores).map(([memberId, shards]) => ({
    memberId,
    freshness: new Map(Object.entries(shards).map(([shard, records]) => [Number(shard), records])),
  }));

test('every shard has exactly one owner, and no member has two shards more than another', () => {
  fc.assert(
    fc.property(count, claims, (shards, members) => {
      const owners = dealShards(shards, members);
      expect(owners).toHaveLength(shards);
      const held = members.map(({ memberId }) => owners.filter((owner) => owner === memberId).length);
      expect(held.reduce((sum, each) => sum + each, 0)).toBe(shards);
      expect(Math.max(...held) - Math.min(...held)).toBeLessThanOrEqual(1);
    }),
  );
});

test('the order of the claims and of what they name does not matter', () => {
  fc.assert(
    fc.property(
      count,
      claims.chain((members) =>
        fc.tuple(fc.constant(members), fc.shuffledSubarray(members, { minLength: members.length })),
      ),
      (shards, [members, shuffled]) => {
        const turned = shuffled.map(({ memberId, freshness }) => ({
          memberId,
          freshness: new Map([...freshness].reverse()),
        }));
        expect(dealShards(shards, turned)).toEqual(dealShards(shards, members));
      },
    ),
  );
});

test('a shard goes to the freshest store, unless its member already has its share', () => {
  fc.assert(
    fc.property(count, claims, (shards, members) => {
      const owners = dealShards(shards, members);
      const heldBy = (memberId: string) => owners.filter((owner) => owner === memberId).length;
      owners.forEach((owner, shard) => {
        const own = members.find(({ memberId }) => memberId === owner)?.freshness.get(shard) ?? -1;
        for (const { memberId, freshness } of members) {
          if ((freshness.get(shard) ?? -1) <= own) continue;
          // One that was passed over holds its full share, of shards that it has stores of as fresh as this one.
          expect(heldBy(memberId)).toBeGreaterThanOrEqual(Math.floor(shards / members.length));
          const others = owners.flatMap((name, other) => (name === memberId ? [other] : []));
          for (const other of others) {
            expect(freshness.get(other) ?? -1).toBeGreaterThanOrEqual(freshness.get(shard) as number);
          }
        }
      });
    }),
  );
});

test('members keep their shards when they rejoin', () => {
  fc.assert(
    fc.property(count, claims, (shards, members) => {
      const owners = dealShards(shards, members);
      const again = members.map(({ memberId }) => ({
        memberId,
        freshness: new Map(
          owners.flatMap((owner, shard) => (owner === memberId ? [[shard, 1] as const] : [])),
        ),
      }));
      expect(dealShards(shards, again)).toEqual(owners);
    }),
  );
});

test('a member that joins takes only as many shards as evenness asks for', () => {
  const stores = { a: { 0: 100, 1: 100, 2: 100, 3: 100 } };
  expect(dealShards(4, claimsOf(stores))).toEqual(['a', 'a', 'a', 'a']);
  const joined = dealShards(4, claimsOf({ ...stores, b: {} }));
  expect(joined.filter((owner) => owner === 'a')).toHaveLength(2);
  expect(joined.filter((owner) => owner === 'b')).toHaveLength(2);
});

test('of two stores of a shard the one that is further is used', () => {
  expect(dealShards(2, claimsOf({ a: { 0: 10, 1: 90 }, b: { 0: 20, 1: 80 } }))).toEqual(['b', 'a']);
  expect(dealShards(2, claimsOf({ a: { 0: 10 }, b: { 0: 20, 1: 80 } }))).toEqual(['a', 'b']);
});

test('claims of shards that do not exist are passed over', () => {
  expect(dealShards(1, claimsOf({ a: { 7: 1_000 }, b: { 0: 1 } }))).toEqual(['b']);
});

const declaring = (memberId: string, text: string, sinceMs: number, holds = false): Claim => ({
  memberId,
  freshness: new Map(),
  declared: { text, sinceMs, holds },
});
const elected = (...members: Claim[]) => electOne(members).map(({ memberId }) => memberId);

test('members that declare something else take no shards while one that holds some is there', () => {
  const [old, other] = [declaring('a', 'old', 1, true), declaring('b', 'old', 5)];
  expect(elected(old, other, declaring('c', 'new', 9))).toEqual(['a', 'b']);
  // The last holder has left: the member that started last decides.
  expect(elected(other, declaring('c', 'new', 9))).toEqual(['c']);
  expect(elected(declaring('c', 'new', 9, true), declaring('d', 'old', 20))).toEqual(['c']);
  // One that was away holds what the group has dealt again.
  expect(elected(old, declaring('c', 'new', 9, true))).toEqual(['c']);
});

test('members of one set are elected in any order, and members of a version that declares nothing among themselves', () => {
  const claim = fc.record({
    memberId: fc.string({ minLength: 1, maxLength: 3 }),
    text: fc.constantFrom('x', 'y', 'z'),
    sinceMs: fc.nat(3),
    holds: fc.boolean(),
  });
  fc.assert(
    fc.property(fc.uniqueArray(claim, { minLength: 1, selector: ({ memberId }) => memberId }), (all) => {
      const members = all.map(({ memberId, text, sinceMs, holds }) =>
        declaring(memberId, text, sinceMs, holds),
      );
      const chosen = electOne(members);
      expect(new Set(chosen.map(({ declared }) => declared?.text)).size).toBe(1);
      expect(new Set(electOne([...members].reverse()))).toEqual(new Set(chosen));
    }),
  );
  const silent = ['a', 'b'].map((memberId): Claim => ({ memberId, freshness: new Map() }));
  expect(elected(...silent)).toEqual(['a', 'b']);
});
