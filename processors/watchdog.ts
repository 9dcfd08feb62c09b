/**
 * Alive but stuck is not possible, and a loss or a reset is noticed while it happens: every few seconds the ends of the
 * logs are asked for apart from the reading, and compared with where the shards stand.
 */

import { type LogBounds, UnknownTopic } from '../kafka/log.ts';
import { messageOf, ReelflowError } from '../runtime/errors.ts';
import type { Logger } from '../runtime/logger.ts';
import { nextIn, type Position, positionText } from '../topics/position.ts';

/** What the watchdog looks at of a shard. */
export interface Watched {
  readonly number: number;
  readonly topics: readonly string[];
  /** Applied and published. */
  readonly publishedPosition: Position;
  /** Applied, published or not. */
  readonly appliedPosition: Position;
  /** Up to here in its partition of the deltas it knows what is published. */
  readonly deltasSeen: number;
  /** Whether it waits for something outside that is known to be away: the Schema Registry. */
  readonly isWaiting: boolean;
}

export interface WatchdogOptions {
  /** Of the sources and the deltas. */
  readonly bounds: () => Promise<ReadonlyMap<string, ReadonlyMap<number, LogBounds>>>;
  /** The topic of deltas. */
  readonly deltas: string;
  readonly shards: () => readonly Watched[];
  readonly expectedPartitions: number;
  readonly stuckAfterMs: number;
  readonly logger: Logger;
  readonly onFailure: (reason: ReelflowError) => void;
  /** Somebody else may have published or reset: an owner with nothing to publish would not notice. */
  readonly onForeignDeltas: () => void;
}

const lookEveryMs = 3_000;

export class Watchdog {
  readonly #options: WatchdogOptions;
  readonly #moved = new Map<number, { position: string; atMs: number }>();
  #timer: NodeJS.Timeout | undefined;

  constructor(options: WatchdogOptions) {
    this.#options = options;
    this.#schedule();
  }

  stop(): void {
    clearTimeout(this.#timer);
    this.#timer = undefined;
  }

  #schedule(): void {
    this.#timer = setTimeout(
      async () => {
        try {
          // Positions first: a shard may go on while the ends are asked for, but no end lies before where it stood.
          const stood = new Map(
            this.#options.shards().map(({ number, appliedPosition }) => [number, appliedPosition]),
          );
          this.#look(await this.#options.bounds(), stood);
        } catch (thrown) {
          if (thrown instanceof ReelflowError && thrown.kind !== 'brokerUnreachable') {
            this.#options.onFailure(thrown);
          } else if (thrown instanceof UnknownTopic) {
            this.#options.onFailure(topicGone(messageOf(thrown)));
          } else {
            // Without an answer nothing can be said; the reading waits for the broker as well.
            this.#options.logger.debug({ reason: messageOf(thrown) }, 'the watchdog got no answer');
            this.#moved.clear();
          }
        }
        if (this.#timer !== undefined) this.#schedule();
      },
      Math.min(lookEveryMs, this.#options.stuckAfterMs),
    );
    this.#timer.unref();
  }

  #look(
    bounds: ReadonlyMap<string, ReadonlyMap<number, LogBounds>>,
    stood: ReadonlyMap<number, Position>,
  ): void {
    const { expectedPartitions, onFailure, shards } = this.#options;
    for (const [topic, partitions] of bounds) {
      if (partitions.size === expectedPartitions) continue;
      onFailure(
        new ReelflowError('topicMismatch', `The partition count of ${topic} has changed`, {
          detail: `It was ${expectedPartitions}, it is ${partitions.size}: titles would move to other shards.`,
          hint: 'Recreate the topic with the old count; or recreate all title topics with the new one, replay, `reelflow reset`.',
        }),
      );
      return;
    }
    const watched = shards();
    // One loop feeds them all: while one waits, none moves.
    const isWaiting = watched.some((shard) => shard.isWaiting);
    const ends = bounds.get(this.#options.deltas);
    if (watched.some(({ number, deltasSeen }) => (ends?.get(number)?.end ?? 0) > deltasSeen)) {
      this.#options.onForeignDeltas();
    }
    for (const shard of watched) this.#lookAt(shard, stood.get(shard.number) ?? {}, bounds, isWaiting);
  }

  #lookAt(
    shard: Watched,
    stood: Position,
    bounds: ReadonlyMap<string, ReadonlyMap<number, LogBounds>>,
    isWaiting: boolean,
  ): void {
    const { stuckAfterMs, onFailure } = this.#options;
    let isBehind = false;
    for (const topic of shard.topics) {
      const end = bounds.get(topic)?.get(shard.number)?.end ?? 0;
      const applied = nextIn(stood, topic);
      if (end < applied) {
        onFailure(
          new ReelflowError('sourceReplaced', 'A topic is shorter than what was applied from it', {
            detail: `${topic}/${shard.number} ends at offset ${end}; ${applied} is next. It was recreated, or lost its tail.`,
            hint: 'Replay the datasets, then `reelflow reset`.',
          }),
        );
        return;
      }
      if (end > nextIn(shard.publishedPosition, topic)) isBehind = true;
    }
    const position = JSON.stringify([shard.publishedPosition, shard.appliedPosition]);
    const moved = this.#moved.get(shard.number);
    const now = Date.now();
    if (moved === undefined || moved.position !== position || !isBehind || isWaiting) {
      this.#moved.set(shard.number, { position, atMs: now });
      return;
    }
    if (now - moved.atMs < stuckAfterMs) return;
    onFailure(
      new ReelflowError('stuck', `Shard ${shard.number} does not move while its log does`, {
        detail: `For ${Math.round((now - moved.atMs) / 1000)} s it has stood at ${positionText(shard.publishedPosition)}.`,
        hint: 'A supervisor should start the processor again; if it comes back, look at its log with --verbose.',
      }),
    );
  }
}

function topicGone(detail: string): ReelflowError {
  return new ReelflowError('sourceLost', 'A source topic is gone', {
    detail,
    hint: 'Create it again by a replay of its dataset, then `reelflow reset`.',
  });
}
