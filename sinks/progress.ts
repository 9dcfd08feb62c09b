/** Decides when a snapshot may follow another: it must hold more, and nothing less. Pure functions. */
import { type GoldTable, tableFingerprint } from '../tables/gold-table.ts';
import { type Gaps, nextIn, notAfter, type Position, sameGaps } from '../topics/position.ts';
import type { Manifest } from './gold/manifest.ts';
import type { PeopleState, ShardState } from './shard-state.ts';

/** The state of the sink. */
export interface Held {
  readonly shards: ReadonlyMap<number, ShardState>;
  readonly people: ReadonlyMap<number, Pick<PeopleState, 'partition' | 'next'>>;
  readonly peopleTopic: string;
}

/** The newest snapshot. */
export type Current = Pick<Manifest, 'input' | 'shards'> | undefined;

/**
 * The shards whose newest delta is of other cubes than those that this sink declares. Its tables would lack them, or be computed
 * from another contribution than the one that they name.
 * @param cubeSet fingerprint of the declared cubes
 */
export function shardsOfOtherCubes(shards: Held['shards'], cubeSet: string): number[] {
  return [...shards.values()]
    .filter(({ chain }) => chain.cubeSet !== '' && chain.cubeSet !== cubeSet)
    .map(({ shard }) => shard);
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
export type EndOf = (topic: string, partition: number) => number;

/**
 * Whether the sink holds everything that CURRENT holds and that a reset asked for: a snapshot never goes back. After a
 * reset the sources may be shorter than CURRENT is: then all that they hold is enough. The mark alone is not, because the
 * mark of a reset that was killed may arrive long after it, when CURRENT has moved on.
 */
export function hasReached({ shards, people, peopleTopic }: Held, current: Current, endOf: EndOf): boolean {
  const nextPerson = (partition: number) => people.get(partition)?.next ?? 0;
  for (const { shard, chain, heldUntil } of shards.values()) {
    for (const [topic, end] of Object.entries(heldUntil)) {
      const next = topic === peopleTopic ? nextPerson(shard) : nextIn(chain.position, topic);
      if (next < end) return false;
    }
  }
  // While members of two versions take turns, a table would hold the cubes of some shards only.
  const cubeSets = new Set([...shards.values()].map(({ chain }) => chain.cubeSet));
  cubeSets.delete('');
  if (cubeSets.size > 1) return false;
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
        Object.entries(sources).map(([topic, { next }]) => [topic, wanted(topic, Number(shard), next)]),
      );
      return notAfter(position, state.chain.position);
    })
  );
}
