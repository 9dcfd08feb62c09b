/** Figures as people read them: numbers, periods, times, rates, trends. An unknown value reads `unknown`. */

/** A number with thousands separators and at most two decimals. */
export const figure = (value: number): string => value.toLocaleString('en-US', { maximumFractionDigits: 2 });

/** A whole number, or `unknown`. */
export const whole = (value: number | null): string =>
  value === null ? 'unknown' : Math.round(value).toLocaleString('en-US');

/** Megabytes with one decimal, without the unit. */
export const megabytes = (bytes: number): string => (bytes / 1e6).toFixed(1);

/** A rate per second; small ones have a decimal. */
export function rate(perSecond: number | null): string {
  if (perSecond === null) return 'unknown';
  return perSecond.toLocaleString('en-US', { maximumFractionDigits: Math.abs(perSecond) < 10 ? 1 : 0 });
}

/** A time in UTC, to the second. */
export const timeText = (ms: number): string => new Date(ms).toISOString().slice(0, 19).replace('T', ' ');

const unitsMs = [
  ['d', 86_400_000],
  ['h', 3_600_000],
  ['min', 60_000],
  ['s', 1_000],
] as const;

/** A period in its two largest units: `3 min 20 s`; `never` for one without end. */
export function duration(ms: number | null): string {
  if (ms === null) return 'unknown';
  if (!Number.isFinite(ms)) return 'never';
  const first = unitsMs.findIndex(([, unitMs]) => ms >= unitMs);
  if (first < 0) return ms === 0 ? '0 s' : `${Math.ceil(ms)} ms`;
  const [name, unitMs] = unitsMs[first] as (typeof unitsMs)[number];
  const next = unitsMs[first + 1];
  const count = `${Math.floor(ms / unitMs)} ${name}`;
  const rest = next === undefined ? 0 : Math.floor((ms % unitMs) / next[1]);
  return rest === 0 ? count : `${count} ${rest} ${next?.[0]}`;
}

const bars = '▁▂▃▄▅▆▇█';
const barsMax = 20;

/** Values as bars, from zero (▁) to the largest (█); a space where the value is unknown. */
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

/** Replaces control characters: text from outside must not move the cursor or change a terminal's colours. */
export function printable(text: string): string {
  return text.replace(/(?![\t\n])[\p{Cc}\p{Bidi_Control}\p{Zl}\p{Zp}]/gu, '\ufffd');
}
