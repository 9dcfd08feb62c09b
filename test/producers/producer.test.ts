/** Messages beside the chunks of a replay. Method: a producer that fails, because kafkajs repeats a send for 12 s by itself. */
import kafkajs, { type Producer } from 'kafkajs';
import pino from 'pino';
import { expect, test } from 'vitest';
import type { Broker } from '../../kafka/client.ts';
import { OutageMonitor } from '../../kafka/outage.ts';
import { sendServed } from '../../producers/producer.ts';

const gone = () => new kafkajs.KafkaJSConnectionError('Connection error: connect ECONNREFUSED');
const tooLarge = () =>
  Object.assign(new Error('The request included a message larger than the max'), {
    name: 'KafkaJSProtocolError',
    type: 'MESSAGE_TOO_LARGE',
    code: 10,
  });

/** Fails with these, one after the other, then accepts. */
function producerWith(...failures: Error[]) {
  const sends: unknown[] = [];
  const send = async (record: unknown) => {
    sends.push(record);
    const failure = failures.shift();
    if (failure !== undefined) throw failure;
    return [{ topicName: 'index', partition: 0, errorCode: 0, baseOffset: '7' }];
  };
  return { sends, producer: { send } as unknown as Producer };
}

const broker = {
  outages: new OutageMonitor(pino({ level: 'silent' }), 'Kafka broker'),
  endpoints: { brokers: ['test:9092'] },
} as unknown as Broker;
const record = { topic: 'index', messages: [{ key: 'a', value: 'b', partition: 0 }] };

test('a message is sent again until a broker takes it', async () => {
  const { sends, producer } = producerWith(gone(), gone(), gone());
  expect(await sendServed(broker, producer, 'append', record)).toMatchObject([{ baseOffset: '7' }]);
  expect(sends).toHaveLength(4);
});

test('after a signal an outage is an error', async () => {
  const { sends, producer } = producerWith(gone(), gone());
  const sent = sendServed(broker, producer, 'append', record, AbortSignal.abort());
  await expect(sent).rejects.toMatchObject({ kind: 'brokerUnreachable' });
  expect(sends).toHaveLength(1);
});

test('what a broker refuses is an error at once', async () => {
  const { sends, producer } = producerWith(tooLarge());
  await expect(sendServed(broker, producer, 'append', record)).rejects.toMatchObject({
    name: 'ReelflowError',
  });
  expect(sends).toHaveLength(1);
});
