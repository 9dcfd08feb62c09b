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
  /** First offset that had not been read when it was made, for those who say so. */
  readonly readNext: number | null;
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

/** One of the partitions that a member works off together. A message of it counts for its weight. */
export interface Part {
  /** Oldest first; those of all parts are of the same looks. */
  readonly sights: readonly Sight[];
  readonly weight: number;
}

/** From so many commits to the next the pace is taken: consumers warm up, and get faster and slower. */
const paceSteps = 3;

/**
 * Milliseconds until nothing is left of a member's partitions if all goes on as it did: `Infinity` when it does not get
 * less, null when that cannot be told (yet). What is read and not processed counts as done. The pace is that of the last
 * few commits, but of a sixth of the span at least and of half of it at most.
 */
export function catchUpMsOf(parts: readonly Part[], spanMs: number): number | null {
  const nowMs = Math.max(...parts.map(({ sights }) => sights.at(-1)?.atMs ?? 0));
  const all = parts.map((part) => ({ ...part, ...progressOf(part.sights, nowMs) }));
  const sum = (of: (part: (typeof all)[number]) => number) =>
    all.reduce((total, part) => total + part.weight * of(part), 0);
  if (all.some(({ lag }) => lag === null)) return null;
  if (sum(({ lag }) => lag as number) === 0) return 0;
  const isWhole = all.every(({ sights }) => isFull(sights, spanMs));
  // Of one step alone nobody knows how long it took.
  const hasSteps = all.some(({ commitsMs }) => commitsMs.length > 1);
  const isOneStep = all.some(({ lag, commitsMs }) => lag !== 0 && commitsMs.length === 1);
  if (!isWhole && (isOneStep || !hasSteps)) return null;
  const stepsMs = Math.max(...all.map(({ lag, stepMs }) => (lag === 0 ? 0 : paceSteps * stepMs)));
  const paceMs = Math.min(Math.max(stepsMs, spanMs / 6), spanMs / 2);
  // How long a consumer had waited before its first commit says nothing of its pace.
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

/** Values at some moments: between two of them on a line, before the first and after the last as there. */
type Line = readonly (readonly [atMs: number, value: number])[];

function valueAt(line: Line, atMs: number): number {
  const before = line.findLast(([ms]) => ms <= atMs);
  const after = line.find(([ms]) => ms > atMs);
  if (before === undefined || after === undefined) return (before ?? after ?? [0, 0])[1];
  const [[fromMs, from], [toMs, to]] = [before, after];
  return from + ((to - from) * (atMs - fromMs)) / (toMs - fromMs);
}

/**
 * Commits come in steps, those of each partition at times of their own, and work goes on in between: it is taken for a
 * line from commit to commit, which goes on behind the last one for as long as it usually is from one to the next.
 */
function progressOf(sights: readonly Sight[], nowMs: number) {
  const now = sights.at(-1);
  const moves = sights.filter(({ next }, i) => next !== null && next !== sights[i - 1]?.next);
  const done = moves.map(({ atMs, next }): [number, number] => [atMs, next as number]);
  // When a commit was made that was there at the first look nobody knows, and that nothing is processed is no work.
  const commits = done.filter((_, i) => moves[i] !== sights[0] && moves[i]?.next !== moves[i]?.start);
  const [first, last] = [commits[0], commits.at(-1)];
  let stepMs = 0;
  if (first !== undefined && last !== undefined && commits.length > 1) {
    stepMs = (last[0] - first[0]) / (commits.length - 1);
    const waitedMs = Math.min(nowMs - last[0], stepMs);
    const more = ((last[1] - first[1]) / (last[0] - first[0])) * waitedMs;
    done.push([last[0] + waitedMs, Math.min(now?.end ?? 0, last[1] + more)]);
  }
  return {
    lag: now === undefined ? null : lagOf(now),
    commitsMs: commits.map(([atMs]) => atMs),
    /** Mean time from one commit to the next. */
    stepMs,
    done,
    /** Messages that are read and not processed. */
    ahead: Math.max(0, (now?.readNext ?? 0) - (now?.next ?? 0)),
    ends: sights.flatMap(({ atMs, end }): Line => (end === null ? [] : [[atMs, end]])),
  };
}

/** The state of a whole: the worst of its parts, unknown when nothing bad is known and something is unknown. */
export function worstOf(all: readonly (State | null)[]): State | null {
  const worst = states.findLast((state) => all.includes(state)) ?? null;
  return (worst === 'OK' || worst === null) && all.includes(null) ? null : worst;
}
