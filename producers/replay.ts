/**
 * A replay sends the files of a dump as chunks to their topics. Every row that was read is produced or rejected, and a
 * rejected one is a dead letter, before the journal passes it: read = produced + rejected holds for the whole run, however often it was broken off and resumed.
 */
import { randomBytes } from 'node:crypto';
import { setTimeout as delay } from 'node:timers/promises';
import type { Producer } from 'kafkajs';
import { clusterIdOf } from '../kafka/client.ts';
import { ensureRetainedTopics, partitionCounts } from '../kafka/topics.ts';
import { crashPoint } from '../runtime/crash-points.ts';
import { withFolderLock } from '../runtime/folder-lock.ts';
import type { Logger } from '../runtime/logger.ts';
import { type DatasetName, datasetNames, datasets, type TopicNames } from '../topics/catalog.ts';
import type { Registry } from '../topics/registry.ts';
import { Appender } from './appender.ts';
import { asBrokerError, type Broker, createProducer } from './broker.ts';
import { Chunker, type Mark } from './chunker.ts';
import { DeadLetters } from './dead-letters.ts';
import {
  checkSameInputs,
  inputsOf,
  type Journal,
  journalFolder,
  makeJournalFolder,
  type Progress,
  readJournal,
  writeJournal,
} from './journal.ts';
import { Pace } from './pace.ts';
import { Sender } from './sender.ts';
import { bytesOf, damaged, openSource, type Source, type SourceFile } from './source.ts';

export interface ReplayOptions {
  readonly broker: Broker;
  readonly registry: Registry;
  readonly names: TopicNames;
  /** One directory, or files. */
  readonly inputs: readonly string[];
  /** Only these; default all that are there. */
  readonly datasets?: readonly DatasetName[];
  /** Partition count of new topics. Default that of the topics that exist, else `defaultShards`. */
  readonly shards?: number;
  /** At most so many records per second. */
  readonly rate?: number;
  /** Go on where the last run broke off. Default false. */
  readonly resume?: boolean;
  /** State folder, for the journal. */
  readonly state: string;
  /** Date of the dump. Default the newest file's. */
  readonly asOf?: Date;
  readonly logger: Logger;
  /** Told several times a second. */
  readonly onProgress?: (progress: ReplayProgress) => void;
  /** Told of each rejected row. */
  readonly onRejected?: (reason: string) => void;
  /** Stops the replay: what was read is sent and noted in the journal, then the report says `interrupted`. */
  readonly signal?: AbortSignal;
}

export interface ReplayProgress {
  readonly dataset: DatasetName;
  /** Bytes of the file on disk. */
  readonly bytesRead: number;
  readonly bytesTotal: number;
  readonly read: number;
  readonly rejected: number;
  /** Acknowledged. */
  readonly chunks: number;
  readonly bytes: number;
}

export interface Counts {
  /** Rows read, the header not counted; always produced + rejected. */
  read: number;
  produced: number;
  rejected: number;
  /** Chunks acknowledged, with those sent again by a resumed run. */
  chunks: number;
  /** Bytes of these chunks before compression. */
  bytes: number;
  seconds: number;
  /** Rows read per second. */
  recordsPerSecond: number;
}

export interface ReplayReport extends Counts {
  readonly runId: string;
  readonly datasets: Partial<Record<DatasetName, Counts>>;
  /** Optional datasets that the directory does not have. */
  readonly absent: readonly DatasetName[];
  /** A --resume that found the run finished, and sent nothing. */
  readonly nothingToDo: boolean;
  readonly interrupted: boolean;
}

export const defaultShards = 4;

/** A resumed run numbers its chunks from the next multiple on: no number comes twice in a run. */
const chunksPerAttempt = 1_000_000_000;
const tickMs = 1_000;
/** With a rate, chunks fill slowly: an open one is sent after two ticks at the latest. */
const tickMsWithRate = 250;
/** How long an interrupted run waits for what is on its way. */
const patienceMs = 5_000;

/**
 * Replays the inputs.
 * @throws ReelflowError input (before anything is sent, or when a file turns out to be damaged), brokerUnreachable,
 *   registryUnreachable, topicMismatch, stateUnusable, diskFull, busy
 */
export async function replay(options: ReplayOptions): Promise<ReplayReport> {
  const started = performance.now();
  const { broker, names, state } = options;
  const source = await openSource(options.inputs, options.datasets);
  const folder = journalFolder(state, await clusterIdOf(broker), names.namespace);
  await makeJournalFolder(folder);
  return withFolderLock(folder, { patienceMs: 0 }, async () => {
    const last = options.resume === true ? await readJournal(folder) : undefined;
    if (last !== undefined) {
      checkSameInputs(last, source.files);
      if (last.finished) return reportOf(last, source, { nothingToDo: true, interrupted: false });
    }
    const { shards, deadLetterPartitions } = await prepareTopics(options, last?.shards);
    const journal = last === undefined ? newJournal(options, source, shards) : resumed(last);
    const schemaIds = await registerSchemas(options, source);
    const producer = createProducer(broker);
    const appender = new Appender(broker);
    try {
      await Promise.all([producer.connect(), appender.connect()]).catch((thrown) => {
        throw asBrokerError(thrown, broker.endpoints);
      });
      await writeJournal(folder, journal);
      const run = new Run(options, folder, journal, { producer, appender }, deadLetterPartitions, started);
      for (const file of source.files) {
        if (journal.datasets[file.dataset]?.done) continue;
        await run.replayFile(file, schemaIds.get(file.dataset) as number);
        if (options.signal?.aborted) break;
      }
      await run.finish();
    } finally {
      await Promise.all([producer.disconnect().catch(() => undefined), appender.close()]);
    }
    return reportOf(journal, source, { nothingToDo: false, interrupted: !journal.finished });
  });
}

/** All topics of the pipeline's left end, as many partitions as asked for or as there are. */
async function prepareTopics({ broker, names, shards: asked }: ReplayOptions, ofJournal?: number) {
  const topics = datasetNames.map((dataset) => names.source(dataset));
  const existing = await partitionCounts(broker, [...topics, names.deadLetter]);
  const found = topics.map((topic) => existing.get(topic)).find((count) => count !== undefined);
  const shards = ofJournal ?? asked ?? found ?? defaultShards;
  const deadLetterPartitions = existing.get(names.deadLetter) ?? shards;
  const specs = [
    ...topics.map((topic) => ({ topic, partitions: shards })),
    { topic: names.deadLetter, partitions: deadLetterPartitions },
  ];
  for (let attempt = 1; ; attempt++) {
    try {
      await ensureRetainedTopics(broker, specs);
      return { shards, deadLetterPartitions };
    } catch (thrown) {
      // A broker may answer for a moment that it does not know the topic that it has just created.
      const { type } = thrown as { type?: string };
      if (type !== 'UNKNOWN_TOPIC_OR_PARTITION' || attempt === topicAttempts) throw thrown;
      await delay(200);
    }
  }
}

const topicAttempts = 25;

async function registerSchemas({ registry, names }: ReplayOptions, { files }: Source) {
  const ids = new Map<DatasetName, number>();
  for (const { dataset } of files) {
    ids.set(dataset, await registry.register(names.source(dataset), `imdb.${dataset}`));
  }
  return ids;
}

function newJournal({ asOf }: ReplayOptions, { files }: Source, shards: number): Journal {
  const newest = new Date(Math.max(...files.map(({ modified }) => modified.getTime())));
  const time = new Date().toISOString().replace(/\.\d+Z$/, 'Z');
  return {
    version: 1,
    runId: `${time}-${randomBytes(4).toString('hex')}`,
    attempt: 0,
    asOf: (asOf ?? newest).toISOString(),
    shards,
    inputs: inputsOf(files),
    datasets: {},
    seconds: 0,
    finished: false,
  };
}

function resumed(last: Journal): Journal {
  return { ...last, attempt: last.attempt + 1 };
}

interface Clients {
  /** For dead letters. */
  readonly producer: Producer;
  /** For chunks. */
  readonly appender: Appender;
}

class Run {
  readonly #options: ReplayOptions;
  readonly #folder: string;
  readonly #journal: Journal;
  readonly #clients: Clients;
  readonly #deadLetterPartitions: number;
  readonly #started: number;
  readonly #secondsBefore: number;

  constructor(
    options: ReplayOptions,
    folder: string,
    journal: Journal,
    clients: Clients,
    deadLetterPartitions: number,
    started: number,
  ) {
    this.#options = options;
    this.#folder = folder;
    this.#journal = journal;
    this.#clients = clients;
    this.#deadLetterPartitions = deadLetterPartitions;
    this.#started = started;
    this.#secondsBefore = journal.seconds;
  }

  /**
   * Replays one file from where the journal stands. Reading and unpacking, encoding, and sending overlap; each waits when
   * the next one is behind.
   */
  async replayFile(file: SourceFile, schemaId: number): Promise<void> {
    const options = this.#options;
    const { broker, names, rate, signal, logger, onProgress } = options;
    const { dataset } = file;
    const journal = this.#journal;
    const progress: Progress = journal.datasets[dataset] ?? {
      row: 0,
      rejected: 0,
      chunks: 0,
      bytes: 0,
      seconds: 0,
      done: false,
    };
    journal.datasets[dataset] = progress;
    const started = performance.now();
    const secondsBefore = progress.seconds;
    const { producer, appender } = this.#clients;
    const stop = signal === undefined ? {} : { signal };

    const deadLetters = new DeadLetters({
      ...stop,
      broker,
      producer,
      topic: names.deadLetter,
      partitions: this.#deadLetterPartitions,
      file: file.name,
      ...(file.layout.names !== undefined && { columns: file.layout.names }),
    });
    const sender = new Sender({
      ...stop,
      appender,
      topic: names.source(dataset),
      onAcknowledged: (chunk) => {
        progress.chunks += 1;
        progress.bytes += chunk.value.length;
        chunker.recycle(chunk);
      },
    });
    const chunker = new Chunker({
      dataset: datasets[dataset],
      layout: file.layout,
      shards: journal.shards,
      schemaId,
      runId: journal.runId,
      asOf: new Date(journal.asOf),
      start: { row: progress.row, rejected: progress.rejected },
      firstChunk: journal.attempt * chunksPerAttempt,
      onChunk: (chunk) => sender.send(chunk),
      onRejected: (rejected) => {
        deadLetters.add(rejected);
        options.onRejected?.(rejected.reason);
      },
    });

    let bytesRead = 0;
    const tell = () => {
      const { row: read, rejected } = chunker.read;
      const { chunks, bytes } = progress;
      onProgress?.({ dataset, bytesRead, bytesTotal: file.size, read, rejected, chunks, bytes });
    };
    const note = async () => {
      const { row, rejected } = oldestOf([chunker.handedOver, sender.oldest, deadLetters.oldest]);
      progress.row = row;
      progress.rejected = rejected;
      progress.seconds = secondsBefore + secondsSince(started);
      await this.#writeJournal();
    };

    const pace = rate === undefined ? undefined : new Pace(rate);
    const everyMs = rate === undefined ? tickMs : tickMsWithRate;
    let nextTick = performance.now() + everyMs;
    let rowAtTick = 0;
    let damage: { thrown: unknown } | undefined;
    const pieces = bytesOf(file, (bytes) => {
      bytesRead = bytes;
    });
    const nextPiece = async () => {
      try {
        return await pieces.next();
      } catch (thrown) {
        damage = { thrown };
        return { done: true, value: undefined } as const;
      }
    };
    const stopped = () => signal?.aborted === true;

    logger.info({ dataset, file: file.name, row: progress.row }, 'replay of a file begins');
    try {
      for (let piece = await nextPiece(); piece.done !== true && !stopped(); piece = await nextPiece()) {
        const bytes = piece.value;
        for (let at = 0; at < bytes.length && !stopped(); ) {
          const rows = pace === undefined ? Number.POSITIVE_INFINITY : await pace.rows();
          const { row } = chunker.read;
          if (rows > 0) at = chunker.push(bytes, at, rows);
          pace?.took(chunker.read.row - row);
          await sender.room();
          await deadLetters.room();
          tell();
          if (performance.now() < nextTick) continue;
          nextTick = performance.now() + everyMs;
          chunker.cut(rowAtTick);
          rowAtTick = chunker.read.row;
          await note();
        }
      }
      // The line at which a file broke off, or a run was stopped, is not whole.
      if (damage === undefined && !stopped()) chunker.end();
      else chunker.cut();
      const drained = Promise.all([sender.drained(), deadLetters.drained()]);
      if (stopped()) await withinPatience(drained);
      else await drained;
      progress.done = damage === undefined && !stopped();
    } finally {
      await pieces.return(undefined);
      // Also when the broker is gone: a resumed run goes on from here.
      await note();
    }
    tell();
    if (damage !== undefined) throw damaged(file, `line ${chunker.read.row + 1}`, damage.thrown);
    const { row: read, rejected } = chunker.read;
    logger.info({ dataset, read, rejected, chunks: progress.chunks }, 'replay of a file ends');
  }

  /** The run is finished when every file is. */
  async finish(): Promise<void> {
    const { inputs, datasets: progress } = this.#journal;
    this.#journal.finished = inputs.every(({ dataset }) => progress[dataset]?.done === true);
    await this.#writeJournal();
  }

  async #writeJournal(): Promise<void> {
    crashPoint('after-ack-before-journal');
    this.#journal.seconds = this.#secondsBefore + secondsSince(this.#started);
    await writeJournal(this.#folder, this.#journal);
  }
}

/** Waits for what is on its way, but neither long nor for its success: the journal says what arrived. */
async function withinPatience(drained: Promise<unknown>): Promise<void> {
  const patience = new AbortController();
  const end = () => patience.abort();
  drained.then(end, end);
  await delay(patienceMs, undefined, { signal: patience.signal }).catch(() => undefined);
}

function oldestOf(marks: readonly (Mark | undefined)[]): Mark {
  return marks
    .filter((mark) => mark !== undefined)
    .reduce((oldest, mark) => (mark.row < oldest.row ? mark : oldest));
}

function secondsSince(started: number): number {
  return (performance.now() - started) / 1000;
}

function reportOf(
  journal: Journal,
  { absent }: Source,
  outcome: { nothingToDo: boolean; interrupted: boolean },
): ReplayReport {
  const reports: ReplayReport['datasets'] = {};
  const total = { read: 0, produced: 0, rejected: 0, chunks: 0, bytes: 0 };
  for (const dataset of datasetNames) {
    const progress = journal.datasets[dataset];
    if (progress === undefined) continue;
    const { row: read, rejected, chunks, bytes, seconds } = progress;
    const produced = read - rejected;
    reports[dataset] = {
      read,
      produced,
      rejected,
      chunks,
      bytes,
      seconds,
      recordsPerSecond: perSecond(read, seconds),
    };
    total.read += read;
    total.produced += produced;
    total.rejected += rejected;
    total.chunks += chunks;
    total.bytes += bytes;
  }
  const { seconds, runId } = journal;
  return {
    ...total,
    seconds,
    recordsPerSecond: perSecond(total.read, seconds),
    runId,
    datasets: reports,
    absent,
    ...outcome,
  };
}

function perSecond(count: number, seconds: number): number {
  return seconds > 0 ? count / seconds : 0;
}
