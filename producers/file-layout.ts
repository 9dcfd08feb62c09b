/**
 * The columns of a file, from its header. Columns are found by name in any common spelling: `averageRating`,
 * `average_rating`, `AVERAGERATING`. Unknown columns are ignored; a missing one stops the run before it sends anything.
 */
import { ReelflowError } from '../runtime/errors.ts';
import type { Dataset } from '../topics/catalog.ts';
import { unquoted } from './equal-values.ts';

export interface Layout {
  /** Columns in the file, unknown ones included. */
  readonly columns: number;
  /** A header of the same meaning, with official names where known; absent if it is the official one. */
  readonly names?: readonly string[];
  /** For each column of the dataset, its place in the file. */
  readonly order: readonly number[];
  /** The file quotes its names, and so any of its values, as CSV writers do. */
  readonly quoted: boolean;
  /** The columns are the official ones in their order, without quotes: rows are encoded in place. */
  readonly official: boolean;
}

/**
 * @param header the first line of the file, without its newline
 * @param file its name, for errors
 * @throws ReelflowError input, naming the columns that are missing or occur twice; for a file without line feeds
 */
export function layoutOf(dataset: Dataset, header: Buffer, file: string): Layout {
  const line = header
    .toString('utf8')
    .replace(/^\uFEFF/, '')
    .replace(/\r$/, '');
  if (line.includes('\r')) {
    throw new ReelflowError('input', `${file} ends its lines with carriage returns alone`, {
      detail: 'Lines end with a line feed, or with a carriage return and a line feed.',
      hint: "Convert a copy of it, for example with `tr '\\r' '\\n'`.",
    });
  }
  const fields = line.split('\t');
  const wanted = dataset.columns.map(({ name }) => name);
  const official = new Map(wanted.map((name) => [spellingOf(name), name]));
  const names = fields.map((field) => {
    const name = unquoted(field).trim();
    return official.get(spellingOf(name)) ?? name;
  });
  const missing = wanted.filter((name) => !names.includes(name));
  if (missing.length > 0) {
    const separator = fields.length > 1 ? undefined : /[,;|]/.exec(line)?.[0];
    throw new ReelflowError('input', `${file} lacks the ${columnsText(missing)}`, {
      detail: `Its header is: ${line.length > 200 ? `${line.slice(0, 200)} …` : line}`,
      hint:
        separator === undefined
          ? `The first line of ${dataset.name} holds its column names, separated by tabs: ${wanted.join(' ')}.`
          : `Its columns are separated by "${separator}": write the file with tabs.`,
    });
  }
  const twice = wanted.filter((name) => names.indexOf(name) !== names.lastIndexOf(name));
  if (twice.length > 0) {
    throw new ReelflowError('input', `${file} has the ${columnsText(twice)} twice`, {
      hint: 'Remove or rename one of each.',
    });
  }
  const order = wanted.map((name) => names.indexOf(name));
  const quoted = fields.some((field) => field.startsWith('"'));
  const inOrder = names.length === wanted.length && order.every((place, index) => place === index);
  return {
    columns: names.length,
    order,
    quoted,
    official: inOrder && !quoted,
    ...((!inOrder || quoted) && { names: quoted ? names.map((name) => `"${name}"`) : names }),
  };
}

const columnsText = (names: readonly string[]) => `column${names.length > 1 ? 's' : ''} ${names.join(', ')}`;

/** The first line of an official file, without its newline. */
export function headerLineOf({ columns }: Dataset): string {
  return columns.map(({ name }) => name).join('\t');
}

function spellingOf(name: string): string {
  return name.replace(/[_\s-]/g, '').toLowerCase();
}
