/**
 * Consumers of kafkajs 2.2.4 that never fetch: they keep the heartbeat and the assignment, and end at once. Importing this file
 * changes the fetches of the groups that `neverFetches` names.
 */
import ConsumerGroup from 'kafkajs/src/consumer/consumerGroup.js';

const { fetch } = ConsumerGroup.prototype;

/** Ends the present pause of each loop, by group that never fetches. */
const pauses = new Map<string, Set<() => void>>();

/** From now on, consumers of the group in this process fetch nothing. */
export function neverFetches(groupId: string): void {
  if (!pauses.has(groupId)) pauses.set(groupId, new Set());
}

/**
 * As for partitions that are all paused, without the request for committed offsets that nothing reads here. kafkajs' own pause
 * cannot be ended, and a consumer that stops waits for it.
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

/** For consumers of the group that stop. Others of this process check their heartbeat early. */
export function endPauses(groupId: string): void {
  for (const end of [...(pauses.get(groupId) ?? [])]) end();
}
