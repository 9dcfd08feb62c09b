/** A base: the whole cubes of a store, for readers that lack the deltas before it, or lack some cubes. */
import { relationOf } from '../tables/cubes/cube.ts';
import { cubeSetOf } from '../tables/cubes/cube-set.ts';
import type { CubeRows } from '../topics/cube-rows.ts';
import { type DeltaHeader, encodeDelta } from '../topics/delta-wire.ts';
import { noRecords } from '../topics/record-counts.ts';
import { datasetsOf, readCubeRows } from './contributions.ts';
import type { OutboxEntry, ShardStore, SourceState } from './shard-store.ts';

/**
 * Replaces the outbox with the whole cubes of the store.
 * @param keeps cubes that readers have already, at exactly this position
 * @returns the entry, committed
 */
export async function writeBase(
  store: ShardStore,
  deltaSchemaId: number,
  keeps: readonly string[] = [],
): Promise<OutboxEntry> {
  const { connection } = store;
  const rows = await wholeCubes(store, keeps);
  const base = baseHeader(store, [...store.sources.values()], Date.now());
  const header = keeps.length === 0 ? base : { ...base, keeps };
  const entry = {
    number: store.nextEntry,
    header,
    messages: encodeDelta(deltaSchemaId, header, rows, store.dictionary),
  };
  await connection.run('BEGIN');
  await connection.run(`DELETE FROM ${store.catalog}.outbox`);
  await store.writeOutbox(entry);
  await connection.run('COMMIT');
  store.nextEntry += 1;
  return entry;
}

/** The cubes of all rows of a store, without those that a base keeps. */
export async function wholeCubes(store: ShardStore, keeps: readonly string[] = []): Promise<CubeRows[]> {
  const rows: CubeRows[] = [];
  for (const cube of store.identity.cubeSet.filter(({ name }) => !keeps.includes(name))) {
    const relations = datasetsOf(cube).map(
      (dataset) => `${relationOf(dataset)} AS (FROM ${store.table(dataset)})`,
    );
    const query = `WITH ${relations.join(', ')}, cube AS (${cube.contribution})
      SELECT ${cube.key.map((name) => `${name}::INTEGER`).join(', ')},
        ${cube.measures.map((name) => `${name}::DOUBLE`).join(', ')}
      FROM cube`;
    rows.push(await readCubeRows(store, cube, query));
  }
  return rows;
}

/**
 * A base names each topic that its cubes read, also one of which nothing was read yet: one that it does not name is read no more.
 * @param sources the position and the counts that the base stands for
 */
export function baseHeader(
  { identity, topics, writerId }: ShardStore,
  sources: readonly SourceState[],
  recordTimeMs: number,
): DeltaHeader {
  return {
    shard: identity.shard,
    shards: identity.shards,
    generation: identity.generation,
    cubeSet: cubeSetOf(identity.cubeSet),
    storeId: writerId,
    kind: 'base',
    range: topics.map((topic) => {
      const { next = 0, gaps = [], ...counts } = sources.find((source) => source.topic === topic) ?? {};
      const { applied, duplicate, rejected, removed } = { ...noRecords, ...counts };
      return { topic, from: 0, to: next, applied, duplicate, rejected, removed, gaps };
    }),
    recordTimeMs,
  };
}
