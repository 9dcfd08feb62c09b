/**
 * The journal of a replay: one small file, replaced whole, that names the row before which everything is acknowledged in
 * all partitions. It is never ahead of the broker. A run that resumes from it may send rows twice, which changes nothing.
 */
import { randomBytes } from 'node:crypto';
import { open, readFile, rename, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { z } from 'zod';
import { type Broker, clusterIdOf } from '../kafka/client.ts';
import { messageOf, ReelflowError, systemCodeOf } from '../runtime/errors.ts';
import { makeFolder, withTemporaryFolder } from '../runtime/files.ts';
import { withFolderLock } from '../runtime/folder-lock.ts';
import { datasetNames, namespaceFolder, type TopicNames } from '../topics/catalog.ts';
import type { InputFile } from './input-files.ts';

const count = z.int().min(0);

const inputEntry = z.object({
  dataset: z.enum(datasetNames),
  path: z.string(),
  /** bytes on disk */
  size: count,
  modified: z.iso.datetime(),
});

/** Rejected rows by reason, each with its first row. Rows that a resumed run reads again count twice. */
const rejections = z.record(z.string(), z.object({ rows: count, line: count, detail: z.string() }));

const progressEntry = z.object({
  /** Rows before this one are acknowledged, as chunks or as dead letters; from 0, the header is not a row. */
  row: count,
  /** How many of them were rejected. */
  rejected: count,
  /** Acknowledged chunks and their bytes before compression; repeated chunks count again. */
  chunks: count,
  bytes: count,
  seconds: z.number().min(0),
  done: z.boolean(),
  /** Rows of groups that the topic already held. */
  unchanged: count.optional(),
  rejections: rejections.default({}),
});

const journalFile = z.object({
  version: z.literal(1),
  runId: z.string(),
  /** Number of times that the run was resumed. */
  attempt: count,
  asOf: z.iso.datetime(),
  shards: z.int().min(1),
  inputs: z.array(inputEntry),
  /** What the run makes of the topics; see `ReplayMode`. */
  mode: z.enum(['refresh', 'upsert']).default('upsert'),
  /** Datasets whose topics were empty when the run began: sent in one pass, and resumed by rows. */
  loads: z.array(z.enum(datasetNames)).optional(),
  datasets: z.partialRecord(z.enum(datasetNames), progressEntry),
  /** Wall time of the whole run so far. */
  seconds: z.number().min(0),
  finished: z.boolean(),
});

export type Journal = z.infer<typeof journalFile>;
export type JournaledProgress = z.infer<typeof progressEntry>;
export type Rejections = z.infer<typeof rejections>;

/** A resumed run numbers its chunks from the next multiple on: no number occurs twice in a run and partition. */
export const chunksPerAttempt = 1_000_000_000;

/** The number of the first chunk that this attempt sends to a partition. */
export function firstChunkOf({ attempt }: Pick<Journal, 'attempt'>): number {
  return attempt * chunksPerAttempt;
}

/** The folder of a namespace's journal and lock; each cluster has its own. */
export function journalFolder(state: string, clusterId: string, namespace: string): string {
  return join(state, clusterId, namespaceFolder(namespace), 'replay');
}

interface JournalPlace {
  readonly broker: Broker;
  readonly names: TopicNames;
  readonly state: string;
  readonly dryRun?: boolean;
}

/**
 * Runs `work` with this folder while nothing else sends rows for the namespace from this state folder. A dry run sends none: it
 * needs no lock, leaves a missing folder missing, and has a temporary folder for its files.
 * @throws ReelflowError busy, stateUnusable, diskFull
 */
export async function withJournalFolder<T>(
  { broker, names, state, dryRun = false }: JournalPlace,
  work: (folder: string, filesFolder: string) => Promise<T>,
): Promise<T> {
  const folder = journalFolder(state, await clusterIdOf(broker), names.namespace);
  if (dryRun) return withTemporaryFolder('dry-run', (temporary) => work(folder, temporary));
  try {
    makeFolder(folder);
  } catch (thrown) {
    throw unusable(folder, thrown);
  }
  return withFolderLock(folder, { patienceMs: 0 }, () => work(folder, folder));
}

/** An id that says when its run began. */
export function newRunId(): string {
  return `${new Date().toISOString().replace(/\.\d+Z$/, 'Z')}-${randomBytes(4).toString('hex')}`;
}

/**
 * The journal of the last run, or undefined if none exists.
 * @throws ReelflowError stateUnusable, when it is damaged or from a newer version
 */
export async function readJournal(folder: string): Promise<Journal | undefined> {
  const path = join(folder, 'journal.json');
  let text: string;
  try {
    text = await readFile(path, 'utf8');
  } catch (thrown) {
    if (systemCodeOf(thrown) === 'ENOENT') return undefined;
    throw unusable(path, thrown);
  }
  try {
    return journalFile.parse(JSON.parse(text));
  } catch (thrown) {
    throw new ReelflowError('stateUnusable', 'The journal of the replay cannot be read', {
      detail: `${path}: ${thrown instanceof z.ZodError ? z.prettifyError(thrown) : messageOf(thrown)}`,
      hint: 'Replay without --resume: rows sent again change nothing.',
      cause: thrown,
    });
  }
}

/**
 * Replaces the journal: temporary file, fsync, rename, fsync of the folder.
 * @throws ReelflowError stateUnusable or diskFull
 */
export async function writeJournal(folder: string, journal: Journal): Promise<void> {
  const path = join(folder, 'journal.json');
  try {
    await writeFile(`${path}.next`, `${JSON.stringify(journal, undefined, 2)}\n`, { flush: true });
    await rename(`${path}.next`, path);
    const directory = await open(folder, 'r');
    await directory.sync().finally(() => directory.close());
  } catch (thrown) {
    throw unusable(path, thrown);
  }
}

/**
 * Removes the journal before another run begins: one that is killed before it has written its own must not leave that of the
 * run before, which `--resume` would take for it.
 * @throws ReelflowError stateUnusable
 */
export async function removeJournal(folder: string): Promise<void> {
  const path = join(folder, 'journal.json');
  await rm(path, { force: true }).catch((thrown) => {
    throw unusable(path, thrown);
  });
}

/** The journal's entries for the input files. */
export function inputsOf(files: readonly InputFile[]): Journal['inputs'] {
  return files.map(({ dataset, path, size, modified }) => ({
    dataset,
    path,
    size,
    modified: modified.toISOString(),
  }));
}

/**
 * Checks that the files are those of the run: row numbers are meaningless in other files.
 * @throws ReelflowError input, naming the first difference
 */
export function checkSameInputs(journal: Journal, files: readonly InputFile[]): void {
  const before = journal.inputs;
  const now = inputsOf(files);
  const different = (text: string) =>
    new ReelflowError('input', 'The input differs from that of the last run', {
      detail: text,
      hint: 'Replay without --resume: rows sent again change nothing.',
    });
  const list = (inputs: Journal['inputs']) => inputs.map(({ path }) => path).join(', ');
  if (list(before) !== list(now))
    throw different(`The last run read ${list(before)}; this one reads ${list(now)}.`);
  for (const [index, { path, size, modified }] of now.entries()) {
    const old = before[index] as Journal['inputs'][number];
    if (old.size !== size || old.modified !== modified) {
      throw different(`${path} had ${old.size} bytes of ${old.modified}; now ${size} bytes of ${modified}.`);
    }
  }
}

/**
 * Checks that a resumed run continues in its own mode: what one of them sent is not done for the other.
 * @throws ReelflowError usage
 */
export function checkSameMode(journal: Journal, mode: Journal['mode']): void {
  if (journal.mode === mode) return;
  throw new ReelflowError('usage', 'The last run replayed in another mode', {
    detail: `It ran with${journal.mode === 'upsert' ? '' : 'out'} --upsert, this one with${mode === 'upsert' ? '' : 'out'}.`,
    hint:
      journal.mode === 'upsert'
        ? 'Add --upsert, or replay without --resume.'
        : 'Leave --upsert out, or replay without --resume.',
  });
}

/** The error for a file of the state folder that cannot be read or written. */
export function unusable(path: string, thrown: unknown): ReelflowError {
  const diskFull = systemCodeOf(thrown) === 'ENOSPC' || systemCodeOf(thrown) === 'EDQUOT';
  return new ReelflowError(
    diskFull ? 'diskFull' : 'stateUnusable',
    diskFull ? 'No disk space for the state' : 'The state folder cannot be used',
    {
      detail: `${path}: ${messageOf(thrown)}`,
      hint: diskFull
        ? 'Free some space, then run the same command with --resume.'
        : 'Name another folder with --state, or check its permissions.',
      cause: thrown,
    },
  );
}
