/**
 * Sends rejected rows to the dead-letter topic, one batch at a time, so that a file of only invalid rows does not fill
 * the memory.
 */
import type { Producer } from 'kafkajs';
import type { Broker } from '../kafka/client.ts';
import { partitionOf } from '../topics/catalog.ts';
import { deadLetterMessage } from '../topics/dead-letter.ts';
import type { RejectedRow } from './chunker.ts';
import { InFlight } from './in-flight.ts';
import type { InputFile } from './input-files.ts';
import { sendServed } from './producer.ts';

const batchRowsMax = 500;
/** A broker with default limits accepts a batch even if all of it goes to one partition. */
const batchBytesMax = 900_000;
const inFlightBytesMax = 8_000_000;
/** Most bytes that key, headers and framing add to a message; mostly the detail. */
const overheadBytes = 2_000;

interface RejectedRowsOptions {
  readonly broker: Broker;
  readonly producer: Producer;
  readonly topic: string;
  readonly partitions: number;
  /** The file of the rows. */
  readonly file: InputFile;
  readonly signal?: AbortSignal | undefined;
}

export class RejectedRows extends InFlight<RejectedRow> {
  readonly #options: RejectedRowsOptions;
  #waiting: RejectedRow[] = [];
  #running = false;

  constructor(options: RejectedRowsOptions) {
    super(inFlightBytesMax, bytesOf, options.signal);
    this.#options = options;
  }

  add(rejected: RejectedRow): void {
    this.taken(rejected);
    this.#waiting.push(rejected);
    if (this.#running) return;
    this.#running = true;
    // Deferred, so that rows rejected together are sent together.
    setImmediate(() => void this.#run());
  }

  async #run(): Promise<void> {
    const { producer, topic, broker } = this.#options;
    try {
      while (this.#waiting.length > 0) {
        const rows = this.#waiting;
        this.#waiting = [];
        for (const batch of batches(rows)) {
          // One partition per request: if one partition refuses, which happens right after a topic's creation, kafkajs
          // repeats the whole request, and the other partitions would get their rows twice.
          const byPartition = Map.groupBy(batch, (row) => this.#partitionOf(row));
          await Promise.all(
            [...byPartition].map(async ([partition, own]) => {
              const messages = own.map((row) => ({ ...this.#messageOf(row), partition }));
              await sendServed(broker, producer, `append to ${topic}/${partition}`, { topic, messages });
              for (const row of own) this.acknowledged(row);
            }),
          );
        }
      }
      this.#running = false;
    } catch (thrown) {
      this.fail(thrown);
    }
  }

  /** The partition that the row would have gone to; rows without an id are spread. */
  #partitionOf({ key, line }: RejectedRow): number {
    const { partitions } = this.#options;
    return key === null ? line % partitions : partitionOf(key, partitions);
  }

  #messageOf({ reason, detail, original, originalBytes, line, key }: RejectedRow) {
    const { name, layout } = this.#options.file;
    return deadLetterMessage({
      stage: 'producer',
      reason,
      detail,
      original,
      originalBytes,
      source: { file: name, line },
      time: new Date(),
      key,
      ...(layout.names !== undefined && { columns: layout.names }),
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
