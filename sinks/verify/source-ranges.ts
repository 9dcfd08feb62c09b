/**
 * The ranges of the source topics that a snapshot was made from: that the logs still hold them, and their messages.
 */
import { logBounds } from '../../kafka/bounds.ts';
import type { Broker } from '../../kafka/client.ts';
import { type LogReader, OutsideLog } from '../../kafka/log.ts';
import { type Scanned, scan } from '../../kafka/scan.ts';
import { partitionCounts } from '../../kafka/topics.ts';
import { ReelflowError } from '../../runtime/errors.ts';
import type { DatasetName } from '../../topics/catalog.ts';

export interface Source {
  readonly topic: string;
  readonly dataset: DatasetName;
  readonly ranges: readonly { partition: number; start: number; end: number }[];
}

/**
 * What is gone cannot be computed again: said before anything is read.
 * @throws ReelflowError sourceLost or sourceReplaced
 */
export async function requireRanges(broker: Broker, sources: readonly Source[]): Promise<void> {
  const existing = await partitionCounts(
    broker,
    sources.map(({ topic }) => topic),
  );
  const bounds = await logBounds(broker, [...existing.keys()]);
  for (const { topic, ranges } of sources) {
    for (const { partition, start, end } of ranges) {
      if (start === end) continue;
      const log = bounds.get(topic)?.get(partition);
      const needs = `The snapshot holds offsets ${start} to ${end}.`;
      if (log === undefined) {
        const what = existing.has(topic)
          ? `${topic}/${partition} does not exist.`
          : `${topic} does not exist.`;
        throw new ReelflowError('sourceLost', 'A topic that the snapshot was made from is gone', {
          detail: `${what} ${needs}`,
          hint: 'Compare with the files instead: --data DIR.',
        });
      }
      if (log.start > start) throw trimmed(`${topic}/${partition} starts at offset ${log.start}. ${needs}`);
      if (log.end < end) {
        throw new ReelflowError('sourceReplaced', 'A topic is shorter than what the snapshot was made from', {
          detail: `${topic}/${partition} ends at offset ${log.end}. ${needs} The topic was recreated, or lost its tail.`,
          hint: 'Compare with the files instead: --data DIR.',
        });
      }
    }
  }
}

const trimmed = (detail: string) =>
  new ReelflowError('sourceLost', 'A topic no longer holds what the snapshot was made from', {
    detail,
    hint: 'Source topics must keep every message. Compare with the files instead: --data DIR.',
  });

/**
 * Messages of all ranges of a topic, markers included; those of one partition in order, without a gap.
 * @throws ReelflowError sourceLost, undecodableBatch, brokerUnreachable, stuck; the reason of `signal`
 */
export async function* readRanges(
  reader: LogReader,
  { topic, ranges }: Source,
  signal: AbortSignal,
): AsyncGenerator<Scanned> {
  const next = new Map(ranges.map(({ partition, start }) => [partition, start]));
  try {
    for await (const scanned of scan(reader, topic, ranges, { signal, withMarkers: true })) {
      for (const { offset } of scanned.messages) {
        const expected = next.get(scanned.partition) ?? 0;
        if (offset !== expected) {
          throw trimmed(
            `${topic}/${scanned.partition} has a gap: expected offset ${expected}, got ${offset}.`,
          );
        }
        next.set(scanned.partition, expected + 1);
      }
      yield scanned;
    }
    for (const { partition, end } of ranges) {
      const reached = next.get(partition) ?? 0;
      if (reached < end)
        throw trimmed(`${topic}/${partition} has a gap between offsets ${reached} and ${end}.`);
    }
  } catch (thrown) {
    throw thrown instanceof OutsideLog ? trimmed(`${thrown.message}, while it was read.`) : thrown;
  }
}
