import type { DeltaHeader } from '../../topics/delta-wire.ts';
import type { Gaps, Position } from '../../topics/position.ts';

/** The header of a delta of the only shard, without records. */
export function deltaHeader(
  from: Position,
  to: Position,
  more: Partial<DeltaHeader> = {},
  gaps: Gaps = {},
): DeltaHeader {
  const topics = [...new Set([...Object.keys(from), ...Object.keys(to)])].sort();
  return {
    ...{
      shard: 0,
      shards: 1,
      generation: 0,
      cubeSet: 'cubes',
      storeId: 'store',
      kind: 'delta',
      recordTimeMs: 0,
    },
    range: topics.map((topic) => ({
      ...{ topic, from: from[topic] ?? 0, to: to[topic] ?? 0, gaps: gaps[topic] ?? [] },
      ...{ applied: 0, duplicate: 0, rejected: 0, removed: 0 },
    })),
    ...more,
  };
}
