/**
 * Where the messages of a run lie, by the broker's acknowledgements. They are vouched for when the broker has numbered them
 * without a break: it refuses a message whose predecessor it has lost, and then the run gets another producer identity. So
 * of messages with ascending offsets and one identity none between the first and the last is missing, if these two are
 * there.
 */
import type { Appender } from '../appender.ts';

export class OwnOffsets {
  readonly #appender: Pick<Appender, 'renewals'>;
  readonly #topic: string;
  readonly #partitions = new Map<number, { offsets: Set<number>; last: number; isAscending: boolean }>();
  #acknowledged = new Map<number, number>();

  constructor(appender: Pick<Appender, 'renewals'>, topic: string) {
    this.#appender = appender;
    this.#topic = topic;
  }

  /** @param offset undefined where the broker has not named it: such a message counts as a foreign one */
  add(partition: number, offset: number | undefined): void {
    if (offset === undefined) return;
    let own = this.#partitions.get(partition);
    if (own === undefined) {
      own = { offsets: new Set(), last: -1, isAscending: true };
      this.#partitions.set(partition, own);
    }
    own.isAscending &&= offset > own.last;
    own.last = offset;
    own.offsets.add(offset);
    this.#acknowledged.set(partition, this.acknowledged(partition) + 1);
  }

  has(partition: number, offset: number): boolean {
    return this.#partitions.get(partition)?.offsets.has(offset) === true;
  }

  /** How many were acknowledged with their offset. */
  acknowledged(partition: number): number {
    return this.#acknowledged.get(partition) ?? 0;
  }

  /** The offsets of a partition, if they are vouched for. */
  vouched(partition: number): ReadonlySet<number> | undefined {
    const own = this.#partitions.get(partition);
    return own?.isAscending === true && this.#appender.renewals(this.#topic) === 0 ? own.offsets : undefined;
  }
}
