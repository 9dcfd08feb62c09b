/**
 * Topics with a message for every row, as engines like them that know no chunks: key the id, value the row in Avro with
 * the registry's five bytes before it, the same partitioner as everywhere. Filled before the peers are measured.
 */
import { createReadStream } from 'node:fs';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import avsc from 'avsc';
import kafkajs from 'kafkajs';
import type { Broker } from '../../kafka/client.ts';
import { ensureRetainedTopics } from '../../kafka/topics.ts';
import { type ColumnType, type DatasetName, datasets, partitionOf } from '../../topics/catalog.ts';
import { schemaText } from '../../topics/registry.ts';
import type { Say } from '../data.ts';

const batchRows = 20_000;

const parsers: Readonly<Record<ColumnType, (text: string) => unknown>> = {
  string: (text) => text,
  'nullable-string': (text) => text,
  int: Number,
  'nullable-int': Number,
  boolean: (text) => text === '1',
  'nullable-boolean': (text) => text === '1',
  tenths: Number,
};

/** The Avro schema of one row of a dataset, as JSON. */
export function rowSchema(dataset: DatasetName): string {
  const chunk = JSON.parse(schemaText(`imdb.${dataset}`)) as {
    fields: { name: string; type: { items: unknown } }[];
  };
  return JSON.stringify(chunk.fields.find(({ name }) => name === 'records')?.type.items);
}

/** Writes the rows of a folder's files into `<prefix><dataset>`, dataset after dataset. @returns how many */
export async function fillRowTopics(
  broker: Broker,
  options: { data: string; datasets: readonly DatasetName[]; prefix: string; partitions: number },
  say: Say,
): Promise<number> {
  const { data, prefix, partitions } = options;
  const producer = broker.kafka.producer({ createPartitioner: kafkajs.Partitioners.DefaultPartitioner });
  await producer.connect();
  let rows = 0;
  try {
    for (const dataset of options.datasets) {
      const topic = prefix + dataset;
      await ensureRetainedTopics(broker, [{ topic, partitions }]);
      const encode = await encoder(broker.endpoints.registryUrl, topic, dataset);
      let messages: { key: string; value: Buffer; partition: number }[] = [];
      let sending: Promise<unknown> = Promise.resolve();
      const send = async () => {
        await sending;
        sending = producer.send({ topic, messages, compression: kafkajs.CompressionTypes.ZSTD });
        sending.catch(() => undefined); // awaited one batch later
        rows += messages.length;
        messages = [];
      };
      let isHeader = true;
      for await (const line of createInterface({ input: createReadStream(join(data, `${dataset}.tsv`)) })) {
        if (!isHeader) {
          const fields = line.split('\t');
          const key = fields[0] as string;
          messages.push({ key, value: encode(fields), partition: partitionOf(key, partitions) });
          if (messages.length === batchRows) await send();
        }
        isHeader = false;
      }
      await send();
      await sending;
      say(`${topic} is filled, ${rows.toLocaleString('en-US')} rows so far`);
    }
  } finally {
    await producer.disconnect();
  }
  return rows;
}

async function encoder(
  registryUrl: string,
  topic: string,
  dataset: DatasetName,
): Promise<(fields: readonly string[]) => Buffer> {
  const schema = rowSchema(dataset);
  const response = await fetch(`${registryUrl}/subjects/${encodeURIComponent(`${topic}-value`)}/versions`, {
    method: 'POST',
    headers: { 'content-type': 'application/vnd.schemaregistry.v1+json' },
    body: JSON.stringify({ schema }),
  });
  if (!response.ok) throw new Error(`the registry refuses the schema of ${topic}: ${await response.text()}`);
  const { id } = (await response.json()) as { id: number };
  const header = Buffer.alloc(5);
  header.writeUInt32BE(id, 1);
  const type = avsc.Type.forSchema(JSON.parse(schema));
  const { columns } = datasets[dataset];
  return (fields) => {
    const record: Record<string, unknown> = {};
    for (const [i, column] of columns.entries()) {
      const text = fields[i] as string;
      record[column.name] = text === '\\N' ? null : parsers[column.type](text);
    }
    return Buffer.concat([header, type.toBuffer(record)]);
  };
}
