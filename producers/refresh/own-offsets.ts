/**
 * The offsets of a run's messages, by the broker's acknowledgements. The broker refuses a message whose predecessor it has
 * lost, and the run then gets another producer identity. So messages with ascending offsets and one identity are gapless:
 * none between the first and the last is missing, if the log holds these two.
 */
import type { Range } from '../../kafka/scan.ts';
import type { Appender } from '../appender.ts';
import type { OffsetSet, OwnMessages, SourceLog, Written } from './devices.ts';

interface OwnPartition {
  /** Numbers of the chunks, by offset. */
  readonly chunks: Map<number, number>;
  last: number;
  isAscending: boolean;
  /** Acknowledgements: more than offsets where the log became another one. */
  acknowledged: number;
}

export class OwnOffsets implements OwnMessages {
  readonly #appender: Pick<Appender, 'renewals'>;
  readonly #topic: string;
  readonly #runId: string;
  readonly #partitions = new Map<number, OwnPartition>();

  constructor(appender: Pick<Appender, 'renewals'>, topic: string, runId: string) {
    this.#appender = appender;
    this.#topic = topic;
    this.#runId = runId;
  }

  /**
   * @param chunk its number, which the run uses once in the partition
   * @param offset undefined where the broker has not named it: such a message counts as one of another run
   */
  add(partition: number, chunk: number, offset: number | undefined): void {
    if (offset === undefined) return;
    let own = this.#partitions.get(partition);
    if (own === undefined) {
      own = { chunks: new Map(), last: -1, isAscending: true, acknowledged: 0 };
      this.#partitions.set(partition, own);
    }
    own.isAscending &&= offset > own.last;
    own.last = offset;
    own.chunks.set(offset, chunk);
    own.acknowledged++;
  }

  /**
   * Whether the message is the one that was acknowledged at its offset. At the offset of a message that the broker has lost
   * there may be a late copy of another one of this run.
   */
  has({ partition, offset, runId, chunk }: Written): boolean {
    return runId === this.#runId && this.#partitions.get(partition)?.chunks.get(offset) === chunk;
  }

  /** How many were acknowledged with their offset. */
  acknowledged(partition: number): number {
    return this.#partitions.get(partition)?.acknowledged ?? 0;
  }

  /** The offsets of a partition, if they are gapless. */
  gapless(partition: number): OffsetSet | undefined {
    const own = this.#partitions.get(partition);
    return own?.isAscending === true && this.#appender.renewals(this.#topic) === 0 ? own.chunks : undefined;
  }
}

/**
 * Skips own messages at the beginning of a range, if they are gapless and the log holds the first and the last of them.
 * @returns the first offset of the range that must be read
 */
export async function endOfGapless(
  log: SourceLog,
  own: OwnMessages,
  { partition, start, end }: Range,
): Promise<number> {
  const offsets = own.gapless(partition);
  if (offsets === undefined) return start;
  let next = start;
  while (next < end && offsets.has(next)) next++;
  if (next === start) return start;
  for (const offset of new Set([start, next - 1])) {
    let isThere = false;
    const probe = (written: Written) => {
      isThere = own.has(written);
      return isThere;
    };
    await log.scan([{ partition, start: offset, end: offset + 1 }], () => undefined, probe);
    if (!isThere) return start;
  }
  return next;
}
