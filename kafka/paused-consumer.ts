/**
 * Consumers of kafkajs 2.2.4 that never fetch: they keep the heartbeat and the assignment, and end at once. Importing this file
 * changes the fetches of the groups that `neverFetches` names.
 */
import ConsumerGroup from 'kafkajs/src/consumer/consumerGroup.js';

const { fetch } = ConsumerGroup.prototype;

/** Functions that end the present pause of a fetch loop, by group that never fetches. */
const pauses = new Map<string, Set<() => void>>();

/** From now on, consumers of the group in this process fetch nothing. */
export function neverFetches(groupId: string): void {
  if (!pauses.has(groupId)) pauses.set(groupId, new Set());
}

/**
 * Does what kafkajs does for partitions that are all paused, but does not read committed offsets, which nothing here uses.
 * kafkajs' own pause cannot be ended early, and a consumer that stops waits for it.
 */
ConsumerGroup.prototype.fetch = async function (this: ConsumerGroup, nodeId): Promise<unknown[]> {
  const own = pauses.get(this.groupId);
  if (own === undefined) return fetch.call(this, nodeId);
  try {
    await this.cluster.refreshMetadataIfNecessary();
    this.checkForStaleAssignment();
    await pause(own, this.maxWaitTime);
  } catch (thrown) {
    await this.recoverFromFetch(thrown);
  }
  return [];
};

async function pause(own: Set<() => void>, ms: number): Promise<void> {
  await new Promise<void>((resolve) => {
    const end = () => {
      clearTimeout(timer);
      own.delete(end);
      resolve();
    };
    const timer = setTimeout(end, ms);
    own.add(end);
  });
}

/** Ends the pauses of the group, so that a consumer that stops ends at once. Its other consumers check their heartbeat early. */
export function endPauses(groupId: string): void {
  for (const end of [...(pauses.get(groupId) ?? [])]) end();
}
