/** Consumption and production rates of partitions, and the time until a member has caught up. Pure functions. */
import { endOf, isFull, lagOf, type Observation, unreadFrom } from './judge.ts';

/** Messages per second; null with fewer than two observations. */
interface Pace {
  readonly consumedPerSecond: number | null;
  readonly producedPerSecond: number | null;
}

/** Rates over these observations, in order of time; null where fewer than two know the offset. */
export function paceOf(observations: readonly Observation[]): Pace {
  const known = observations.filter(({ end, next }) => end !== null && next !== null);
  // After the members have left, their earlier pace no longer applies.
  const alone = known.slice(known.findLastIndex(({ isOwned }) => isOwned !== false) + 1);
  const hasEnded = alone.length > 0 && alone.length < known.length;
  const consumed = slope((hasEnded ? alone : known).map(({ atMs, next }) => [atMs / 1000, next as number]));
  return {
    consumedPerSecond: hasEnded ? (consumed ?? 0) : consumed,
    producedPerSecond: slope(
      known.map(({ atMs, end, highWatermark }) => [atMs / 1000, highWatermark ?? (end as number)]),
    ),
  };
}

/** Least squares: offsets grow in steps, so the two ends alone could count one step too many or too few. */
function slope(points: readonly (readonly [number, number])[]): number | null {
  const [first] = points;
  if (first === undefined) return null;
  const [x0, y0] = first;
  const mean = (pick: (point: readonly [number, number]) => number) =>
    points.reduce((sum, point) => sum + pick(point), 0) / points.length;
  const x = mean(([at]) => at - x0);
  const y = mean(([, value]) => value - y0);
  const spread = mean(([at]) => (at - x0 - x) ** 2);
  return spread === 0 ? null : mean(([at, value]) => (at - x0 - x) * (value - y0 - y)) / spread;
}

/** One of the partitions that a member consumes together. A message counts as its weight. */
interface WeightedPartition {
  /** Oldest first; all partitions were observed at the same moments. */
  readonly observations: readonly Observation[];
  readonly weight: number;
}

/** Number of intervals between commits that give the pace: it changes, because consumers warm up, and load varies. */
const paceSteps = 3;

/**
 * Milliseconds until a member has no lag on its partitions at the current pace: `Infinity` when the lag does not
 * decrease, null while that is unknown. Messages that are read and not committed count as done. The pace is that of the
 * last few commits, at least of a sixth and at most of half of the span.
 */
export function catchUpMsOf(parts: readonly WeightedPartition[], spanMs: number): number | null {
  const nowMs = Math.max(...parts.map(({ observations }) => observations.at(-1)?.atMs ?? 0));
  const all = parts.map((part) => ({ ...part, ...progressOf(part.observations, nowMs) }));
  const sum = (pick: (part: (typeof all)[number]) => number) =>
    all.reduce((total, part) => total + part.weight * pick(part), 0);
  if (all.some(({ lag }) => lag === null)) return null;
  if (sum(({ lag }) => lag as number) === 0) return 0;
  const isWhole = all.every(({ observations }) => isFull(observations, spanMs));
  // The duration of a single step is unknown.
  const hasSteps = all.some(({ commitsMs }) => commitsMs.length > 1);
  const isOneStep = all.some(({ lag, commitsMs }) => lag !== 0 && commitsMs.length === 1);
  if (!isWhole && (isOneStep || !hasSteps)) return null;
  const stepsMs = Math.max(...all.map(({ lag, stepMs }) => (lag === 0 ? 0 : paceSteps * stepMs)));
  const paceMs = Math.min(Math.max(stepsMs, spanMs / 6), spanMs / 2);
  // Excludes the wait before the first commit from the pace.
  const begunMs = Math.min(...all.flatMap(({ commitsMs }) => commitsMs));
  const fromMs = hasSteps ? Math.max(begunMs, nowMs - paceMs) : nowMs - spanMs;
  const consumed = sum(({ done }) => valueAt(done, nowMs) - valueAt(done, fromMs));
  const produced = sum(({ ends }) => valueAt(ends, nowMs) - valueAt(ends, fromMs));
  const toRead = sum(({ done, ends, ahead }) =>
    Math.max(0, valueAt(ends, nowMs) - valueAt(done, nowMs) - ahead),
  );
  if (toRead === 0 && consumed > 0) return 0;
  if (consumed > produced) return (toRead / (consumed - produced)) * (nowMs - fromMs);
  return isWhole ? Number.POSITIVE_INFINITY : null;
}

/** Values at some moments: interpolated between two, constant before the first and after the last. */
type Line = readonly (readonly [atMs: number, value: number])[];

function valueAt(line: Line, atMs: number): number {
  const before = line.findLast(([ms]) => ms <= atMs);
  const after = line.find(([ms]) => ms > atMs);
  if (before === undefined || after === undefined) return (before ?? after ?? [0, 0])[1];
  const [[fromMs, from], [toMs, to]] = [before, after];
  return from + ((to - from) * (atMs - fromMs)) / (toMs - fromMs);
}

/**
 * Commits come in steps, for each partition at its own times, and work continues in between: this assumes a line from
 * commit to commit, which extends beyond the last one for one usual interval.
 */
function progressOf(observations: readonly Observation[], nowMs: number) {
  const now = observations.at(-1);
  const moves = observations.filter(({ next }, i) => next !== null && next !== observations[i - 1]?.next);
  const done = moves.map((move): [number, number] => [move.atMs, unreadFrom(move) as number]);
  // The time of a commit that the first observation found is unknown, and a commit at the log start is no work.
  const commits = done.filter((_, i) => moves[i] !== observations[0] && moves[i]?.next !== moves[i]?.start);
  const [first, last] = [commits[0], commits.at(-1)];
  let stepMs = 0;
  if (first !== undefined && last !== undefined && commits.length > 1) {
    stepMs = (last[0] - first[0]) / (commits.length - 1);
    const waitedMs = Math.min(nowMs - last[0], stepMs);
    const more = ((last[1] - first[1]) / (last[0] - first[0])) * waitedMs;
    done.push([last[0] + waitedMs, Math.min((now && endOf(now)) ?? 0, last[1] + more)]);
  }
  return {
    lag: now === undefined ? null : lagOf(now),
    commitsMs: commits.map(([atMs]) => atMs),
    /** Mean interval between commits. */
    stepMs,
    done,
    /** Messages that are read and not committed. */
    ahead: Math.max(0, (now?.readNext ?? 0) - (now?.next ?? 0)),
    ends: observations.flatMap((observation): Line => {
      const end = endOf(observation);
      return end === null ? [] : [[observation.atMs, end]];
    }),
  };
}
