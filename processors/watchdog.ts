/**
 * Ends a member whose shard makes no progress, and notices a lost log, a reset or another owner while the member works:
 * every few seconds it reads the end offsets, independently of the fetch loop, and compares them with the shards' positions.
 */
import { goneAfterMs, type LogBounds, UnknownTopic } from '../kafka/bounds.ts';
import { messageOf, ReelflowError } from '../runtime/errors.ts';
import type { Logger } from '../runtime/logger.ts';
import { nextIn, type Position, positionText } from '../topics/position.ts';
import { sourceShortened } from './source-proof.ts';

/** The part of a shard that the watchdog checks. */
export interface WatchedShard {
  readonly number: number;
  readonly topics: readonly string[];
  /** Applied and published. */
  readonly publishedPosition: Position;
  /** Applied, published or not. */
  readonly appliedPosition: Position;
  /** First offset of its delta partition that it has not folded. */
  readonly deltasSeen: number;
  /** Whether it waits for the Schema Registry. */
  readonly isWaiting: boolean;
}

interface WatchdogOptions {
  /** Start and end of the sources and the deltas. */
  readonly bounds: () => Promise<ReadonlyMap<string, ReadonlyMap<number, LogBounds>>>;
  /** The delta topic. */
  readonly deltas: string;
  readonly shards: () => readonly WatchedShard[];
  readonly expectedPartitions: number;
  readonly stuckAfterMs: number;
  readonly logger: Logger;
  readonly onFailure: (reason: ReelflowError) => void;
  /** Another owner may have published, or a reset has happened. An owner without work would not notice otherwise. */
  readonly onForeignDeltas: () => void;
}

const lookEveryMs = 3_000;

export class Watchdog {
  readonly #options: WatchdogOptions;
  /** Per shard: what it had reached when it last moved, and the time that it has been watched there. */
  readonly #seen = new Map<number, { progress: string; stalledMs: number }>();
  readonly #lookEveryMs: number;
  #lookedMs = performance.now();
  /** Since when the brokers have not known a topic. */
  #goneSinceMs: number | undefined;
  #timer: NodeJS.Timeout | undefined;

  constructor(options: WatchdogOptions) {
    this.#options = options;
    this.#lookEveryMs = Math.min(lookEveryMs, options.stuckAfterMs);
    this.#schedule();
  }

  stop(): void {
    clearTimeout(this.#timer);
    this.#timer = undefined;
  }

  #schedule(): void {
    this.#timer = setTimeout(async () => {
      try {
        // Positions first: a shard may advance while the ends are being read, but no end lies before its earlier position.
        const positions = new Map(
          this.#options.shards().map(({ number, appliedPosition }) => [number, appliedPosition]),
        );
        const bounds = await this.#options.bounds();
        this.#goneSinceMs = undefined;
        this.#look(bounds, positions);
      } catch (thrown) {
        if (thrown instanceof ReelflowError && thrown.kind !== 'brokerUnreachable') {
          this.#options.onFailure(thrown);
        } else if (thrown instanceof UnknownTopic) {
          this.#goneSinceMs ??= performance.now();
          const { stuckAfterMs } = this.#options;
          if (performance.now() - this.#goneSinceMs >= Math.min(goneAfterMs, stuckAfterMs))
            this.#options.onFailure(topicGone(messageOf(thrown)));
        } else {
          this.#goneSinceMs = undefined;
          // Without an answer there is nothing to compare; the fetch loop waits for the broker as well.
          this.#options.logger.debug({ reason: messageOf(thrown) }, 'the watchdog got no answer');
          this.#seen.clear();
        }
      }
      if (this.#timer !== undefined) this.#schedule();
    }, this.#lookEveryMs);
    this.#timer.unref();
  }

  #look(
    bounds: ReadonlyMap<string, ReadonlyMap<number, LogBounds>>,
    positions: ReadonlyMap<number, Position>,
  ): void {
    const { expectedPartitions, onFailure, shards } = this.#options;
    for (const [topic, partitions] of bounds) {
      if (partitions.size === expectedPartitions) continue;
      onFailure(
        new ReelflowError('topicMismatch', `The partition count of ${topic} has changed`, {
          detail: `It was ${expectedPartitions}, it is ${partitions.size}: titles would move to other shards.`,
          hint: 'Recreate the topic with the old count; or recreate all title topics with the new count, replay, and run `reelflow reset`.',
        }),
      );
      return;
    }
    const watched = shards();
    // A process that was stopped, or got no processor, is late with its look. It could not work in that time either.
    const now = performance.now();
    const passedMs = Math.min(now - this.#lookedMs, 2 * this.#lookEveryMs);
    this.#lookedMs = now;
    // One fetch loop feeds all shards: while one waits, none of them advances.
    const isWaiting = watched.some((shard) => shard.isWaiting);
    const ends = bounds.get(this.#options.deltas);
    if (watched.some(({ number, deltasSeen }) => (ends?.get(number)?.end ?? 0) > deltasSeen)) {
      this.#options.onForeignDeltas();
    }
    for (const shard of watched) {
      const stalledMs = isWaiting ? 0 : (this.#seen.get(shard.number)?.stalledMs ?? 0) + passedMs;
      this.#lookAt(shard, positions.get(shard.number) ?? {}, bounds, stalledMs);
    }
  }

  #lookAt(
    shard: WatchedShard,
    position: Position,
    bounds: ReadonlyMap<string, ReadonlyMap<number, LogBounds>>,
    stalledMs: number,
  ): void {
    const { stuckAfterMs, onFailure } = this.#options;
    let isBehind = false;
    for (const topic of shard.topics) {
      const end = bounds.get(topic)?.get(shard.number)?.end ?? 0;
      const applied = nextIn(position, topic);
      if (end < applied) {
        onFailure(sourceShortened(topic, shard.number, end, applied));
        return;
      }
      if (end > nextIn(shard.publishedPosition, topic)) isBehind = true;
    }
    const progress = JSON.stringify([shard.publishedPosition, shard.appliedPosition]);
    const hasMoved = this.#seen.get(shard.number)?.progress !== progress;
    this.#seen.set(shard.number, { progress, stalledMs: hasMoved || !isBehind ? 0 : stalledMs });
    if (hasMoved || !isBehind || stalledMs < stuckAfterMs) return;
    onFailure(
      new ReelflowError('stuck', `Shard ${shard.number} makes no progress while its log grows`, {
        detail: `It has been at ${positionText(shard.publishedPosition)} for ${Math.round(stalledMs / 1000)} s.`,
        hint: 'Let a supervisor restart the processor. If this happens again, check its log with --verbose.',
      }),
    );
  }
}

function topicGone(detail: string): ReelflowError {
  return new ReelflowError('sourceLost', 'A source topic is gone', {
    detail,
    hint: 'Replay its dataset, which creates it again, then run `reelflow reset`.',
  });
}
