/**
 * Sends the chunks of one topic: one at a time and in order within a partition, partitions in parallel.
 */
import type { Appender } from './appender.ts';
import type { Chunk } from './chunk-writer.ts';
import { InFlight } from './in-flight.ts';
import { recordBatchOf } from './record-batch.ts';

/** Memory for chunks that wait or are in flight. */
const inFlightBytesMax = 12_000_000;

export interface SenderOptions {
  readonly appender: Appender;
  readonly topic: string;
  /** @param offset undefined where the broker has not named it */
  readonly onAcknowledged: (chunk: Chunk, offset: number | undefined) => void;
  readonly signal?: AbortSignal;
}

export class Sender {
  readonly #options: SenderOptions;
  readonly #inFlight: InFlight<Chunk>;
  readonly #lanes = new Map<number, Chunk[]>();

  constructor(options: SenderOptions) {
    this.#options = options;
    this.#inFlight = new InFlight((chunk) => chunk.value.length, options.signal);
  }

  /** Takes ownership of the chunk; `onAcknowledged` gives it back. */
  send(chunk: Chunk): void {
    this.#inFlight.add(chunk);
    const lane = this.#lanes.get(chunk.partition);
    if (lane !== undefined) {
      lane.push(chunk);
      return;
    }
    const started = [chunk];
    this.#lanes.set(chunk.partition, started);
    void this.#run(chunk.partition, started);
  }

  get oldest() {
    return this.#inFlight.oldest;
  }

  /** Waits until there is room for more chunks. @throws ReelflowError brokerUnreachable */
  async room(): Promise<void> {
    await this.#inFlight.room(inFlightBytesMax);
  }

  /** Waits until all chunks are acknowledged. @throws ReelflowError brokerUnreachable */
  async drained(): Promise<void> {
    await this.#inFlight.drained();
  }

  async #run(partition: number, lane: Chunk[]): Promise<void> {
    const { appender, topic, onAcknowledged } = this.#options;
    try {
      for (let chunk = lane[0]; chunk !== undefined && !this.#inFlight.failed; chunk = lane[0]) {
        const { room, start, value, key } = chunk;
        const offset = await appender.append(topic, partition, (stamp) =>
          recordBatchOf(room, start, start + value.length, key, Date.now(), stamp),
        );
        lane.shift();
        this.#inFlight.acknowledge(chunk);
        onAcknowledged(chunk, offset);
      }
      this.#lanes.delete(partition);
    } catch (thrown) {
      this.#inFlight.fail(thrown);
    }
  }
}
