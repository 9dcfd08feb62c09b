/**
 * Sends the chunks of one topic: one at a time and in order within a partition, partitions in parallel. Chunks that wait are
 * packed meanwhile, on the threads of Node's pool, so that on two cores packing overlaps with encoding.
 */
import type { Appender } from './appender.ts';
import type { Chunk } from './chunk-writer.ts';
import { InFlight } from './in-flight.ts';
import { batchOfPacked, packRecord } from './record-batch.ts';

/** Memory for chunks that wait or are in flight. */
const inFlightBytesMax = 12_000_000;

interface SenderOptions {
  readonly appender: Appender;
  readonly topic: string;
  /** @param offset undefined where the broker has not named it */
  readonly onAcknowledged: (chunk: Chunk, offset: number | undefined) => void;
  readonly signal?: AbortSignal;
}

interface Waiting {
  readonly chunk: Chunk;
  readonly packed: Promise<Buffer>;
}

export class Sender extends InFlight<Chunk> {
  readonly #options: SenderOptions;
  readonly #lanes = new Map<number, Waiting[]>();

  constructor(options: SenderOptions) {
    super(inFlightBytesMax, (chunk) => chunk.value.length, options.signal);
    this.#options = options;
  }

  /** Takes ownership of the chunk; `onAcknowledged` gives it back. */
  send(chunk: Chunk): void {
    this.taken(chunk);
    const { room, start, value, key, partition } = chunk;
    const packed = packRecord(room, start, start + value.length, key);
    // Where the lane has failed before, nothing awaits it.
    packed.catch((thrown) => this.fail(thrown));
    const lane = this.#lanes.get(partition);
    if (lane !== undefined) {
      lane.push({ chunk, packed });
      return;
    }
    const started = [{ chunk, packed }];
    this.#lanes.set(partition, started);
    void this.#run(partition, started);
  }

  async #run(partition: number, lane: Waiting[]): Promise<void> {
    const { appender, topic, onAcknowledged } = this.#options;
    try {
      for (let next = lane[0]; next !== undefined && !this.failed; next = lane[0]) {
        const { chunk } = next;
        const packed = await next.packed;
        const offset = await appender.append(topic, partition, (stamp) =>
          batchOfPacked(packed, Date.now(), stamp),
        );
        lane.shift();
        this.acknowledged(chunk);
        onAcknowledged(chunk, offset);
      }
      this.#lanes.delete(partition);
    } catch (thrown) {
      this.fail(thrown);
    }
  }
}
