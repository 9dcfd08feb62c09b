/**
 * The files of a replay and their headers. Every fault that shows before the first row is found before anything is sent.
 */
import type { Dirent, Stats } from 'node:fs';
import { readdir, stat } from 'node:fs/promises';
import { basename, join, resolve } from 'node:path';
import { messageOf, pathHint, ReelflowError, systemCodeOf } from '../runtime/errors.ts';
import { bytesOf, isGzip, type ReadableFile } from '../runtime/file-bytes.ts';
import { type DatasetName, datasetNames, datasets } from '../topics/catalog.ts';
import { type Layout, layoutOf } from './file-layout.ts';
import { datasetOf, similarTo } from './file-names.ts';
import { foreignFormat } from './foreign-format.ts';

export interface InputFile extends ReadableFile {
  /** As the user named it. */
  readonly name: string;
  readonly dataset: DatasetName;
  readonly modified: Date;
  readonly layout: Layout;
}

interface Inputs {
  /** In the order of the replay. */
  readonly files: readonly InputFile[];
  /** Optional datasets that the directory lacks. */
  readonly absent: readonly DatasetName[];
}

const headerBytesMax = 64 * 1024;

/**
 * Finds the files of one directory, or takes the named files, and reads their headers.
 * @param only the wanted datasets, default all
 * @throws ReelflowError input, if a file is missing, empty, unreadable, no text or named twice, or lacks a column
 */
export async function openInputs(
  inputs: readonly string[],
  only: readonly DatasetName[] = datasetNames,
): Promise<Inputs> {
  const [first] = inputs;
  if (first === undefined) {
    throw new ReelflowError('usage', 'No input was named', { hint: 'Name a directory or files.' });
  }
  const stats = await Promise.all(inputs.map(statOf));
  const directory = inputs.find((_, index) => stats[index]?.isDirectory());
  if (directory !== undefined && inputs.length > 1) {
    throw new ReelflowError('input', `${directory} is a directory among several inputs`, {
      hint: 'Name one directory, or files only.',
    });
  }
  const { paths, absent } =
    directory === undefined ? namedFiles(inputs, only) : await filesOfDirectory(directory, only);
  const files: InputFile[] = [];
  for (const dataset of datasetNames) {
    const name = paths.get(dataset);
    if (name !== undefined) files.push(await inspect(dataset, name));
  }
  return { files, absent };
}

function namedFiles(inputs: readonly string[], only: readonly DatasetName[]) {
  const paths = new Map<DatasetName, string>();
  for (const name of inputs) {
    const dataset = datasetOf(resolve(name));
    if (dataset === undefined) {
      throw new ReelflowError('input', `${name} is not named after a dataset`, {
        hint: `Name the file ${datasetNames.join(', ')}, followed by .tsv or .tsv.gz.`,
      });
    }
    const other = paths.get(dataset);
    if (other !== undefined) throw twice(dataset, other, name);
    if (only.includes(dataset)) paths.set(dataset, name);
  }
  const unnamed = only === datasetNames ? [] : only.filter((dataset) => !paths.has(dataset));
  if (unnamed.length > 0) throw missing(unnamed, 'the named files', [], [...paths.values()], true);
  return { paths, absent: [] };
}

async function filesOfDirectory(directory: string, only: readonly DatasetName[]) {
  const entries = await entriesOf(directory);
  const paths = new Map<DatasetName, string>();
  for (const entry of entries) {
    const path = join(directory, entry.name);
    const dataset = datasetOf(path) ?? datasetOf(join(path, 'data.tsv'));
    if (dataset === undefined || !only.includes(dataset)) continue;
    // Kaggle unpacks a dataset into a folder of its own.
    const inside = entry.isDirectory() ? (await entriesOf(path)).map(({ name }) => join(path, name)) : [path];
    for (const file of inside.filter((name) => datasetOf(name) === dataset)) {
      const other = paths.get(dataset);
      if (other !== undefined) throw twice(dataset, other, file);
      paths.set(dataset, file);
    }
  }
  if (entries.length === 0) {
    throw new ReelflowError('input', `${directory} is empty`, { hint: downloadHint });
  }
  const lacking = only.filter((dataset) => !paths.has(dataset));
  // Datasets that the user selects are required.
  const required = lacking.filter((dataset) => only !== datasetNames || datasets[dataset].required);
  if (required.length > 0) {
    const similar = entries.filter(({ name }) => required.some((dataset) => dataset === similarTo(name)));
    throw missing(required, directory, similar, [...paths.values()], only !== datasetNames);
  }
  return { paths, absent: lacking };
}

async function entriesOf(directory: string): Promise<Dirent[]> {
  const entries = await readdir(directory, { withFileTypes: true }).catch((thrown) => {
    throw unreadable(directory, thrown);
  });
  return entries.sort((a, b) => (a.name < b.name ? -1 : 1));
}

const downloadHint =
  'Fetch the dumps with `reelflow download --out DIR`, or generate some with `reelflow generate`.';

/**
 * @param similar files of these datasets in a format that cannot be read, or folders without the file
 * @param found files of other datasets
 * @param areChosen whether --datasets names them
 */
function missing(
  lacking: readonly DatasetName[],
  where: string,
  similar: readonly Dirent[],
  found: readonly string[],
  areChosen: boolean,
): ReelflowError {
  const seen =
    similar.length > 0
      ? similar.map((entry) =>
          entry.isDirectory() ? `the folder ${entry.name} without the file` : entry.name,
        )
      : found.map((path) => basename(path));
  const addOrOmit = areChosen
    ? `Add the files, or leave ${lacking.join(' and ')} out of --datasets.`
    : 'Add the files. To replay only the datasets that are there, name their files instead of the directory.';
  const hint =
    similar.length === 0
      ? found.length > 0
        ? addOrOmit
        : downloadHint
      : similar.every((entry) => entry.isDirectory())
        ? 'Put the file into its folder.'
        : 'Unpack archives; write the data as tab-separated text and name the file .tsv or .tsv.gz.';
  const looked = lacking.flatMap((dataset) => [`${dataset}.tsv`, `${dataset}.tsv.gz`]).join(', ');
  return new ReelflowError('input', `${lacking.join(' and ')} not found in ${where}`, {
    detail: `Looked for ${looked}.${seen.length > 0 ? ` Found ${seen.join(', ')}.` : ''}`,
    hint,
  });
}

function twice(dataset: DatasetName, one: string, other: string): ReelflowError {
  return new ReelflowError('input', `${dataset} occurs twice`, {
    detail: `${one} and ${other}`,
    hint: 'Remove one of them, or name the files to replay.',
  });
}

function unreadable(path: string, thrown: unknown): ReelflowError {
  const absent = systemCodeOf(thrown) === 'ENOENT';
  return new ReelflowError('input', `${path} ${absent ? 'does not exist' : 'cannot be read'}`, {
    detail: messageOf(thrown),
    hint: absent ? downloadHint : `${pathHint(thrown)}.`,
    cause: thrown,
  });
}

async function statOf(path: string): Promise<Stats> {
  return stat(path).catch((thrown) => {
    throw unreadable(path, thrown);
  });
}

/**
 * Reads the header of a file of a dataset. The content decides whether a file is gzip, because downloads and archives change
 * names.
 * @throws ReelflowError input
 */
export async function inspect(dataset: DatasetName, name: string): Promise<InputFile> {
  const stats = await statOf(name);
  if (stats.isFIFO() || stats.isSocket() || stats.isCharacterDevice()) {
    throw new ReelflowError('input', `${name} is a pipe or a device, not a file`, {
      hint: 'Write its data into a file, and name that.',
    });
  }
  const { size, mtime } = stats;
  const onDisk = { name, path: resolve(name), gzip: false, size };
  const file = { ...onDisk, gzip: isGzip(await firstBytes(onDisk)) };
  const start = await firstBytes(file);
  if (start.length === 0) {
    throw new ReelflowError('input', `${name} is empty`, {
      detail: 'It has no header.',
      hint: downloadHint,
    });
  }
  const foreign = foreignFormat(start);
  if (foreign !== undefined) {
    throw new ReelflowError('input', `${name} is ${foreign.what}`, { hint: foreign.hint });
  }
  const end = start.indexOf(0x0a);
  const header = start.subarray(0, end < 0 ? headerBytesMax : end);
  return { ...file, dataset, modified: mtime, layout: layoutOf(datasets[dataset], header, name) };
}

/** The bytes up to the end of the first line at least, if it is not too long for a header. */
async function firstBytes(file: ReadableFile & { readonly name: string }): Promise<Buffer> {
  let read = Buffer.alloc(0);
  try {
    for await (const bytes of bytesOf(file)) {
      read = Buffer.concat([read, bytes]);
      if (read.includes(0x0a) || read.length > headerBytesMax) break;
    }
  } catch (thrown) {
    throw systemCodeOf(thrown)?.startsWith('Z_')
      ? damaged(file, 'its header', thrown)
      : unreadable(file.name, thrown);
  }
  return read;
}

/** @throws Error when bytes of a file hold a zero byte: no text has one, but a hole that a crash or a copy has left does */
export function checkText(bytes: Buffer): void {
  if (bytes.includes(0)) throw new Error('zero bytes, which no text has');
}

/**
 * The error for a file that is cut off or damaged after its header.
 * @param reached the last thing that could be read
 */
export function damaged(file: { readonly name: string }, reached: string, thrown: unknown): ReelflowError {
  return new ReelflowError('input', `${file.name} is damaged`, {
    detail: `${messageOf(thrown)}, after ${reached}.`,
    hint: 'Fetch the file again and replay it: rows sent again change nothing.',
    cause: thrown,
  });
}
