/**
 * Where the messages of a run lie, by the broker's acknowledgements. They are vouched for when the broker has numbered them
 * without a break: it refuses a message whose predecessor it has lost, and then the run gets another producer identity. So
 * of messages with ascending offsets and one identity none between the first and the last is missing, if these two are
 * there.
 */
import type { Appender } from '../appender.ts';
import type { OffsetSet, OwnMessages, Written } from './devices.ts';

interface OwnPartition {
  /** Numbers of the chunks, by offset. */
  readonly chunks: Map<number, number>;
  last: number;
  isAscending: boolean;
}

export class OwnOffsets implements OwnMessages {
  readonly #appender: Pick<Appender, 'renewals'>;
  readonly #topic: string;
  readonly #runId: string;
  readonly #partitions = new Map<number, OwnPartition>();
  #acknowledged = new Map<number, number>();

  constructor(appender: Pick<Appender, 'renewals'>, topic: string, runId: string) {
    this.#appender = appender;
    this.#topic = topic;
    this.#runId = runId;
  }

  /**
   * @param chunk its number, which the run uses once in the partition
   * @param offset undefined where the broker has not named it: such a message counts as a foreign one
   */
  add(partition: number, chunk: number, offset: number | undefined): void {
    if (offset === undefined) return;
    let own = this.#partitions.get(partition);
    if (own === undefined) {
      own = { chunks: new Map(), last: -1, isAscending: true };
      this.#partitions.set(partition, own);
    }
    own.isAscending &&= offset > own.last;
    own.last = offset;
    own.chunks.set(offset, chunk);
    this.#acknowledged.set(partition, this.acknowledged(partition) + 1);
  }

  /**
   * Whether the message is the one that was acknowledged at its offset. Where a broker has lost a message, a late copy of
   * another one of this run may lie.
   */
  has({ partition, offset, runId, chunk }: Written): boolean {
    return runId === this.#runId && this.#partitions.get(partition)?.chunks.get(offset) === chunk;
  }

  /** How many were acknowledged with their offset. */
  acknowledged(partition: number): number {
    return this.#acknowledged.get(partition) ?? 0;
  }

  /** The offsets of a partition, if they are vouched for. */
  vouched(partition: number): OffsetSet | undefined {
    const own = this.#partitions.get(partition);
    return own?.isAscending === true && this.#appender.renewals(this.#topic) === 0 ? own.chunks : undefined;
  }
}
