/** Creating topics on a real broker. */

import { ensureRetainedTopics } from '../kafka/topics.ts';
import { broker, test } from './harness.ts';

// Method: fresh topics, some rounds, and as many clients at once as there may be stages on a new namespace.
test('clients that create the same topics at the same moment all find them', async ({ place }) => {
  for (let round = 0; round < 5; round++) {
    const specs = Array.from({ length: 6 }, (_, n) => ({
      topic: `${place.namespace}.${round}-${n}`,
      partitions: 4,
    }));
    await Promise.all(Array.from({ length: 4 }, () => ensureRetainedTopics(broker, specs)));
  }
});
