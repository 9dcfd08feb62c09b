/**
 * What kafkajs 2.2.4 does for a consumer that never fetches: it keeps the heartbeat and the assignment, and ends at once. Importing
 * this file changes all consumers of the process, which are all of this kind.
 */
import ConsumerGroup from 'kafkajs/src/consumer/consumerGroup.js';

const heartbeat = ConsumerGroup.prototype.heartbeat;

/**
 * Independent of the wall clock. kafkajs sends a heartbeat when `Date.now()` has passed the time of the last one plus the interval.
 * After the clock steps back by an hour it would send none for an hour, and the coordinator would remove the member.
 */
ConsumerGroup.prototype.heartbeat = async function (this: ConsumerGroup, options): Promise<void> {
  // A last heartbeat in the future means that the clock has stepped back.
  if (this.lastRequest > Date.now()) this.lastRequest = 0;
  await heartbeat.call(this, options);
};

/** Ends the present pause of each loop, by group. */
const pauses = new Map<string, Set<() => void>>();

/**
 * As for partitions that are all paused, without the request for committed offsets that nothing reads here. kafkajs' own pause
 * cannot be ended, and a consumer that stops waits for it.
 */
ConsumerGroup.prototype.fetch = async function (this: ConsumerGroup): Promise<never[]> {
  try {
    await this.cluster.refreshMetadataIfNecessary();
    this.checkForStaleAssignment();
    await pause(this.groupId, this.maxWaitTime);
  } catch (thrown) {
    await this.recoverFromFetch(thrown);
  }
  return [];
};

async function pause(groupId: string, ms: number): Promise<void> {
  const own = pauses.get(groupId) ?? new Set();
  pauses.set(groupId, own);
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
