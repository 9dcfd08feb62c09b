/**
 * Proves that a topic is still the log from which a store was made: the last applied message must be the one at its offset.
 * A topic that was recreated, even if it was refilled past the position, fails the proof.
 */
import type { LogBounds } from '../kafka/bounds.ts';
import type { LogMessage } from '../kafka/log.ts';
import { ReelflowError } from '../runtime/errors.ts';
import { expectedByHash, LogProof } from '../topics/log-proof.ts';
import type { LastMessage } from './micro-batch.ts';

export class SourceProof {
  readonly #shard: number;
  /** The last message of a topic that is staged or applied. */
  readonly #lastOf: (topic: string) => LastMessage | undefined;
  readonly #proof = new LogProof<string>();

  constructor(shard: number, lastOf: (topic: string) => LastMessage | undefined) {
    this.#shard = shard;
    this.#lastOf = lastOf;
  }

  /** Whether the next message of a topic must be the last one applied. */
  needs(topic: string): boolean {
    return this.#proof.isPending(topic);
  }

  get isComplete(): boolean {
    return this.#proof.isComplete;
  }

  /** Where to read a topic from: at its last applied message while that has to prove the topic, else at `next`. */
  readFrom(topic: string, next: number): number {
    return this.#proof.readFrom(topic, next);
  }

  /** Demands a proof of a topic, if the message before `next`, its next offset, can give one. */
  demand(topic: string, next: number): void {
    this.#proof.require(topic, expectedByHash(next, this.#lastOf(topic)?.hash));
  }

  /** @throws ReelflowError sourceReplaced */
  check(topic: string, message: LogMessage): void {
    const offset = this.#proof.pending.get(topic)?.offset;
    if (this.#proof.accept(topic, message)) return;
    const last = this.#lastOf(topic);
    throw new ReelflowError('sourceReplaced', 'A topic was replaced after the state was built from it', {
      detail: `${topic}/${this.#shard}: the message at offset ${offset} is not the one that was applied (chunk ${last?.chunk} of run ${last?.runId}).`,
      hint: 'The topic was recreated, or has lost its tail. If that was intended, run `reelflow reset` and start again.',
    });
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
      hint: 'Replay the newest dump, which sends again what is missing; then run `reelflow process --accept-loss` once.',
    });
  }
  if (end < next) throw sourceShortened(topic, partition, end, next);
}

/** The error for a log that ends before the next offset to read. */
export function sourceShortened(topic: string, partition: number, end: number, next: number): ReelflowError {
  return new ReelflowError('sourceReplaced', 'A topic is shorter than what was applied from it', {
    detail: `${topic}/${partition} ends at offset ${end}; offset ${next} is next. It was recreated, or has lost its tail.`,
    hint: 'If that was intended, replay the datasets, run `reelflow reset`, and start again.',
  });
}
