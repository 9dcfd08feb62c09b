/**
 * Publishes the deltas that a shard has committed, and knows the published state: the fold of its partition of the delta
 * topic. The broker returns the offset of each message that it stores. An unexpected offset means that another owner has
 * written, or that a retry stored the message twice; then the fold reads the messages in between.
 */
import kafkajs, { type Producer } from 'kafkajs';
import { type Fetched, type LogReader, OutsideLog } from '../kafka/log.ts';
import { ReelflowError } from '../runtime/errors.ts';
import { RejectedMessage } from '../topics/chunk.ts';
import { type ChainState, DeltaChain } from '../topics/delta-chain.ts';
import { checkDeltaRows, type DeltaHeader, decodeDeltaHeader, gapsOf, toOf } from '../topics/delta-wire.ts';
import { sameGaps, samePosition } from '../topics/position.ts';
import { recordsOf } from '../topics/record-counts.ts';

interface PublisherOptions {
  readonly producer: Pick<Producer, 'send'>;
  readonly reader: Pick<LogReader, 'fetch'>;
  readonly topic: string;
  readonly shard: number;
  readonly deltaSchemaId: number;
  /** Checks the rows after a header. @throws RejectedMessage if the sink could not add them */
  readonly checkRows?: (value: Buffer, at: number) => void;
}

export class Publisher {
  readonly #options: PublisherOptions;
  readonly #chain: DeltaChain;
  /** First offset of the delta partition that is not folded. */
  #next: number;
  #resetBy: string | undefined;

  /** @param start first offset in the delta partition */
  constructor(options: PublisherOptions, start: number) {
    this.#options = options;
    this.#next = start;
    this.#chain = new DeltaChain(start > 0 ? 'trimmed' : undefined);
  }

  /** The reset whose mark has begun this generation; undefined if it was not folded. */
  get resetBy(): string | undefined {
    return this.#resetBy;
  }

  /** Records in the folded deltas of this generation. */
  records = 0;

  /** First offset of the delta partition that is not folded. */
  get next(): number {
    return this.#next;
  }

  /** Whether everything published is trimmed, so that the published state is unknown. */
  get isUnknown(): boolean {
    return this.#chain.isUnknown;
  }

  get published(): ChainState {
    return this.#chain.state;
  }

  /**
   * Folds the partition up to `end`, and further messages of the same fetch.
   * @returns how many deltas were refused: they continue from a position that was never published
   * @throws ReelflowError deltasTrimmed, if the partition has lost the next offset
   */
  async fold(end: number): Promise<number> {
    const { shard, deltaSchemaId, checkRows = checkDeltaRows } = this.#options;
    let refused = 0;
    while (this.#next < end) {
      for (const { messages } of await this.#fetch()) {
        for (const { offset, value, isMarker } of messages) {
          this.#next = offset + 1;
          if (isMarker) continue;
          try {
            const { header, at } = decodeDeltaHeader(value, deltaSchemaId);
            // A delta that the sink cannot add does not count as published.
            if (header.shard !== shard) continue;
            checkRows(value as Buffer, at);
            const verdict = this.#chain.accept(header);
            if (verdict === 'refuse') refused += 1;
            if (verdict === 'apply') this.#count(header);
          } catch (thrown) {
            // The sink reports messages that are not deltas. Here they are only not part of the chain.
            if (!(thrown instanceof RejectedMessage)) throw thrown;
          }
        }
      }
    }
    return refused;
  }

  async #fetch(): Promise<Fetched[]> {
    const { reader, topic, shard } = this.#options;
    try {
      return await reader.fetch([{ topic, partition: shard, next: this.#next }], { waitMs: 200 });
    } catch (thrown) {
      if (!(thrown instanceof OutsideLog)) throw thrown;
      throw new ReelflowError(
        'deltasTrimmed',
        `The deltas of shard ${shard} were trimmed while they were being read`,
        {
          detail: `${topic}/${shard}: offset ${this.#next} is gone.`,
          hint: 'Start the processor again.',
        },
      );
    }
  }

  #count({ kind, range, storeId }: DeltaHeader): void {
    if (kind !== 'delta') this.records = 0;
    if (kind === 'reset') {
      this.#resetBy = storeId;
      return;
    }
    for (const counts of range) this.records += recordsOf(counts);
  }

  /**
   * Sends the messages of one delta, in order.
   * @returns whether the published state is now the one that this delta leads to. It is not if the delta was refused, or if
   *   another owner has continued from there
   */
  async publish(messages: readonly Buffer[]): Promise<boolean> {
    const { producer, topic, shard, deltaSchemaId } = this.#options;
    for (const value of messages) {
      const [sent] = await producer.send({
        topic,
        acks: -1,
        compression: kafkajs.CompressionTypes.ZSTD,
        messages: [{ key: String(shard), value, partition: shard }],
      });
      const offset = Number(sent?.baseOffset ?? -1);
      // A retry, or another owner: the order in the partition decides.
      if (offset !== this.#next) await this.fold(offset);
      if (offset !== this.#next) continue;
      this.#next = offset + 1;
      const { header } = decodeDeltaHeader(value, deltaSchemaId);
      if (this.#chain.accept(header) === 'apply') this.#count(header);
    }
    const { header } = decodeDeltaHeader(messages.at(-1) ?? null, deltaSchemaId);
    const { generation, cubeSet, position, gaps } = this.#chain.state;
    return (
      generation === header.generation &&
      cubeSet === header.cubeSet &&
      samePosition(position, header.kind === 'reset' ? {} : toOf(header)) &&
      sameGaps(gaps, gapsOf(header))
    );
  }
}
