/**
 * Assigns whole shards to the members of a group: partition p of every topic goes to one member. kafkajs' own assigner
 * spreads partitions one by one, which would split a shard.
 */
import kafkajs, { type PartitionAssigner } from 'kafkajs';

const { MemberAssignment, MemberMetadata } = kafkajs.AssignerProtocol;

/** What a member reports when it joins: the position of each shard of which it has a store. */
export type Freshness = ReadonlyMap<number, number>;

export interface ShardAssignment {
  readonly topics: readonly string[];
  /** `shards` spreads shards evenly and prefers the freshest store; `single` gives all to one member. */
  readonly assignment: 'shards' | 'single';
  readonly freshness: () => Freshness;
}

export function wholeShards({ topics, assignment, freshness }: ShardAssignment): PartitionAssigner {
  const name = assignment === 'shards' ? 'reelflow-shards' : 'reelflow-single';
  return ({ cluster }) => ({
    name,
    version: 1,
    protocol: () => ({
      name,
      metadata: MemberMetadata.encode({
        version: 1,
        topics: [...topics],
        userData: Buffer.from(JSON.stringify([...freshness()])),
      }),
    }),
    assign: async ({ members }) => {
      const count = Math.max(...topics.map((topic) => cluster.findTopicPartitionMetadata(topic).length));
      const claims = members.map(({ memberId, memberMetadata }) => ({
        memberId,
        freshness: readFreshness(MemberMetadata.decode(memberMetadata)?.userData),
      }));
      const owners = assignment === 'shards' ? dealShards(count, claims) : dealAllToOne(count, claims);
      return members.map(({ memberId }) => {
        const own = owners.flatMap((owner, shard) => (owner === memberId ? [shard] : []));
        return {
          memberId,
          memberAssignment: MemberAssignment.encode({
            version: 1,
            userData: Buffer.alloc(0),
            assignment: Object.fromEntries(
              topics.map((topic) => {
                const partitions = cluster.findTopicPartitionMetadata(topic).length;
                return [topic, own.filter((shard) => shard < partitions)];
              }),
            ),
          }),
        };
      });
    },
  });
}

export interface Claim {
  readonly memberId: string;
  readonly freshness: Freshness;
}

/**
 * Spreads shards over members: their counts differ by at most one, and within that bound a shard goes to the member with
 * the furthest store of it. Pure and independent of the order of the claims.
 * @returns the member of each shard
 */
export function dealShards(count: number, claims: readonly Claim[]): string[] {
  const members = [...claims].sort((a, b) => (a.memberId < b.memberId ? -1 : 1));
  const least = Math.floor(count / members.length);
  let larger = count % members.length;
  const held = new Map(members.map(({ memberId }) => [memberId, 0]));
  const owners: string[] = new Array(count);
  const hasRoom = (memberId: string) => {
    const shards = held.get(memberId) ?? 0;
    return shards < least || (shards === least && larger > 0);
  };
  const give = (shard: number, memberId: string) => {
    const shards = (held.get(memberId) ?? 0) + 1;
    if (shards > least) larger -= 1;
    held.set(memberId, shards);
    owners[shard] = memberId;
  };
  const wishes = members
    .flatMap(({ memberId, freshness }) =>
      [...freshness].map(([shard, applied]) => ({ memberId, shard, applied })),
    )
    .filter(({ shard }) => shard < count)
    .sort((a, b) => b.applied - a.applied || a.shard - b.shard || (a.memberId < b.memberId ? -1 : 1));
  for (const { memberId, shard } of wishes) {
    if (owners[shard] === undefined && hasRoom(memberId)) give(shard, memberId);
  }
  for (let shard = 0; shard < count; shard++) {
    if (owners[shard] !== undefined) continue;
    const poorest = members.reduce((a, b) =>
      (held.get(b.memberId) ?? 0) < (held.get(a.memberId) ?? 0) ? b : a,
    );
    give(shard, poorest.memberId);
  }
  return owners;
}

/** Gives all shards to the first member that has a store, else to the first by name. */
function dealAllToOne(count: number, claims: readonly Claim[]): string[] {
  const [first] = [...claims].sort(
    (a, b) => b.freshness.size - a.freshness.size || (a.memberId < b.memberId ? -1 : 1),
  );
  return new Array(count).fill(first?.memberId);
}

function readFreshness(userData: Buffer | undefined): Freshness {
  try {
    const entries: unknown = JSON.parse(userData?.toString() ?? '');
    if (!Array.isArray(entries)) return new Map();
    return new Map(
      entries.filter(
        (entry): entry is [number, number] =>
          Array.isArray(entry) && Number.isInteger(entry[0]) && Number.isFinite(entry[1]),
      ),
    );
  } catch {
    return new Map();
  }
}
