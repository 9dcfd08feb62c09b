/**
 * Watches the lag of consumer groups. Each `look` queries the brokers once and reports what follows from all observations
 * of its span. It joins, commits and changes nothing.
 *
 * One watch serves a command, the page or /metrics: call `look` at least ten times per span, and `trendOf` for a trend
 * line. The first look judges without history. Intervals use the monotonic clock, so that a step of the wall clock
 * changes no state; only the age of messages depends on the wall clock, because producers stamp them with it.
 */
import { availableLogBounds } from '../kafka/bounds.ts';
import type { Broker } from '../kafka/client.ts';
import { type Group, listGroups, readGroups, withRefusedTopic } from '../kafka/groups.ts';
import { LogReader } from '../kafka/log.ts';
import { readRetention } from '../kafka/topics.ts';
import { findBase } from '../topics/base.ts';
import type { CommitMetadata } from './commit-metadata.ts';
import { type FirstUnread, readFirstUnread } from './first-unread.ts';
import { judge, lagOf, lostOf, type Observation, whyUnknownOf } from './judge.ts';
import {
  type GroupPartition,
  groupLag,
  isFiniteOrNull,
  type JudgedPartition,
  type LagReport,
  type LagRow,
  noGroupMatches,
  partitionsOf,
  topicsOf,
  type WatchedGroup,
} from './lag.ts';
import { catchUpMsOf, paceOf } from './pace.ts';

/** Default span of a watch, in milliseconds. */
const usualSpanMs = 60_000;
/** Bound of the messages that one look reads for the time of their sending. */
const readsMax = 100;
/** How long retention settings are reused. */
const retentionMaxAgeMs = 60_000;

/** What a watch remembers of a partition of a group. */
interface Memory {
  observations: Observation[];
  /** Monotonic time of the last observation without lag. */
  caughtUpAtMs: number | null;
  /** The first unread message for a committed offset. */
  waiting: (FirstUnread & { readonly next: number }) | null;
}

/** Keeps the observations of the span between two looks. */
export class LagWatch {
  readonly #broker: Broker;
  readonly #spanMs: number;
  #memories = new Map<string, Memory>();
  /** Whether a log without its beginning starts at a whole base, by topic, partition and start. */
  readonly #basedStarts = new Map<string, boolean>();
  /** The last known subscription of each group, for groups whose members have left. */
  #subscriptions = new Map<string, NonNullable<Group['subscribed']>>();
  /** Retention of each topic in milliseconds; null for none. */
  #retention: { readonly readMs: number; readonly topics: ReadonlyMap<string, number | null> } | undefined;

  /** @param spanMs how long observations count: a longer span gives steadier rates and a later judgement */
  constructor(broker: Broker, spanMs = usualSpanMs) {
    this.#broker = broker;
    this.#spanMs = spanMs;
  }

  /** Observes once. @throws ReelflowError brokerUnreachable */
  async look(watched: readonly WatchedGroup[]): Promise<LagReport> {
    const broker = this.#broker;
    const atMs = performance.now();
    const { named, unmatched } = await resolvePatterns(broker, watched);
    const names = named.map(({ group }) => group);
    const groups = await readGroups(broker, names);
    for (const [name, { subscribed }] of groups) {
      if (subscribed !== null) this.#subscriptions.set(name, subscribed);
    }
    const topics = named.flatMap((one) => [...topicsOf(one.topics, groups.get(one.group))]);
    // After the commits: an older end could lie before a commit.
    const refused = new Map<string, unknown>();
    const bounds = await availableLogBounds(broker, topics, (topic, refusal) => refused.set(topic, refusal));
    for (const one of named) {
      const group = groups.get(one.group);
      if (group === undefined) continue;
      const topic = [...topicsOf(one.topics, group)].find((each) => refused.has(each));
      const isMissing = (each: string) =>
        !bounds.has(each) && this.#subscriptions.get(one.group)?.(each) !== false;
      if (topic !== undefined) groups.set(one.group, withRefusedTopic(group, refused.get(topic)));
      else groups.set(one.group, withMissingTopics(group, one.topics.filter(isMissing)));
    }
    const partitions = named.flatMap((one) => {
      const { group } = one;
      return partitionsOf(one, groups.get(group), this.#subscriptions.get(group) ?? null, bounds);
    });
    await this.#findBases(partitions);
    this.#memories = new Map(partitions.map((one) => [keyOf(one), this.#remember(one, atMs)]));
    await this.#readUnread(partitions);
    await this.#readRetention([...bounds.keys()], atMs);
    const wallMs = Date.now();
    const judged = partitions.map((one) => this.#judge(one, atMs, wallMs));
    return {
      atMs: wallMs,
      rows: judged.map(({ row }) => row),
      groups: [
        ...names.map((name) => {
          const own = judged.filter(({ row }) => row.group === name);
          return groupLag(name, groups.get(name), own, this.#spanMs);
        }),
        ...unmatched.map(noGroupMatches),
      ],
    };
  }

  /** The lag at each observation of the span, oldest first. */
  trendOf(row: Pick<LagRow, 'group' | 'topic' | 'partition'>): (number | null)[] {
    return (this.#memories.get(keyOf(row))?.observations ?? []).map(lagOf);
  }

  /** Looks for bases where a group lags behind the start of a log. */
  async #findBases(partitions: readonly GroupPartition[]): Promise<void> {
    const unknown = partitions.filter(
      (one) =>
        one.log !== undefined &&
        one.commit !== undefined &&
        one.commit.next < one.log.start &&
        !this.#basedStarts.has(startOf(one)),
    );
    if (unknown.length === 0) return;
    const reader = new LogReader(this.#broker);
    try {
      for (const one of unknown) {
        if (one.log === undefined) continue;
        // The next look reads a log again that cannot be read now.
        const found = await findBase(reader, one, one.log).catch(() => null);
        if (found !== null) this.#basedStarts.set(startOf(one), found !== undefined);
      }
    } finally {
      await reader.close();
    }
  }

  #remember(one: GroupPartition, atMs: number): Memory {
    const memory = this.#memories.get(keyOf(one)) ?? { observations: [], caughtUpAtMs: null, waiting: null };
    const last = memory.observations.at(-1);
    const observation: Observation = {
      atMs,
      start: one.log?.start ?? null,
      startsAtBase: this.#basedStarts.get(startOf(one)) === true,
      end: one.log?.end ?? null,
      highWatermark: one.log?.highWatermark ?? null,
      next: one.commit?.next ?? null,
      readableFrom: memory.waiting?.next === one.commit?.next ? (memory.waiting?.readableFrom ?? null) : null,
      isOwned: one.owner === undefined ? null : one.owner !== null,
      committedAtMs: one.metadata.committedAt,
      readNext: one.metadata.readNext,
    };
    // A pause of several spans, such as the sleep of the machine, ends the span: earlier observations do not count.
    const before = last !== undefined && atMs - last.atMs <= 3 * this.#spanMs ? memory.observations : [];
    const first = before.findLastIndex((old) => atMs - old.atMs >= this.#spanMs);
    const wentBack = (observation.next ?? 0) < (last?.next ?? 0);
    return {
      observations: [...before.slice(Math.max(0, first)), observation],
      caughtUpAtMs: wentBack ? null : memory.caughtUpAtMs,
      waiting: wentBack ? null : memory.waiting,
    };
  }

  /**
   * Reads the first unread message where the commits do not contain the time of the last processed message. Where they do, reads
   * it once, because on a slow topic the next message may be much younger. Offsets that hold only transaction markers then no
   * longer count as lag.
   */
  async #readUnread(partitions: readonly GroupPartition[]): Promise<void> {
    const wanted = partitions.filter((one) => {
      const { observations, waiting, caughtUpAtMs } = this.#memoryOf(one);
      const now = observations.at(-1) as Observation;
      if ((lagOf(now) ?? 0) === 0) return false;
      if (waiting?.next === now.next && waiting.sentMs === null) return true;
      return one.metadata.recordTs !== null
        ? waiting === null && caughtUpAtMs === null
        : waiting?.next !== now.next;
    });
    if (wanted.length > 0) await this.#readFirst(wanted.slice(0, readsMax));
    for (const one of partitions) {
      const memory = this.#memoryOf(one);
      const now = memory.observations.at(-1) as Observation;
      if (lagOf(now) === 0) memory.caughtUpAtMs = now.atMs;
    }
  }

  async #readFirst(wanted: readonly GroupPartition[]): Promise<void> {
    const reader = new LogReader(this.#broker);
    try {
      for (const one of wanted) {
        const memory = this.#memoryOf(one);
        const now = memory.observations.at(-1) as Observation;
        const next = now.next as number;
        const from = Math.max(next, now.start ?? 0, now.readableFrom ?? 0);
        const want = { topic: one.topic, partition: one.partition, next: from };
        const found = await readFirstUnread(reader, want, now.end as number);
        if (found === null) continue;
        memory.waiting = { ...found, next };
        memory.observations[memory.observations.length - 1] = { ...now, readableFrom: found.readableFrom };
      }
    } finally {
      await reader.close();
    }
  }

  /** Refreshes the retention of the topics now and then; without permission to read it, it stays unknown. */
  async #readRetention(topics: readonly string[], atMs: number): Promise<void> {
    const known = this.#retention;
    const isFresh =
      known !== undefined &&
      atMs - known.readMs < retentionMaxAgeMs &&
      topics.every((topic) => known.topics.has(topic));
    if (isFresh || topics.length === 0) return;
    const found = await readRetention(this.#broker, topics).catch(() => new Map<string, number | null>());
    this.#retention = {
      readMs: atMs,
      topics: new Map(topics.map((topic) => [topic, found.get(topic) ?? null])),
    };
  }

  #memoryOf(one: GroupPartition): Memory {
    return this.#memories.get(keyOf(one)) as Memory;
  }

  #judge(one: GroupPartition, atMs: number, wallMs: number): JudgedPartition {
    const { group, topic, partition, isSubscribed, metadata } = one;
    const memory = this.#memoryOf(one);
    const { observations } = memory;
    const now = observations.at(-1) as Observation;
    const { recordsPerMessage } = metadata;
    const lag = lagOf(now);
    const pace = paceOf(observations);
    const state = isSubscribed ? judge(observations, this.#spanMs) : null;
    const catchUpMs =
      state === 'STOP' ? Number.POSITIVE_INFINITY : catchUpMsOf([{ observations, weight: 1 }], this.#spanMs);
    const timeLagMs = timeLagMsOf(lag, atMs, wallMs, metadata, memory);
    const why = isSubscribed ? whyUnknownOf(now) : 'the group does not subscribe to the topic any more';
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
        highWatermark: now.highWatermark ?? null,
        nextOffset: now.next,
        lag,
        lagRecords: lag === 0 ? 0 : times(lag, recordsPerMessage),
        lost: lostOf(now),
        blocked: blockedOf(observations),
        isSubscribed,
        state,
        whyUnknown: state === null ? why : null,
        timeLagMs,
        expiresMs: expiresMsOf(lag, timeLagMs, this.#retention?.topics.get(topic) ?? null),
        consumedPerSecond: pace.consumedPerSecond,
        producedPerSecond: pace.producedPerSecond,
        catchUpMs,
        catchesUp: isFiniteOrNull(catchUpMs),
      },
    };
  }
}

/** Replaces patterns by the groups that match now; a group that is also named appears once. */
async function resolvePatterns(
  broker: Broker,
  watched: readonly WatchedGroup[],
): Promise<{ named: readonly WatchedGroup[]; unmatched: readonly string[] }> {
  const patterns = watched.filter(({ group }) => group.includes('*'));
  if (patterns.length === 0) return { named: watched, unmatched: [] };
  const existing = await listGroups(broker);
  const named = new Map(watched.filter((one) => !patterns.includes(one)).map((one) => [one.group, one]));
  const unmatched: string[] = [];
  for (const { group: pattern, topics } of patterns) {
    const expression = new RegExp(`^${pattern.split('*').map(literally).join('.*')}$`, 's');
    const matching = existing.filter((name) => expression.test(name));
    if (matching.length === 0) unmatched.push(pattern);
    for (const group of matching) if (!named.has(group)) named.set(group, { group, topics });
  }
  return { named: [...named.values()], unmatched };
}

/**
 * Marks a group that lacks topics which it reads. With a topic the broker also deletes what an inactive group has committed
 * there, so the other topics alone would look healthy.
 */
function withMissingTopics(group: Group, missing: readonly string[]): Group {
  if (!group.exists || missing.length === 0) return group;
  const problem = `${missing.join(', ')}: the topic does not exist, or does not answer`;
  return { ...group, problem: group.problem ?? problem };
}

/** A regular expression that matches the text itself. */
const literally = (text: string) => text.replace(/[.*+?^${}()|[\]\\]/g, '\\$&');

const startOf = ({ topic, partition, log }: Pick<GroupPartition, 'topic' | 'partition' | 'log'>) =>
  `${topic}/${partition}/${log?.start}`;

const keyOf = ({ group, topic, partition }: Pick<LagRow, 'group' | 'topic' | 'partition'>) =>
  `${group}\n${topic}\n${partition}`;

const times = (a: number | null, b: number | null) => (a === null || b === null ? null : Math.round(a * b));

/** Messages between last stable offset and high watermark; 0 when the last stable offset moved in the span. */
function blockedOf(observations: readonly Observation[]): number | null {
  const { end = null, highWatermark = null } = observations.at(-1) ?? {};
  if (end === null || highWatermark === null) return null;
  return observations.every((one) => one.end === end && (one.highWatermark ?? end) > end)
    ? highWatermark - end
    : 0;
}

/**
 * Age of the oldest waiting message, in milliseconds. It was sent after the last processed message, not before one that was found
 * waiting, and after the last moment without lag. So the smallest of these ages bounds its age.
 */
function timeLagMsOf(
  lag: number | null,
  atMs: number,
  wallMs: number,
  { recordTs }: CommitMetadata,
  { waiting, caughtUpAtMs }: Memory,
): number | null {
  if (lag === null || lag === 0) return lag;
  const sent = [recordTs, waiting?.sentMs ?? null].filter((value) => value !== null);
  const ages = sent.map((sentMs) => wallMs - sentMs);
  if (caughtUpAtMs !== null) ages.push(atMs - caughtUpAtMs);
  return ages.length === 0 ? null : Math.max(0, Math.min(...ages));
}

function expiresMsOf(
  lag: number | null,
  timeLagMs: number | null,
  retentionMs: number | null,
): number | null {
  if (lag === null || lag === 0 || timeLagMs === null || retentionMs === null) return null;
  return Math.max(0, retentionMs - timeLagMs);
}
