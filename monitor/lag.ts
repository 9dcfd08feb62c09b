/**
 * The lag of any consumer groups, partition by partition. `LagWatch.look` asks the brokers once and tells what can be
 * said with all looks of its span: offsets, messages and records that are left, state (`judge.ts`), time lag, pace, and
 * the time to catch up. Nothing is joined, committed or changed. What is not known is null, never 0.
 *
 * One watch serves a command, a page and /metrics alike: call `look` every now and then (a tenth of the span or oftener), use its
 * report as it is, and `trendOf` for a trend line. The first look is the judgement without history.
 */
import { availableLogBounds, type LogBounds } from '../kafka/bounds.ts';
import type { Broker } from '../kafka/client.ts';
import { type CommittedOffset, type Group, readGroups } from '../kafka/groups.ts';
import { LogReader, type Want } from '../kafka/log.ts';
import { judge, lagOf, type Observation, type State, whyUnknownOf, worstOf } from './judge.ts';
import { catchUpMsOf, paceOf } from './pace.ts';

export interface Watched {
  readonly group: string;
  /** Topics that the group reads; they are told even before its first commit. */
  readonly topics: readonly string[];
}

export interface LagRow {
  readonly group: string;
  readonly topic: string;
  readonly partition: number;
  /** First offset that is kept; null when the topic does not exist. */
  readonly startOffset: number | null;
  /** Offset of the next message to be written. */
  readonly endOffset: number | null;
  /** First offset not yet processed, as committed; null when nothing was. */
  readonly nextOffset: number | null;
  /** endOffset − nextOffset, in messages; null when one of them is unknown or the log ends before nextOffset. */
  readonly lag: number | null;
  /** The lag in records, from the mean of the messages processed so far; only our groups tell it. */
  readonly lagRecords: number | null;
  readonly state: State | null;
  /** Why the state is not known; null when it is. */
  readonly whyUnknown: string | null;
  /** Age of the oldest message that waits, 0 when none does. */
  readonly timeLagMs: number | null;
  /** Messages per second. */
  readonly consumedPerSecond: number | null;
  readonly producedPerSecond: number | null;
  /** `Infinity` (in JSON null, with `catchesUp` false) when what is left does not get less. */
  readonly catchUpMs: number | null;
  readonly catchesUp: boolean | null;
}

/** A group as a whole. Sums are of the partitions where they are known; null when they are known nowhere. */
export interface GroupLag {
  readonly group: string;
  /** Whether the cluster knows it. */
  readonly exists: boolean;
  /** The worst of its partitions. */
  readonly state: State | null;
  /** Why the state is not known; null when it is. */
  readonly whyUnknown: string | null;
  readonly lag: number | null;
  /** Partitions that hold messages and whose lag is not known. */
  readonly lagUnknown: number;
  readonly lagRecords: number | null;
  /** The longest. */
  readonly timeLagMs: number | null;
  readonly consumedPerSecond: number | null;
  readonly producedPerSecond: number | null;
  readonly catchUpMs: number | null;
  readonly catchesUp: boolean | null;
}

export interface LagReport {
  /** Milliseconds since 1970. */
  readonly atMs: number;
  /** By group, topic, partition. */
  readonly rows: readonly LagRow[];
  /** In the order in which they were asked for. */
  readonly groups: readonly GroupLag[];
}

/** How far back a watch remembers unless told otherwise, in milliseconds. */
export const usualSpanMs = 60_000;
/** Messages that are read at most in one look, to learn how long they have been waiting. */
const readsMax = 100;

/** A partition of a group as the cluster tells it. */
export interface Seen {
  readonly group: string;
  readonly topic: string;
  readonly partition: number;
  readonly log: LogBounds | undefined;
  readonly commit: CommittedOffset | undefined;
  /** null when nobody is assigned it, undefined when that is unknown. */
  readonly owner: string | null | undefined;
}

/** The partitions of one group, in order: those that it has committed, and those of the topics that it reads. */
export function seenOf(
  { group, topics }: Watched,
  found: Group | undefined,
  bounds: ReadonlyMap<string, ReadonlyMap<number, LogBounds>>,
): Seen[] {
  const committed = found?.committed ?? new Map<string, ReadonlyMap<number, CommittedOffset>>();
  const owners = found === undefined ? new Map<string, ReadonlyMap<number, string>>() : found.owners;
  return [...topicsOf(topics, found)].sort().flatMap((topic) => {
    const logs = bounds.get(topic);
    const commits = committed.get(topic);
    const partitions = new Set([...(logs?.keys() ?? []), ...(commits?.keys() ?? [])]);
    return [...partitions]
      .sort((a, b) => a - b)
      .map(
        (partition): Seen => ({
          group,
          topic,
          partition,
          log: logs?.get(partition),
          commit: commits?.get(partition),
          owner: owners === null ? undefined : (owners.get(topic)?.get(partition) ?? null),
        }),
      );
  });
}

/** Topics that a group reads as far as anybody tells: that it is said to read, has committed, or is assigned. */
const topicsOf = (topics: readonly string[], found: Group | undefined) =>
  new Set([...topics, ...(found?.committed.keys() ?? []), ...(found?.owners?.keys() ?? [])]);

/** What our groups say beside an offset. */
interface CommitMetadata {
  /** Timestamp of the last message that is processed, in milliseconds since 1970. */
  readonly recordTs: number | null;
  readonly committedAt: number | null;
  /** What was read lies before it: messages from the committed offset to here are being processed. */
  readonly readNext: number | null;
  /** Mean of all that is processed. */
  readonly recordsPerMessage: number | null;
}

/** @returns nulls for whatever other programs write there */
export function readMetadata(text: string): CommitMetadata {
  let parsed: unknown;
  try {
    parsed = JSON.parse(text);
  } catch {
    parsed = undefined;
  }
  const fields = (typeof parsed === 'object' && parsed !== null ? parsed : {}) as Record<string, unknown>;
  const positive = (name: string) => {
    const value = fields[name];
    return typeof value === 'number' && Number.isFinite(value) && value > 0 ? value : null;
  };
  return {
    recordTs: positive('recordTs'),
    committedAt: positive('committedAt'),
    readNext: positive('readNext'),
    recordsPerMessage: positive('recordsPerMessage'),
  };
}

/** What is remembered of a partition of a group. */
interface Memory {
  observations: Observation[];
  /** When nothing was left for the last time. */
  caughtUpAtMs: number | null;
  /** A message that was found waiting, and when it was sent. */
  waiting: { readonly next: number; readonly sentMs: number } | null;
}

export class LagWatch {
  readonly #broker: Broker;
  readonly #spanMs: number;
  #memories = new Map<string, Memory>();

  /** @param spanMs how far back looks count: the longer, the calmer the pace and the later the judgement */
  constructor(broker: Broker, spanMs = usualSpanMs) {
    this.#broker = broker;
    this.#spanMs = spanMs;
  }

  /** Looks once. @throws ReelflowError brokerUnreachable */
  async look(watched: readonly Watched[]): Promise<LagReport> {
    const broker = this.#broker;
    const atMs = Date.now();
    const names = watched.map(({ group }) => group);
    const groups = await readGroups(broker, names);
    const topics = watched.flatMap((one) => [...topicsOf(one.topics, groups.get(one.group))]);
    // After the commits: an end that is older than a commit could lie before it.
    const bounds = await availableLogBounds(broker, topics);
    const seen = watched.flatMap((one) => seenOf(one, groups.get(one.group), bounds));
    const memories = new Map(seen.map((one) => [keyOf(one), this.#remember(one, atMs)]));
    this.#memories = memories;
    await this.#readWaiting(seen);
    const whole = seen.map((one) => this.#row(one, atMs));
    return {
      atMs,
      rows: whole.map(({ row }) => row),
      groups: names.map((name) =>
        groupLag(
          name,
          groups.get(name),
          whole.filter(({ row }) => row.group === name),
          this.#spanMs,
        ),
      ),
    };
  }

  /** The lag at each look of the span, oldest first. */
  trendOf(row: Pick<LagRow, 'group' | 'topic' | 'partition'>): (number | null)[] {
    return (this.#memories.get(keyOf(row))?.observations ?? []).map(lagOf);
  }

  #remember(one: Seen, atMs: number): Memory {
    const memory = this.#memories.get(keyOf(one)) ?? { observations: [], caughtUpAtMs: null, waiting: null };
    const last = memory.observations.at(-1);
    const metadata = readMetadata(one.commit?.metadata ?? '');
    const observation: Observation = {
      atMs,
      start: one.log?.start ?? null,
      end: one.log?.end ?? null,
      next: one.commit?.next ?? null,
      isOwned: one.owner === undefined ? null : one.owner !== null,
      committedAtMs: metadata.committedAt,
      readNext: metadata.readNext,
    };
    // After a hole of several spans nothing is known of the time between: everybody may have slept.
    const before = last !== undefined && atMs - last.atMs <= 3 * this.#spanMs ? memory.observations : [];
    const first = before.findLastIndex((old) => atMs - old.atMs >= this.#spanMs);
    const wentBack = (observation.next ?? 0) < (last?.next ?? 0);
    return {
      observations: [...before.slice(Math.max(0, first)), observation],
      caughtUpAtMs: lagOf(observation) === 0 ? atMs : wentBack ? null : memory.caughtUpAtMs,
      waiting: lagOf(observation) === 0 || wentBack ? null : memory.waiting,
    };
  }

  /**
   * Reads the first message that waits where nothing else tells how long it does: where commits do not say what was
   * processed last, and once where they do, for that may have been long before a slow topic's next message.
   */
  async #readWaiting(seen: readonly Seen[]): Promise<void> {
    const wants = seen.filter((one) => {
      const { observations, waiting, caughtUpAtMs } = this.#memoryOf(one);
      const now = observations.at(-1) as Observation;
      if ((lagOf(now) ?? 0) === 0) return false;
      const saysItself = readMetadata(one.commit?.metadata ?? '').recordTs !== null;
      return saysItself ? waiting === null && caughtUpAtMs === null : waiting?.next !== now.next;
    });
    if (wants.length === 0) return;
    const reader = new LogReader(this.#broker);
    try {
      for (const one of wants.slice(0, readsMax)) {
        const next = one.commit?.next as number;
        const sentMs = await sentMsOf(reader, { topic: one.topic, partition: one.partition, next });
        if (sentMs !== null) this.#memoryOf(one).waiting = { next, sentMs };
      }
    } finally {
      await reader.close();
    }
  }

  #memoryOf(of: Pick<LagRow, 'group' | 'topic' | 'partition'>): Memory {
    return this.#memories.get(keyOf(of)) as Memory;
  }

  #row(one: Seen, atMs: number): Partition {
    const { group, topic, partition } = one;
    const memory = this.#memoryOf(one);
    const now = memory.observations.at(-1) as Observation;
    const metadata = readMetadata(one.commit?.metadata ?? '');
    const lag = lagOf(now);
    const { recordsPerMessage } = metadata;
    const { observations } = memory;
    const pace = paceOf(observations);
    const state = judge(observations, this.#spanMs);
    const catchUpMs =
      state === 'STOP' ? Number.POSITIVE_INFINITY : catchUpMsOf([{ observations, weight: 1 }], this.#spanMs);
    return {
      observations,
      owner: one.owner,
      recordsPerMessage,
      row: {
        group,
        topic,
        partition,
        startOffset: now.start,
        endOffset: now.end,
        nextOffset: now.next,
        lag,
        lagRecords: lag === 0 ? 0 : times(lag, recordsPerMessage),
        state,
        whyUnknown: state === null ? whyUnknownOf(now) : null,
        timeLagMs: timeLagMsOf(lag, atMs, metadata, memory),
        consumedPerSecond: pace.consumedPerSecond,
        producedPerSecond: pace.producedPerSecond,
        catchUpMs,
        catchesUp: isFiniteOrNull(catchUpMs),
      },
    };
  }
}

const keyOf = ({ group, topic, partition }: Pick<LagRow, 'group' | 'topic' | 'partition'>) =>
  `${group}\n${topic}\n${partition}`;

const times = (a: number | null, b: number | null) => (a === null || b === null ? null : Math.round(a * b));

const isFiniteOrNull = (value: number | null) => (value === null ? null : Number.isFinite(value));

/** When a message was sent, by the message itself; null when it cannot be read or does not say. */
async function sentMsOf(reader: LogReader, want: Want): Promise<number | null> {
  try {
    const [fetched] = await reader.fetch([want], { waitMs: 0, partitionBytesMax: 1 });
    const message = fetched?.messages.find(({ isMarker }) => !isMarker);
    return message !== undefined && message.timestampMs > 0 ? message.timestampMs : null;
  } catch {
    return null;
  }
}

/**
 * The oldest message that waits was sent neither before the last one that is processed, nor before one that was
 * already waiting, nor before the moment at which nothing was left: it is as old as the youngest of these, at most.
 */
function timeLagMsOf(
  lag: number | null,
  atMs: number,
  { recordTs }: CommitMetadata,
  { waiting, caughtUpAtMs }: Memory,
): number | null {
  if (lag === null || lag === 0) return lag;
  const known = [recordTs, waiting?.sentMs ?? null, caughtUpAtMs].filter((value) => value !== null);
  return known.length === 0 ? null : Math.max(0, atMs - Math.max(...known));
}

interface Partition {
  readonly row: LagRow;
  readonly observations: readonly Observation[];
  readonly owner: Seen['owner'];
  readonly recordsPerMessage: number | null;
}

function groupLag(
  group: string,
  found: Group | undefined,
  partitions: readonly Partition[],
  spanMs: number,
): GroupLag {
  const rows = partitions.map(({ row }) => row);
  const known = (of: (row: LagRow) => number | null) => rows.map(of).filter((value) => value !== null);
  const sum = (of: (row: LagRow) => number | null) =>
    known(of).length === 0 ? null : known(of).reduce((total, value) => total + value, 0);
  const timeLags = known((row) => row.timeLagMs);
  const catchUpMs = groupCatchUpMs(partitions, spanMs);
  const state = rows.length === 0 ? null : worstOf(rows.map((row) => row.state));
  return {
    group,
    exists: found?.exists === true,
    state,
    whyUnknown: state === null ? whyGroupUnknown(found, rows) : null,
    lag: sum((row) => row.lag),
    lagUnknown: rows.filter(({ lag, endOffset }) => lag === null && endOffset !== 0).length,
    lagRecords: sum((row) => row.lagRecords),
    timeLagMs: timeLags.length === 0 ? null : Math.max(...timeLags),
    consumedPerSecond: sum((row) => row.consumedPerSecond),
    producedPerSecond: sum((row) => row.producedPerSecond),
    catchUpMs,
    catchesUp: isFiniteOrNull(catchUpMs),
  };
}

function whyGroupUnknown(found: Group | undefined, rows: readonly LagRow[]): string {
  if (found?.exists !== true) return 'it does not exist (yet)';
  if (rows.length === 0) return 'nothing is committed, and no member is known to be assigned anything';
  const whys = rows.map(({ whyUnknown }) => whyUnknown).filter((why) => why !== null);
  const times = (why: string) => whys.filter((one) => one === why).length;
  return [...new Set(whys)].map((why) => `${times(why)} of ${rows.length} partitions: ${why}`).join('; ');
}

/** A member works its partitions off together, members work side by side: the slowest member's time. */
function groupCatchUpMs(partitions: readonly Partition[], spanMs: number): number | null {
  if (partitions.some(({ row }) => row.state === 'STOP')) return Number.POSITIVE_INFINITY;
  // One that never held a message takes no time.
  const all = partitions.filter(({ row }) => row.endOffset !== 0);
  const times = [...new Set(all.map(({ owner }) => owner))].map((owner) => {
    const own = all.filter((one) => one.owner === owner);
    // In records if all tell them: messages of one topic hold more than those of another.
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
