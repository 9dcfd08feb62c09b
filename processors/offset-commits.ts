/**
 * Commits the published positions to the consumer group, for monitors only: processors take their positions from their
 * stores and the published deltas.
 */
import type { Membership } from '../kafka/membership.ts';
import { nextIn } from '../topics/position.ts';
import type { Shard } from './shard.ts';

export class OffsetCommits {
  readonly #sources: readonly string[];
  readonly #membership: () => Membership | undefined;
  #pending: Promise<unknown> = Promise.resolve();

  /** @param sources topics to commit, also those without processed messages: after a reset the group must show 0 */
  constructor(sources: readonly string[], membership: () => Membership | undefined) {
    this.#sources = sources;
    this.#membership = membership;
  }

  /** Starts a commit that `settled` waits for. */
  commitSoon(shard: Shard): void {
    this.#pending = Promise.all([this.#pending, this.commit(shard)]);
  }

  async commit(shard: Shard): Promise<void> {
    const position = shard.publishedPosition;
    const committedAt = Date.now();
    await this.#membership()?.commit(
      this.#sources.map((topic) => {
        const metadata = JSON.stringify({
          recordTs: shard.recordTimesMs.get(topic),
          committedAt,
          recordsPerMessage: shard.recordsPerMessage(topic),
          readNext: shard.readNext(topic),
        });
        return { topic, partition: shard.number, next: nextIn(position, topic), metadata };
      }),
    );
  }

  async settled(): Promise<void> {
    await this.#pending;
  }
}
