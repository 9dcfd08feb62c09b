/**
 * A replay sends the files of a dump as chunks to their topics. Each row read is produced, or rejected as a dead letter,
 * before the journal passes it: read = produced + rejected holds for the whole run, however often it was resumed.
 */
import { asBrokerError } from '../kafka/failures.ts';
import {
  commonCount,
  ensureCompactedTopics,
  ensureRetainedTopics,
  partitionCounts,
} from '../kafka/topics.ts';
import { crashPoint } from '../runtime/crash-points.ts';
import { ReelflowError } from '../runtime/errors.ts';
import {
  type DatasetName,
  datasetNames,
  deadLetterBytesMax,
  messageBytesMax,
  type TopicNames,
} from '../topics/catalog.ts';
import { Appender } from './appender.ts';
import { FileReplay, type FileReplayOptions } from './file-replay.ts';
import { type InputFile, openInputs } from './input-files.ts';
import {
  checkSameInputs,
  checkSameMode,
  inputsOf,
  type Journal,
  newRunId,
  readJournal,
  removeJournal,
  withJournalFolder,
  writeJournal,
} from './journal.ts';
import { createProducer } from './producer.ts';
import { DumpRefresh, type Plans, type RefreshOptions, schemaIdOf } from './refresh/dump-refresh.ts';
import { type ReplayReport, reportOf, totalOf } from './replay-report.ts';

export interface ReplayOptions extends FileReplayOptions, RefreshOptions {
  /** One directory, or files. */
  readonly inputs: readonly string[];
  /** Default: all that exist. */
  readonly datasets?: readonly DatasetName[];
  /** Partition count of new topics. Default: that of existing topics, else `defaultShards`. */
  readonly shards?: number;
  /** Continue the last run. Default: false. */
  readonly resume?: boolean;
  /** State folder, for the journal and spools. */
  readonly state: string;
  /**
   * `refresh`: the topics hold exactly the dump afterwards. `upsert`: rows are added or replaced, none is removed.
   * Default: `refresh`.
   */
  readonly mode?: ReplayMode;
  /** Called with what a dry run has counted, before it fails. */
  readonly onRefused?: (report: ReplayReport) => void;
}

type ReplayMode = 'refresh' | 'upsert';

const defaultShards = 4;

/**
 * Replays the inputs.
 * @throws ReelflowError input (before anything is sent, or when a file turns out to be damaged), brokerUnreachable,
 *   registryUnreachable, topicMismatch, stateUnusable, diskFull, busy
 */
export async function replay(options: ReplayOptions): Promise<ReplayReport> {
  const started = performance.now();
  const { broker, mode = 'refresh' } = options;
  const { files, absent } = await openInputs(options.inputs, options.datasets);
  checkDrop(options, absent);
  return withJournalFolder(options, async (folder, filesFolder) => {
    const last = options.resume === true ? await readJournal(folder) : undefined;
    if (options.resume !== true && options.dryRun !== true) await removeJournal(folder);
    if (options.resume === true && last === undefined) {
      options.logger.warn('no run to resume: this one starts at the first row');
    }
    if (last !== undefined) {
      checkSameInputs(last, files);
      checkSameMode(last, mode);
      if (last.finished) return reportOf(last, { absent, nothingToDo: true, interrupted: false });
    }
    const { shards, deadLetterPartitions, missing } = await prepareTopics(options, last?.shards);
    const journal =
      last === undefined ? newJournal(files, shards, mode) : { ...last, attempt: last.attempt + 1 };
    const secondsBefore = journal.seconds;
    const before = last === undefined ? undefined : totalOf(last);
    const saveJournal = async () => {
      crashPoint('after-ack-before-journal');
      journal.seconds = secondsBefore + (performance.now() - started) / 1000;
      await writeJournal(folder, journal);
    };
    const schemaIds = await registerSchemas(options, files);
    let plan: Plans = {};
    const dryRunReport = (plans: Plans) =>
      // Nothing was sent: the rows that would be sent do not count as produced.
      reportOf(
        { ...journal, datasets: {} },
        {
          ...{ absent, nothingToDo: false, interrupted: false, ...reported(plans) },
          ...(missing.length > 0 && { wouldCreate: missing }),
        },
      );
    const producer = createProducer(broker);
    const appender = new Appender(broker, options.signal);
    try {
      await Promise.all([producer.connect(), appender.connect()]).catch((thrown) => {
        throw asBrokerError(thrown, broker.endpoints);
      });
      if (options.dryRun !== true) await writeJournal(folder, journal);
      const run = { journal, saveJournal, producer, appender, deadLetterPartitions };
      if (mode === 'refresh') {
        const refresh = new DumpRefresh({
          options,
          run,
          files,
          absent: options.datasets === undefined ? absent : [],
          schemaIds,
          shards,
          missing: new Set(options.dryRun === true ? missing : []),
          folder: filesFolder,
          resumedLoads: last?.loads ?? [],
        });
        await refresh.run().catch((thrown) => {
          // The next refresh continues a stopped one: it finds what was sent.
          if (options.signal?.aborted === true) return;
          const isPlanned = options.dryRun === true && Object.keys(refresh.plans).length > 0;
          if (isPlanned) options.onRefused?.(dryRunReport(refresh.plans));
          throw thrown;
        });
        plan = refresh.plans;
      } else {
        for (const file of files) {
          if (journal.datasets[file.dataset]?.done) continue;
          await new FileReplay(options, run, file, schemaIds.get(file.dataset) as number).run();
          if (options.signal?.aborted) break;
        }
      }
      if (options.dryRun === true) return dryRunReport(plan);
      const unfinished = files
        .map(({ dataset }) => dataset)
        .filter((dataset) => journal.datasets[dataset]?.done !== true);
      journal.finished = unfinished.length === 0;
      await saveJournal();
      const dropped = (options.drop ?? []).filter((dataset) => plan[dataset] !== undefined);
      return reportOf(journal, {
        absent,
        nothingToDo: false,
        interrupted: !journal.finished,
        ...(before !== undefined && { before }),
        ...(journal.finished && dropped.length > 0 && { dropped }),
        ...(!journal.finished && { unfinished }),
        ...reported(plan),
      });
    } finally {
      await Promise.all([producer.disconnect().catch(() => undefined), appender.close()]);
    }
  });
}

/** @throws ReelflowError usage, if a dataset to drop has a file, or the user selected datasets */
function checkDrop({ drop = [], datasets }: ReplayOptions, absent: readonly DatasetName[]): void {
  const other = datasets === undefined ? drop.filter((dataset) => !absent.includes(dataset)) : drop;
  if (other.length === 0) return;
  throw new ReelflowError('usage', `--drop ${other.join(',')} removes nothing`, {
    detail: 'It removes datasets whose files a directory lacks.',
    hint: 'Name the directory of the dump, without these files and without --datasets.',
  });
}

function reported(plans: Plans): Pick<ReplayReport, 'plan'> {
  const entries = Object.entries(plans).map(([dataset, each]) => {
    const { rows, changed, new: fresh, vanished, unknown, refused, isBase } = each;
    return [dataset, { rows, changed, new: fresh, vanished, unknown, refused, isBase }];
  });
  return entries.length === 0 ? {} : { plan: Object.fromEntries(entries) };
}

/**
 * Creates the source topics and the dead-letter topic, or checks the partition counts of existing ones. A dry run creates
 * none.
 */
async function prepareTopics(
  { broker, names, shards: asked, mode = 'refresh', dryRun = false }: ReplayOptions,
  journaled?: number,
) {
  const topics = datasetNames.map((dataset) => names.source(dataset));
  const existing = await partitionCounts(broker, [...topics, names.deadLetter]);
  const found = commonCount(existing, topics);
  const shards = journaled ?? asked ?? found ?? defaultShards;
  const deadLetterPartitions = existing.get(names.deadLetter) ?? shards;
  const specs = [
    ...topics.map((topic) => ({ topic, partitions: shards, valueBytesMax: messageBytesMax })),
    { topic: names.deadLetter, partitions: deadLetterPartitions, valueBytesMax: deadLetterBytesMax },
  ];
  const missing = await ensureRetainedTopics(broker, specs, dryRun);
  if (mode === 'refresh') {
    missing.push(...(await ensureCompactedTopics(broker, [indexSpec(names)], dryRun)));
  }
  return { shards, deadLetterPartitions, missing };
}

/**
 * Compaction skips the open segment: small segments let it keep up with a new version every day. The broker stamps the
 * messages, so that a refresh knows the broker's time.
 */
const indexSpec = (names: TopicNames) => ({
  topic: names.dumpIndex,
  partitions: 1,
  segmentBytes: 16 * 1024 * 1024,
  settings: { 'min.cleanable.dirty.ratio': '0.1', 'message.timestamp.type': 'LogAppendTime' },
});

async function registerSchemas(options: ReplayOptions, files: readonly InputFile[]) {
  const ids = new Map<DatasetName, number>();
  for (const { dataset } of files) {
    ids.set(dataset, await schemaIdOf(dataset, options));
  }
  return ids;
}

/** The dump's date is the modification time of the newest file. */
function newJournal(files: readonly InputFile[], shards: number, mode: ReplayMode): Journal {
  const newest = new Date(Math.max(...files.map(({ modified }) => modified.getTime())));
  return {
    version: 1,
    runId: newRunId(),
    attempt: 0,
    asOf: newest.toISOString(),
    shards,
    inputs: inputsOf(files),
    mode,
    datasets: {},
    seconds: 0,
    finished: false,
  };
}
