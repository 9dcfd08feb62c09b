/** What a dry run of a reset asks of a running pipeline. `test/crash/reset.test.ts` resets one. */
import { expect } from 'vitest';
import { Membership } from '../../kafka/membership.ts';
import { ensureRetainedTopics } from '../../kafka/topics.ts';
import { reset } from '../../processors/reset.ts';
import { Registry } from '../../topics/registry.ts';
import { broker, test, until } from '../support/harness.ts';

test('a dry run works while members run', async ({ place }) => {
  const { names } = place;
  await ensureRetainedTopics(broker, [{ topic: names.deltas, partitions: 2 }]);
  let isAssigned = false;
  const membership = await Membership.join({
    broker,
    groupId: names.processorGroup,
    topics: [names.deltas],
    assignment: 'shards',
    freshness: () => new Map(),
    onAssigned: () => {
      isAssigned = true;
    },
    onCrash: () => undefined,
  });
  place.onEnd(() => membership.leave());
  await until('it is assigned', () => isAssigned);
  const registry = new Registry({ url: broker.endpoints.registryUrl });
  const report = await reset({ broker, registry, names, generationMin: 3, dryRun: true });
  expect(report).toEqual({ generation: 4, shards: 2, messages: 0, records: 0 });
  // It has registered no schema.
  expect(await registry.latest(names.deltas)).toBeUndefined();
});
