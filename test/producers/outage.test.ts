/**
 * A replay of a dump whose broker goes away at a chosen request. Real commands, a real broker, and a gate between them, which
 * refuses all connections for some seconds from that request on.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { expect, inject } from 'vitest';
import { freePorts } from '../../kafka/local/probe.ts';
import type { ReplayReport } from '../../producers/replay-report.ts';
import { headerOf, lastJson, test, until } from '../support/harness.ts';
import { RequestGate } from '../support/request-gate.ts';

const outageMs = 5_000;
/** https://kafka.apache.org/protocol#protocol_api_keys */
const produce = 0;
const fetchKey = 1;
const listOffsets = 2;

const rows = (votes: number) =>
  Array.from({ length: 200 }, (_, n) => `tt${String(n + 1).padStart(7, '0')}\t5.0\t${votes}`);

/** What the replay does, the request with which the broker goes away, and whether that is one after the first chunk. */
test.for([
  ['asks for the end of the log', listOffsets, 'title.ratings', 'before'],
  ['sends a chunk', produce, 'title.ratings', 'before'],
  ['sends a dead letter', produce, 'dead-letter', 'before'],
  ['asks where its chunks lie', listOffsets, 'title.ratings', 'after'],
  ['reads its chunks again', fetchKey, 'title.ratings', 'after'],
  ['marks an outdated letter', produce, 'dead-letter', 'after'],
  ['writes the index', produce, 'dump-index', 'after'],
] as const)(
  'a replay whose broker goes away when it %s ends complete',
  async ([what, key, topic, when], { place }) => {
    const [host = '', ports = ''] = inject('brokers')[0]?.split(':') ?? [];
    const [port] = (await freePorts(1)) as [number];
    const gate = await RequestGate.to({ host, port: Number(ports) }, port);
    place.onEnd(() => gate.close());
    const dump = (name: string, ...of: string[]) =>
      place.files(name, {
        'title.ratings.tsv': `${[headerOf('title.ratings').trimEnd(), ...of].join('\n')}\n`,
      });
    const args = ['--datasets', 'title.ratings', '--max-rejected', '100'];
    const bad = (of: string) => (what.includes(of) ? ['tt0000300\t5.0\tmany'] : []);
    await place.replay(dump('first', ...rows(1), ...bad('marks')), '--shards', '1', ...args);

    let hasSent = when === 'before';
    let isDown = false;
    gate.stops = (request) => {
      const asked = request.readInt16BE(4);
      if (hasSent && asked === key && request.includes(topic)) isDown = true;
      hasSent ||= asked === produce && request.includes('title.ratings');
      if (isDown) gate.close();
      return isDown;
    };
    const next = dump('second', ...rows(2), ...bad('sends a dead letter'));
    const replay = place.start(place.args('replay', next, '--json', ...args), {
      KAFKA_BROKERS: `127.0.0.1:${port}`,
    });
    await until('the request is made', () => isDown || replay.isDone);
    expect(isDown).toBe(true);
    await sleep(outageMs);
    expect(replay.isDone).toBe(false);
    gate.stops = () => false;
    await gate.open();
    const finished = await replay.done;
    expect(finished, finished.stderr).toMatchObject({ code: 0 });
    expect(lastJson<ReplayReport>(finished)).toMatchObject({ interrupted: false, produced: 200 });
    // The index is whole: the same dump again sends nothing.
    expect(await place.replay(next, ...args)).toMatchObject({ produced: 0 });
  },
);
