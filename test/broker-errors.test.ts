/** What kafkajs throws when brokers go away, as the failure that a person and a supervisor can act on. */
import { expect, test } from 'vitest';
import { withAdmin } from '../kafka/client.ts';
import { broker } from './harness.ts';

// Method: `cluster.metadata()` of kafkajs resolves to null when every broker that it knows has failed.
test('metadata that no broker has answered is a broker that cannot be reached, and no defect', async () => {
  const answers = [
    async () => (null as unknown as { topicMetadata: unknown }).topicMetadata,
    async () => {
      const { topicMetadata } = null as unknown as { topicMetadata: unknown };
      return topicMetadata;
    },
  ];
  for (const answer of answers) {
    await expect(withAdmin(broker, answer)).rejects.toMatchObject({ kind: 'brokerUnreachable' });
  }
  await expect(
    withAdmin(broker, async () => (null as unknown as { length: number }).length),
  ).rejects.toBeInstanceOf(TypeError);
});
