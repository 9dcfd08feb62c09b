/**
 * Sends the chunks of one topic: one at a time and in order within a partition, partitions in parallel. A chunk that waits
 * may still be packed, on a thread of Node's pool, so that on two cores packing overlaps with encoding.
 */
import type { Appender } from './appender.ts';
import type { Chunk } from './chunk-writer.ts';
import { InFlight } from './in-flight.ts';
import { batchOfPacked } from './record-batch.ts';

/** Memory for chunks that wait or are in flight. */
const inFlightBytesMax = 12_000_000;

interface SenderOptions<Sent> {
  readonly appender: Appender;
  readonly topic: string;
  /** The memory that a chunk holds until it is acknowledged. */
  readonly bytesOf: (chunk: Sent) => number;
  /** @param offset undefined where the broker has not named it */
  readonly onAcknowledged: (chunk: Sent, offset: number | undefined) => void;
  readonly signal?: AbortSignal | undefined;
}

interface Waiting<Sent> {
  readonly chunk: Sent;
  readonly packed: Promise<Buffer>;
  readonly onlyBehind: boolean;
}

export class Sender<Sent extends Pick<Chunk, 'partition' | 'from'> = Chunk> extends InFlight<Sent> {
  readonly #options: SenderOptions<Sent>;
  /** Chunks by partition, from the one that is being sent on. */
  readonly #queues = new Map<number, Waiting<Sent>[]>();

  constructor(options: SenderOptions<Sent>) {
    super(inFlightBytesMax, options.bytesOf, options.signal);
    this.#options = options;
  }

  /**
   * Takes ownership of the chunk; `onAcknowledged` gives it back.
   * @param packed its record
   * @param onlyBehind as for `Appender.append`
   */
  send(chunk: Sent, packed: Promise<Buffer>, onlyBehind = false): void {
    this.taken(chunk);
    // Where the queue has failed before, nothing awaits it.
    packed.catch((thrown) => this.fail(thrown));
    const { partition } = chunk;
    const queue = this.#queues.get(partition);
    if (queue !== undefined) {
      queue.push({ chunk, packed, onlyBehind });
      return;
    }
    const started = [{ chunk, packed, onlyBehind }];
    this.#queues.set(partition, started);
    void this.#run(partition, started);
  }

  async #run(partition: number, queue: Waiting<Sent>[]): Promise<void> {
    const { appender, topic, onAcknowledged } = this.#options;
    try {
      for (let next = queue[0]; next !== undefined && !this.failed; next = queue[0]) {
        const { chunk, onlyBehind } = next;
        const packed = await next.packed;
        const offset = await appender.append(
          topic,
          partition,
          (stamp) => batchOfPacked(packed, Date.now(), stamp),
          onlyBehind,
        );
        queue.shift();
        this.acknowledged(chunk);
        onAcknowledged(chunk, offset);
      }
      this.#queues.delete(partition);
    } catch (thrown) {
      this.fail(thrown);
    }
  }
}
