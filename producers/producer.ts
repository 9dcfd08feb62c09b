/** The producer client, and the error for a send that failed permanently. */
import kafkajs, { type Producer } from 'kafkajs';
import type { Broker } from '../kafka/client.ts';
import { asBrokerError, isRefusal } from '../kafka/failures.ts';
import { messageOf, ReelflowError } from '../runtime/errors.ts';

export { asBrokerError, type Broker };

/**
 * A producer of dead letters, and of the rows that `dlq replay` sends, for explicit partitions. It retries for about half a
 * minute while a broker restarts. It is not idempotent: a letter or row that the topic holds twice does no harm. The chunks
 * of a replay go through `Appender`.
 */
export function createProducer({ kafka }: Broker): Producer {
  return kafka.producer({
    allowAutoTopicCreation: false,
    createPartitioner: kafkajs.Partitioners.DefaultPartitioner,
    retry: { initialRetryTime: 100, maxRetryTime: 3_000, retries: 14 },
  });
}

/** The error for a send that failed after all retries. */
export function sendFailure(thrown: unknown, topic: string, { endpoints }: Broker): ReelflowError {
  const known = asBrokerError(thrown, endpoints, topic);
  if (known instanceof ReelflowError && isRefusal(known)) return known;
  return new ReelflowError('brokerUnreachable', `The broker does not accept messages for ${topic}`, {
    detail: known instanceof ReelflowError ? known.detail : messageOf(thrown),
    hint: 'When the broker is back, run the same command with --resume: it continues after the last acknowledged row.',
    cause: thrown,
  });
}
