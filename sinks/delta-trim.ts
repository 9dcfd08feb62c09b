/** Deletes the deltas that snapshots contain, so that the topic of deltas stays bounded. */
import type { Broker } from '../kafka/client.ts';
import { deleteBefore } from '../kafka/topics.ts';
import { reasonOf } from '../runtime/errors.ts';
import type { TopicNames } from '../topics/catalog.ts';
import { readManifest } from './gold/manifest.ts';
import { type Keep, newestSnapshots } from './gold/retention.ts';

interface DeltaTrimOptions {
  readonly gold: string;
  readonly keep: Keep;
  readonly broker: Broker;
  readonly names: Pick<TopicNames, 'deltas'>;
}

/**
 * Deletes the deltas before the oldest of the newest `keep` snapshots; a pin keeps a snapshot, not the deltas after it. The last
 * delta that this snapshot contains stays, so a reader of the partition from its start finds a valid range.
 */
export async function trimDeltas({ gold, keep, broker, names }: DeltaTrimOptions): Promise<void> {
  const [oldest] = newestSnapshots(gold, keep.newest);
  if (oldest === undefined) return;
  const { shards } = readManifest(gold, oldest);
  const partitions = Object.entries(shards)
    .filter(([, { lastDelta }]) => lastDelta > 0)
    .map(([shard, { lastDelta }]) => ({ partition: Number(shard), offset: lastDelta }));
  if (partitions.length === 0) return;
  try {
    await deleteBefore(broker, names.deltas, partitions);
  } catch (thrown) {
    // The next publication trims too; until then the deltas only take room.
    broker.logger.warn({ reason: reasonOf(thrown) }, 'deltas not trimmed');
  }
}
