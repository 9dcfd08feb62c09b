/**
 * Values that other programs write differently but mean the same: `43.0` for 43, `True` for 1, an empty field or `NaN`
 * for \N, quotes around a text. Only unambiguous forms are accepted: `43,000` may mean 43, and a title may be called None.
 */
import type { Column } from '../topics/catalog.ts';

/** Texts for a missing value in pandas, R, Python and SQL. `NA` is not among them: it is the region Namibia. */
const nullTexts = new Set(['NaN', 'nan', 'None', 'NULL', 'null', '<NA>']);

/** Texts for a flag in Python, Excel and SQL; PostgreSQL copies `t` and `f`. */
const flagTexts = new Map([
  ...['True', 'TRUE', 'true', 't'].map((text) => [text, '1'] as const),
  ...['False', 'FALSE', 'false', 'f'].map((text) => [text, '0'] as const),
]);

/** Columns in which a null text may be a value: titles and names, and `nan` is the language Min Nan. */
const literalColumns = new Set([
  'primaryTitle',
  'originalTitle',
  'title',
  'primaryName',
  'job',
  'characters',
  'language',
]);

/** Whether a null text in this column means a missing value. */
export function isCoded({ name, type }: Column): boolean {
  return type.startsWith('nullable') && !literalColumns.has(name);
}

/** The official form of a value; the value itself if it has no other meaning. */
export function officialValue(column: Column, value: string): string {
  const text = hasCsvQuotes(value) ? unquoted(value) : value;
  if (column.type.startsWith('nullable') && text === '') return '\\N';
  if (isCoded(column) && nullTexts.has(text)) return '\\N';
  switch (column.type) {
    case 'boolean':
    case 'nullable-boolean':
      return flagTexts.get(text) ?? withoutZeroDecimals(text);
    case 'int':
    case 'nullable-int':
      return withoutZeroDecimals(text);
    case 'tenths':
      return text.replace(/^(\d+\.\d)0+$/, '$1');
    default:
      return text;
  }
}

const withoutZeroDecimals = (text: string) => text.replace(/^(-?\d+)\.0+$/, '$1');

/**
 * Whether quotes around the value can only be those of a CSV writer, which doubles the quotes inside: `"[""Self""]"`.
 * IMDb's own files quote nothing, so `"Rome"` is a title with quotes.
 */
function hasCsvQuotes(value: string): boolean {
  return /^"(?:[^"]|"")*""(?:[^"]|"")*"$/.test(value);
}

/** The value without the quotes of a CSV writer. */
export function unquoted(value: string): string {
  return /^"(?:[^"]|"")*"$/.test(value) ? value.slice(1, -1).replaceAll('""', '"') : value;
}
