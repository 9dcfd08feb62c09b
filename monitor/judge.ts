/**
 * Judges a consumer of a partition from observations over some time: a pure function, without thresholds to set. The rules
 * are those of Burrow (github.com/linkedin/Burrow, `evaluator/caching.go`), with its fix for slow topics. Burrow reads every
 * commit from `__consumer_offsets`, which few clusters permit, and takes a commit as the sign that a consumer runs. This file
 * works on periodic observations, and takes an assigned member as that sign.
 *
 * Observations that do not cover the span yet can give the state OK. The states WARN and STALL need a whole span; until then the
 * state is unknown (null).
 */

/** From best to worst; the worst state of its partitions is the state of a group. */
export const states = ['OK', 'WARN', 'ERR', 'STALL', 'STOP', 'LOST'] as const;

/**
 * - `OK`: no lag now, or no lag at some time of the span, or catching up;
 * - `WARN`: it commits, but its lag never decreases: too slow;
 * - `ERR`: its committed offset went back and has not reached the earlier one again, or lies after the end of the log;
 * - `STALL`: a member is assigned but makes no progress, with messages waiting;
 * - `STOP`: no member is assigned, with messages waiting;
 * - `LOST`: the log start is above the committed offset and at no base: messages were deleted before the group read them.
 */
export type State = (typeof states)[number];

/** One partition of one group at one moment. Unknown is null. */
export interface Observation {
  /** Milliseconds of a monotonic clock. */
  readonly atMs: number;
  /** First offset that the log still holds. */
  readonly start: number | null;
  /** Whether the log starts at a whole base: what was deleted before it is repeated there. */
  readonly startsAtBase?: boolean;
  /** Offset after the last message that a consumer of committed messages can read. */
  readonly end: number | null;
  /** Offset after the last message, those of open transactions included. */
  readonly highWatermark?: number | null;
  /** Committed offset; null also without a commit. */
  readonly next: number | null;
  /** From the committed offset up to this one the log holds only transaction markers and aborted messages. */
  readonly readableFrom?: number | null;
  /** Whether a member of the group is assigned the partition. */
  readonly isOwned: boolean | null;
  /** When the commit was made, if its metadata contains that. */
  readonly committedAtMs: number | null;
  /** First offset that had not been read at the commit, if its metadata contains that. */
  readonly readNext: number | null;
}

type Offsets = Pick<Observation, 'end' | 'next'> &
  Partial<Pick<Observation, 'start' | 'highWatermark' | 'readableFrom'>>;

/** The end for this consumer: beyond the last stable offset commits only one that reads uncommitted messages. */
export function endOf({ end, next, highWatermark }: Offsets): number | null {
  return end !== null && next !== null && next > end ? Math.max(end, highWatermark ?? end) : end;
}

/** First offset that the consumer can still read; null when nothing is committed. */
export function unreadFrom({ start, next, readableFrom }: Offsets): number | null {
  return next === null ? null : Math.max(next, start ?? 0, readableFrom ?? 0);
}

/**
 * Readable messages that wait; null when an offset is unknown or the log ends before the committed offset. In a log that never
 * held a message none waits, whatever was committed.
 */
export function lagOf(observation: Offsets): number | null {
  const { next } = observation;
  const end = endOf(observation);
  if (end === 0 && next === null) return 0;
  if (end === null || next === null || next > end) return null;
  return Math.max(0, end - (unreadFrom(observation) as number));
}

/** Messages that were deleted before the group read them; null when an offset is unknown. */
export function lostOf({
  start,
  startsAtBase,
  next,
}: Pick<Observation, 'start' | 'startsAtBase' | 'next'>): number | null {
  if (startsAtBase === true) return 0;
  return start === null || next === null ? null : Math.max(0, start - next);
}

/**
 * The state of a partition.
 * @param observations oldest first, those of the last `spanMs` and one before
 */
export function judge(observations: readonly Observation[], spanMs: number): State | null {
  const now = observations.at(-1);
  if (now === undefined || now.end === null) return null;
  const { next } = now;
  if (next === null) return now.end === now.start ? 'OK' : now.isOwned === false ? 'STOP' : null;
  const lag = lagOf(now);
  if (lag === null) return 'ERR';
  if (lostOf(now) !== 0 && now.start !== null) return 'LOST';
  if (lag === 0) return 'OK';
  if (hasStopped(observations, spanMs)) return 'STOP';
  if (observations.some((observation) => observation.next !== null && observation.next > next)) return 'ERR';
  // A consumer without lag at some time keeps up. On a slow topic this leaves time for a message that has just arrived.
  if (observations.some(isCaughtUp)) return 'OK';
  if (lagDecreases(observations, spanMs)) return 'OK';
  if (!isFull(observations, spanMs)) return null;
  return observations.every((observation) => observation.next === next) ? 'STALL' : 'WARN';
}

/** Why `judge` knows no state for observations that end with this one. */
export function whyUnknownOf({ end, next, isOwned }: Observation): string {
  if (end === null) return 'the topic does not exist, does not answer, or may not be described';
  if (next !== null) return 'not observed for long enough';
  return isOwned === true
    ? 'a member is assigned and has not committed'
    : 'nothing is committed and the assignment is unknown';
}

const isCaughtUp = (observation: Observation) => lagOf(observation) === 0;

/** Whether the observations cover the span. */
export function isFull(observations: readonly Observation[], spanMs: number): boolean {
  const [first] = observations;
  return first !== undefined && (observations.at(-1) as Observation).atMs - first.atMs >= spanMs;
}

const isCommit = (observation: Observation, before: Observation | undefined) =>
  before !== undefined &&
  (observation.next !== before.next || observation.committedAtMs !== before.committedAtMs);

const hasCommitted = (observations: readonly Observation[]) =>
  observations.some((observation, i) => isCommit(observation, observations[i - 1]));

/** Whether no consumer is running. Only its commits show a consumer without membership. */
function hasStopped(observations: readonly Observation[], spanMs: number): boolean {
  const isOwned = observations.at(-1)?.isOwned;
  if (isOwned === true) return false;
  if (isOwned === null) {
    return isFull(observations, spanMs) && !hasCommitted(observations) && !observations.some(isCaughtUp);
  }
  const alone = observations.slice(
    observations.findLastIndex((observation) => observation.isOwned !== false) + 1,
  );
  if (hasCommitted(alone)) return false;
  // True if members have left. If there were none, a consumer without membership may have kept up.
  return alone.length < observations.length || !alone.some(isCaughtUp);
}

/** Burrow keeps ten commits. */
const parts = 10;

/**
 * Whether the lag decreased anywhere. Between two commits it always grows, so only the lag right after a commit counts,
 * and of several commits in a tenth of the span the smallest.
 */
function lagDecreases(observations: readonly Observation[], spanMs: number): boolean {
  const known = observations.filter((observation) => lagOf(observation) !== null);
  const [first] = known;
  if (first === undefined) return false;
  const commits = known.filter(({ next }, i) => i > 0 && next !== known[i - 1]?.next);
  // The time of the commit before the first observation is unknown, so it counts only if there are fewer than two others.
  if (commits.length < 2) commits.unshift(first);
  const least = new Map<number, number>();
  for (const observation of commits) {
    const part = observation === first ? -1 : Math.floor(((observation.atMs - first.atMs) * parts) / spanMs);
    const lag = lagOf(observation) as number;
    least.set(part, Math.min(lag, least.get(part) ?? lag));
  }
  const lags = [...least.values()];
  return lags.some((lag, i) => i > 0 && lag < (lags[i - 1] as number));
}

/** The worst state of the parts; unknown when none is bad and one is unknown. */
export function worstOf(all: readonly (State | null)[]): State | null {
  const worst = states.findLast((state) => all.includes(state)) ?? null;
  return (worst === 'OK' || worst === null) && all.includes(null) ? null : worst;
}
