/** The producers' side of the broker: the client that sends, and what a send that failed for good means. */
import kafkajs, { type Producer } from 'kafkajs';
import { asBrokerError, type Broker, isRefusedAccess } from '../kafka/client.ts';
import { messageOf, ReelflowError } from '../runtime/errors.ts';

export { asBrokerError, type Broker };

/**
 * A producer for explicit partitions. It sends again for about half a minute while a broker restarts.
 * Not idempotent, which costs 15 % and secures nothing here: records are upserts, and a partition has one send at a time.
 */
export function createProducer({ kafka }: Broker): Producer {
  return kafka.producer({
    allowAutoTopicCreation: false,
    createPartitioner: kafkajs.Partitioners.DefaultPartitioner,
    retry: { initialRetryTime: 100, maxRetryTime: 3_000, retries: 14 },
  });
}

/** The error for a send that was given up. */
export function sendFailure(thrown: unknown, topic: string, { endpoints }: Broker): ReelflowError {
  const known = asBrokerError(thrown, endpoints);
  if (known instanceof ReelflowError && isRefusedAccess(known)) return known;
  return new ReelflowError('brokerUnreachable', `The broker does not take messages for ${topic}`, {
    detail: known instanceof ReelflowError ? known.detail : messageOf(thrown),
    hint: 'When it is back, run the same command with --resume: it goes on after the last acknowledged row.',
    cause: thrown,
  });
}
