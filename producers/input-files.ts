/**
 * The files of a replay: which they are, what their headers say, and their bytes as a stream that holds a few hundred
 * kilobytes at a time. Everything that can be wrong with them before the first row is found before anything is sent.
 */
import { createReadStream, type Stats } from 'node:fs';
import { open, readdir, stat } from 'node:fs/promises';
import { basename, join, resolve } from 'node:path';
import { createGunzip } from 'node:zlib';
import { messageOf, ReelflowError, systemCodeOf } from '../runtime/errors.ts';
import { type DatasetName, datasetNames, datasets } from '../topics/catalog.ts';
import { type Layout, layoutOf } from './layout.ts';

export interface InputFile {
  readonly dataset: DatasetName;
  /** As the user gave it: for messages and dead letters. */
  readonly name: string;
  /** Absolute. */
  readonly path: string;
  readonly gzip: boolean;
  /** Bytes on disk. */
  readonly size: number;
  readonly modified: Date;
  readonly layout: Layout;
}

export interface Inputs {
  /** In the order in which they are replayed. */
  readonly files: readonly InputFile[];
  /** Optional datasets that the directory does not have. */
  readonly absent: readonly DatasetName[];
}

/** Large enough that a turn of the event loop is small beside it, small enough to keep rates smooth. */
const readBytes = 256 * 1024;
const headerBytesMax = 64 * 1024;
const extensions = ['.tsv', '.tsv.gz'];

/**
 * Finds the files of one directory, or takes the files named, and reads their headers.
 * @param only the datasets wanted, default all
 * @throws ReelflowError input, when something is missing, empty, unreadable, there twice or without a required column
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
    const dataset = datasetOf(basename(name));
    if (dataset === undefined) {
      throw new ReelflowError('input', `${name} has not the name of a dataset`, {
        hint: `A file is called ${datasetNames.join(', ')}, with .tsv or .tsv.gz after it.`,
      });
    }
    const other = paths.get(dataset);
    if (other !== undefined) throw twice(dataset, other, name);
    if (only.includes(dataset)) paths.set(dataset, name);
  }
  const unnamed = only === datasetNames ? [] : only.filter((dataset) => !paths.has(dataset));
  if (unnamed.length > 0) throw missing(unnamed, 'the files named');
  return { paths, absent: [] };
}

async function filesOfDirectory(directory: string, only: readonly DatasetName[]) {
  const entries = await readdir(directory).catch((thrown) => {
    throw unreadable(directory, thrown);
  });
  const paths = new Map<DatasetName, string>();
  for (const entry of entries.sort()) {
    const dataset = datasetOf(entry);
    if (dataset === undefined || !only.includes(dataset)) continue;
    const other = paths.get(dataset);
    if (other !== undefined) throw twice(dataset, other, join(directory, entry));
    paths.set(dataset, join(directory, entry));
  }
  if (entries.length === 0) {
    throw new ReelflowError('input', `${directory} is empty`, { hint: downloadHint });
  }
  const lacking = only.filter((dataset) => !paths.has(dataset));
  // Datasets that were asked for by name are required, whatever they are.
  const required = lacking.filter((dataset) => only !== datasetNames || datasets[dataset].required);
  if (required.length > 0) throw missing(required, directory);
  return { paths, absent: lacking };
}

const downloadHint =
  'Fetch the dumps with `reelflow download --out DIR`, or make some with `reelflow generate`.';

function datasetOf(fileName: string): DatasetName | undefined {
  return datasetNames.find((dataset) => extensions.some((extension) => fileName === dataset + extension));
}

function missing(lacking: readonly DatasetName[], where: string): ReelflowError {
  return new ReelflowError('input', `${lacking.join(' and ')} not found in ${where}`, {
    detail: `Looked for ${lacking.flatMap((dataset) => extensions.map((end) => dataset + end)).join(', ')}.`,
    hint: downloadHint,
  });
}

function twice(dataset: DatasetName, one: string, other: string): ReelflowError {
  return new ReelflowError('input', `${dataset} is there twice`, {
    detail: `${one} and ${other}`,
    hint: 'Remove one of them, or name the files to replay.',
  });
}

function unreadable(path: string, thrown: unknown): ReelflowError {
  const absent = systemCodeOf(thrown) === 'ENOENT';
  return new ReelflowError('input', `${path} ${absent ? 'does not exist' : 'cannot be read'}`, {
    detail: messageOf(thrown),
    hint: absent ? downloadHint : 'See to its permissions.',
    cause: thrown,
  });
}

async function statOf(path: string): Promise<Stats> {
  return stat(path).catch((thrown) => {
    throw unreadable(path, thrown);
  });
}

async function inspect(dataset: DatasetName, name: string): Promise<InputFile> {
  const { size, mtime } = await statOf(name);
  const file = { dataset, name, path: resolve(name), gzip: name.endsWith('.gz'), size, modified: mtime };
  const header = await readHeader(file);
  return { ...file, layout: layoutOf(datasets[dataset], header, name) };
}

type Readable = Pick<InputFile, 'name' | 'path' | 'gzip'>;

async function readHeader(file: Readable): Promise<Buffer> {
  let read = Buffer.alloc(0);
  try {
    for await (const bytes of bytesOf(file)) {
      read = Buffer.concat([read, bytes]);
      if (read.includes(0x0a) || read.length > headerBytesMax) break;
    }
  } catch (thrown) {
    throw file.gzip && isDamage(thrown) ? damaged(file, 'its header', thrown) : unreadable(file.name, thrown);
  }
  if (read.length === 0) {
    throw new ReelflowError('input', `${file.name} is empty`, {
      detail: 'Not even a header was found.',
      hint: downloadHint,
    });
  }
  const end = read.indexOf(0x0a);
  return read.subarray(0, end < 0 ? headerBytesMax : end);
}

/**
 * The bytes of a file, unpacked; while one piece is used, the next is being read and unpacked. A piece is valid until
 * the next is asked for.
 * @param onRead told with each piece how many bytes of the file on disk were read so far
 */
export async function* bytesOf(file: Readable, onRead?: (bytes: number) => void): AsyncGenerator<Buffer> {
  if (!file.gzip) {
    let read = 0;
    for await (const bytes of readAhead(file.path)) {
      read += bytes.length;
      onRead?.(read);
      yield bytes;
    }
    return;
  }
  const packed = createReadStream(file.path, { highWaterMark: readBytes });
  const unpacked = createGunzip({ chunkSize: readBytes });
  packed.on('error', (error) => unpacked.destroy(error));
  try {
    for await (const bytes of packed.pipe(unpacked)) {
      onRead?.(packed.bytesRead);
      yield bytes;
    }
  } finally {
    packed.destroy();
    unpacked.destroy();
  }
}

/** Reads a file into two buffers by turns. A stream allots a new one for each piece, which made a tenth of a replay. */
async function* readAhead(path: string): AsyncGenerator<Buffer> {
  const handle = await open(path);
  const read = async (into: Buffer) => into.subarray(0, (await handle.read(into, 0, into.length)).bytesRead);
  let [now, then] = [Buffer.allocUnsafeSlow(readBytes), Buffer.allocUnsafeSlow(readBytes)];
  let next = read(now);
  try {
    for (let bytes = await next; bytes.length > 0; bytes = await next) {
      next = read(then);
      yield bytes;
      [now, then] = [then, now];
    }
  } finally {
    await next.catch(() => undefined);
    await handle.close();
  }
}

/**
 * The error for a file that broke off or is damaged after its header.
 * @param reached the last thing that could be read
 */
export function damaged(file: Readable, reached: string, thrown: unknown): ReelflowError {
  return new ReelflowError('input', `${file.name} is damaged`, {
    detail: `${messageOf(thrown)}, after ${reached}.`,
    hint: 'Fetch the file again and replay it: rows sent again change nothing.',
    cause: thrown,
  });
}

function isDamage(thrown: unknown): boolean {
  return systemCodeOf(thrown)?.startsWith('Z_') ?? false;
}
