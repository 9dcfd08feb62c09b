/** The lag as text for people: a line and a table per group. What is not known is called unknown. */
import type { GroupLag, LagReport, LagRow } from '../monitor/lag.ts';

export interface LagTextOptions {
  /** Longer lines are cut off. */
  readonly columns?: number;
  /** Adds a trend line to each partition. */
  readonly trendOf?: (row: LagRow) => readonly (number | null)[];
}

export async function lagText({ rows, groups }: LagReport, options: LagTextOptions = {}): Promise<string> {
  const { default: Table } = await import('cli-table3');
  const parts: string[] = [];
  for (const group of groups) {
    const own = rows.filter((row) => row.group === group.group);
    if (!group.exists) parts.push(`Group ${group.group} does not exist (yet): nothing is committed.`);
    else if (own.length === 0) parts.push(`Group ${group.group}: state unknown (${group.whyUnknown})`);
    else parts.push(headline(group));
    if (own.length === 0) continue;
    const hasRecords = own.some(({ lagRecords }) => lagRecords !== null && lagRecords > 0);
    const head = ['topic', 'partition', 'start', 'end', 'next', 'lag', ...(hasRecords ? ['≈ records'] : [])];
    head.push('state', 'behind', 'read/s', 'written/s', 'caught up in');
    if (options.trendOf !== undefined) head.push('trend');
    const table = new Table({
      head,
      colAligns: head.map((name) => (['topic', 'state', 'trend'].includes(name) ? 'left' : 'right')),
      style: { head: [], border: [], compact: true },
    });
    for (const row of own) {
      table.push([
        row.topic,
        row.partition,
        ...[row.startOffset, row.endOffset, row.nextOffset, row.lag].map(figure),
        ...(hasRecords ? [figure(row.lagRecords)] : []),
        ...[row.state ?? 'unknown', duration(row.timeLagMs), rate(row.consumedPerSecond)],
        ...[rate(row.producedPerSecond), duration(row.catchUpMs)],
        ...(options.trendOf === undefined ? [] : [sparkline(options.trendOf(row))]),
      ]);
    }
    parts.push(table.toString());
  }
  if (parts.length === 0) return 'Nothing is committed.';
  const { columns } = options;
  const lines = parts.join('\n').split('\n');
  return lines.map((line) => line.slice(0, columns ?? line.length)).join('\n');
}

function headline(of: GroupLag): string {
  const { group, state, whyUnknown, lag, lagUnknown, lagRecords, timeLagMs, catchUpMs } = of;
  const unknown = lagUnknown > 0 && lag !== null ? ` + ${lagUnknown} unknown` : '';
  const records = lagRecords !== null && lagRecords > 0 ? ` (≈ ${figure(lagRecords)} records)` : '';
  const parts = [`${figure(lag)}${unknown} messages left${records}`, `${duration(timeLagMs)} behind`];
  parts.push(`caught up in ${duration(catchUpMs)}`);
  return `Group ${group}: ${state ?? `state unknown (${whyUnknown})`}, ${parts.join(', ')}`.replace(
    'in never',
    'never',
  );
}

const figure = (value: number | null) => (value === null ? 'unknown' : value.toLocaleString('en-US'));

function rate(perSecond: number | null): string {
  if (perSecond === null) return 'unknown';
  return perSecond.toLocaleString('en-US', { maximumFractionDigits: Math.abs(perSecond) < 10 ? 1 : 0 });
}

const unitsMs = [
  ['d', 86_400_000],
  ['h', 3_600_000],
  ['min', 60_000],
  ['s', 1_000],
] as const;

/** The two largest units: `3 min 20 s`. */
export function duration(ms: number | null): string {
  if (ms === null) return 'unknown';
  if (!Number.isFinite(ms)) return 'never';
  const first = unitsMs.findIndex(([, unitMs]) => ms >= unitMs);
  if (first < 0) return ms === 0 ? '0 s' : `${Math.ceil(ms)} ms`;
  const [name, unitMs] = unitsMs[first] as (typeof unitsMs)[number];
  const next = unitsMs[first + 1];
  const whole = `${Math.floor(ms / unitMs)} ${name}`;
  const rest = next === undefined ? 0 : Math.floor((ms % unitMs) / next[1]);
  return rest === 0 ? whole : `${whole} ${rest} ${next?.[0]}`;
}

const bars = '▁▂▃▄▅▆▇█';
const barsMax = 20;

/** From nothing at all (▁) to the most that was seen (█); a space where it was not known. */
export function sparkline(values: readonly (number | null)[]): string {
  const shown =
    values.length <= barsMax
      ? values
      : Array.from(
          { length: barsMax },
          (_, i) => values[Math.round((i * (values.length - 1)) / (barsMax - 1))] as number | null,
        );
  const most = Math.max(1, ...shown.map((value) => value ?? 0));
  return shown
    .map((value) => (value === null ? ' ' : bars[Math.ceil((value / most) * (bars.length - 1))]))
    .join('');
}
