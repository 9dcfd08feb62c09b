/** Why a row is rejected: the reasons of the producers' dead letters, and their texts. */
import type { Dataset } from '../topics/catalog.ts';

export type RowRejectReason =
  | 'columns'
  | 'integer'
  | 'rating'
  | 'id'
  | 'boolean'
  | 'utf8'
  | 'null'
  | 'too_large';

const expectations: Record<RowRejectReason, string> = {
  columns: 'expected a tab',
  integer: 'expected a 32-bit integer, 0 or more in a column of counts',
  rating: 'expected a number from 1.0 to 10.0 with at most one decimal',
  id: 'expected an id: two letters, then 7 digits, or 8 to 9 without a leading zero',
  boolean: 'expected 0 or 1',
  utf8: 'expected UTF-8',
  null: 'expected a value',
  too_large: 'expected a shorter row',
};

/** The reason and detail of a refused row. Slow: only dead letters need it. */
export function explainRefusal(
  dataset: Dataset,
  row: Buffer,
  { reason, column }: { readonly reason: RowRejectReason; readonly column: number },
): { reason: RowRejectReason; detail: string } {
  const values = row.toString('utf8').split('\t');
  if (values.length !== dataset.columns.length) {
    return { reason: 'columns', detail: `expected ${dataset.columns.length} columns, got ${values.length}` };
  }
  const value = values[column] ?? '';
  const actual = value === '\\N' ? 'null' : reason;
  const name = dataset.columns[column]?.name ?? '';
  return {
    reason: actual,
    detail: `${name}: ${expectations[actual]}, got ${JSON.stringify(value.slice(0, 80))}`,
  };
}
