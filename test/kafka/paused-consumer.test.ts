/** The loop of a consumer that never fetches, on a group object without a broker. */
import ConsumerGroup from 'kafkajs/src/consumer/consumerGroup.js';
import { expect, test } from 'vitest';
import { endPauses, neverFetches } from '../../kafka/paused-consumer.ts';

test('a consumer that stops does not wait for the end of its pause', async () => {
  const paused = (groupId: string) => {
    neverFetches(groupId);
    return ConsumerGroup.prototype.fetch.call(
      {
        groupId,
        maxWaitTime: 60_000,
        cluster: { refreshMetadataIfNecessary: async () => undefined },
        checkForStaleAssignment: () => undefined,
      } as ConsumerGroup,
      '0',
    );
  };
  const ended: string[] = [];
  const own = paused('own').then(() => ended.push('own'));
  const other = paused('other').then(() => ended.push('other'));
  await new Promise(setImmediate);
  endPauses('own');
  await own;
  expect(ended).toEqual(['own']);
  endPauses('other');
  await other;
});
