/** Turns rejected messages into dead letters, and sends those that a store has committed. */
import type { Producer } from 'kafkajs';
import type { Logger } from '../runtime/logger.ts';
import { deadLetterMessage } from '../topics/dead-letter.ts';
import type { RejectedSource } from './micro-batch.ts';
import type { ShardStore } from './shard-store.ts';

interface StoredLettersOptions {
  readonly producer: Pick<Producer, 'send'>;
  /** The dead-letter topic. */
  readonly topic: string;
  readonly shard: number;
  readonly logger: Logger;
  /** Called for each letter before it is sent. */
  readonly onLetter: (reason: string) => void;
}

export class StoredLetters {
  readonly #options: StoredLettersOptions;

  constructor(options: StoredLettersOptions) {
    this.#options = options;
  }

  /** @returns the letter's value, and its headers as JSON */
  letterOf({ message, rejection }: RejectedSource): { value: Buffer; about: string } {
    const letter = deadLetterMessage({
      stage: 'processor',
      reason: rejection.reason,
      detail: rejection.message,
      original: message.value ?? Buffer.alloc(0),
      source: { topic: message.topic, partition: this.#options.shard, offset: String(message.offset) },
      time: new Date(),
    });
    return { value: letter.value, about: JSON.stringify(letter.headers) };
  }

  /** Sends the letters of a store at least once: after a crash before the removal, the next owner sends them again. */
  async send(store: ShardStore): Promise<void> {
    const { producer, topic, logger, onLetter } = this.#options;
    const letters = await store.readDeadLetters();
    if (letters.length === 0) return;
    for (const { value, about } of letters) {
      const headers = JSON.parse(about) as Record<string, string>;
      onLetter(String(headers.reason));
      logger.warn({ reason: headers.reason, topic: headers.topic, offset: headers.offset }, 'dead letter');
      await producer.send({ topic, acks: -1, messages: [{ value, headers, key: null }] });
    }
    await store.removeDeadLetters();
  }
}
