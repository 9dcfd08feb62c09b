/**
 * The columns of a file, from its header. Columns are found by name, in the official camelCase or in snake_case. Unknown
 * columns are ignored; a missing one stops the run before it sends anything.
 */
import { ReelflowError } from '../runtime/errors.ts';
import type { Dataset } from '../topics/catalog.ts';

export interface Layout {
  /** Columns in the file, unknown ones included. */
  readonly columns: number;
  /** Names in the file's order, in camelCase; absent when they are the official ones in their order. */
  readonly names?: readonly string[];
  /** For each column of the dataset, its place in the file. */
  readonly order: readonly number[];
  /** Lines end with CR LF. */
  readonly crlf: boolean;
  /** The columns are the official ones in their order and lines end with LF: rows are encoded in place. */
  readonly official: boolean;
}

/**
 * @param header the first line of the file, without its newline
 * @param file its name, for errors
 * @throws ReelflowError input, naming the columns that are missing or occur twice
 */
export function layoutOf(dataset: Dataset, header: Buffer, file: string): Layout {
  const line = header.toString('utf8');
  const crlf = line.endsWith('\r');
  const names = line
    .replace(/^\uFEFF/, '')
    .replace(/\r$/, '')
    .split('\t')
    .map(camelCase);
  const wanted = dataset.columns.map(({ name }) => name);
  const missing = wanted.filter((name) => !names.includes(name));
  if (missing.length > 0) {
    throw new ReelflowError('input', `${file} lacks the column ${missing.join(', ')}`, {
      detail: `Its header is: ${line.length > 200 ? `${line.slice(0, 200)} …` : line}`,
      hint: `The first line of ${dataset.name} holds its column names, separated by tabs: ${wanted.join(' ')}.`,
    });
  }
  const twice = wanted.filter((name) => names.indexOf(name) !== names.lastIndexOf(name));
  if (twice.length > 0) {
    throw new ReelflowError('input', `${file} has the column ${twice.join(', ')} twice`, {
      hint: 'Remove or rename one of them.',
    });
  }
  const order = wanted.map((name) => names.indexOf(name));
  const inOrder = names.length === wanted.length && order.every((place, index) => place === index);
  return { columns: names.length, order, crlf, official: inOrder && !crlf, ...(!inOrder && { names }) };
}

function camelCase(name: string): string {
  return name.trim().replace(/_([a-z0-9])/g, (_, letter: string) => letter.toUpperCase());
}
