/** Where the source topics of a shard start at a base, from which a store can be built without the messages before it. */
import type { BoundsByTopic } from '../kafka/bounds.ts';
import { type Base, type BaseReader, findBase } from '../topics/base.ts';
import { nextIn, type Position } from '../topics/position.ts';

export class SourceBases {
  readonly #shard: number;
  readonly #bounds: BoundsByTopic;
  readonly #reader: BaseReader;
  readonly #found = new Map<string, Promise<Base | undefined>>();

  constructor(shard: number, bounds: BoundsByTopic, reader: BaseReader) {
    this.#shard = shard;
    this.#bounds = bounds;
    this.#reader = reader;
  }

  /** The base at which a topic starts, if its start is past `next`. Reads the log once. */
  async before(topic: string, next: number): Promise<Base | undefined> {
    const bounds = this.#bounds.get(topic)?.get(this.#shard);
    if (bounds === undefined || bounds.start <= next) return undefined;
    let found = this.#found.get(topic);
    if (found === undefined) {
      found = findBase(this.#reader, { topic, partition: this.#shard }, bounds);
      this.#found.set(topic, found);
    }
    return found;
  }

  /** Topics whose log starts at a base that lies behind a position. */
  async topicsBehind(topics: readonly string[], position: Position): Promise<string[]> {
    const behind: string[] = [];
    for (const topic of topics) {
      if ((await this.before(topic, nextIn(position, topic))) !== undefined) behind.push(topic);
    }
    return behind;
  }

  /**
   * Where a store at `position` may publish again: at `published`, but not inside a base at which it begins, because there it
   * lacks rows that the base has not repeated yet.
   */
  async reach(topics: readonly string[], position: Position, published: Position): Promise<Position> {
    const reached: Record<string, number> = { ...published };
    for (const topic of topics) {
      const base = await this.before(topic, nextIn(position, topic));
      if (base !== undefined) reached[topic] = Math.max(base.end, nextIn(published, topic));
    }
    return reached;
  }
}
