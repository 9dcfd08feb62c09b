/**
 * Two busy processors and a broker that is killed. Method: a broker of its own, which is killed while a replay sends and
 * micro-batches are in flight, stays away and starts again over the same data. `OUTAGE_SECONDS` sets another duration.
 */
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, beforeAll, beforeEach, describe, expect, inject, vi } from 'vitest';
import { logBounds } from '../../kafka/bounds.ts';
import { createBroker } from '../../kafka/client.ts';
import { startJvmBroker } from '../../kafka/local/jvm.ts';
import { freePorts } from '../../kafka/local/probe.ts';
import type { ReplayReport } from '../../producers/replay-report.ts';
import { createLogger } from '../../runtime/logger.ts';
import { datasetNames } from '../../topics/catalog.ts';
import {
  type Finished,
  lastJson,
  type Place,
  smallDataset,
  test,
  textOf,
  until,
} from '../support/harness.ts';
import { jars, skippedText } from '../support/jvm.ts';
import { temporaryFolder } from '../support/temporary-folder.ts';

const outageSeconds = Number(process.env.OUTAGE_SECONDS ?? 25);
vi.setConfig({ testTimeout: 600_000 + outageSeconds * 1_000, hookTimeout: 300_000 });

const why = skippedText();

describe.skipIf(why !== '')(`a broker outage of ${outageSeconds} s${why}`, () => {
  const folder = temporaryFolder();
  let brokerPort: number;
  let controllerPort: number;
  let stop = async () => {};
  let kill = async (_signal?: NodeJS.Signals) => {};
  let env: NodeJS.ProcessEnv;
  let isUp = false;

  const start = async () => {
    const broker = await startJvmBroker({ folder, jars, brokerPort, controllerPort, env: process.env });
    stop = () => broker.stop();
    kill = (signal = 'SIGKILL') => {
      isUp = signal !== 'SIGKILL';
      return broker.kill(signal);
    };
    isUp = true;
  };

  beforeAll(async () => {
    [brokerPort, controllerPort] = (await freePorts(2)) as [number, number];
    env = { KAFKA_BROKERS: `127.0.0.1:${brokerPort}` };
  });
  // A test that failed may have left it killed or suspended.
  beforeEach(async () => {
    if (isUp) await kill('SIGCONT');
    else await start();
  });
  afterAll(async () => {
    await stop();
  });

  const succeed = async (place: Place, ...args: Parameters<Place['args']>): Promise<Finished> => {
    const finished = await place.run(place.args(...args), env);
    expect(finished, finished.stderr.slice(-4_000)).toMatchObject({ code: 0 });
    return finished;
  };

  const busy = ['--max-records', '500', '--window', '50ms', '--verbose', '--shards', '4'];
  const isMicroBatch = ({ msg }: { msg: string }) => msg === 'micro-batch';

  test('two busy processors wait for the broker, lose nothing, and count nothing twice', async ({
    place,
  }) => {
    const data = await smallDataset(join(place.folder, 'data'), 6_000, 7);
    // A backlog of many small chunks, so that the kill meets new rows in flight. Meanwhile a replay repeats the same rows.
    await succeed(place, 'replay', data, '--upsert', '--json', '--shards', '4', '--rate', '8000');
    const state = (n: number) => ['--state', join(place.folder, `state-${n}`)];
    const members = [1, 2].map((n) =>
      place.start([...place.args('process', '--json', ...busy), ...state(n)], env),
    );
    const replay = place.start(place.args('replay', data, '--upsert', '--json', '--rate', '2000'), env);
    await until('both members publish', () =>
      members.every((member) => member.log.filter(isMicroBatch).length >= 3),
    );
    await kill();
    await Promise.all(
      members.map((member) =>
        member.logged('the outage', ({ msg }) => msg === 'Kafka broker outage: waiting until it ends'),
      ),
    );
    await sleep(outageSeconds * 1_000);
    expect(members.map(({ isDone }) => isDone)).toEqual([false, false]);
    await start();
    const sent = await replay.done;
    await Promise.all(
      members.map((member) => member.logged('the end', ({ msg }) => msg === 'Kafka broker outage is over')),
    );
    // Micro-batches were in flight: their deltas were published after the outage.
    await until('the deltas that waited are published', () =>
      members.some(({ log }) => log.some(({ publishMs }) => Number(publishMs) > outageSeconds * 900)),
    );
    for (const member of members) {
      const finished = await member.terminate();
      expect(finished, finished.stderr.slice(-4_000)).toMatchObject({ code: 0 });
      // One warning an outage, not one a request. A broker that starts on a busy machine may fail once more.
      const [starts, ends] = ['outage: waiting', 'outage is over'].map(
        (words) => finished.stderr.split(words).length - 1,
      );
      expect(ends, finished.stderr.slice(-4_000)).toBe(starts);
      expect([1, 2], finished.stderr.slice(-4_000)).toContain(starts);
      expect(finished.stderr).not.toContain('defect');
    }
    const report = lastJson<ReplayReport>(
      sent.code === 0 ? sent : await succeed(place, 'replay', data, '--upsert', '--resume', '--json'),
    );
    await succeed(place, 'process', '--until-caught-up', '--json', ...state(1));
    await succeed(place, 'sink', '--once', '--json');
    expect(await place.differences(data)).toEqual([]);
    for (const dataset of datasetNames) {
      const accounts = place.manifest.accounting[place.names.source(dataset)];
      if (accounts === undefined) continue;
      const applied = report.datasets[dataset]?.produced;
      expect(accounts, dataset).toMatchObject({ applied, rejected: 0 });
    }
  });

  test('each stage ends on SIGTERM during the outage, and the next run continues', async ({ place }) => {
    const data = await smallDataset(join(place.folder, 'data'), 3_000, 8);
    await succeed(place, 'replay', data, '--upsert', '--json', '--shards', '4');
    const stages = {
      processor: place.start(place.args('process', '--json', ...busy), env),
      sink: place.start(place.args('sink', '--json', '--interval', '300ms', '--verbose'), env),
      replay: place.start(
        place.args('replay', data, '--upsert', '--json', '--rate', '2000', '--verbose'),
        env,
      ),
    };
    await until('the processor publishes', () => stages.processor.log.filter(isMicroBatch).length >= 3);
    await until('the sink publishes', () => stages.sink.log.some(({ msg }) => msg === 'snapshot published'));
    await kill();
    const running = Object.entries(stages);
    await Promise.all(
      running.map(([, stage]) =>
        stage.logged('the outage', ({ msg }) => msg === 'Kafka broker outage: waiting until it ends'),
      ),
    );
    // A replay that ends before its dump is sent says so by its exit code.
    const codes: Readonly<Record<string, number>> = { processor: 0, sink: 0, replay: 143 };
    for (const ended of await Promise.all(
      running.map(async ([name, stage]) => ({ name, ...(await stage.terminate()) })),
    )) {
      const { name, code, stderr, secondsToEnd } = ended;
      expect(code, `${name}: ${stderr.slice(-4_000)}`).toBe(codes[name]);
      expect(stderr).not.toContain('ending at once');
      process.stderr.write(`${name} ended after ${secondsToEnd.toFixed(1)} s of outage\n`);
    }
    await start();
    await succeed(place, 'replay', data, '--upsert', '--resume', '--json');
    await succeed(place, 'process', '--until-caught-up', '--json');
    await succeed(place, 'sink', '--once', '--json');
    expect(await place.differences(data)).toEqual([]);
  });

  test('a processor waits for a broker that hangs, and one that starts meanwhile ends', async ({ place }) => {
    const data = await smallDataset(join(place.folder, 'data'), 3_000, 8);
    await succeed(
      place,
      'replay',
      data,
      '--upsert',
      '--json',
      '--shards',
      '4',
      '--datasets',
      'title.ratings',
    );
    const member = place.start(place.args('process', '--json', ...busy), env);
    const replay = place.start(place.args('replay', data, '--upsert', '--json', '--rate', '1000'), env);
    await until('the member publishes', () => member.log.filter(isMicroBatch).length >= 3);
    await kill('SIGSTOP');
    place.onEnd(() => kill('SIGCONT'));
    const second = place.start(place.args('process', '--state', join(place.folder, 'second')), env);
    await second.logged('its start', ({ msg }) => msg === 'started');
    await sleep(5_000);
    const ended = await second.terminate();
    expect([0, 143]).toContain(ended.code);
    expect(ended.secondsToEnd).toBeLessThan(30);
    const third = await place.run(place.args('process', '--state', join(place.folder, 'third')), env);
    expect(third, third.stderr.slice(-4_000)).toMatchObject({ code: 4 });
    expect(third.stderr).toContain('the port does not answer a request of Kafka');
    await sleep(outageSeconds * 1_000);
    expect(member.isDone).toBe(false);
    const before = member.log.filter(isMicroBatch).length;
    await kill('SIGCONT');
    const sent = await replay.done;
    expect(sent, sent.stderr.slice(-4_000)).toMatchObject({ code: 0 });
    await until('the member publishes again', () => member.log.filter(isMicroBatch).length > before);
    const finished = await member.terminate();
    expect(finished, finished.stderr.slice(-4_000)).toMatchObject({ code: 0 });
    await succeed(place, 'process', '--until-caught-up', '--json');
    await succeed(place, 'sink', '--once', '--json');
    expect(await place.differences(data)).toEqual([]);
  });

  /** What a probe of a supervisor gets. */
  const probe = async (port: number, path: string) => {
    const response = await fetch(`http://127.0.0.1:${port}${path}`);
    return { status: response.status, ...((await response.json()) as { detail?: string }) };
  };

  test('a busy sink waits for the broker, is not ready meanwhile, and publishes exactly afterwards', async ({
    place,
  }) => {
    const data = await smallDataset(join(place.folder, 'data'), 3_000, 9);
    await succeed(place, 'replay', data, '--json', '--shards', '4', '--datasets', 'name.basics');
    const [port] = (await freePorts(1)) as [number];
    const processor = place.start(place.args('process', '--json', ...busy), env);
    const sink = place.start(
      place.args('sink', '--json', '--interval', '300ms', '--listen', String(port)),
      env,
    );
    const replay = place.start(place.args('replay', data, '--upsert', '--json', '--rate', '2000'), env);
    const published = () => sink.log.filter(({ msg }) => msg === 'snapshot published').length;
    await until('the sink publishes', () => published() >= 2);
    expect(await probe(port, '/readyz')).toMatchObject({ status: 200 });
    await kill();
    await sink.logged('the outage', ({ msg }) => msg === 'Kafka broker outage: waiting until it ends');
    const during = await probe(port, '/readyz');
    expect(during).toMatchObject({
      status: 503,
      detail: expect.stringMatching(/^broker outage for \d+ s: ./),
    });
    expect(await probe(port, '/healthz')).toMatchObject({ status: 200 });
    await sleep(outageSeconds * 1_000);
    expect(sink.isDone).toBe(false);
    await start();
    const sent = await replay.done;
    expect(sent, sent.stderr.slice(-4_000)).toMatchObject({ code: 0 });
    await sink.logged('the end', ({ msg }) => msg === 'Kafka broker outage is over');
    await until('the sink is ready again', async () => (await probe(port, '/readyz')).status === 200);
    expect(await processor.terminate()).toMatchObject({ code: 0 });
    await succeed(place, 'process', '--until-caught-up', '--json');
    const finished = await sink.terminate();
    expect(finished, finished.stderr.slice(-4_000)).toMatchObject({ code: 0 });
    for (const words of ['outage: waiting', 'outage is over']) {
      expect(finished.stderr.split(words)).toHaveLength(2);
    }
    await succeed(place, 'sink', '--once', '--json');
    expect(await place.differences(data)).toEqual([]);
  });

  // Method: the second dump has other ratings, and rows that are rejected, so chunks, dead letters and the index are sent.
  test.for([
    // Few of its rows are sent.
    ['of a whole dump', [], '20'],
    ['with --upsert', ['--upsert'], '200'],
  ] as const)('a replay %s waits for the broker and ends complete', async ([, modes, rate], { place }) => {
    const data = await smallDataset(join(place.folder, 'data'), 2_000, 10);
    const names = ['--datasets', 'title.basics,title.ratings'];
    await succeed(place, 'replay', data, '--json', '--shards', '4', ...names);
    const isBad = (at: number) => at % 500 === 7;
    const changed = textOf(data, 'title.ratings')
      .trimEnd()
      .split('\n')
      .map((row, at) => (at === 0 ? row : row.replace(/\d+$/, isBad(at) ? 'many' : '4321')));
    const next = place.files('next', {
      'title.basics.tsv': textOf(data, 'title.basics'),
      'title.ratings.tsv': `${changed.join('\n')}\n`,
    });
    const endpoints = { brokers: [`127.0.0.1:${brokerPort}`], registryUrl: inject('registryUrl') };
    const broker = createBroker(endpoints, createLogger('silent'));
    const topic = place.names.source('title.ratings');
    const chunks = async () => {
      const bounds = (await logBounds(broker, [topic])).get(topic) ?? new Map();
      return [...bounds.values()].reduce((sum, { end }) => sum + end, 0);
    };
    const before = await chunks();
    const replay = place.start(place.args('replay', next, '--json', ...modes, '--rate', rate, ...names), env);
    await until('it has sent rows', async () => (await chunks()) > before);
    await kill();
    await replay.logged('the outage', ({ msg }) => msg === 'Kafka broker outage: waiting until it ends');
    await sleep(outageSeconds * 1_000);
    expect(replay.isDone).toBe(false);
    await start();
    const finished = await replay.done;
    expect(finished, finished.stderr.slice(-4_000)).toMatchObject({ code: 0 });
    const report = lastJson<ReplayReport>(finished);
    expect(report.interrupted).toBe(false);
    expect(report.read).toBe(report.unchanged + report.produced + report.rejected);
    expect(report.rejected).toBe(changed.filter((row) => row.endsWith('many')).length);
    await succeed(place, 'process', '--until-caught-up', '--json');
    await succeed(place, 'sink', '--once', '--json');
    // A rejected row keeps the version before it; a dump that is all that the topics hold has none.
    const accepted = new Map(
      textOf(data, 'title.ratings')
        .split('\n')
        .map((row) => [row.split('\t')[0], row]),
    );
    const expected = place.files('expected', {
      'title.basics.tsv': textOf(data, 'title.basics'),
      'title.ratings.tsv': `${changed
        .flatMap((row) => {
          if (!row.endsWith('many')) return [row];
          return modes.length > 0 ? [accepted.get(row.split('\t')[0])] : [];
        })
        .join('\n')}\n`,
    });
    expect(await place.differences(expected)).toEqual([]);
  });
});
