/**
 * How far a shard has read its topics, and which of them to read on. Topics with a backlog are read in proportion to it,
 * so that they come to their ends together: records of one topic take longer than those of another, and a mix that
 * stays the same keeps a pace from which the time to catch up can be told.
 */
import { type NextOffset, nextIn, type Position } from '../topics/position.ts';

interface Reading {
  /** Where the open micro-batch began. */
  from: NextOffset;
  next: NextOffset;
  /** End offset when it was last fetched. */
  end: number | undefined;
  /** Nothing came although something should be there: an open transaction is before it, or others filled the answer. */
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

  /** Topics that were fetched, with their ends. */
  get ends(): [topic: string, end: number][] {
    return [...this.#topics].flatMap(([topic, { end }]) => (end === undefined ? [] : [[topic, end]]));
  }

  startAt(topic: string, next: NextOffset): void {
    this.#topics.set(topic, { from: next, next, end: undefined, isDry: false });
  }

  moveTo(topic: string, next: NextOffset): void {
    this.#reading(topic).next = next;
  }

  /** Notes what a fetch has told. */
  sees(
    topic: string,
    { end, messages }: { readonly end: number; readonly messages: readonly unknown[] },
  ): void {
    const reading = this.#reading(topic);
    reading.end = end;
    reading.isDry = messages.length === 0;
  }

  /** Notes that a micro-batch begins. */
  begin(): void {
    for (const reading of this.#topics.values()) reading.from = reading.next;
  }

  /** Whether messages are there that were not read, as far as is known. */
  isBehind(topic: string): boolean {
    const { next, end, isDry } = this.#reading(topic);
    return end !== undefined && next < end && !isDry;
  }

  /**
   * Topics that nothing is left of, as far as is known, and those of whose backlog the least share was read.
   * @param to where the backlog ends if not at the end of the log
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

/** Share of the backlog that the micro-batch has; undefined for a topic that waits for messages and for nobody. */
function shareOf({ from, next, end, isDry }: Reading & { readonly end: number }): number | undefined {
  return isDry || next >= end ? undefined : (next - from) / (end - from);
}
