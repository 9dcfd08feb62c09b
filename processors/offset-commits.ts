/**
 * The published position of a shard as commits for the consumer group. They serve monitors only: processors take their
 * positions from their stores and the published deltas.
 */
import type { Commit } from '../kafka/membership.ts';
import { nextIn } from '../topics/position.ts';
import type { Shard } from './shard.ts';

/** @param sources topics to commit, also those without processed messages: after a reset the group must show 0 */
export function commitsOf(shard: Shard, sources: readonly string[]): Commit[] {
  const position = shard.publishedPosition;
  const committedAt = Date.now();
  return sources.map((topic) => {
    const metadata = JSON.stringify({
      recordTs: shard.recordTimesMs.get(topic),
      committedAt,
      recordsPerMessage: shard.recordsPerMessage(topic),
      readNext: shard.readNext(topic),
    });
    return { topic, partition: shard.number, next: nextIn(position, topic), metadata };
  });
}
