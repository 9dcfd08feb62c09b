/**
 * Keeps the heartbeat of kafkajs 2.2.4 independent of the wall clock. kafkajs sends one when `Date.now()` has passed the
 * time of the last one plus the interval. After the clock steps back by an hour it would send none for an hour, and the
 * coordinator would remove the member. Importing this file changes the heartbeat of all consumers.
 */
import ConsumerGroup from 'kafkajs/src/consumer/consumerGroup.js';

const heartbeat = ConsumerGroup.prototype.heartbeat;

ConsumerGroup.prototype.heartbeat = async function (this: ConsumerGroup, options): Promise<void> {
  // A last heartbeat in the future means that the clock has stepped back.
  if (this.lastRequest > Date.now()) this.lastRequest = 0;
  await heartbeat.call(this, options);
};
