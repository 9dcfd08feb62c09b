/** The lag of consumer groups as text. */
import type { State } from '../monitor/judge.ts';
import type { GroupLag, LagReport, LagRow } from '../monitor/lag.ts';
import { counted } from '../runtime/counted.ts';
import { filled } from '../runtime/terminal.ts';
import { duration, rate, sparkline, whole } from './figures.ts';
import { coloured, type TableColumn, tableText, wholeColumn } from './table.ts';

interface LagTextOptions {
  /** Columns that a line may take; default those of the terminal. */
  readonly width?: number;
  /** Adds a column with the trend of each partition's lag. */
  readonly trendOf?: (row: LagRow) => readonly (number | null)[];
  /** A sentence below the headline of a group. */
  readonly noteOf?: (group: GroupLag) => string | undefined;
}

/** A headline and a table per group. */
export function lagText(
  { rows, groups }: LagReport,
  { width, trendOf, noteOf }: LagTextOptions = {},
): string {
  const parts = groups.flatMap((group) => {
    const own = rows.filter((row) => row.group === group.group);
    const note = noteOf?.(group);
    const said = [headline(group, own.length > 0), ...(note === undefined ? [] : [note])];
    const head = said.map((line) => filled(line, width));
    return own.length === 0 ? head : [...head, tableText(columnsOf(own, trendOf), own, width)];
  });
  return parts.length === 0 ? 'No offsets are committed.' : parts.join('\n');
}

/** Topic, partition, lag, state and the time to catch up are never dropped. */
function columnsOf(rows: readonly LagRow[], trendOf: LagTextOptions['trendOf']): TableColumn<LagRow>[] {
  const number = (head: string, drop: number, cell: (row: LagRow) => string) =>
    ({ head, align: 'right', drop, cell }) as const;
  const hasRecords = has(rows, ({ lagRecords }) => lagRecords);
  return [
    { head: 'topic', keep: 'end', cell: ({ topic }) => topic },
    number('partition', 0, ({ partition }) => String(partition)),
    wholeColumn('start', ({ startOffset }) => startOffset, 8),
    wholeColumn('end', ({ endOffset }) => endOffset, 6),
    wholeColumn('next', ({ nextOffset }) => nextOffset, 7),
    wholeColumn('lag', ({ lag }) => lag),
    ...(hasRecords ? [wholeColumn<LagRow>('≈ records', ({ lagRecords }) => lagRecords, 5)] : []),
    ...(has(rows, ({ lost }) => lost) ? [wholeColumn<LagRow>('lost', ({ lost }) => lost)] : []),
    ...(has(rows, ({ blocked }) => blocked)
      ? [wholeColumn<LagRow>('blocked', ({ blocked }) => blocked)]
      : []),
    {
      head: 'state',
      cell: ({ state, isSubscribed }) => (isSubscribed ? stateText(state) : 'not subscribed'),
    },
    number('behind', 2, ({ timeLagMs }) => duration(timeLagMs)),
    ...(rows.some(({ expiresMs }) => expiresMs !== null)
      ? [number('expires in', 1, ({ expiresMs }) => (expiresMs === null ? '' : duration(expiresMs)))]
      : []),
    // One observation has no rates.
    ...(isKnown(rows, ({ consumedPerSecond }) => consumedPerSecond)
      ? [number('read/s', 3, ({ consumedPerSecond }) => rate(consumedPerSecond))]
      : []),
    ...(isKnown(rows, ({ producedPerSecond }) => producedPerSecond)
      ? [number('written/s', 4, ({ producedPerSecond }) => rate(producedPerSecond))]
      : []),
    number('caught up in', 0, ({ catchUpMs }) => duration(catchUpMs)),
    ...(trendOf === undefined
      ? []
      : [{ head: 'trend', drop: 1, cell: (row: LagRow) => sparkline(trendOf(row)) }]),
  ];
}

const isKnown = (rows: readonly LagRow[], value: (row: LagRow) => number | null) =>
  rows.some((row) => value(row) !== null);

const has = (rows: readonly LagRow[], value: (row: LagRow) => number | null) =>
  rows.some((row) => (value(row) ?? 0) > 0);

function headline(groupLag: GroupLag, hasRows: boolean): string {
  const {
    group,
    exists,
    state,
    whyUnknown,
    lag,
    lagUnknown,
    lagRecords,
    timeLagMs,
    catchUpMs,
    lost,
    blocked,
  } = groupLag;
  if (!exists) {
    return group.includes('*')
      ? `No group matches ${group} (yet).`
      : `Group ${group} does not exist (yet): it has committed no offsets.`;
  }
  const stated = state === null ? `state unknown (${whyUnknown})` : stateText(state);
  if (!hasRows) return `Group ${group}: ${stated}`;
  const unknown = lagUnknown > 0 && lag !== null ? ` + ${lagUnknown} unknown` : '';
  const records = lagRecords !== null && lagRecords > 0 ? ` (≈ ${counted(lagRecords, 'record')})` : '';
  const caughtUp = duration(catchUpMs);
  return [
    `Group ${group}: ${stated}`,
    `${whole(lag)}${unknown} ${lag === 1 && unknown === '' ? 'message' : 'messages'} left${records}`,
    ...((lost ?? 0) > 0 ? [`${whole(lost)} lost before they were read`] : []),
    ...((blocked ?? 0) > 0 ? [`${whole(blocked)} withheld by an open transaction`] : []),
    `${duration(timeLagMs)} behind`,
    caughtUp === 'never' ? 'caught up never' : `caught up in ${caughtUp}`,
  ].join(', ');
}

function stateText(state: State | null): string {
  if (state === null) return 'unknown';
  return coloured(state === 'OK' ? 'green' : state === 'WARN' ? 'yellow' : 'red', state);
}
