/** The offset ranges that a snapshot was made from: checks that the topics still hold them, and reads their messages. */
import { logBounds } from '../../kafka/bounds.ts';
import type { Broker } from '../../kafka/client.ts';
import { type LogReader, OutsideLog } from '../../kafka/log.ts';
import { type Range, type Scanned, scan } from '../../kafka/scan.ts';
import { partitionCounts } from '../../kafka/topics.ts';
import { ReelflowError } from '../../runtime/errors.ts';
import type { DatasetName } from '../../topics/catalog.ts';

export interface TopicRanges {
  readonly topic: string;
  readonly dataset: DatasetName;
  readonly ranges: readonly Range[];
}

/**
 * Checks all ranges before any message is read.
 * @returns the partition count of each topic
 * @throws ReelflowError sourceLost or sourceReplaced
 */
export async function requireRanges(
  broker: Broker,
  inputs: readonly TopicRanges[],
): Promise<Map<string, number>> {
  const existing = await partitionCounts(
    broker,
    inputs.map(({ topic }) => topic),
  );
  const bounds = await logBounds(broker, [...existing.keys()]);
  for (const { topic, ranges } of inputs) {
    for (const { partition, start, end } of ranges) {
      if (start === end) continue;
      const log = bounds.get(topic)?.get(partition);
      const needs = `The snapshot was made from offsets ${start} to ${end}.`;
      if (log === undefined) {
        const missing = existing.has(topic) ? `${topic}/${partition}` : topic;
        throw new ReelflowError('sourceLost', 'A topic that the snapshot was made from does not exist', {
          detail: `${missing} does not exist. ${needs}`,
          hint: 'Compare with the files instead: --data DIR.',
        });
      }
      if (log.start > start) {
        throw lost(
          `${topic}/${partition} starts at offset ${log.start}. ${needs}`,
          'After a base of the topic, earlier snapshots are compared with their files: --data DIR. If the topic has no base, it must keep every message.',
        );
      }
      if (log.end < end) {
        throw new ReelflowError(
          'sourceReplaced',
          'A topic is shorter than the range that the snapshot was made from',
          {
            detail: `${topic}/${partition} ends at offset ${log.end}. ${needs} The topic was recreated, or lost its tail.`,
            hint: 'Compare with the files instead: --data DIR.',
          },
        );
      }
    }
  }
  return existing;
}

const lost = (
  detail: string,
  hint = 'Source topics must keep every message. Compare with the files instead: --data DIR.',
) =>
  new ReelflowError('sourceLost', 'A topic lost messages that the snapshot was made from', {
    detail,
    hint,
  });

/**
 * Messages of all ranges of a topic, markers included. Those of one partition come in order and without a gap.
 * @throws ReelflowError sourceLost, undecodableBatch, brokerUnreachable, stuck; the reason of `signal`
 */
export async function* readRanges(
  reader: LogReader,
  { topic, ranges }: TopicRanges,
  signal: AbortSignal,
): AsyncGenerator<Scanned> {
  const next = new Map(ranges.map(({ partition, start }) => [partition, start]));
  try {
    for await (const scanned of scan(reader, topic, ranges, { signal, withMarkers: true })) {
      const { partition, messages } = scanned;
      for (const { offset } of messages) {
        const expected = next.get(partition) ?? 0;
        if (offset !== expected) {
          throw lost(`${topic}/${partition} has a gap: expected offset ${expected}, got ${offset}.`);
        }
        next.set(partition, expected + 1);
      }
      yield scanned;
    }
    for (const { partition, end } of ranges) {
      const reached = next.get(partition) ?? 0;
      if (reached < end) throw lost(`${topic}/${partition} has a gap between offsets ${reached} and ${end}.`);
    }
  } catch (thrown) {
    throw thrown instanceof OutsideLog ? lost(`While the topic was read: ${thrown.message}.`) : thrown;
  }
}
