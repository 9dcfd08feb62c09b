/**
 * The lag of consumer groups, partition by partition, from what the brokers say: start, end and committed offsets. What
 * is not known is null, never 0.
 */
import type { Broker } from '../kafka/client.ts';
import { type Group, readBounds, readGroups } from '../kafka/groups.ts';
import type { LogBounds } from '../kafka/log.ts';

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
  readonly state: string | null;
  readonly timeLagMs: number | null;
  readonly catchUpMs: number | null;
}

export interface Watched {
  readonly group: string;
  /** Topics that the group reads; they are told even before its first commit. */
  readonly topics: readonly string[];
}

export interface LagReport {
  readonly rows: LagRow[];
  /** Groups that the cluster does not know. */
  readonly absent: string[];
}

/** Lag of the groups, in their order, then by topic and partition. @throws ReelflowError brokerUnreachable */
export async function readLag(broker: Broker, watched: readonly Watched[]): Promise<LagReport> {
  const groups = await readGroups(
    broker,
    watched.map(({ group }) => group),
  );
  const committed = [...groups.values()].flatMap((group) => [...group.committed.keys()]);
  const bounds = await readBounds(broker, [...committed, ...watched.flatMap(({ topics }) => topics)]);
  return {
    rows: watched.flatMap((one) => lagRows(one, groups.get(one.group), bounds)),
    absent: watched.map(({ group }) => group).filter((group) => groups.get(group)?.exists !== true),
  };
}

/** The rows of one group: partitions that it has committed, and those of the topics that it reads. */
export function lagRows(
  { group, topics }: Watched,
  found: Group | undefined,
  bounds: ReadonlyMap<string, ReadonlyMap<number, LogBounds>>,
): LagRow[] {
  const committed = found?.committed ?? new Map<string, never>();
  return [...new Set([...topics, ...committed.keys()])].sort().flatMap((topic) => {
    const logs = bounds.get(topic);
    const commits = committed.get(topic);
    const partitions = new Set([...(logs?.keys() ?? []), ...(commits?.keys() ?? [])]);
    return [...partitions]
      .sort((a, b) => a - b)
      .map((partition): LagRow => {
        const log = logs?.get(partition);
        const nextOffset = commits?.get(partition)?.next ?? null;
        return {
          group,
          topic,
          partition,
          startOffset: log?.start ?? null,
          endOffset: log?.end ?? null,
          nextOffset,
          // A log that ends before what was processed is another one: how much of it is new cannot be told.
          lag: log === undefined || nextOffset === null || nextOffset > log.end ? null : log.end - nextOffset,
          state: null,
          timeLagMs: null,
          catchUpMs: null,
        };
      });
  });
}
