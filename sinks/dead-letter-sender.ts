/** Sends the messages that the sink has rejected to the dead-letter topic. */
import type { Producer } from 'kafkajs';
import type { Broker } from '../kafka/client.ts';
import { asBrokerError } from '../kafka/failures.ts';
import type { LogMessage } from '../kafka/log.ts';
import { untilServed } from '../kafka/outage.ts';
import type { RejectedMessage } from '../topics/chunk.ts';
import { deadLetterMessage } from '../topics/dead-letter.ts';
import type { SinkMetrics } from './sink-metrics.ts';

export interface RejectedSource {
  readonly topic: string;
  readonly partition: number;
  readonly message: LogMessage;
  readonly rejection: RejectedMessage;
}

interface DeadLetterSenderOptions {
  readonly broker: Broker;
  /** The dead-letter topic. */
  readonly topic: string;
  readonly metrics?: SinkMetrics | undefined;
  readonly signal: AbortSignal;
}

export class DeadLetterSender {
  readonly #options: DeadLetterSenderOptions;
  #producer: Producer | undefined;

  constructor(options: DeadLetterSenderOptions) {
    this.#options = options;
  }

  /** Sends one letter for each message, and waits out an outage. @throws ReelflowError, for a permanent refusal */
  async send(rejected: readonly RejectedSource[]): Promise<void> {
    const { broker, topic, metrics, signal } = this.#options;
    for (const { message, topic: from, partition, rejection } of rejected) {
      const { reason } = rejection;
      metrics?.deadLetter(reason);
      broker.logger.warn({ reason, topic: from, offset: message.offset }, 'dead letter');
      const letter = deadLetterMessage({
        stage: 'sink',
        reason,
        detail: rejection.message,
        original: message.value ?? Buffer.alloc(0),
        source: { topic: from, partition, offset: String(message.offset) },
        time: new Date(),
        key: message.key,
      });
      const send = async () => (await this.#connected()).send({ topic, acks: -1, messages: [letter] });
      try {
        await untilServed(broker.outages, 'dead letters', send, signal);
      } catch (thrown) {
        throw asBrokerError(thrown, broker.endpoints, topic);
      }
    }
  }

  async close(): Promise<void> {
    await this.#producer?.disconnect();
  }

  async #connected(): Promise<Producer> {
    if (this.#producer !== undefined) return this.#producer;
    const producer = this.#options.broker.kafka.producer({ allowAutoTopicCreation: false });
    try {
      await producer.connect();
    } catch (thrown) {
      await producer.disconnect().catch(() => undefined);
      throw thrown;
    }
    this.#producer = producer;
    return producer;
  }
}
