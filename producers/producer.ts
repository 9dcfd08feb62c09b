/** Sends all messages other than the chunks of a replay: the producer client, one way to send, the error of a refused send. */
import kafkajs, { type Producer, type ProducerRecord, type RecordMetadata } from 'kafkajs';
import type { Broker } from '../kafka/client.ts';
import { asBrokerError, isRefusal } from '../kafka/failures.ts';
import { unlessEnded, untilServed } from '../kafka/outage.ts';
import { messageOf, ReelflowError } from '../runtime/errors.ts';

/**
 * A producer of dead letters, of the dump index and of the rows that `dlq replay` sends, for explicit partitions. It is not
 * idempotent: a message that the topic holds twice does no harm. The chunks of a replay go through `Appender`.
 */
export function createProducer({ kafka }: Broker): Producer {
  return kafka.producer({
    allowAutoTopicCreation: false,
    createPartitioner: kafkajs.Partitioners.DefaultPartitioner,
  });
}

/**
 * Sends messages, and waits until an outage of the broker ends. A message may arrive twice.
 * @param activity names what waits; unique among the activities that wait at the same time
 * @param signal once it is aborted, a failure is thrown at once
 * @throws ReelflowError what the broker refuses; brokerUnreachable after the abort
 */
export async function sendServed(
  broker: Broker,
  producer: Producer,
  activity: string,
  { topic, messages }: Pick<ProducerRecord, 'topic' | 'messages'>,
  signal = new AbortController().signal,
): Promise<RecordMetadata[]> {
  const record = { topic, messages, acks: -1, compression: kafkajs.CompressionTypes.ZSTD };
  try {
    const send = () => unlessEnded(broker.outages, signal, () => producer.send(record));
    return await untilServed(broker.outages, activity, send, signal);
  } catch (thrown) {
    throw sendFailure(thrown, topic, broker);
  }
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
