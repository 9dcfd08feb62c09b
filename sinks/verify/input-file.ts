/**
 * A dataset's file for the batch computation: finds it in the folder and reads its bytes. It accepts the names and formats
 * that a replay accepts, with code of its own, because the oracle must not share the producers' blind spots.
 */
import { createReadStream, existsSync, readdirSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { messageOf, ReelflowError } from '../../runtime/errors.ts';
import type { DatasetName } from '../../topics/catalog.ts';
import { gzipContent, isGzip } from './gzip-members.ts';

/**
 * The path of a dataset's file, undefined if the folder has none: `title.basics.tsv.gz`, names that browsers and Kaggle make
 * of it, or `data.tsv` in a folder named after the dataset.
 * @throws ReelflowError input, if there are several
 */
export function findFile(folder: string, dataset: DatasetName): string | undefined {
  const found = entriesOf(folder)
    .map((entry) => join(folder, entry))
    .flatMap((path) => {
      if (nameOf(path) !== dataset) return [];
      if (!statSync(path).isDirectory()) return isTsv(path) ? [path] : [];
      return entriesOf(path)
        .filter((entry) => isTsv(entry) && ['data', dataset].includes(nameOf(entry)))
        .map((entry) => join(path, entry));
    });
  if (found.length <= 1) return found[0];
  throw new ReelflowError('input', `${dataset} occurs twice`, {
    detail: `${folder} has ${found.join(' and ')}.`,
    hint: 'Remove one of them.',
  });
}

const entriesOf = (folder: string) => (existsSync(folder) ? readdirSync(folder).sort() : []);
const isTsv = (path: string) => /\.tsv( ?\(\d+\))?(\.gz)?$/i.test(path);

/** The last part of a path without extensions and copy numbers, with a dot for the separator. */
function nameOf(path: string): string {
  const [name = ''] = path.split('/').slice(-1);
  return name
    .replace(/ ?\(\d+\)/g, '')
    .replace(/\.gz$/i, '')
    .replace(/\.tsv$/i, '')
    .replace(/[ _-]/, '.')
    .toLowerCase();
}

const newline = 10;

/**
 * The bytes of a file, unpacked, in pieces that end with a newline. The last one gets its newline if it lacks it.
 * @param onMore called if anything follows the first member of a gzip file
 * @throws ReelflowError input, if the file cannot be read to its last byte
 */
export async function* wholeLines(path: string, onMore?: () => void): AsyncGenerator<Buffer> {
  let rest: Buffer[] = [];
  try {
    const bytes = (await isGzip(path))
      ? gzipContent(path, onMore)
      : (createReadStream(path, { highWaterMark: 1 << 20 }) as AsyncIterable<Buffer>);
    for await (const piece of bytes) {
      const end = piece.lastIndexOf(newline) + 1;
      if (end > 0) {
        yield Buffer.concat([...rest, piece.subarray(0, end)]);
        rest = [];
      }
      if (end < piece.length) rest.push(piece.subarray(end));
    }
  } catch (cause) {
    throw new ReelflowError('input', 'A file could not be read', {
      detail: `${path}: ${messageOf(cause)}`,
      hint: 'Fetch or write the file again.',
      cause,
    });
  }
  if (rest.length > 0) yield Buffer.concat([...rest, Buffer.from('\n')]);
}
