/** The stages' registry client against a real Schema Registry, with an HTTP proxy before it that answers in its place. */
import { randomBytes } from 'node:crypto';
import pino from 'pino';
import { afterEach, beforeEach, describe, expect, inject, test, vi } from 'vitest';
import { OutageMonitor } from '../../kafka/outage.ts';
import { retryAfter } from '../../runtime/registry-http.ts';
import { Registry, type RegistryOptions, UnusableSchema } from '../../topics/registry.ts';
import { failureOf } from '../support/failure.ts';
import { until } from '../support/harness.ts';
import { ingressPage, type ProxyAnswer, RegistryProxy } from '../support/registry-proxy.ts';

let proxy: RegistryProxy;
let topic: string;
let waits: string[];

beforeEach(async () => {
  proxy = await RegistryProxy.before(inject('registryUrl'));
  topic = `test-${randomBytes(5).toString('hex')}.imdb.title.ratings`;
  waits = [];
});
afterEach(() => proxy.close());

/** A client behind the proxy that gives answers of other programs a tenth of a second. */
const client = (options: Partial<RegistryOptions> = {}) =>
  new Registry({
    url: proxy.url,
    foreignPatienceMs: 100,
    outages: { waits: (_, reason) => waits.push(reason), resumes: () => undefined, current: undefined },
    ...options,
  });

/** Answers this way for a number of requests, then as the registry. */
function answerTimes(count: number, answer: ProxyAnswer): void {
  let left = count;
  proxy.answer = () => (left-- > 0 ? answer : undefined);
}

const registered = async (schema: object): Promise<number> =>
  client().register(topic, 'a record', JSON.stringify(schema));
const record = (...fields: object[]) => ({ type: 'record', name: 'Row', fields });

/** Whether a request registers a schema or sets a compatibility. */
const changes = ({ method, path }: { method: string; path: string }) =>
  method === 'PUT' || path.endsWith('/versions');

// Method: new subjects, one after the other, and several clients that register at once.
test('clients that register the same schema at the same moment all get the same id', async () => {
  const clients = Array.from({ length: 6 }, () => new Registry({ url: inject('registryUrl') }));
  for (let round = 0; round < 10; round++) {
    const ids = await Promise.all(
      clients.map((each) => each.register(`${topic}.${round}`, 'imdb.title.ratings')),
    );
    expect(new Set(ids).size).toBe(1);
    const response = await fetch(`${inject('registryUrl')}/config/${topic}.${round}-value`);
    expect(await response.json()).toMatchObject({ compatibilityLevel: 'BACKWARD' });
  }
});

test('a subject that a killed client left without a compatibility gets one', async () => {
  await fetch(`${inject('registryUrl')}/subjects/${topic}-value/versions`, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify({ schema: JSON.stringify(record()) }),
  });
  await registered(record());
  const response = await fetch(`${inject('registryUrl')}/config/${topic}-value`);
  expect(await response.json()).toMatchObject({ compatibilityLevel: 'BACKWARD' });
});

test('a hint to start local services says to unset the variables, if they name the registry', async () => {
  const hintAt = async (isLocal: boolean) =>
    (await failureOf(client({ url: 'http://127.0.0.1:1', patienceMs: 0, isLocal }).latest(topic))).hint;
  expect(await hintAt(false)).toMatch(
    /^Check SCHEMA_REGISTRY_URL, or unset it and KAFKA_BROKERS and start local/,
  );
  expect(await hintAt(true)).toBe('Start local services with `reelflow services up`.');
});

describe('a look-up', () => {
  const passing: [string, ProxyAnswer][] = [
    ['429', { status: 429, body: '{"error_code":42901,"message":"Too many requests"}' }],
    ['503 of a load balancer', { status: 503, headers: { 'content-type': 'text/html' }, body: '<html>' }],
    ['500 with a code of the registry', { status: 500, body: '{"error_code":50003,"message":"forwarding"}' }],
    ['the 404 page of an ingress', ingressPage],
    ['a 404 without a body', { status: 404 }],
    [
      'a 404 with the plain code of an unknown path',
      { status: 404, body: '{"error_code":404,"message":"HTTP 404"}' },
    ],
    ['a page with status 200', { status: 200, headers: { 'content-type': 'text/html' }, body: '<html>' }],
    ['a redirection to a login', { status: 302, headers: { location: 'https://login.example/' } }],
    ['an answer that ends early', { status: 200, body: '{"schema":', isCut: true }],
  ];

  // Method: the second request comes through; each case has a proxy of its own, because they all wait.
  test.concurrent.for(passing)('waits out %s', async ([, answer]) => {
    const id = await new Registry({ url: inject('registryUrl') }).register(
      'rows',
      'a record',
      JSON.stringify(record()),
    );
    const own = await RegistryProxy.before(inject('registryUrl'));
    const reasons: string[] = [];
    own.answer = () => (own.requests.length < 2 ? answer : undefined);
    const outages = {
      waits: (_: string, reason: string) => reasons.push(reason),
      resumes: () => undefined,
      current: undefined,
    };
    const registry = new Registry({ url: own.url, outages });
    expect((await registry.writer(id))?.name).toBe('Row');
    expect(reasons).toHaveLength(1);
    await own.close();
  });
});

describe('an answer that passes', () => {
  test('is waited out at the start, also for longer than the patience with an absent registry', async () => {
    const until = performance.now() + 1_500;
    proxy.answer = () => (performance.now() < until ? { status: 503 } : undefined);
    const id = await client({ patienceMs: 100 }).register(topic, 'imdb.title.ratings');
    expect(id).toBeGreaterThan(0);
    proxy.answer = () => (performance.now() < until + 1_500 ? { status: 429 } : undefined);
    expect(await client({ patienceMs: 100 }).latest(topic)).toBe(id);
  });

  test('of an ingress is waited out at the start', async () => {
    answerTimes(2, ingressPage);
    expect(await client({ foreignPatienceMs: 60_000 }).register(topic, 'imdb.title.ratings')).toBeGreaterThan(
      0,
    );
    answerTimes(2, ingressPage);
    expect(await client({ foreignPatienceMs: 60_000 }).latest(topic)).toBeGreaterThan(0);
  });

  test('of another program ends the start after the patience, and the error quotes it', async () => {
    proxy.answer = () => ingressPage;
    const failure = await failureOf(client().register(topic, 'imdb.title.ratings'));
    expect(failure.kind).toBe('registryUnreachable');
    expect(failure.message).toBe('Another program than a Schema Registry answers');
    expect(failure.detail).toContain('HTTP 404: text/html');
    expect((await failureOf(client().latest(topic))).kind).toBe('registryUnreachable');
  });

  test('that comes once does not end the start, however late it comes', async () => {
    answerTimes(1, { status: 200, body: '{', isCut: true });
    expect(await client({ patienceMs: 0 }).register(topic, 'imdb.title.ratings')).toBeGreaterThan(0);
    expect(waits).toHaveLength(1);
  });

  // Method: the clock jumps while a few bytes come now and then, so the connection is never silent.
  test('that drips without an end is given up, and asked for again', async () => {
    await client().register(topic, 'imdb.title.ratings');
    vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout'] });
    try {
      answerTimes(1, { status: 200, isEndless: true });
      const asked = proxy.requests.length;
      const latest = client().latest(topic);
      await until('it is asked', () => proxy.requests.length > asked);
      await vi.advanceTimersByTimeAsync(30_000);
      vi.useRealTimers();
      expect(await latest).toBeGreaterThan(0);
      expect(waits).toEqual([expect.stringContaining('no whole answer in 30 s')]);
    } finally {
      vi.useRealTimers();
    }
  });

  test('ends with the signal', async () => {
    proxy.answer = () => ({ status: 429, headers: { 'retry-after': '3600' } });
    const stop = new AbortController();
    const waiting = client({ signal: stop.signal }).register(topic, 'imdb.title.ratings');
    setTimeout(() => stop.abort(new Error('SIGTERM')), 300);
    await expect(waiting).rejects.toThrow(/abort|SIGTERM/);
  });

  // Method: the monitor of the stages, which is silent for three seconds.
  test('is one outage, with one warning when it starts and one when it ends', async () => {
    const id = await registered(record());
    const said: string[] = [];
    const stream = { write: (line: string) => said.push((JSON.parse(line) as { msg: string }).msg) };
    const outages = new OutageMonitor(pino({}, stream), 'Schema Registry');
    const registry = client({ outages });
    const until = performance.now() + 3_400;
    proxy.answer = () => (performance.now() < until ? { status: 503 } : undefined);
    const found = Promise.all([
      registry.writer(id),
      registry.register(topic, 'a record', JSON.stringify(record())),
    ]);
    await expect.poll(() => registry.outage?.reason, { timeout: 20_000 }).toContain('HTTP 503');
    await found;
    expect(registry.outage).toBeUndefined();
    expect(said).toEqual(['Schema Registry outage: waiting until it ends', 'Schema Registry outage is over']);
  });
});

describe('Retry-After', () => {
  const nowMs = Date.parse('2026-11-27T01:00:00Z');

  test.for([
    ['3', 3_000],
    ['0', 0],
    ['Fri, 27 Nov 2026 01:00:07 GMT', 7_000],
    ['Fri, 27 Nov 2026 00:59:00 GMT', 0],
    ['-3', undefined],
    ['1.5', undefined],
    ['soon', undefined],
    [undefined, undefined],
  ] as const)('%s is %s ms', ([value, ms]) => {
    expect(retryAfter(value, nowMs)).toBe(ms);
  });

  test.for(['seconds', 'a date'])('as %s is honoured', async (form) => {
    const id = await registered(record());
    const value = form === 'seconds' ? '2' : new Date(Date.now() + 3_000).toUTCString();
    answerTimes(1, { status: 429, headers: { 'retry-after': value } });
    proxy.requests.length = 0;
    await client().writer(id);
    const [first, second] = proxy.requests;
    expect((second?.atMs ?? 0) - (first?.atMs ?? 0)).toBeGreaterThan(form === 'seconds' ? 1_900 : 1_200);
  });
});

describe('an answer of the registry', () => {
  test('without the schema is none, and is asked for again', async () => {
    const registry = client();
    expect(await registry.writer(2_000_000_000)).toBeUndefined();
    expect(await registry.latest(topic)).toBeUndefined();
    expect(waits).toEqual([]);
    const asked = proxy.requests.length;
    expect(await registry.writer(2_000_000_000)).toBeUndefined();
    expect(proxy.requests.length).toBe(asked + 1);
  });

  test('that it holds a schema already is enough to have its id', async () => {
    const id = await registered(record());
    proxy.requests.length = 0;
    expect(await registered(record())).toBe(id);
    expect(proxy.requests.map(({ method }) => method).sort()).toEqual(['GET', 'POST']);
    expect(proxy.requests.filter(changes)).toEqual([]);
  });

  test('with a schema is asked for once, also by several at the same time', async () => {
    const id = await registered(record());
    proxy.requests.length = 0;
    const registry = client();
    const types = await Promise.all([registry.writer(id), registry.writer(id)]);
    expect(await registry.writer(id)).toBe(types[0]);
    expect(types[1]).toBe(types[0]);
    expect(proxy.requests).toHaveLength(1);
  });

  test('that refuses an incompatible schema is quoted', async () => {
    await registered(record());
    const failure = await failureOf(registered(record({ name: 'votes', type: 'int' })));
    expect(failure.kind).toBe('topicMismatch');
    expect(failure.detail).toMatch(/HTTP 409: .*Incompatible/);
    expect(failure.hint).toContain('--namespace');
  });

  test('that refuses for another reason is quoted, and no reason is claimed', async () => {
    const body = '{"error_code":42205,"message":"Subject is in read-only mode"}';
    proxy.answer = ({ method }) => (method === 'POST' ? { status: 422, body } : undefined);
    const failure = await failureOf(client().register(topic, 'imdb.title.ratings'));
    expect(failure.kind).toBe('topicMismatch');
    expect(failure.detail).toContain('HTTP 422: error 42205, Subject is in read-only mode');
    expect(failure.hint).not.toMatch(/compatible|schemas/);
  });

  test('of status 404 with another code is a refusal, and nothing is registered', async () => {
    const body = '{"error_code":40499,"message":"No such tenant"}';
    proxy.answer = ({ method }) => (method === 'GET' ? { status: 404, body } : undefined);
    const failure = await failureOf(client().register(topic, 'imdb.title.ratings'));
    expect(failure.detail).toContain('HTTP 404: error 40499, No such tenant');
    expect(proxy.requests.filter(changes)).toEqual([]);
    expect((await failureOf(client().latest(topic))).kind).toBe('registryUnreachable');
  });

  test.for(['GET', 'POST'])('to %s without what was asked for is a refusal', async (silent) => {
    proxy.answer = ({ method }) => (method === silent ? { status: 200, body: '{}' } : undefined);
    const failure = await failureOf(client().register(topic, 'imdb.title.ratings'));
    expect(failure.kind).toBe('topicMismatch');
    expect(failure.detail).toContain('HTTP 200');
  });

  test('that refuses a look-up is quoted', async () => {
    proxy.answer = () => ({ status: 422, body: '{"error_code":42202,"message":"Invalid version"}' });
    const failure = await failureOf(client().writer(5));
    expect(failure).toMatchObject({
      kind: 'registryUnreachable',
      message: 'The Schema Registry refuses to answer',
    });
    expect(failure.detail).toContain('HTTP 422: error 42202, Invalid version');
  });

  test('that denies access is quoted', async () => {
    proxy.answer = () => ({ status: 403, body: '{"error_code":40301,"message":"User denied on Subject"}' });
    const failure = await failureOf(client().writer(5));
    expect(failure.kind).toBe('accessRefused');
    expect(failure.detail).toContain('HTTP 403: error 40301, User denied on Subject');
  });

  test('with another compatibility is named, and nothing is registered', async () => {
    await registered(record());
    await fetch(`${inject('registryUrl')}/config/${topic}-value`, {
      method: 'PUT',
      headers: { 'content-type': 'application/json' },
      body: '{"compatibility":"FULL"}',
    });
    proxy.requests.length = 0;
    const failure = await failureOf(registered(record()));
    expect(failure).toMatchObject({
      kind: 'topicMismatch',
      detail: expect.stringContaining('FULL, not BACKWARD'),
    });
    expect(proxy.requests.filter(changes)).toEqual([]);
  });

  test.for([
    ['of another type', { schema: 'syntax = "proto3";', schemaType: 'PROTOBUF' }],
    ['that is not Avro', { schema: '{"type":"nonsense"}' }],
    ['that is not JSON', { schema: 'x' }],
  ] as const)('with a schema %s is not a schema that can be read', async ([, body]) => {
    proxy.answer = () => ({ status: 200, body: JSON.stringify(body) });
    await expect(client().writer(5)).rejects.toThrow(UnusableSchema);
  });

  test('with a schema that refers to an unknown one is not a schema that can be read', async () => {
    const references = [{ name: 'Inner', subject: `${topic}-value`, version: 1 }];
    proxy.answer = ({ path }) =>
      path.includes('/subjects/')
        ? undefined
        : { status: 200, body: JSON.stringify({ schema: JSON.stringify(record()), references }) };
    const reading = client().writer(5);
    await expect(reading).rejects.toThrow(UnusableSchema);
    await expect(reading).rejects.toThrow(/^refers to \/subjects\/.*HTTP 404: error 404/);
  });

  test('with a schema that refers to another one is read with it', async () => {
    proxy.answer = ({ path }) => ({
      status: 200,
      body: path.includes('/subjects/')
        ? JSON.stringify({ id: 1, schema: JSON.stringify({ ...record(), name: 'Inner' }) })
        : JSON.stringify({
            schema: JSON.stringify(record({ name: 'inner', type: 'Inner' })),
            references: [{ name: 'Inner', subject: 'inner-value', version: 1 }],
          }),
    });
    expect((await client().writer(5))?.name).toBe('Row');
  });
});
