/**
 * Proves that a topic is still the log from which a store was made: the last applied message must be the one at its offset.
 * A topic that was recreated, even if it was refilled past the position, fails the proof.
 */
import type { LogBounds, LogMessage } from '../kafka/log.ts';
import { ReelflowError } from '../runtime/errors.ts';
import { hashOf } from '../topics/chunk.ts';
import type { LastMessage } from './micro-batch.ts';

/** Hash of a position that follows no message: a marker, a skipped batch, or an accepted loss. */
const hashOfNothing = hashOf(null);

export class SourceProof {
  readonly #shard: number;
  /** The last message of a topic that is staged or applied. */
  readonly #lastOf: (topic: string) => LastMessage | undefined;
  readonly #unproven = new Set<string>();

  constructor(shard: number, lastOf: (topic: string) => LastMessage | undefined) {
    this.#shard = shard;
    this.#lastOf = lastOf;
  }

  /** Whether the next message of a topic must be the last one applied. */
  needs(topic: string): boolean {
    return this.#unproven.has(topic);
  }

  get isComplete(): boolean {
    return this.#unproven.size === 0;
  }

  /** Demands a proof of a topic, if the message before its next offset can give one. */
  demand(topic: string): void {
    const hash = this.#lastOf(topic)?.hash;
    if (hash !== undefined && hash !== hashOfNothing) this.#unproven.add(topic);
  }

  /** @param next next offset of the topic @throws ReelflowError sourceReplaced */
  check(topic: string, message: LogMessage, next: number): void {
    const last = this.#lastOf(topic);
    if (message.offset !== next - 1 || hashOf(message.value) !== last?.hash) {
      throw new ReelflowError('sourceReplaced', 'A topic is not the one from which the state was made', {
        detail: `${topic}/${this.#shard}: the message at offset ${next - 1} is not the one that was applied (chunk ${last?.chunk} of run ${last?.runId}).`,
        hint: 'The topic was recreated, or has lost its tail. If that was intended, run `reelflow reset` and start again.',
      });
    }
    this.#unproven.delete(topic);
  }
}

/**
 * Requires that a partition holds its next offset, or ends exactly before it.
 * @throws ReelflowError sourceLost, unless `acceptLoss`; sourceReplaced
 */
export function requireInLog(
  topic: string,
  partition: number,
  next: number,
  { start, end }: LogBounds,
  acceptLoss: boolean,
): void {
  if (start > next && !acceptLoss) {
    throw new ReelflowError('sourceLost', 'A topic has lost messages that were never applied', {
      detail: `${topic}/${partition} starts at offset ${start}, expected offset ${next}.`,
      hint: 'Replay the dataset and run `reelflow reset`; or accept the loss with --accept-loss.',
    });
  }
  if (end < next) throw sourceShortened(topic, partition, end, next);
}

export function sourceShortened(topic: string, partition: number, end: number, next: number): ReelflowError {
  return new ReelflowError('sourceReplaced', 'A topic is shorter than what was applied from it', {
    detail: `${topic}/${partition} ends at offset ${end}; offset ${next} is next. It was recreated, or has lost its tail.`,
    hint: 'If that was intended, replay the datasets, run `reelflow reset`, and start again.',
  });
}
