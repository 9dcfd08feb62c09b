/**
 * Proves that a log is still the one that a state was made from: the last message that the state contains is read again
 * and must be the same. A topic that was recreated is noticed even after it was refilled past the position.
 */
import { hashOf } from './chunk.ts';

interface ProofMessage {
  readonly offset: number;
  readonly timestampMs: number;
  readonly value: Buffer | null;
}

/** The last message of a log that a state contains. */
interface ExpectedMessage {
  readonly offset: number;
  readonly isSame: (message: ProofMessage) => boolean;
}

/** What a marker, a skipped batch or an accepted loss leaves as its hash: no message can prove that. */
const hashOfNothing = hashOf(null);

/** The hash of a message's value with its time, because others may write once more what they had written at an offset. */
export function proofHashOf({ timestampMs, value }: Omit<ProofMessage, 'offset'>): string {
  return value === null ? hashOfNothing : `${hashOf(value)} ${timestampMs}`;
}

/** The message before `next` by its hash; undefined when the hash belongs to no message. States of earlier versions have no time in it. */
export function expectedByHash(next: number, hash: string | undefined): ExpectedMessage | undefined {
  if (hash === undefined || hash === hashOfNothing) return undefined;
  return {
    offset: next - 1,
    isSame: (message) => proofHashOf(message) === hash || hashOf(message.value) === hash,
  };
}

/** @typeParam Key a topic or a partition */
export class LogProof<Key> {
  readonly #pending = new Map<Key, ExpectedMessage>();

  /** Requires the proof. Without a message there is nothing to prove. */
  require(key: Key, last: ExpectedMessage | undefined): void {
    if (last !== undefined) this.#pending.set(key, last);
  }

  isPending(key: Key): boolean {
    return this.#pending.has(key);
  }

  get isComplete(): boolean {
    return this.#pending.size === 0;
  }

  /** The messages to read again. */
  get pending(): ReadonlyMap<Key, ExpectedMessage> {
    return this.#pending;
  }

  /** Where to read from: at the message that proves the log, if that is pending, else at `next`. */
  readFrom(key: Key, next: number): number {
    return this.#pending.get(key)?.offset ?? next;
  }

  /** Takes the first message read from there. @returns whether it is the expected one; if so, the log is proved */
  accept(key: Key, message: ProofMessage): boolean {
    const last = this.#pending.get(key);
    if (last === undefined) throw new RangeError('no proof is pending');
    if (message.offset !== last.offset || !last.isSame(message)) return false;
    this.#pending.delete(key);
    return true;
  }

  /** Gives up a proof that is no longer needed. */
  drop(key: Key): void {
    this.#pending.delete(key);
  }

  clear(): void {
    this.#pending.clear();
  }
}
