/**
 * A produce request that the network holds back reaches the broker after its sender has died and another replay has sent
 * its rows. Real commands, a real broker, and a TCP proxy between them.
 */
import { join } from 'node:path';
import { expect, inject } from 'vitest';
import { freePorts } from '../../kafka/local/probe.ts';
import { chunkType, headerOf, readTopic, test, until } from '../support/harness.ts';
import { RequestGate } from '../support/request-gate.ts';

const produceKey = 0;
/** https://kafka.apache.org/protocol#protocol_error_codes */
const invalidProducerEpoch = 47;

/** The error code of a response to a request of one topic and one partition. */
function errorCodeOf(response: Buffer): number {
  const topicBytes = response.readInt16BE(8);
  return response.readInt16BE(10 + topicBytes + 8);
}

test('a held request of a killed replay is refused after another replay has sent', async ({ place }) => {
  const [host = '', ports = ''] = inject('brokers')[0]?.split(':') ?? [];
  const [port] = (await freePorts(1)) as [number];
  const gate = await RequestGate.to({ host, port: Number(ports) }, port);
  place.onEnd(() => gate.close());
  const topic = place.names.source('title.ratings');
  const dump = (name: string, votes: number) =>
    join(
      place.files(name, { 'title.ratings.tsv': `${headerOf('title.ratings')}tt0000001\t5.0\t${votes}\n` }),
      'title.ratings.tsv',
    );
  await place.replay(dump('first', 1), '--shards', '1');
  gate.stops = (request) => request.readInt16BE(4) === produceKey && request.includes(topic);
  const killed = place.start(place.args('replay', dump('second', 2)), { KAFKA_BROKERS: `127.0.0.1:${port}` });
  await until('its request is held', () => gate.stopped.length > 0);
  killed.kill('SIGKILL');
  await killed.done;

  await place.replay(dump('third', 3));
  const votes = async () =>
    (await readTopic(topic)).map(({ value }) => {
      const { records } = chunkType('title.ratings').fromBuffer((value as Buffer).subarray(5));
      return (records as { numVotes: number }[]).map(({ numVotes }) => numVotes);
    });
  expect(await votes()).toEqual([[1], [3]]);
  for (const request of gate.stopped) {
    expect(errorCodeOf(await gate.deliver(request))).toBe(invalidProducerEpoch);
  }
  expect(await votes()).toEqual([[1], [3]]);
});
