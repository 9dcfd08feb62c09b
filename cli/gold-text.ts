/** Snapshots, tables and differences as text for people. */
import { counted } from '../runtime/counted.ts';
import { filled } from '../runtime/terminal.ts';
import type { Cell, SnapshotDiff, TableView, ViewColumn } from '../sinks/gold/gold-reader.ts';
import type { SnapshotSummary } from '../sinks/gold/history.ts';
import { figure } from './figures.ts';
import { tableText } from './table.ts';

/** Columns that a terminal has room for; more would wrap. */
const columnsShown = 12;

/** One line for each snapshot. */
export function snapshotsText(snapshots: readonly SnapshotSummary[]): string {
  return tableText(
    [
      { head: 'snapshot', cell: ({ id }) => id },
      { head: 'created', cell: ({ created }) => created, drop: 1 },
      { head: 'records', align: 'right', cell: ({ records }) => figure(records) },
      {
        head: 'rows',
        align: 'right',
        cell: ({ rows }) => figure(Object.values(rows).reduce((sum, n) => sum + n, 0)),
      },
      { head: 'bytes', align: 'right', drop: 2, cell: ({ bytes }) => figure(bytes) },
      { head: '', cell: marksOf },
    ],
    snapshots,
  );
}

const marksOf = ({ isCurrent, isPinned }: SnapshotSummary) =>
  [isCurrent ? 'CURRENT' : '', isPinned ? 'pinned' : ''].filter((mark) => mark !== '').join(', ');

/** The rows of a gold table, with the units under the names of the columns. */
export function viewText(
  { snapshot, table, about, columns, rows, rowsTotal }: TableView,
  width?: number,
): string {
  const shown = columns.slice(0, columnsShown);
  const drawn = tableText(
    shown.map((column, at) => ({
      head: column.unit === undefined ? column.name : `${column.name}\n${column.unit}`,
      align: isText(column) ? ('left' as const) : ('right' as const),
      // A narrow terminal keeps the leading columns, which are the key, and names. It drops other texts before figures.
      drop: at < 2 || isName(column) ? 0 : at + (isText(column) ? columnsShown : 0),
      cell: (row: (typeof rows)[number]) => cellText(row[at], column),
    })),
    rows,
    width,
  );
  // A narrow terminal shows fewer columns.
  const drawnCount = (drawn.split('\n', 1)[0] ?? '').trim().split(/ {2,}/).length;
  const left = columns.length > drawnCount ? `, ${drawnCount} of ${columns.length} columns` : '';
  const footer = `${table}: ${about} ${figure(rows.length)} of ${counted(rowsTotal, 'row')}${left}, snapshot ${snapshot}`;
  return `${drawn}\n${filled(footer, width)}`;
}

const isName = ({ name }: ViewColumn) => name === 'primaryTitle' || name === 'primaryName';

const isText = ({ type }: ViewColumn) => /^(VARCHAR|BOOLEAN|DATE)|\[\]$/.test(type);

function cellText(cell: Cell | undefined, column?: ViewColumn): string {
  if (cell === null || cell === undefined) return '';
  if (Array.isArray(cell)) return cell.map((inner) => cellText(inner)).join(', ');
  if (typeof cell !== 'number') return String(cell);
  // A year has no thousands separator.
  if (column?.unit === 'year') return column.type === 'INTEGER' ? String(cell) : cell.toFixed(1);
  return column?.type === 'DOUBLE'
    ? cell.toLocaleString('en-US', { minimumFractionDigits: 2, maximumFractionDigits: 2 })
    : figure(cell);
}

/** A change, with as many digits as show it. */
function changeText(before: Cell | undefined, after: Cell | undefined, isYear: boolean): string {
  const texts = [before, after].map((cell) =>
    cell === null || (Number.isInteger(cell) && isYear) ? String(cell) : cellText(cell),
  );
  if (texts[0] !== texts[1]) return texts.join(' → ');
  return `${String(before)} → ${String(after)}`;
}

/** @param isYear of a column: years have no thousands separator */
export function diffText({ from, to, tables }: SnapshotDiff, isYear: (column: string) => boolean): string {
  const entries = Object.entries(tables);
  const rowsText = (n: number | null | undefined) => (n === null || n === undefined ? 'no table' : figure(n));
  const count = (head: 'added' | 'removed' | 'changed') => ({
    head,
    align: 'right' as const,
    cell: ([, table]: (typeof entries)[number]) => figure(table[head]),
  });
  const drawn = tableText(
    [
      { head: 'table', cell: ([name]: (typeof entries)[number]) => name },
      { head: 'rows before', align: 'right', drop: 1, cell: ([, { rows }]) => rowsText(rows[0]) },
      { head: 'rows after', align: 'right', drop: 1, cell: ([, { rows }]) => rowsText(rows[1]) },
      count('added'),
      count('removed'),
      count('changed'),
    ],
    entries,
  );
  const lines: string[] = [];
  for (const [name, { added, removed, changed, first }] of entries) {
    for (const { kind, key, columns } of first) {
      const figures = Object.entries(columns).map(([c, [b, a]]) => `${c} ${changeText(b, a, isYear(c))}`);
      lines.push(`${name}: ${key}: ${kind === 'changed' ? figures.join(', ') : kind}`);
    }
    const left = added + removed + changed - first.length;
    if (first.length > 0 && left > 0) lines.push(`${name}: and ${figure(left)} more`);
  }
  return [drawn, ...lines, `From ${from} to ${to}`].join('\n');
}
