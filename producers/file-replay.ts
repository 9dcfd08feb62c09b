/**
 * Replays one file from the row that the journal names. Reading and unpacking, encoding, and sending overlap; each waits
 * when the next one is behind.
 */
import { once } from 'node:events';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Producer } from 'kafkajs';
import type { Broker } from '../kafka/client.ts';
import { bytesOf } from '../runtime/file-bytes.ts';
import type { Logger } from '../runtime/logger.ts';
import { type DatasetName, datasets, type TopicNames } from '../topics/catalog.ts';
import type { Appender } from './appender.ts';
import { type Chunk, type FilePosition, oldestOf } from './chunk-writer.ts';
import { Chunker, type RejectedRow } from './chunker.ts';
import { checkText, damaged, type InputFile } from './input-files.ts';
import { firstChunkOf, type Journal, type JournaledProgress } from './journal.ts';
import { RateLimit } from './rate-limit.ts';
import { packRecord } from './record-batch.ts';
import { RejectedRows } from './rejected-rows.ts';
import { checkRejections, countRejection, defaultMaxRejected, hopelessRows } from './rejection-limit.ts';
import { Sender } from './sender.ts';

export interface ReplayProgress {
  readonly dataset: DatasetName;
  /** A refresh reads a file to compare it, before anything is sent. */
  readonly pass: 'compare' | 'send';
  /** Bytes of the file on disk. */
  readonly bytesRead: number;
  readonly bytesTotal: number;
  readonly read: number;
  readonly rejected: number;
  /** Acknowledged. */
  readonly chunks: number;
  readonly bytes: number;
}

export interface FileReplayOptions {
  readonly broker: Broker;
  readonly names: TopicNames;
  /** At most this many rows per second. */
  readonly rate?: number;
  /** Per cent of a file's rows that may be rejected. Default: `defaultMaxRejected`. */
  readonly maxRejected?: number;
  readonly logger: Logger;
  /** Called several times a second. */
  readonly onProgress?: (progress: ReplayProgress) => void;
  /** Called for each rejected row. */
  readonly onRejected?: (reason: string) => void;
  /** Stops the replay: rows already read are still sent and journaled. */
  readonly signal?: AbortSignal;
}

/** What all files of a run use. */
export interface FileReplayRun {
  readonly journal: Journal;
  readonly saveJournal: () => Promise<void>;
  /** For dead letters. */
  readonly producer: Producer;
  /** For chunks. */
  readonly appender: Appender;
  readonly deadLetterPartitions: number;
}

/** Receives all rows of a file that is loaded into an empty topic. */
export interface FileObserver {
  /** The rows of the piece were read; the rejected ones are reported. */
  push(piece: Buffer): void;
  rejected(row: RejectedRow): void;
  acknowledged(chunk: Chunk, offset: number | undefined): void;
  end(): void;
}

const tickMs = 1_000;
/** With a rate, chunks fill slowly: an open one is sent after two ticks at the latest. */
const tickMsWithRate = 250;
/** How long an interrupted run waits for acknowledgements. */
const patienceMs = 5_000;

export class FileReplay {
  readonly #options: FileReplayOptions;
  readonly #run: FileReplayRun;
  readonly #file: InputFile;
  readonly #observer: FileObserver | undefined;
  readonly #progress: JournaledProgress;
  readonly #sender: Sender;
  readonly #rejectedRows: RejectedRows;
  readonly #chunker: Chunker;
  readonly #rateLimit: RateLimit | undefined;
  readonly #started = performance.now();
  readonly #secondsBefore: number;
  readonly #everyMs: number;
  #nextTick: number;
  #rowAtTick = 0;
  #bytesRead = 0;
  #damage: { thrown: unknown } | undefined;

  constructor(
    options: FileReplayOptions,
    run: FileReplayRun,
    file: InputFile,
    schemaId: number,
    observer?: FileObserver,
  ) {
    const { broker, names, rate, signal } = options;
    const { journal, producer, appender } = run;
    const { dataset } = file;
    const progress = journal.datasets[dataset] ?? {
      row: 0,
      rejected: 0,
      chunks: 0,
      bytes: 0,
      seconds: 0,
      done: false,
      rejections: {},
    };
    journal.datasets[dataset] = progress;
    this.#options = options;
    this.#run = run;
    this.#file = file;
    this.#observer = observer;
    this.#progress = progress;
    this.#secondsBefore = progress.seconds;
    this.#rejectedRows = new RejectedRows({
      broker,
      producer,
      topic: names.deadLetter,
      partitions: run.deadLetterPartitions,
      file,
      signal,
    });
    this.#sender = new Sender({
      appender,
      topic: names.source(dataset),
      bytesOf: ({ value }) => value.length,
      onAcknowledged: (chunk, offset) => {
        progress.chunks += 1;
        progress.bytes += chunk.value.length;
        observer?.acknowledged(chunk, offset);
        this.#chunker.recycle(chunk);
      },
      signal,
    });
    this.#chunker = new Chunker({
      dataset: datasets[dataset],
      layout: file.layout,
      shards: journal.shards,
      schemaId,
      runId: journal.runId,
      asOf: file.modified,
      start: { row: progress.row, rejected: progress.rejected },
      firstChunk: firstChunkOf(journal),
      onChunk: (chunk) => this.#sender.send(chunk, packRecord(chunk)),
      onRejected: (rejected) => {
        this.#rejectedRows.add(rejected);
        observer?.rejected(rejected);
        countRejection(progress.rejections, rejected);
        options.onRejected?.(rejected.reason);
      },
    });
    this.#rateLimit = rate === undefined ? undefined : new RateLimit(rate);
    this.#everyMs = rate === undefined ? tickMs : tickMsWithRate;
    this.#nextTick = performance.now() + this.#everyMs;
  }

  /** Whether the file was sent to its end. */
  get isDone(): boolean {
    return this.#progress.done;
  }

  /**
   * @throws ReelflowError input, if the file is damaged, after the rows before the damage were sent; rowsRejected, if all
   *   of the first rows are rejected
   */
  async run(): Promise<void> {
    const { logger } = this.#options;
    const { dataset, name: file } = this.#file;
    logger.info({ dataset, file, row: this.#progress.row }, 'replay of a file begins');
    const pieces = bytesOf(this.#file, {
      read: (bytes) => {
        this.#bytesRead = bytes;
      },
    });
    try {
      try {
        for (let piece = await this.#next(pieces); piece !== undefined; piece = await this.#next(pieces)) {
          await this.#push(piece);
        }
      } catch (thrown) {
        // What was in flight is given up, and a resumed run sends it.
        if (!this.#isStopped) throw thrown;
      }
      // The last line is incomplete if the file is damaged or the run was stopped.
      const isWhole = this.#damage === undefined && !this.#isStopped && !this.#isHopeless;
      if (isWhole) {
        this.#chunker.end();
        this.#observer?.end();
      } else {
        this.#chunker.cut();
      }
      const drained = Promise.all([this.#sender.drained(), this.#rejectedRows.drained()]);
      await settled(drained, this.#options.signal);
      this.#progress.done = isWhole && !this.#isStopped;
    } finally {
      await pieces.return(undefined);
      // Also when the broker is gone: a resumed run continues from here.
      await this.#journalProgress();
    }
    this.#reportProgress();
    const { row: read, rejected } = this.#chunker.read;
    if (this.#damage !== undefined) throw damaged(this.#file, `line ${read + 1}`, this.#damage.thrown);
    if (this.#isHopeless) {
      const { rejections } = this.#progress;
      checkRejections({ [dataset]: { read, rejected, rejections } }, this.#maxRejected, 'hopeless');
    }
    logger.info({ dataset, read, rejected, chunks: this.#progress.chunks }, 'replay of a file ends');
  }

  /** The next piece of the file; undefined at its end, where it is damaged, and when the run is stopped. */
  async #next(pieces: AsyncGenerator<Buffer>): Promise<Buffer | undefined> {
    if (this.#isStopped || this.#isHopeless) return undefined;
    try {
      const piece = await pieces.next();
      if (piece.done === true || this.#isStopped) return undefined;
      checkText(piece.value);
      return piece.value;
    } catch (thrown) {
      this.#damage = { thrown };
      return undefined;
    }
  }

  async #push(bytes: Buffer): Promise<void> {
    for (let at = 0; at < bytes.length && !this.#isStopped; ) {
      const rows = this.#rateLimit === undefined ? Number.POSITIVE_INFINITY : await this.#rateLimit.rows();
      const { row } = this.#chunker.read;
      if (rows > 0) at = this.#chunker.push(bytes, at, rows);
      this.#rateLimit?.took(this.#chunker.read.row - row);
      await this.#sender.room();
      await this.#rejectedRows.room();
      this.#reportProgress();
      if (performance.now() < this.#nextTick) continue;
      this.#nextTick = performance.now() + this.#everyMs;
      this.#chunker.cut(this.#rowAtTick);
      this.#rowAtTick = this.#chunker.read.row;
      await this.#journalProgress();
    }
    this.#observer?.push(bytes);
  }

  async #journalProgress(): Promise<void> {
    const positions = [this.#chunker.handedOver, this.#sender.oldest, this.#rejectedRows.oldest];
    const { row, rejected } = oldestOf(
      positions.filter((position) => position !== undefined),
    ) as FilePosition;
    this.#progress.row = row;
    this.#progress.rejected = rejected;
    this.#progress.seconds = this.#secondsBefore + (performance.now() - this.#started) / 1000;
    await this.#run.saveJournal();
  }

  #reportProgress(): void {
    const { row: read, rejected } = this.#chunker.read;
    const { chunks, bytes } = this.#progress;
    const { dataset, size: bytesTotal } = this.#file;
    this.#options.onProgress?.({
      dataset,
      pass: 'send',
      bytesRead: this.#bytesRead,
      bytesTotal,
      read,
      rejected,
      chunks,
      bytes,
    });
  }

  get #maxRejected(): number {
    return this.#options.maxRejected ?? defaultMaxRejected;
  }

  /** No row so far is valid: the rest of the file would only fill the dead-letter topic. */
  get #isHopeless(): boolean {
    const { row, rejected } = this.#chunker.read;
    return row === rejected && row >= hopelessRows && this.#maxRejected < 100;
  }

  get #isStopped(): boolean {
    return this.#options.signal?.aborted === true;
  }
}

/**
 * Waits for acknowledgements. From the moment that `signal` is aborted it waits a short time, and they may fail: the journal
 * records what arrived.
 */
async function settled(drained: Promise<unknown>, signal = new AbortController().signal): Promise<void> {
  const done = new AbortController();
  const stopped = async () => {
    if (!signal.aborted) await once(signal, 'abort', { signal: done.signal });
    await sleep(patienceMs, undefined, { signal: done.signal });
  };
  try {
    await Promise.race([drained, stopped()]);
  } catch (thrown) {
    if (!signal.aborted) throw thrown;
  } finally {
    done.abort();
  }
}
