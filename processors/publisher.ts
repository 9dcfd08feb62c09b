/**
 * Publishes what a shard has committed, and knows what is published: the fold of its partition of the delta topic.
 * Every message that the broker takes tells its offset; an offset that is not the expected one shows that somebody
 * else has written, and the fold reads what it was.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import kafkajs, { type Producer } from 'kafkajs';
import { type Fetched, LogInterrupted, type LogReader, OutsideLog } from '../kafka/log.ts';
import { ReelflowError } from '../runtime/errors.ts';
import { RejectedMessage } from '../topics/chunk.ts';
import { type ChainState, DeltaChain } from '../topics/delta-chain.ts';
import { checkDeltaRows, type DeltaHeader, decodeDeltaHeader, gapsOf, toOf } from '../topics/delta-wire.ts';
import { sameGaps, samePosition } from '../topics/position.ts';

export interface PublisherOptions {
  readonly producer: Pick<Producer, 'send'>;
  readonly reader: Pick<LogReader, 'fetch'>;
  readonly topic: string;
  readonly shard: number;
  readonly deltaSchemaId: number;
  /** Looks at the rows behind a header. @throws RejectedMessage, when the sink could not add them */
  readonly checkRows?: (value: Buffer, at: number) => void;
}

/** So often in a row reading may be interrupted; the reader itself waits for a broker that comes back. */
const interruptionsMax = 20;
const pauseMs = 100;

export class Publisher {
  readonly #options: PublisherOptions;
  readonly #chain: DeltaChain;
  /** First offset of the delta partition that is not folded yet. */
  #next: number;

  /** @param start first offset that the delta partition keeps */
  constructor(options: PublisherOptions, start: number) {
    this.#options = options;
    this.#next = start;
    this.#chain = new DeltaChain(start > 0 ? 'trimmed' : undefined);
  }

  /** Records that the deltas folded so far account for, in this generation. */
  records = 0;

  /** First offset of the delta partition that is not folded yet. */
  get next(): number {
    return this.#next;
  }

  /** Whether all that was published is trimmed. */
  get isUnknown(): boolean {
    return this.#chain.isUnknown;
  }

  get published(): ChainState {
    return this.#chain.state;
  }

  /**
   * Folds what is in the partition up to `end` and what comes with it.
   * @returns how many deltas were refused: they go on from a position that was never published
   * @throws ReelflowError deltasTrimmed, when the partition no longer holds what was to be read; brokerUnreachable
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
            // What the sink cannot add must not count as published.
            if (header.shard !== shard) continue;
            checkRows(value as Buffer, at);
            const verdict = this.#chain.accept(header);
            if (verdict === 'refuse') refused += 1;
            if (verdict === 'apply') this.#count(header);
          } catch (thrown) {
            // The sink reports what is no delta; here it is only not part of the chain.
            if (!(thrown instanceof RejectedMessage)) throw thrown;
          }
        }
      }
    }
    return refused;
  }

  async #fetch(): Promise<Fetched[]> {
    const { reader, topic, shard } = this.#options;
    for (let interruptions = 1; ; interruptions++) {
      try {
        return await reader.fetch([{ topic, partition: shard, next: this.#next }], { waitMs: 200 });
      } catch (thrown) {
        if (thrown instanceof LogInterrupted) {
          if (interruptions === interruptionsMax) throw this.#away(thrown);
          await sleep(pauseMs);
          continue;
        }
        if (!(thrown instanceof OutsideLog)) throw thrown;
        throw new ReelflowError(
          'deltasTrimmed',
          `The deltas of shard ${shard} were trimmed while they were read`,
          {
            detail: `${topic}/${shard}: offset ${this.#next} is gone.`,
            hint: 'Start the processor again.',
          },
        );
      }
    }
  }

  #away({ cause, message }: LogInterrupted): ReelflowError {
    if (cause instanceof ReelflowError) return cause;
    return new ReelflowError('brokerUnreachable', 'The published deltas cannot be read', {
      detail: `${this.#options.topic}/${this.#options.shard}: ${message}`,
      hint: 'See to the broker, and start again.',
      cause,
    });
  }

  #count({ kind, range }: DeltaHeader): void {
    if (kind !== 'delta') this.records = 0;
    if (kind === 'reset') return;
    for (const { applied, duplicate, rejected } of range) this.records += applied + duplicate + rejected;
  }

  /**
   * Sends the messages of one delta, in order.
   * @returns whether what is published now is where this delta leads: not when it was refused, nor when somebody else
   *   has gone on from there
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
      // A retry of our own, or another owner: the partition says what counts.
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
