/** A snapshot is read together with topics only where it was made from them. */
import { type Broker, clusterIdOf } from '../../kafka/client.ts';
import { ReelflowError } from '../../runtime/errors.ts';
import type { TopicNames } from '../../topics/catalog.ts';
import type { Manifest } from '../gold/manifest.ts';

/** @throws ReelflowError foreignCluster */
export async function requireSameCluster(
  manifest: Manifest,
  { broker, names }: { readonly broker: Broker; readonly names: TopicNames },
): Promise<void> {
  const clusterId = await clusterIdOf(broker);
  if (manifest.clusterId === clusterId && manifest.namespace === names.namespace) return;
  throw new ReelflowError('foreignCluster', 'The snapshot belongs to another cluster or namespace', {
    detail: `Snapshot ${manifest.id} is of cluster ${manifest.clusterId}, namespace '${manifest.namespace}'. The topics are of ${clusterId}, '${names.namespace}'.`,
    hint: 'Set KAFKA_BROKERS to its cluster, or name another folder with --gold.',
  });
}
