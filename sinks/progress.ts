/** Decides when a snapshot may follow another: it must hold more, and nothing less. Pure functions. */
import { type GoldTable, tableFingerprint } from '../tables/gold-table.ts';
import { type CubeVersions, versionsIn } from '../topics/cube-versions.ts';
import type { ChainState } from '../topics/delta-chain.ts';
import { type Gaps, nextIn, notAfter, type Position, sameGaps } from '../topics/position.ts';
import type { Manifest } from './gold/manifest.ts';
import type { PeopleState, ShardState } from './shard-state.ts';

/** The state of the sink. */
export interface Held {
  readonly shards: ReadonlyMap<number, ShardState>;
  readonly people: ReadonlyMap<number, Pick<PeopleState, 'partition' | 'next'>>;
  readonly peopleTopic: string;
  /** Source topics that the tables need. CURRENT may hold more of another one, once it has left the chain. Default: all. */
  readonly topics?: ReadonlySet<string>;
}

/** The newest snapshot. */
export type Current = Pick<Manifest, 'input' | 'shards'> | undefined;

/**
 * The declared cubes that some shards have in another version or not at all, with these shards. A table over such a cube would
 * lack rows, or be computed from another contribution than the one that it names.
 */
export function otherCubes(shards: Held['shards'], declared: CubeVersions): Map<string, number[]> {
  const other = new Map<string, number[]>();
  for (const { shard, chain } of shards.values()) {
    // A shard that was reset has no rows, which is right for every cube.
    if (chain.cubeSet === '') continue;
    const held = versionsIn(chain.cubeSet);
    for (const [name, version] of declared) {
      if (held.get(name) !== version) other.set(name, [...(other.get(name) ?? []), shard]);
    }
  }
  return other;
}

/** Whether a snapshot would have other tables than CURRENT, or the same ones computed in another way. */
export function declaresOtherTables(
  tables: readonly GoldTable[],
  current: Pick<Manifest, 'tables' | 'leftOut'> | undefined,
): boolean {
  if (current === undefined) return true;
  const { tables: held, leftOut = {} } = current;
  const declared = new Set(tables.map(({ name }) => name));
  return (
    Object.keys(held).some((name) => !declared.has(name)) ||
    tables.some((table) => {
      const of = held[table.name];
      // A table that failed would fail again on the same rows.
      if (of === undefined) return leftOut[table.name] === undefined;
      return of.declaration !== undefined && of.declaration !== tableFingerprint(table);
    })
  );
}

/** Whether the sink holds something that CURRENT does not hold. */
export function isAhead({ shards, people, peopleTopic }: Held, current: Current): boolean {
  if (current === undefined) return true;
  const end = (topic: string, partition: number) => current.input[topic]?.[partition]?.[1] ?? 0;
  return (
    [...shards.values()].some(
      ({ shard, chain }) =>
        (current.shards[shard]?.generation ?? 0) < chain.generation ||
        current.shards[shard]?.cubeSet !== chain.cubeSet ||
        Object.entries(chain.position).some(([topic, next]) => end(topic, shard) < next) ||
        !sameGaps(chain.gaps, gapsIn(current, shard)),
    ) || [...people.values()].some(({ partition, next }) => end(peopleTopic, partition) < next)
  );
}

function gapsIn({ shards }: NonNullable<Current>, shard: number): Gaps {
  const sources = Object.entries(shards[shard]?.sources ?? {});
  return Object.fromEntries(sources.map(([topic, { gaps }]) => [topic, gaps]));
}

/** Present end offset of a partition of a source; 0 for a topic that does not exist any more. */
type EndOf = (topic: string, partition: number) => number;

/**
 * Whether the sink holds everything that CURRENT holds and that a reset asked for: a snapshot never goes back. After a
 * reset the sources may be shorter than CURRENT is: then all that they hold is enough. The mark alone is not, because the
 * mark of a reset that was killed may arrive long after it, when CURRENT has moved on.
 */
export function hasReached(held: Held, current: Current, endOf: EndOf): boolean {
  const { shards, people, peopleTopic, topics } = held;
  const nextPerson = (partition: number) => people.get(partition)?.next ?? 0;
  const isNeeded = (topic: string, { position }: ChainState) =>
    topics === undefined || topics.has(topic) || topic in position;
  for (const { shard, chain, heldUntil } of shards.values()) {
    for (const [topic, end] of Object.entries(heldUntil)) {
      if (topic !== peopleTopic && !isNeeded(topic, chain)) continue;
      const next = topic === peopleTopic ? nextPerson(shard) : nextIn(chain.position, topic);
      if (next < end) return false;
    }
  }
  if (current === undefined) return true;
  const isReset = (shard: number) =>
    (shards.get(shard)?.chain.generation ?? 0) > (current.shards[shard]?.generation ?? 0);
  const wanted = (topic: string, shard: number, next: number) => {
    if (!isReset(shard)) return next;
    // The mark names the topics that the cubes of the new generation read.
    return topic in (shards.get(shard)?.heldUntil ?? {}) ? Math.min(next, endOf(topic, shard)) : 0;
  };
  const hasPeople = Object.entries(current.input[peopleTopic] ?? {}).every(
    ([partition, [, end]]) => nextPerson(Number(partition)) >= wanted(peopleTopic, Number(partition), end),
  );
  return (
    hasPeople &&
    Object.entries(current.shards).every(([shard, { sources }]) => {
      const state = shards.get(Number(shard));
      if (state === undefined) return false;
      const position: Position = Object.fromEntries(
        Object.entries(sources)
          .filter(([topic]) => isNeeded(topic, state.chain))
          .map(([topic, { next }]) => [topic, wanted(topic, Number(shard), next)]),
      );
      return notAfter(position, state.chain.position);
    })
  );
}
