/** Checks the topics that a job reads before Flink starts, so that faults are reported at once. */

import { type LogBounds, logBounds } from '../kafka/bounds.ts';
import type { Broker } from '../kafka/client.ts';
import { LogReader } from '../kafka/log.ts';
import { partitionCounts } from '../kafka/topics.ts';
import { counted } from '../runtime/counted.ts';
import { ReelflowError } from '../runtime/errors.ts';
import type { Cube } from '../tables/cubes/cube.ts';
import { findBase } from '../topics/base.ts';
import type { TopicNames } from '../topics/catalog.ts';
import type { Registry } from '../topics/registry.ts';
import { datasetsRead } from './sql.ts';

export interface SourceTopics {
  /** Partition count of the title topics. */
  readonly shards: number;
  /** End offsets, by topic and partition. */
  readonly ends: ReadonlyMap<string, ReadonlyMap<number, number>>;
}

/**
 * @throws ReelflowError topicMismatch, when a topic is missing, has another partition count or messages without a
 *   schema in the registry; sourceLost, when its first messages are gone; brokerUnreachable; registryUnreachable
 */
export async function inspectSources(
  { broker, registry, names }: { broker: Broker; registry: Registry; names: TopicNames },
  cubes: readonly Cube[],
): Promise<SourceTopics> {
  const datasets = [...datasetsRead(cubes).keys()];
  const topics = datasets.map((dataset) => names.source(dataset));
  const counts = await partitionCounts(broker, topics);
  const shards = counts.get(names.source('title.ratings')) ?? 0;
  for (const dataset of datasets) {
    const topic = names.source(dataset);
    const partitions = counts.get(topic);
    if (partitions === undefined) {
      throw new ReelflowError('topicMismatch', `There is no topic ${topic}`, {
        hint: 'Create the topics with `reelflow replay`, or check --namespace.',
      });
    }
    if (dataset.startsWith('title.') && partitions !== shards) {
      throw new ReelflowError('topicMismatch', `Topic ${topic} has another partition count`, {
        detail: `It has ${counted(partitions, 'partition')}, ${names.source('title.ratings')} has ${shards}. All title topics need the same count, because a partition is a shard.`,
        hint: 'Use another --namespace, or recreate the topics.',
      });
    }
  }
  const bounds = await logBounds(broker, topics);
  const ends = new Map<string, Map<number, number>>();
  for (const [topic, partitions] of bounds) {
    for (const [partition, log] of partitions) {
      const { start } = log;
      if (start === 0 || (await startsAtBase(broker, { topic, partition }, log))) continue;
      throw new ReelflowError('sourceLost', `${topic} lost messages`, {
        detail: `Partition ${partition} starts at offset ${start}. The tables would lack the earlier messages.`,
        hint: 'Replay the files into another --namespace.',
      });
    }
    ends.set(topic, new Map([...partitions].map(([partition, { end }]) => [partition, end])));
    const isEmpty = [...partitions.values()].every(({ end }) => end === 0);
    if (!isEmpty && (await registry.latest(topic)) === undefined) {
      throw new ReelflowError('topicMismatch', `The Schema Registry has no schema of ${topic}`, {
        detail: `The topic has messages, but the subject ${topic}-value does not exist. Flink cannot read the messages.`,
        hint: 'Set SCHEMA_REGISTRY_URL to the registry that the topics were written with.',
      });
    }
  }
  return { shards, ends };
}

/** A base holds every row of its partition again: a job needs nothing before it. */
async function startsAtBase(
  broker: Broker,
  of: { topic: string; partition: number },
  log: LogBounds,
): Promise<boolean> {
  const reader = new LogReader(broker);
  try {
    return (await findBase(reader, of, log)) !== undefined;
  } finally {
    await reader.close();
  }
}
