/**
 * Appends packed records of one topic, a batch each: within a partition one at a time and in order, partitions in parallel. It keeps the
 * offsets of what was acknowledged, by which a run knows its own messages again.
 */
import type { Appender } from '../appender.ts';
import type { ProducerStamp } from '../producer-identity.ts';
import { batchOfPacked } from '../record-batch.ts';
import { OwnOffsets } from './own-offsets.ts';
import type { PackedChunk } from './spool.ts';

type OutgoingChunk = Pick<PackedChunk, 'partition' | 'number' | 'packed'>;

const inFlightBytesMax = 12_000_000;

export class BatchSender {
  readonly #appender: Appender;
  readonly #topic: string;
  readonly #lanes = new Map<number, Promise<void>>();
  readonly own: OwnOffsets;
  /** The last acknowledged offset. */
  readonly #last = new Map<number, number | undefined>();
  #inFlightBytes = 0;
  #freed = Promise.withResolvers<void>();
  #failure: { thrown: unknown } | undefined;
  chunks = 0;

  constructor(appender: Appender, topic: string, runId: string) {
    this.#appender = appender;
    this.#topic = topic;
    this.own = new OwnOffsets(appender, topic, runId);
  }

  /**
   * Returns when there is room for more.
   * @param onlyBehind as for `Appender.append`
   * @throws what an append threw
   */
  async send(chunk: OutgoingChunk, onlyBehind = false): Promise<void> {
    const { partition, packed } = chunk;
    this.#inFlightBytes += packed.length;
    const before = this.#lanes.get(partition) ?? Promise.resolve();
    this.#lanes.set(
      partition,
      before.then(() => this.#append(chunk, onlyBehind)),
    );
    while (this.#inFlightBytes > inFlightBytesMax && this.#failure === undefined) await this.#freed.promise;
    this.#check();
  }

  /** Waits until everything is acknowledged. @throws what an append threw */
  async drained(): Promise<void> {
    await Promise.all(this.#lanes.values());
    this.#check();
  }

  /** Where the last message of a partition is; undefined if that is not known, or it was refused. Call it after `drained`. */
  lastOffset(partition: number): number | undefined {
    return this.#last.get(partition);
  }

  async #append({ partition, number, packed }: OutgoingChunk, onlyBehind: boolean): Promise<void> {
    if (this.#failure === undefined) {
      try {
        const build = (stamp: ProducerStamp) => batchOfPacked(packed, Date.now(), stamp);
        const offset = await this.#appender.append(this.#topic, partition, build, onlyBehind);
        this.own.add(partition, number, offset);
        this.#last.set(partition, offset);
        this.chunks++;
      } catch (thrown) {
        this.#failure ??= { thrown };
      }
    }
    this.#inFlightBytes -= packed.length;
    this.#freed.resolve();
    this.#freed = Promise.withResolvers();
  }

  #check(): void {
    if (this.#failure !== undefined) throw this.#failure.thrown;
  }
}
