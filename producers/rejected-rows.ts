/**
 * Rejected rows on their way to the dead letters, in batches, one at a time: a whole file of bad rows neither fills the
 * memory nor passes unseen.
 */
import kafkajs, { type Producer } from 'kafkajs';
import { partitionOf } from '../topics/catalog.ts';
import { deadLetterMessage } from '../topics/dead-letter.ts';
import type { RejectedRow } from './chunker.ts';
import { InFlight } from './in-flight.ts';
import { type Broker, sendFailure } from './producer.ts';

const batchRowsMax = 500;
/** A batch passes a broker with default limits even if one partition gets all of it. */
const batchBytesMax = 900_000;
const inFlightBytesMax = 8_000_000;
/** What key, headers and framing of one message add at most, in bytes; mostly the detail. */
const overheadBytes = 2_000;

export interface RejectedRowsOptions {
  readonly broker: Broker;
  readonly producer: Producer;
  readonly topic: string;
  readonly partitions: number;
  /** Name of the file that the rows come from. */
  readonly file: string;
  /** Its columns, when they are not the official ones in their order. */
  readonly columns?: readonly string[];
  readonly signal?: AbortSignal;
}

export class RejectedRows {
  readonly #options: RejectedRowsOptions;
  readonly #inFlight: InFlight<RejectedRow>;
  #waiting: RejectedRow[] = [];
  #running = false;

  constructor(options: RejectedRowsOptions) {
    this.#options = options;
    this.#inFlight = new InFlight(bytesOf, options.signal);
  }

  add(rejected: RejectedRow): void {
    this.#inFlight.add(rejected);
    this.#waiting.push(rejected);
    if (this.#running) return;
    this.#running = true;
    // Later, so that the rows which are rejected together go together.
    setImmediate(() => void this.#run());
  }

  get oldest() {
    return this.#inFlight.oldest;
  }

  /** Waits until more rows may come. @throws ReelflowError brokerUnreachable */
  async room(): Promise<void> {
    await this.#inFlight.room(inFlightBytesMax);
  }

  /** Waits until all rows are acknowledged. @throws ReelflowError brokerUnreachable */
  async drained(): Promise<void> {
    await this.#inFlight.drained();
  }

  async #run(): Promise<void> {
    const { producer, topic, broker } = this.#options;
    try {
      while (this.#waiting.length > 0) {
        const rows = this.#waiting;
        this.#waiting = [];
        for (const batch of batches(rows)) {
          // One partition a request: where one partition refuses, kafkajs sends the whole request again, and the
          // others would have their rows twice. Right after a topic's creation that happens.
          const byPartition = Map.groupBy(batch, (row) => this.#partitionOf(row));
          await Promise.all(
            [...byPartition].map(async ([partition, own]) => {
              await producer.send({
                topic,
                acks: -1,
                compression: kafkajs.CompressionTypes.ZSTD,
                messages: own.map((row) => ({ ...this.#messageOf(row), partition })),
              });
              for (const row of own) this.#inFlight.acknowledge(row);
            }),
          );
        }
      }
      this.#running = false;
    } catch (thrown) {
      this.#inFlight.fail(sendFailure(thrown, topic, broker));
    }
  }

  /** Where the row would have gone; rows without an id are spread. */
  #partitionOf({ key, line }: RejectedRow): number {
    const { partitions } = this.#options;
    return key === null ? line % partitions : partitionOf(key, partitions);
  }

  #messageOf({ reason, detail, original, originalBytes, line, key }: RejectedRow) {
    const { file, columns } = this.#options;
    return deadLetterMessage({
      stage: 'producer',
      reason,
      detail,
      original,
      originalBytes,
      source: { file, line },
      time: new Date(),
      key,
      ...(columns !== undefined && { columns }),
    });
  }
}

function bytesOf({ original }: RejectedRow): number {
  return original.length + overheadBytes;
}

function* batches(rows: readonly RejectedRow[]): Generator<RejectedRow[]> {
  let batch: RejectedRow[] = [];
  let bytes = 0;
  for (const row of rows) {
    if (batch.length === batchRowsMax || (batch.length > 0 && bytes + bytesOf(row) > batchBytesMax)) {
      yield batch;
      batch = [];
      bytes = 0;
    }
    batch.push(row);
    bytes += bytesOf(row);
  }
  if (batch.length > 0) yield batch;
}
