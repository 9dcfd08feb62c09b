/**
 * Assigns whole shards to the members of a group: partition p of every topic goes to one member. kafkajs' own assigner
 * spreads partitions one by one, which would split a shard.
 */
import kafkajs, { type PartitionAssigner } from 'kafkajs';

const { MemberAssignment, MemberMetadata } = kafkajs.AssignerProtocol;

/**
 * What a member declares when it joins. A group deals its shards only to members that declare the same text (`electOne`), here
 * that of their cubes; the others wait.
 */
interface Declared {
  readonly text: string;
  /** When the process started, in milliseconds since 1970. */
  readonly sinceMs: number;
  /** Whether the group has dealt it shards. */
  readonly holds: boolean;
}

/** What a member reports when it joins: the position of each shard of which it has a store. */
export type Freshness = ReadonlyMap<number, number>;

export interface ShardAssignment {
  readonly topics: readonly string[];
  /** `shards` spreads shards evenly and prefers the freshest store; `single` gives all to one member. */
  readonly assignment: 'shards' | 'single';
  readonly freshness: () => Freshness;
  /** What this member declares at the moment. Members without it declare the same. */
  readonly declared?: () => Declared;
}

/** Name of the entry of the user data with what a member declares. Earlier versions ignore it. */
const declaredEntry = 'declared';

/** An assignor for kafkajs: the leader of the group gives each shard, with its partition of every topic, to one member. */
export function wholeShards(options: ShardAssignment): PartitionAssigner {
  const { topics, assignment, freshness, declared } = options;
  const name = assignment === 'shards' ? 'reelflow-shards' : 'reelflow-single';
  return ({ cluster }) => ({
    name,
    version: 1,
    protocol: () => ({
      name,
      metadata: MemberMetadata.encode({
        version: 1,
        topics: [...topics],
        userData: Buffer.from(
          JSON.stringify([...freshness(), ...(declared === undefined ? [] : [[declaredEntry, declared()]])]),
        ),
      }),
    }),
    assign: async ({ members }) => {
      const count = Math.max(...topics.map((topic) => cluster.findTopicPartitionMetadata(topic).length));
      const all = members.map(({ memberId, memberMetadata }): Claim => {
        const entries = entriesOf(MemberMetadata.decode(memberMetadata)?.userData);
        return { memberId, freshness: freshnessOf(entries), declared: declaredIn(entries) };
      });
      const claims = electOne(all);
      const owners = assignment === 'shards' ? dealShards(count, claims) : dealAllToOne(count, claims);
      return members.map(({ memberId, memberMetadata }) => {
        const own = owners.flatMap((owner, shard) => (owner === memberId ? [shard] : []));
        // A member that has to wait gets no topics; one without a shard gets topics without partitions. Members with other cubes
        // may read other topics than the leader, which knows the partitions of its own topics only.
        const isElected = claims.some((claim) => claim.memberId === memberId);
        const given = isElected ? (MemberMetadata.decode(memberMetadata)?.topics ?? topics) : [];
        return {
          memberId,
          memberAssignment: MemberAssignment.encode({
            version: 1,
            userData: Buffer.alloc(0),
            assignment: Object.fromEntries(
              given.map((topic) => {
                const partitions = cluster.findTopicPartitionMetadata(topic).length || count;
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
  readonly declared?: Declared | undefined;
}

type Named = Pick<Claim, 'memberId'>;
const byName = (a: Named, b: Named) => (a.memberId < b.memberId ? -1 : 1);

/**
 * The members that take shards: all with the declaration of a member that holds shards. So a member with other cubes waits until
 * the last holder has left, and a rolling restart changes the cubes once, in whichever order members leave and join. Where
 * holders differ, or none exists, the member that started last decides. Pure and independent of the order of the claims.
 */
export function electOne(claims: readonly Claim[]): readonly Claim[] {
  const holders = claims.filter(({ declared }) => declared?.holds === true);
  const [elected] = [...(holders.length > 0 ? holders : claims)].sort(
    (a, b) => (b.declared?.sinceMs ?? 0) - (a.declared?.sinceMs ?? 0) || byName(a, b),
  );
  return claims.filter(({ declared }) => declared?.text === elected?.declared?.text);
}

/**
 * Spreads shards over members: their counts differ by at most one, and within that bound a shard goes to the member with
 * the furthest store of it. Pure and independent of the order of the claims.
 * @returns the member of each shard
 */
export function dealShards(count: number, claims: readonly Claim[]): string[] {
  const members = [...claims].sort(byName);
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
    .sort((a, b) => b.applied - a.applied || a.shard - b.shard || byName(a, b));
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
  const [first] = [...claims].sort((a, b) => b.freshness.size - a.freshness.size || byName(a, b));
  return new Array(count).fill(first?.memberId);
}

type Entry = readonly unknown[];

/** The entries of a member's user data; none in the data of another program. */
function entriesOf(userData: Buffer | undefined): readonly Entry[] {
  try {
    const entries: unknown = JSON.parse(userData?.toString() ?? '');
    return Array.isArray(entries) ? entries.filter(Array.isArray) : [];
  } catch {
    return [];
  }
}

function declaredIn(entries: readonly Entry[]): Declared | undefined {
  const found = entries.find(([name]) => name === declaredEntry)?.[1] as Partial<Declared> | null | undefined;
  const { text, sinceMs, holds } = found ?? {};
  if (typeof text !== 'string' || typeof sinceMs !== 'number') return undefined;
  return { text, sinceMs, holds: holds === true };
}

function freshnessOf(entries: readonly Entry[]): Freshness {
  return new Map(
    entries.filter(
      (entry): entry is [number, number] => Number.isInteger(entry[0]) && Number.isFinite(entry[1]),
    ),
  );
}
