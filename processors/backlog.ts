/**
 * The next offset to read of each topic of a shard, and the choice of the topics to fetch next. Topics are read in
 * proportion to their backlogs, so that all of them reach their ends together. Records of some topics take longer than
 * those of others, so only a constant mix keeps a constant rate, from which monitors predict the time to catch up.
 */
import { type NextOffset, nextIn, type Position } from '../topics/position.ts';

interface Reading {
  /** First offset of the open micro-batch. */
  from: NextOffset;
  next: NextOffset;
  /** End offset at the last fetch. */
  end: number | undefined;
  /** The last fetch returned nothing before the end: an open transaction hides it, or other topics filled the response. */
  isDry: boolean;
}

export class Backlog {
  readonly #topics = new Map<string, Reading>();

  get topics(): string[] {
    return [...this.#topics.keys()];
  }

  nextOf(topic: string): NextOffset {
    return this.#topics.get(topic)?.next ?? 0;
  }

  /** Topics that were fetched, with their end offsets. */
  get ends(): [topic: string, end: number][] {
    return [...this.#topics].flatMap(([topic, { end }]) => (end === undefined ? [] : [[topic, end]]));
  }

  startAt(topic: string, next: NextOffset): void {
    this.#topics.set(topic, { from: next, next, end: undefined, isDry: false });
  }

  moveTo(topic: string, next: NextOffset): void {
    this.#reading(topic).next = next;
  }

  /** Records the result of a fetch. */
  sees(
    topic: string,
    { highWatermark, messages }: { readonly highWatermark: number; readonly messages: readonly unknown[] },
  ): void {
    const reading = this.#reading(topic);
    reading.end = highWatermark;
    reading.isDry = messages.length === 0;
  }

  /** Records that a micro-batch begins. */
  begin(): void {
    for (const reading of this.#topics.values()) reading.from = reading.next;
  }

  /** Whether a topic has unread messages, by the last fetch. */
  isBehind(topic: string): boolean {
    const { next, end, isDry } = this.#reading(topic);
    return end !== undefined && next < end && !isDry;
  }

  /**
   * Topics to fetch: those without a known backlog, and those of whose backlog the open micro-batch has the smallest share.
   * @param to end of the backlog, if it is not the end of the log
   */
  due(to?: Position): string[] {
    const shares = [...this.#topics].map(([topic, reading]) => {
      const end = Math.min(
        reading.end ?? Number.POSITIVE_INFINITY,
        to === undefined ? Number.POSITIVE_INFINITY : nextIn(to, topic),
      );
      return { topic, share: shareOf({ ...reading, end }) };
    });
    const least = Math.min(...shares.map(({ share }) => share ?? 1));
    return shares.filter(({ share }) => share === undefined || share <= least).map(({ topic }) => topic);
  }

  #reading(topic: string): Reading {
    const reading = this.#topics.get(topic);
    if (reading === undefined) throw new RangeError(`${topic} is not read`);
    return reading;
  }
}

/** Share of a topic's backlog in the open micro-batch; undefined without a readable backlog. */
function shareOf({ from, next, end, isDry }: Reading & { readonly end: number }): number | undefined {
  return isDry || next >= end ? undefined : (next - from) / (end - from);
}
