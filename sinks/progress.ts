/** When a snapshot may follow another: it holds more, and nothing less. Pure. */
import { type Gaps, nextIn, notAfter, type Position, sameGaps } from '../topics/position.ts';
import type { PeopleState, ShardState } from './cube-store.ts';
import type { Manifest } from './gold/manifest.ts';

/** What the sink holds. */
export interface Held {
  readonly shards: ReadonlyMap<number, ShardState>;
  readonly names: ReadonlyMap<number, Pick<PeopleState, 'partition' | 'next'>>;
  readonly namesTopic: string;
}

/** What the newest snapshot holds. */
export type Current = Pick<Manifest, 'input' | 'shards'> | undefined;

/** Whether something is held that CURRENT does not hold. */
export function isAhead({ shards, names, namesTopic }: Held, current: Current): boolean {
  if (current === undefined) return true;
  const end = (topic: string, partition: number) => current.input[topic]?.[partition]?.[1] ?? 0;
  return (
    [...shards.values()].some(
      ({ shard, chain }) =>
        (current.shards[shard]?.generation ?? 0) < chain.generation ||
        current.shards[shard]?.cubeSet !== chain.cubeSet ||
        Object.entries(chain.position).some(([topic, next]) => end(topic, shard) < next) ||
        !sameGaps(chain.gaps, gapsIn(current, shard)),
    ) || [...names.values()].some(({ partition, next }) => end(namesTopic, partition) < next)
  );
}

function gapsIn({ shards }: NonNullable<Current>, shard: number): Gaps {
  const sources = Object.entries(shards[shard]?.sources ?? {});
  return Object.fromEntries(sources.map(([topic, { gaps }]) => [topic, gaps]));
}

/** Whether all is held that CURRENT holds, or a reset asked for: a snapshot never goes backwards. */
export function hasReached({ shards, names, namesTopic }: Held, current: Current): boolean {
  const nextName = (partition: number) => names.get(partition)?.next ?? 0;
  for (const { shard, chain, heldUntil } of shards.values()) {
    for (const [topic, end] of Object.entries(heldUntil)) {
      const next = topic === namesTopic ? nextName(shard) : nextIn(chain.position, topic);
      if (next < end) return false;
    }
  }
  // While members of two versions take turns a table would hold the cubes of some shards only.
  const cubeSets = new Set([...shards.values()].map(({ chain }) => chain.cubeSet));
  cubeSets.delete('');
  if (cubeSets.size > 1) return false;
  if (current === undefined) return true;
  // Positions of an older generation say nothing any more.
  const isReset = (shard: number) =>
    (shards.get(shard)?.chain.generation ?? 0) > (current.shards[shard]?.generation ?? 0);
  const hasNames = Object.entries(current.input[namesTopic] ?? {}).every(
    ([partition, [, end]]) => isReset(Number(partition)) || nextName(Number(partition)) >= end,
  );
  return (
    hasNames &&
    Object.entries(current.shards).every(([shard, { sources }]) => {
      const state = shards.get(Number(shard));
      if (state === undefined) return false;
      if (isReset(Number(shard))) return true;
      const position: Position = Object.fromEntries(
        Object.entries(sources).map(([topic, { next }]) => [topic, next]),
      );
      return notAfter(position, state.chain.position);
    })
  );
}
