/** The history of one title as plots: its rating and its votes by day. */
import type { Point, TableView } from '../sinks/gold/gold-reader.ts';
import type { Plot } from '../tables/gold-table.ts';

/** A title has at most one row a day. */
export const historyRowsMax = 100_000;

const plots = [
  { column: 'averageRating', title: 'Rating' },
  { column: 'numVotes', title: 'Votes' },
];

/**
 * Plots of a table with a column `day`; none of any other.
 * @param newest date of the newest dump: the last values hold until then
 */
export function titlePlots(
  { table, columns, rows }: TableView,
  newest: string | null | undefined,
): [Plot, Point[]][] {
  const day = columns.findIndex(({ name }) => name === 'day');
  const tconst = columns.findIndex(({ name }) => name === 'tconst');
  if (day < 0 || rows.length === 0) return [];
  return plots.flatMap(({ column, title }) => {
    const at = columns.findIndex(({ name }) => name === column);
    if (at < 0) return [];
    const points = rows.flatMap((row): Point[] => {
      const value = row[at];
      return typeof value === 'number' ? [[String(row[day]), value]] : [];
    });
    const [lastDay, lastValue] = [rows.at(-1)?.[day], rows.at(-1)?.[at]];
    if (newest && typeof lastValue === 'number' && String(lastDay) < newest) points.push([newest, lastValue]);
    // One day draws no line.
    if (points.length < 2) return [];
    const name = `${title} of ${String(rows[0]?.[tconst])} by day, from ${table}`;
    return [[{ title: name, kind: 'line', x: 'day', y: column } satisfies Plot, points]];
  });
}
