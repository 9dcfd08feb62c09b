/**
 * Makes the topics hold exactly a dump. It reads and compares all files and checks all plans before it sends the first
 * message. A dataset whose topic is empty is loaded in one pass instead.
 */
import { join } from 'node:path';
import { LogReader } from '../../kafka/log.ts';
import { crashPoint } from '../../runtime/crash-points.ts';
import { ReelflowError } from '../../runtime/errors.ts';
import { type DatasetName, datasets } from '../../topics/catalog.ts';
import { ChunkDecoder } from '../../topics/chunk.ts';
import { NewerIndex } from '../../topics/dump-index.ts';
import type { Registry } from '../../topics/registry.ts';
import { FileReplay, type FileReplayOptions, type FileReplayRun } from '../file-replay.ts';
import type { InputFile } from '../input-files.ts';
import { chunksPerAttempt, firstChunkOf, type Journal } from '../journal.ts';
import { RateLimit } from '../rate-limit.ts';
import { RejectedRows } from '../rejected-rows.ts';
import { checkRejections } from '../rejection-limit.ts';
import { DatasetRefresh } from './dataset-refresh.ts';
import type { Written } from './devices.ts';
import { fingerprintOf } from './dump-fingerprint.ts';
import { DumpPass } from './dump-pass.ts';
import { EmptyDump } from './empty-dump.ts';
import { UnsortedRows } from './group-reader.ts';
import { type BoundsOf, boundsOf, ConsumerRefusals, KafkaIndexLog, KafkaSourceLog } from './kafka-logs.ts';
import { LoadHasher } from './load-hasher.ts';
import { OutdatedLetters } from './outdated-letters.ts';
import { OwnOffsets } from './own-offsets.ts';
import { checkDate, checkPlan, type DatasetPlan, type Guards } from './plan.ts';
import { removeSortedCopy, SortedCopy } from './sorted-copy.ts';

export interface RefreshOptions extends Guards {
  readonly registry: Registry;
  /** Send every group of the dump, also those that the index knows. Default false. */
  readonly full?: boolean;
  /** Only plan and check, also datasets that a run would load. Default false. */
  readonly dryRun?: boolean;
  /** Datasets that the dump lacks and whose rows the refresh removes. */
  readonly drop?: readonly DatasetName[];
  /** Largest spool of one dataset; above it the file is read twice. Default 4 GB. */
  readonly spoolBytesMax?: number;
  /** Finish the datasets sent so far after this many bytes; a killed run sends unfinished ones again. Default 64 MB. */
  readonly unfinishedBytesMax?: number;
  /** Send a dataset as a base when its topic holds more than this many times the records of its dump. Default 2. */
  readonly baseAbove?: number;
  /**
   * Called when every message of the dump is acknowledged, before the index is written. Messages may follow: groups that
   * others wrote to meanwhile, and the end of a base.
   */
  readonly onSent?: () => void;
}

interface DumpRefreshInput {
  readonly options: FileReplayOptions & RefreshOptions;
  readonly run: FileReplayRun;
  readonly files: readonly InputFile[];
  /** Datasets that this dump lacks although it should be whole. */
  readonly absent: readonly DatasetName[];
  readonly schemaIds: ReadonlyMap<DatasetName, number>;
  readonly shards: number;
  /** Topics that a dry run has found missing: it takes them for empty ones. */
  readonly missing: ReadonlySet<string>;
  /** For files that are removed at the end. */
  readonly folder: string;
  /** Datasets that an earlier attempt has loaded in part. */
  readonly resumedLoads: readonly DatasetName[];
}

const spoolBytesMaxDefault = 4_000_000_000;
const baseAboveDefault = 2;
const unfinishedBytesMaxDefault = 64_000_000;

export type Plans = Partial<Record<DatasetName, DatasetPlan>>;

/** The work on one dataset: refresh it, load it into an empty topic, or drop its rows. */
type Task = FileTask | (CommonTask & { readonly kind: 'drop'; readonly pass: EmptyDump });

interface CommonTask {
  readonly dataset: DatasetName;
  readonly refresh: DatasetRefresh;
}

interface FileTask extends CommonTask {
  readonly kind: 'refresh' | 'load';
  readonly file: InputFile;
  readonly schemaId: number;
  pass: DumpPass;
  sorted?: SortedCopy;
}

/** As `Promise.all`, but it rejects only when all work has ended. */
async function allEnded<T>(work: readonly Promise<T>[]): Promise<T[]> {
  await Promise.allSettled(work);
  return Promise.all(work);
}

/** Whether an earlier attempt of this run sent the message: its offsets are not known. */
function isOfEarlierAttempt({ runId, chunk }: Written, journal: Journal): boolean {
  return runId === journal.runId && chunk < firstChunkOf(journal);
}

async function secondsOf(work: () => Promise<void>): Promise<number> {
  const startedMs = performance.now();
  await work();
  return (performance.now() - startedMs) / 1000;
}

export class DumpRefresh {
  readonly #input: DumpRefreshInput;
  readonly #reader: LogReader;
  readonly #boundsOf: BoundsOf;
  readonly #refusals: ConsumerRefusals;
  #letters!: OutdatedLetters;
  readonly plans: Plans = {};

  constructor(input: DumpRefreshInput) {
    this.#input = input;
    const { options, missing, shards } = input;
    const { broker, names, signal } = options;
    const ofEmpty = new Map(
      Array.from({ length: shards }, (_, partition) => [partition, { start: 0, end: 0 }]),
    );
    this.#boundsOf = async (topic) => (missing.has(topic) ? ofEmpty : boundsOf(broker, topic, signal));
    this.#reader = new LogReader(broker);
    this.#refusals = new ConsumerRefusals(this.#boundsOf, this.#reader, names.deadLetter);
  }

  /**
   * @throws ReelflowError tooManyRemoved, cutFile, rowsRejected, datasetAbsent, olderDump, futureDump, inputChanged, newerIndex, input, and
   *   errors of broker and registry. Nothing was sent then, except to topics that were empty
   */
  async run(): Promise<void> {
    const tasks: Task[] = [];
    try {
      const { options, run, files, missing } = this.#input;
      const { producer } = run;
      const { broker, names, signal, dryRun = false } = options;
      const topic = names.dumpIndex;
      const isMissing = missing.has(topic);
      const index = await KafkaIndexLog.open({ broker, producer, topic, isMissing, signal });
      const nowMs = await index.timeMs(dryRun);
      if (!dryRun) {
        this.#letters = await OutdatedLetters.open({ broker, reader: this.#reader, producer, names, signal });
      }
      const left = files.filter(({ dataset }) => run.journal.datasets[dataset]?.done !== true);
      tasks.push(...(await allEnded(left.map((file) => this.#open(index, file, nowMs)))));
      tasks.push(...(await this.#openAbsent(index)));
      const planned = tasks.filter(({ kind }) => kind !== 'load' || dryRun);
      for (const task of planned) this.plans[task.dataset] = await this.#plan(task);
      const compared = planned.filter((task) => task.kind !== 'drop');
      const counts = compared.map(({ dataset, pass: { rows: read, rejected, rejections } }) => [
        dataset,
        { read, rejected, rejections },
      ]);
      // Before the plans: ids without valid rows may be those of refused rows.
      checkRejections(Object.fromEntries(counts), options.maxRejected, 'planned');
      for (const { dataset, file } of compared) {
        checkPlan(dataset, file.name, this.plans[dataset] as DatasetPlan, options);
      }
      if (dryRun) return;
      run.journal.loads = tasks.filter(({ kind }) => kind === 'load').map(({ dataset }) => dataset);
      await run.saveJournal();
      await this.#sendAll(tasks);
    } finally {
      for (const task of tasks) {
        if (task.kind === 'drop') continue;
        await task.pass.close();
        await task.sorted?.close();
      }
      await this.#reader.close();
    }
  }

  async #open(index: KafkaIndexLog, file: InputFile, nowMs: number): Promise<Task> {
    const { dataset } = file;
    const { options, resumedLoads } = this.#input;
    const schemaId = await this.#schemaIdOf(dataset);
    const refresh = this.#refreshOf(index, dataset, schemaId, file);
    let isLoad = resumedLoads.includes(dataset);
    if (!isLoad) {
      await openChecked(refresh, dataset);
      isLoad = refresh.isEmptyTopic;
    }
    const beforeMs = isLoad ? undefined : refresh.directory?.asOfMs;
    checkDate(file.name, { asOfMs: file.modified.getTime(), beforeMs, nowMs }, options);
    if (isLoad) await refresh.beginLoad();
    await removeSortedCopy(this.#sortedPath(dataset));
    const pass = this.#passOf(file, schemaId, refresh);
    return { dataset, refresh, kind: isLoad ? 'load' : 'refresh', file, schemaId, pass };
  }

  /** Sorts a copy of an unsorted file first, which takes as much space in the state folder as its rows. */
  async #plan(task: Task): Promise<DatasetPlan> {
    try {
      return await task.refresh.plan(task.pass);
    } catch (thrown) {
      if (!(thrown instanceof UnsortedRows) || task.kind === 'drop') throw thrown;
      await this.#sort(task);
      return await task.refresh.plan(task.pass);
    }
  }

  /** Replaces the task's pass by one over a sorted copy of its file. */
  async #sort(task: FileTask): Promise<SortedCopy> {
    const { dataset, file, schemaId, refresh } = task;
    const { options } = this.#input;
    options.logger.warn({ dataset, file: file.name }, 'not sorted by id: sorting a copy');
    await task.pass.close();
    const sorted = await SortedCopy.of(file, {
      path: this.#sortedPath(dataset),
      signal: options.signal,
      onProgress: (bytesRead) => this.#report(task.pass, file, 'compare', bytesRead),
    });
    task.sorted = sorted;
    task.pass = this.#passOf(sorted.file, schemaId, refresh, sorted);
    return sorted;
  }

  #sortedPath(dataset: DatasetName): string {
    return join(this.#input.folder, `${dataset}.sorted`);
  }

  #passOf(file: InputFile, schemaId: number, refresh: DatasetRefresh, sorted?: SortedCopy): DumpPass {
    const { dataset } = file;
    const { options, run, shards, folder } = this.#input;
    const { names, broker, signal, rate } = options;
    const pass = new DumpPass({
      file,
      sorted,
      shards,
      schemaId,
      runId: run.journal.runId,
      // When this pass settles a load, the load has used the first half of the numbers.
      firstChunk: firstChunkOf(run.journal) + chunksPerAttempt / 2,
      topic: names.source(dataset),
      appender: run.appender,
      rejectedRows: new RejectedRows({
        broker,
        producer: run.producer,
        topic: names.deadLetter,
        partitions: run.deadLetterPartitions,
        file,
        signal,
      }),
      straysBefore: refresh.directory?.strays,
      spoolPath: join(folder, `${dataset}.spool`),
      spoolBytesMax: options.dryRun === true ? 0 : (options.spoolBytesMax ?? spoolBytesMaxDefault),
      rateLimit: rate === undefined ? undefined : new RateLimit(rate),
      signal,
      onProgress: (step, bytesRead) => this.#report(pass, file, step, bytesRead),
      onRejected: (reason) => options.onRejected?.(reason),
    });
    return pass;
  }

  /** @throws ReelflowError datasetAbsent */
  async #openAbsent(index: KafkaIndexLog): Promise<Task[]> {
    const { options, absent, run, shards } = this.#input;
    const tasks: Task[] = [];
    for (const dataset of absent) {
      const schemaId = await this.#schemaIdOf(dataset);
      const refresh = this.#refreshOf(index, dataset, schemaId);
      await openChecked(refresh, dataset);
      if ([...refresh.entries].length === 0) continue;
      if (options.drop?.includes(dataset) !== true) {
        throw new ReelflowError('datasetAbsent', `The dump has no ${dataset}, but the topics hold it`, {
          detail: 'A directory stands for all datasets. Nothing was sent.',
          hint: `Add the file. To remove all rows of ${dataset}, use --drop ${dataset}; to keep them, name the files instead of the directory.`,
        });
      }
      const pass = new EmptyDump({
        dataset,
        shards,
        schemaId,
        runId: run.journal.runId,
        firstChunk: firstChunkOf(run.journal),
        asOf: new Date(run.journal.asOf),
        appender: run.appender,
        topic: options.names.source(dataset),
      });
      tasks.push({ dataset, refresh, kind: 'drop', pass });
    }
    return tasks;
  }

  #refreshOf(index: KafkaIndexLog, dataset: DatasetName, schemaId: number, file?: InputFile): DatasetRefresh {
    const { options, run } = this.#input;
    const topic = options.names.source(dataset);
    const decoder = new ChunkDecoder(dataset, schemaId, options.registry);
    return new DatasetRefresh({
      dataset,
      runId: run.journal.runId,
      asOfMs: file?.modified.getTime() ?? Date.parse(run.journal.asOf),
      fingerprint: fingerprintOf(dataset, file),
      log: new KafkaSourceLog({
        boundsOf: this.#boundsOf,
        reader: this.#reader,
        topic,
        dataset,
        decoder,
        refusals: this.#refusals,
      }),
      index,
      baseAbove: file === undefined ? undefined : (options.baseAbove ?? baseAboveDefault),
      ...(options.full === true && { full: true }),
    });
  }

  /** Sends several datasets before it finishes them together: consumers need only what was sent. */
  async #sendAll(tasks: readonly Task[]): Promise<void> {
    const { signal, unfinishedBytesMax = unfinishedBytesMaxDefault } = this.#input.options;
    let sent: { readonly task: Task; readonly seconds: number }[] = [];
    for (const [at, task] of tasks.entries()) {
      if (signal?.aborted === true) return;
      const onSent = at === tasks.length - 1 ? this.#input.options.onSent : undefined;
      if (task.kind === 'load') await this.#load(task, onSent);
      else {
        sent.push({ task, seconds: await secondsOf(() => task.refresh.send(task.pass)) });
        onSent?.();
      }
      const bytes = sent.reduce(
        (sum, { task: { kind, pass } }) => sum + (kind === 'drop' ? 0 : pass.bytes),
        0,
      );
      if (at < tasks.length - 1 && bytes < unfinishedBytesMax) continue;
      await allEnded(sent.map((each) => this.#finish(each.task, each.seconds)));
      await this.#input.run.saveJournal();
      sent = [];
    }
  }

  async #finish(task: Task, secondsToSend: number): Promise<void> {
    const { dataset, refresh, pass } = task;
    const { run } = this.#input;
    const secondsToFinish = await secondsOf(async () => {
      await refresh.settle(pass);
      await refresh.endBase(pass);
      // Before the index: a run that is killed in between sends these groups again.
      await this.#letters.mark(dataset, {
        group: (group) => refresh.hasReplaced(group),
        strays: task.kind === 'drop' || task.pass.hasNewStrays,
        messages: refresh.hasSent,
      });
      await refresh.close();
    });
    crashPoint('after-index-before-journal');
    if (task.kind === 'drop') return;
    const { rows, unchanged, rejected, rejections, chunks, bytes } = task.pass;
    run.journal.datasets[dataset] = {
      row: rows,
      unchanged,
      rejected,
      rejections,
      chunks,
      bytes,
      seconds: secondsToSend + secondsToFinish,
      done: true,
    };
    this.#report(task.pass, task.file, 'send', task.file.size);
  }

  async #load(task: FileTask, onSent: (() => void) | undefined): Promise<void> {
    const { dataset, refresh, file, schemaId } = task;
    const { options, run } = this.#input;
    const { runId } = run.journal;
    const own = new OwnOffsets(run.appender, options.names.source(dataset), runId);
    const hasher = new LoadHasher(datasets[dataset], file.layout, own);
    const load = new FileReplay(options, run, file, schemaId, hasher);
    await load.run();
    crashPoint('after-load-before-index');
    // Without an index the next refresh reads the topic and sends every group.
    if (!load.isDone) return;
    onSent?.();
    // Letters of a resumed load may be of this run.
    if (!this.#input.resumedLoads.includes(dataset)) {
      await this.#letters.mark(dataset, { group: () => true, strays: true, messages: true });
    }
    if (hasher.isUnsorted && !(await this.#hashSorted(task, hasher))) return;
    refresh.loaded(hasher.entries, hasher.strays);
    await refresh.settle({
      own: {
        has: (written) =>
          own.has(written) || task.pass.own.has(written) || isOfEarlierAttempt(written, run.journal),
        acknowledged: (partition) => own.acknowledged(partition) + task.pass.own.acknowledged(partition),
        gapless: (partition) => own.gapless(partition),
      },
      sendAgain: (groups, onSent) => task.pass.sendAgain(groups, onSent),
    });
    await refresh.close();
  }

  /** @returns false if the file cannot be sorted: its rows are on the topic, but a refresh with this file would fail */
  async #hashSorted(task: FileTask, hasher: LoadHasher): Promise<boolean> {
    try {
      await hasher.readSorted((await this.#sort(task)).file);
      return true;
    } catch (thrown) {
      if (!(thrown instanceof ReelflowError)) throw thrown;
      const { dataset, file } = task;
      this.#input.options.logger.warn(
        { dataset, file: file.name, reason: thrown.detail },
        'loaded without an index: the next replay sends all rows once more',
      );
      return false;
    }
  }

  async #schemaIdOf(dataset: DatasetName): Promise<number> {
    const { schemaIds, options } = this.#input;
    return schemaIds.get(dataset) ?? (await schemaIdOf(dataset, options));
  }

  #report(pass: DumpPass, file: InputFile, step: 'compare' | 'send', bytesRead: number): void {
    const { dataset, size: bytesTotal } = file;
    const { rows: read, rejected, chunks, bytes } = pass;
    this.#input.options.onProgress?.({
      dataset,
      pass: step,
      bytesRead,
      bytesTotal,
      read,
      rejected,
      chunks,
      bytes,
    });
  }
}

/** The id of a dataset's schema, which is registered unless this is a dry run. */
export function schemaIdOf(
  dataset: DatasetName,
  { registry, names, dryRun }: Pick<DumpRefreshInput['options'], 'registry' | 'names' | 'dryRun'>,
): Promise<number> {
  const [topic, schema] = [names.source(dataset), `imdb.${dataset}`];
  return dryRun === true ? registry.registered(topic, schema) : registry.register(topic, schema);
}

/** @throws ReelflowError newerIndex */
async function openChecked(refresh: DatasetRefresh, dataset: DatasetName): Promise<void> {
  try {
    await refresh.open();
  } catch (thrown) {
    if (!(thrown instanceof NewerIndex)) throw thrown;
    throw new ReelflowError('newerIndex', `The dump index of ${dataset} is of a newer version`, {
      detail: `${thrown.message}. Nothing was sent.`,
      hint: 'Use the newer version of reelflow. Or delete the topic of the index: the next replay then sends the whole dump.',
      cause: thrown,
    });
  }
}
