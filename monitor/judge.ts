/**
 * How a consumer of a partition does, judged from nothing but what was seen of it over some time: pure functions, no
 * thresholds to set. The rules are Burrow's (github.com/linkedin/Burrow, `evaluator/caching.go`), with its fix for slow
 * topics. Burrow reads every commit from `__consumer_offsets`, which few clusters let anybody do; we look from time to
 * time instead, and take who is assigned a partition for the sign of life that Burrow takes a commit for.
 *
 * A history that is shorter than its span may acquit, it never convicts: until then a state is unknown (null).
 */

/** From best to worst: the order in which the state of a whole group is found. */
export const states = ['OK', 'WARN', 'ERR', 'STALL', 'STOP'] as const;

/**
 * - `OK`: nothing is left, or nothing was left at some time of the span, or it is catching up;
 * - `WARN`: it moves, but what is left never gets less: too slow;
 * - `ERR`: it went back and has not come again to where it was, or the log ends before what it has processed;
 * - `STALL`: somebody is there and stands still, with messages left;
 * - `STOP`: nobody is there, with messages left.
 */
export type State = (typeof states)[number];

/** What was seen of one partition of one group at one moment. Unknown is null. */
export interface Sight {
  /** Milliseconds since 1970, by our clock. */
  readonly atMs: number;
  /** First offset that is kept. */
  readonly start: number | null;
  /** Offset of the next message to be written. */
  readonly end: number | null;
  /** First offset not yet processed, as committed; null also when nothing was. */
  readonly next: number | null;
  /** Whether a member of the group is assigned the partition. */
  readonly isOwned: boolean | null;
  /** When the commit was made, for those who say so in its metadata. */
  readonly committedAtMs: number | null;
}

/** Messages that are left; null when an offset is unknown or the log ends before what was processed. */
export function lagOf({ end, next }: Pick<Sight, 'end' | 'next'>): number | null {
  return end === null || next === null || next > end ? null : end - next;
}

/**
 * The state of a partition.
 * @param sights oldest first, those of the last `spanMs` and one before
 */
export function judge(sights: readonly Sight[], spanMs: number): State | null {
  const now = sights.at(-1);
  if (now === undefined || now.end === null) return null;
  const { end, next } = now;
  if (next === null) return end === now.start ? 'OK' : now.isOwned === false ? 'STOP' : null;
  if (next > end) return 'ERR';
  if (next === end) return 'OK';
  if (hasStopped(sights, spanMs)) return 'STOP';
  if (sights.some((sight) => sight.next !== null && sight.next > next)) return 'ERR';
  // Once nothing was left: it keeps up. On a slow topic this gives it time for a message that has just come.
  if (sights.some(isCaughtUp)) return 'OK';
  if (lagDecreases(sights, spanMs)) return 'OK';
  if (!isFull(sights, spanMs)) return null;
  return sights.every((sight) => sight.next === next) ? 'STALL' : 'WARN';
}

/** Why `judge` tells no state of sights that end with this one, for people. */
export function whyUnknownOf({ end, next, isOwned }: Sight): string {
  if (end === null) return 'the topic does not exist or does not answer';
  if (next !== null) return 'not watched for long enough';
  return isOwned === true
    ? 'a member is assigned, and nothing is committed'
    : 'nothing is committed, and who is assigned is not known';
}

const isCaughtUp = (sight: Sight) => lagOf(sight) === 0;

/** Whether the sights reach back as far as they are to. */
function isFull(sights: readonly Sight[], spanMs: number): boolean {
  const [first] = sights;
  return first !== undefined && (sights.at(-1) as Sight).atMs - first.atMs >= spanMs;
}

const isCommit = (sight: Sight, before: Sight | undefined) =>
  before !== undefined && (sight.next !== before.next || sight.committedAtMs !== before.committedAtMs);

const hasCommitted = (sights: readonly Sight[]) => sights.some((sight, i) => isCommit(sight, sights[i - 1]));

/** Whether nobody is there. There are consumers without membership: of them only their commits are seen. */
function hasStopped(sights: readonly Sight[], spanMs: number): boolean {
  const isOwned = sights.at(-1)?.isOwned;
  if (isOwned === true) return false;
  if (isOwned === null) {
    return isFull(sights, spanMs) && !hasCommitted(sights) && !sights.some(isCaughtUp);
  }
  const alone = sights.slice(sights.findLastIndex((sight) => sight.isOwned !== false) + 1);
  if (hasCommitted(alone)) return false;
  // Members that were there are gone. Where there never was one, somebody without membership may have kept up.
  return alone.length < sights.length || !alone.some(isCaughtUp);
}

/** Burrow keeps ten commits. */
const parts = 10;

/**
 * Whether what is left got less anywhere. Between two commits it always grows: what counts is how much is left right
 * after a commit, and of several commits in a tenth of the span the least.
 */
function lagDecreases(sights: readonly Sight[], spanMs: number): boolean {
  const known = sights.filter((sight) => lagOf(sight) !== null);
  const [first] = known;
  if (first === undefined) return false;
  const commits = known.filter(({ next }, i) => i > 0 && next !== known[i - 1]?.next);
  // How long before the first sight there was a commit nobody knows: it counts where there is little else.
  if (commits.length < 2) commits.unshift(first);
  const least = new Map<number, number>();
  for (const sight of commits) {
    const part = sight === first ? -1 : Math.floor(((sight.atMs - first.atMs) * parts) / spanMs);
    const lag = lagOf(sight) as number;
    least.set(part, Math.min(lag, least.get(part) ?? lag));
  }
  const lags = [...least.values()];
  return lags.some((lag, i) => i > 0 && lag < (lags[i - 1] as number));
}

/** Messages per second; null with less than two sights. */
export interface Pace {
  readonly consumedPerSecond: number | null;
  readonly producedPerSecond: number | null;
}

export function paceOf(sights: readonly Sight[]): Pace {
  const known = sights.filter((sight) => sight.end !== null && sight.next !== null);
  return {
    consumedPerSecond: slope(known.map(({ atMs, next }) => [atMs / 1000, next as number])),
    producedPerSecond: slope(known.map(({ atMs, end }) => [atMs / 1000, end as number])),
  };
}

/** Least squares: offsets climb in steps, of which two ends alone would see one too many or too few. */
function slope(points: readonly (readonly [number, number])[]): number | null {
  const [first] = points;
  if (first === undefined) return null;
  const [x0, y0] = first;
  const mean = (of: (point: readonly [number, number]) => number) =>
    points.reduce((sum, point) => sum + of(point), 0) / points.length;
  const x = mean(([at]) => at - x0);
  const y = mean(([, value]) => value - y0);
  const spread = mean(([at]) => (at - x0 - x) ** 2);
  return spread === 0 ? null : mean(([at, value]) => (at - x0 - x) * (value - y0 - y)) / spread;
}

/** What is left and how fast it gets less, of partitions that are worked off together. */
export interface Work {
  /** In units of the weights; null when it is not known of all of them now. */
  readonly left: number | null;
  /** How much of it is done by now, going by the pace, and will be seen with the next commit. */
  readonly done: number;
  /** Consumed − produced. */
  readonly lessPerSecond: number | null;
  /** How many times it was seen to move, and whether the whole span was seen. */
  readonly moves: number;
  readonly isFull: boolean;
}

/**
 * The work on partitions of one member. Only looks count that know all of them: who works off one partition after the
 * other would else be seen at work on two. The pace is that from commit to commit: how long a consumer had waited before
 * the first, and how long the last is ago, say nothing of it, unless the next one is overdue.
 * @param partitions sights of the same looks; a message of a partition counts for its weight
 */
export function workOf(
  partitions: readonly { readonly sights: readonly Sight[]; readonly weight: number }[],
  spanMs: number,
): Work {
  const sums = new Map<number, { lag: number; next: number; known: number }>();
  let nowMs = 0;
  for (const { sights, weight } of partitions) {
    for (const sight of sights) {
      nowMs = Math.max(nowMs, sight.atMs);
      const lag = lagOf(sight);
      if (lag === null) continue;
      const sum = sums.get(sight.atMs) ?? { lag: 0, next: 0, known: 0 };
      sum.lag += lag * weight;
      sum.next += (sight.next as number) * weight;
      sum.known += 1;
      sums.set(sight.atMs, sum);
    }
  }
  const whole = [...sums].filter(([, { known }]) => known === partitions.length).sort(([a], [b]) => a - b);
  const commits = whole.filter(([, { next }], i) => i > 0 && next !== whole[i - 1]?.[1].next);
  const { waitedMs, slowness } = sinceLastOf(
    commits.map(([atMs]) => atMs),
    nowMs,
  );
  const paceOver = (of: (sum: { lag: number; next: number }) => number) => {
    const known = commits.length < 2 ? whole : commits;
    const pace = slope(known.map(([atMs, sum]) => [atMs / 1000, of(sum)]));
    return pace === null ? null : pace / slowness;
  };
  const [firstMs = nowMs] = whole[0] ?? [];
  return {
    left: sums.get(nowMs)?.known === partitions.length ? (whole.at(-1)?.[1].lag ?? null) : null,
    done: ((paceOver(({ next }) => next) ?? 0) * waitedMs) / 1000,
    lessPerSecond: paceOver(({ lag }) => -lag),
    moves: commits.length,
    isFull: nowMs - firstMs >= spanMs,
  };
}

/**
 * What the time since the last commit means: so long, but not longer than from one commit to the next, work was done that
 * is not committed yet; what is beyond that makes all of it slower.
 */
function sinceLastOf(commitsMs: readonly number[], nowMs: number): { waitedMs: number; slowness: number } {
  const [firstMs = 0] = commitsMs;
  const lastMs = commitsMs.at(-1) ?? 0;
  const seenMs = lastMs - firstMs;
  if (seenMs === 0) return { waitedMs: 0, slowness: 1 };
  const waitedMs = Math.min(nowMs - lastMs, seenMs / (commitsMs.length - 1));
  return { waitedMs, slowness: (nowMs - firstMs - waitedMs) / seenMs };
}

/**
 * Milliseconds until nothing is left if all goes on as it did: `Infinity` when it does not get less, null when that
 * cannot be told (yet).
 */
export function catchUpMsOf({ left, done, lessPerSecond, moves, isFull }: Work): number | null {
  if (left === 0) return 0;
  if (left === null || lessPerSecond === null) return null;
  // Of one step alone nobody knows how long it took.
  if (moves < 2 && !isFull) return null;
  if (lessPerSecond > 0) return (Math.max(0, left - done) / lessPerSecond) * 1000;
  return isFull ? Number.POSITIVE_INFINITY : null;
}

/** The state of a whole: the worst of its parts, unknown when nothing bad is known and something is unknown. */
export function worstOf(all: readonly (State | null)[]): State | null {
  const worst = states.findLast((state) => all.includes(state)) ?? null;
  return (worst === 'OK' || worst === null) && all.includes(null) ? null : worst;
}
