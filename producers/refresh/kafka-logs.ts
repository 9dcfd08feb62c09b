/** The devices of a refresh on a real cluster: a dataset's topic and the topic of the index. */
import { createHash } from 'node:crypto';
import kafkajs, { type Producer } from 'kafkajs';
import { logBounds } from '../../kafka/bounds.ts';
import type { Broker } from '../../kafka/client.ts';
import type { LogReader } from '../../kafka/log.ts';
import { scan, scanTopic } from '../../kafka/scan.ts';
import type { DatasetName } from '../../topics/catalog.ts';
import { datasets } from '../../topics/catalog.ts';
import { type ChunkDecoder, deleteColumns, RejectedMessage, recordColumns } from '../../topics/chunk.ts';
import { Ownership } from '../../topics/ownership.ts';
import { sendFailure } from '../producer.ts';
import type { IndexLog, LogRange, SourceLog, Touched } from './dataset-refresh.ts';

const hashHexDigits = 32;

export class KafkaSourceLog implements SourceLog {
  readonly #broker: Broker;
  readonly #reader: LogReader;
  readonly #topic: string;
  readonly #dataset: DatasetName;
  readonly #decoder: ChunkDecoder;

  constructor(broker: Broker, reader: LogReader, topic: string, dataset: DatasetName, decoder: ChunkDecoder) {
    this.#broker = broker;
    this.#reader = reader;
    this.#topic = topic;
    this.#dataset = dataset;
    this.#decoder = decoder;
  }

  async bounds(): Promise<{ start: number; end: number }[]> {
    const found = (await logBounds(this.#broker, [this.#topic])).get(this.#topic) ?? new Map();
    return [...found].sort(([a], [b]) => a - b).map(([, bounds]) => bounds);
  }

  async hashAt(partition: number, offset: number): Promise<string | undefined> {
    const range = [{ partition, start: offset, end: offset + 1 }];
    for await (const { messages } of scan(this.#reader, this.#topic, range)) {
      const [message] = messages;
      if (message?.offset !== offset) continue;
      const hash = createHash('sha256')
        .update(message.key ?? '')
        .update(message.value ?? '');
      return hash.digest('hex').slice(0, hashHexDigits);
    }
    return undefined;
  }

  async scan(ranges: readonly LogRange[], onTouched: (touched: Touched) => void): Promise<void> {
    const { idPrefix, columns } = datasets[this.#dataset];
    const records = recordColumns(this.#dataset, [(columns[0] as { name: string }).name]);
    const deletes = deleteColumns(this.#dataset);
    const partitions = (await this.bounds()).length;
    const ownership = new Ownership(idPrefix, partitions);
    for await (const { partition, messages } of scan(this.#reader, this.#topic, ranges)) {
      for (const { offset, value } of messages) {
        records.clear();
        deletes.clear();
        try {
          const own = this.#decoder.isOwn(value) ? value : await this.#decoder.resolve(value as Buffer);
          const { runId, replaces } = this.#decoder.decode(own as Buffer, records, deletes);
          ownership.check(records, 0, partition, 0);
          ownership.check(deletes, 0, partition, 0);
          ownership.checkGroups(replaces, partition, 0);
          onTouched({ partition, offset, runId, replaces, ids: idsOf(records.column(0), deletes.column(0)) });
        } catch (thrown) {
          // Consumers refuse the message too: it touches nothing.
          if (!(thrown instanceof RejectedMessage)) throw thrown;
        }
      }
    }
  }
}

function* idsOf(...columns: ArrayLike<number>[]): Generator<number> {
  for (const column of columns) {
    let last = -1;
    for (let row = 0; row < column.length; row++) {
      const id = column[row] as number;
      if (id === last) continue;
      last = id;
      yield id;
    }
  }
}

export class KafkaIndexLog implements IndexLog {
  readonly messages = new Map<string, Buffer>();
  readonly #broker: Broker;
  readonly #producer: Producer;
  readonly #topic: string;

  private constructor(broker: Broker, producer: Producer, topic: string) {
    this.#broker = broker;
    this.#producer = producer;
    this.#topic = topic;
  }

  /** Reads the topic, which exists. */
  static async open(broker: Broker, producer: Producer, topic: string): Promise<KafkaIndexLog> {
    const log = new KafkaIndexLog(broker, producer, topic);
    for await (const { messages } of scanTopic(broker, topic)) {
      for (const { key, value } of messages) {
        if (key === null) continue;
        if (value === null) log.messages.delete(key.toString());
        else log.messages.set(key.toString(), value);
      }
    }
    return log;
  }

  async append(messages: readonly { readonly key: string; readonly value: Buffer | null }[]): Promise<void> {
    try {
      await this.#producer.send({
        topic: this.#topic,
        acks: -1,
        compression: kafkajs.CompressionTypes.ZSTD,
        messages: messages.map((message) => ({ ...message, partition: 0 })),
      });
    } catch (thrown) {
      throw sendFailure(thrown, this.#topic, this.#broker);
    }
  }
}
