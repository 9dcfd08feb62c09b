/** Restores the sink's state from the newest snapshot, which holds the cubes of every shard and their positions. */
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { ReelflowError } from '../runtime/errors.ts';
import { fileSha256 } from '../runtime/files.ts';
import type { Logger } from '../runtime/logger.ts';
import type { Gaps, Position } from '../topics/position.ts';
import { noRecords, sumOf } from '../topics/record-counts.ts';
import type { CubeStore } from './cube-store.ts';
import { type Manifest, snapshotFolder } from './gold/manifest.ts';
import type { ShardState } from './shard-state.ts';

/**
 * Fills an empty store with all cubes of the snapshot, declared or not. The names are not part of it: they are read again. A
 * snapshot of an early version has no cubes; then the store stays empty, and the sink reads all deltas, or finds that they were trimmed.
 * @throws ReelflowError goldUnusable
 */
export async function restoreFrom(
  store: CubeStore,
  gold: string,
  manifest: Manifest,
  logger: Logger,
): Promise<void> {
  const { id } = manifest;
  if (manifest.cubes === undefined) {
    logger.warn({ snapshot: id }, 'the newest snapshot holds no cubes: all deltas are read again');
    return;
  }
  logger.warn({ snapshot: id }, 'the state is empty: restoring from the newest snapshot');
  await requireCubes(gold, manifest);
  await store.restore(join(snapshotFolder(gold, id), 'cubes'), shardStatesOf(manifest));
}

/** Checks the cubes of a snapshot against its manifest. @throws ReelflowError goldUnusable */
async function requireCubes(gold: string, { id, cubes = {} }: Manifest): Promise<void> {
  for (const [name, { sha256 }] of Object.entries(cubes)) {
    const path = join(snapshotFolder(gold, id), 'cubes', `${name}.parquet`);
    if (existsSync(path) && (await fileSha256(path)) === sha256) continue;
    throw new ReelflowError('goldUnusable', `A cube of snapshot ${id} is missing or was altered`, {
      detail: path,
      hint: 'Write the id of an earlier snapshot into CURRENT; or run `reelflow reset` and use another --gold folder.',
    });
  }
}

function shardStatesOf({ shards, deltas }: Manifest): ShardState[] {
  return Object.entries(shards).map(([shard, { generation, cubeSet, lastDelta, sources, ...of }]) => {
    const topics = Object.entries(sources);
    const position: Position = Object.fromEntries(topics.map(([topic, { next }]) => [topic, next]));
    const gaps: Gaps = Object.fromEntries(topics.map(([topic, source]) => [topic, source.gaps]));
    return {
      shard: Number(shard),
      shards: of.shards,
      chain: { generation, cubeSet, position, gaps },
      next: deltas[shard] ?? 0,
      lastDelta,
      heldUntil: {},
      counts: Object.fromEntries(topics.map(([topic, source]) => [topic, sumOf(noRecords, source)])),
    };
  });
}
