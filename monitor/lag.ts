/**
 * What a report of consumer groups contains: offsets, lag, state and rates of each partition, and of each group as a
 * whole. Unknown is null, never 0.
 */
import type { LogBoundsAndWatermark } from '../kafka/bounds.ts';
import type { CommittedOffset, Group } from '../kafka/groups.ts';
import { counted } from '../runtime/counted.ts';
import { type CommitMetadata, readMetadata } from './commit-metadata.ts';
import { type Observation, type State, worstOf } from './judge.ts';
import { catchUpMsOf } from './pace.ts';

export interface WatchedGroup {
  /** Name of a group, or a pattern with `*` for any characters, which also matches groups that appear later. */
  readonly group: string;
  /** Topics that the group reads; they are reported even before its first commit. */
  readonly topics: readonly string[];
}

/** Figures of one partition, or of a group as a whole. */
interface LagFigures {
  readonly group: string;
  /** Of a group, the worst of its partitions. */
  readonly state: State | null;
  /** Why the state is unknown; null for a known state. */
  readonly whyUnknown: string | null;
  /** Readable messages that wait; null when an offset is unknown or the log ends before nextOffset. */
  readonly lag: number | null;
  /** The lag in records, by the mean of the messages processed so far; only for groups of reelflow. */
  readonly lagRecords: number | null;
  /** Messages that were deleted before the group read them; null when an offset is unknown. */
  readonly lost: number | null;
  /** Messages that an open transaction withholds, if the last stable offset did not move in the span. */
  readonly blocked: number | null;
  /** Age of the oldest waiting message, 0 when none waits. */
  readonly timeLagMs: number | null;
  /**
   * Time until the broker may delete the oldest waiting message, at the earliest; null when none waits, the topic keeps
   * its messages, or it is unknown.
   */
  readonly expiresMs: number | null;
  /** Messages per second. */
  readonly consumedPerSecond: number | null;
  readonly producedPerSecond: number | null;
  /** `Infinity` (in JSON null, with `catchesUp` false) when the lag does not decrease. */
  readonly catchUpMs: number | null;
  readonly catchesUp: boolean | null;
}

export interface LagRow extends LagFigures {
  readonly topic: string;
  readonly partition: number;
  /** First offset that the log still holds; null when the topic does not exist. */
  readonly startOffset: number | null;
  /** Last stable offset: the offset after the last message that a consumer of committed messages can read. */
  readonly endOffset: number | null;
  /** Offset after the last message, those of open transactions included. */
  readonly highWatermark: number | null;
  /** Committed offset; null without a commit. */
  readonly nextOffset: number | null;
  /** Whether the group subscribes to the topic now; true also while its subscription is unknown. */
  readonly isSubscribed: boolean;
}

/**
 * A group as a whole, without topics to which it no longer subscribes. Sums, the longest time lag and the shortest expiry
 * are over the partitions where a value is known; null when none is.
 */
export interface GroupLag extends LagFigures {
  /** Whether the cluster knows it. */
  readonly exists: boolean;
  /** Number of its members; null while it is unknown. */
  readonly members: number | null;
  /** Why the group could not be read; null when it could. */
  readonly problem: string | null;
  /** Whether the problem is a right that the user lacks, on the group or on one of its topics. */
  readonly isRefused: boolean;
  /** Number of partitions that hold messages and have an unknown lag. */
  readonly lagUnknown: number;
}

export interface LagReport {
  /** Milliseconds since 1970. */
  readonly atMs: number;
  /** By group, topic, partition. */
  readonly rows: readonly LagRow[];
  /** In the order of the request; the groups of a pattern by name. */
  readonly groups: readonly GroupLag[];
}

/** A partition of a group as the cluster reports it. */
export interface GroupPartition {
  readonly group: string;
  readonly topic: string;
  readonly partition: number;
  readonly log: LogBoundsAndWatermark | undefined;
  readonly commit: CommittedOffset | undefined;
  /** Of the commit. */
  readonly metadata: CommitMetadata;
  /** null when no member is assigned it, undefined while that is unknown. */
  readonly owner: string | null | undefined;
  readonly isSubscribed: boolean;
}

/**
 * The partitions of one group, in order: those that it has committed, and those of the topics that it reads.
 * @param subscribed its subscription as last known, null when it never was
 */
export function partitionsOf(
  { group, topics }: WatchedGroup,
  found: Group | undefined,
  subscribed: Group['subscribed'],
  bounds: ReadonlyMap<string, ReadonlyMap<number, LogBoundsAndWatermark>>,
): GroupPartition[] {
  const committed = found?.committed ?? new Map<string, ReadonlyMap<number, CommittedOffset>>();
  const owners = found === undefined ? new Map<string, ReadonlyMap<number, string>>() : found.owners;
  return [...topicsOf(topics, found)].sort().flatMap((topic) => {
    const logs = bounds.get(topic);
    const commits = committed.get(topic);
    const isSubscribed = subscribed === null || subscribed(topic);
    const partitions = new Set([...(logs?.keys() ?? []), ...(commits?.keys() ?? [])]);
    return [...partitions]
      .sort((a, b) => a - b)
      .map(
        (partition): GroupPartition => ({
          group,
          topic,
          partition,
          log: logs?.get(partition),
          commit: commits?.get(partition),
          metadata: readMetadata(commits?.get(partition)?.metadata ?? ''),
          owner: owners === null ? undefined : (owners.get(topic)?.get(partition) ?? null),
          isSubscribed,
        }),
      );
  });
}

/** Topics that a group reads: those in the request, those that it has committed, and those that it is assigned. */
export const topicsOf = (topics: readonly string[], found: Group | undefined): Set<string> =>
  new Set([...topics, ...(found?.committed.keys() ?? []), ...(found?.owners?.keys() ?? [])]);

/** A row, and what the figures of its group need beside it. */
export interface JudgedPartition {
  readonly row: LagRow;
  readonly observations: readonly Observation[];
  readonly owner: GroupPartition['owner'];
  readonly recordsPerMessage: number | null;
}

/** @param all its partitions. @param spanMs the period over which they were observed */
export function groupLag(
  group: string,
  found: Group | undefined,
  all: readonly JudgedPartition[],
  spanMs: number,
): GroupLag {
  const partitions = all.filter(({ row }) => row.isSubscribed);
  const rows = partitions.map(({ row }) => row);
  const known = (pick: (row: LagRow) => number | null) => rows.map(pick).filter((value) => value !== null);
  const sum = (pick: (row: LagRow) => number | null) =>
    known(pick).length === 0 ? null : known(pick).reduce((total, value) => total + value, 0);
  const timeLags = known((row) => row.timeLagMs);
  const expiries = known((row) => row.expiresMs);
  const catchUpMs = groupCatchUpMs(partitions, spanMs);
  const problem = found?.problem ?? null;
  const state = rows.length === 0 || problem !== null ? null : worstOf(rows.map((row) => row.state));
  return {
    group,
    exists: found?.exists === true,
    members: found === undefined ? 0 : found.members,
    problem,
    isRefused: found?.isRefused === true,
    state,
    whyUnknown: state === null ? whyGroupUnknown(found, rows) : null,
    lag: sum((row) => row.lag),
    lagUnknown: rows.filter(({ lag }) => lag === null).length,
    lagRecords: sum((row) => row.lagRecords),
    lost: sum((row) => row.lost),
    blocked: sum((row) => row.blocked),
    timeLagMs: timeLags.length === 0 ? null : Math.max(...timeLags),
    expiresMs: expiries.length === 0 ? null : Math.min(...expiries),
    consumedPerSecond: sum((row) => row.consumedPerSecond),
    producedPerSecond: sum((row) => row.producedPerSecond),
    catchUpMs,
    catchesUp: isFiniteOrNull(catchUpMs),
  };
}

/** A pattern that no group matches, as a group that does not exist. */
export function noGroupMatches(pattern: string): GroupLag {
  return { ...groupLag(pattern, undefined, [], 0), whyUnknown: 'no group matches the pattern (yet)' };
}

/** Whether a period ends; null for an unknown one. */
export const isFiniteOrNull = (value: number | null): boolean | null =>
  value === null ? null : Number.isFinite(value);

function whyGroupUnknown(found: Group | undefined, rows: readonly LagRow[]): string {
  if (found !== undefined && found.problem !== null) return found.problem;
  if (found?.exists !== true) return 'it does not exist (yet)';
  if (rows.length === 0) return 'nothing is committed, and no member is known to be assigned anything';
  const whys = rows.map(({ whyUnknown }) => whyUnknown).filter((why) => why !== null);
  const times = (why: string) => whys.filter((one) => one === why).length;
  return [...new Set(whys)]
    .map((why) => `${times(why)} of ${counted(rows.length, 'partition')}: ${why}`)
    .join('; ');
}

/** A member consumes its partitions together, and members work in parallel: the time of the slowest member. */
function groupCatchUpMs(partitions: readonly JudgedPartition[], spanMs: number): number | null {
  if (partitions.some(({ row }) => row.state === 'STOP')) return Number.POSITIVE_INFINITY;
  // A partition that never held a message takes no time.
  const all = partitions.filter(({ row }) => row.endOffset !== 0);
  const times = [...new Set(all.map(({ owner }) => owner))].map((owner) => {
    const own = all.filter((one) => one.owner === owner);
    // In records if all commits contain their mean: messages of one topic hold more records than those of another.
    const inRecords = own.every(({ recordsPerMessage }) => recordsPerMessage !== null);
    const weighed = own.map(({ observations, recordsPerMessage }) => ({
      observations,
      weight: inRecords ? (recordsPerMessage as number) : 1,
    }));
    return catchUpMsOf(weighed, spanMs);
  });
  if (times.length === 0 || times.includes(null)) return null;
  return Math.max(...(times as number[]));
}
