/** Bearer tokens: when a file is read, when an endpoint is asked, and what becomes an error. Method: a small server. */
import { readFileSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:https';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import { inspect } from 'node:util';
import { afterEach, describe, expect, vi } from 'vitest';
import { asBrokerError } from '../../kafka/failures.ts';
import { BearerTokens } from '../../kafka/oauth.ts';
import { endpointsFromEnvironment } from '../../runtime/config.ts';
import { Secret } from '../../runtime/credentials.ts';
import { ReelflowError } from '../../runtime/errors.ts';
import { Authority, withoutOpenssl } from '../support/certificates.ts';
import { test } from '../support/harness.ts';
import { issued, TokenServer, tokenFor } from '../support/token-server.ts';

const secret = 'f/s=cret:+4711';
let server: TokenServer;
afterEach(() => {
  vi.useRealTimers();
  server?.stop();
});

const endpointTokens = async (answer: TokenServer['answer'], scope?: string) => {
  server = await TokenServer.start(answer);
  const client = {
    url: `${server.url}?key=${secret}`,
    clientId: 'reel flow',
    clientSecret: new Secret(secret),
  };
  return new BearerTokens({ kind: 'endpoint', ...client, ...(scope !== undefined && { scope }) });
};

/** What a command would report. */
async function failureOf(tokens: BearerTokens): Promise<ReelflowError> {
  const thrown = await tokens.current().then(
    (value) => expect.unreachable(value),
    (error: unknown) => error,
  );
  expect(inspect(thrown, { depth: 9, showHidden: true })).not.toContain(secret);
  const known = asBrokerError(thrown, { brokers: ['kafka:9093'] });
  expect(known).toBeInstanceOf(ReelflowError);
  return known as ReelflowError;
}

describe('a token endpoint', () => {
  test('receives the client by basic authentication and the scope as a form', async () => {
    const tokens = await endpointTokens(() => issued('a-token', 300), 'kafka read');
    expect(await tokens.current()).toBe('a-token');
    expect(server.requests).toEqual([
      {
        authorization: `Basic ${Buffer.from('reel+flow:f%2Fs%3Dcret%3A%2B4711').toString('base64')}`,
        body: 'grant_type=client_credentials&scope=kafka+read',
      },
    ]);
  });

  test('is asked once for all connections, and again after four fifths of the life of a token', async () => {
    vi.useFakeTimers({ toFake: ['performance'] });
    const tokens = await endpointTokens(() => issued(`token-${server.requests.length}`, 300));
    expect(await Promise.all([1, 2, 3].map(() => tokens.current()))).toEqual(Array(3).fill('token-1'));
    vi.advanceTimersByTime(239_000);
    expect(await tokens.current()).toBe('token-1');
    vi.advanceTimersByTime(2_000);
    expect(await tokens.current()).toBe('token-2');
  });

  test('may be away while the token is still valid', async () => {
    vi.useFakeTimers({ toFake: ['performance'] });
    const tokens = await endpointTokens(() => issued('first', 300));
    await tokens.current();
    server.answer = () => ({ status: 503, body: '' });
    vi.advanceTimersByTime(290_000);
    expect(await tokens.current()).toBe('first');
    vi.advanceTimersByTime(11_000);
    expect(await failureOf(tokens)).toMatchObject({ kind: 'brokerUnreachable' });
  });

  test('gives a token that says its own end, or is asked each time', async () => {
    vi.useFakeTimers({ toFake: ['performance'] });
    const tokens = await endpointTokens(() => issued(tokenFor('me', 300)));
    await tokens.current();
    await tokens.current();
    expect(server.requests).toHaveLength(1);
    server.answer = () => issued('opaque');
    vi.advanceTimersByTime(301_000);
    await tokens.current();
    await tokens.current();
    expect(server.requests).toHaveLength(3);
  });

  test('that refuses the client is an error with its reason, without the secret', async () => {
    const refusal = { error: 'invalid_client', error_description: `not ${secret}\n` };
    const tokens = await endpointTokens(() => ({ status: 401, body: JSON.stringify(refusal) }));
    const { kind, message, detail } = await failureOf(tokens);
    expect(kind).toBe('accessRefused');
    expect(message).toBe('The token endpoint refuses the client');
    expect(detail).toBe(`${server.url}: status 401, invalid_client: not [secret]  (as reel flow)`);
  });

  test.for([
    ['a page instead of a token', { status: 200, body: '<html>' }, 'status 200'],
    ['a token that could end the protocol message', issued('a\x01auth=b', 300), 'status 200'],
    ['a redirect', { status: 302, body: '', headers: { location: 'http://127.0.0.1:1/' } }, 'status 302'],
    ['an answer that is too long', { status: 200, body: Buffer.alloc(70_000, 'x') }, 'more than 65536 bytes'],
  ] as const)('%s is waited out, as a broker that is away', async ([, answer, reason]) => {
    const { kind, detail } = await failureOf(await endpointTokens(() => answer));
    expect(kind).toBe('brokerUnreachable');
    expect(detail).toContain(reason);
    expect(server.requests).toHaveLength(1);
  });

  test('that does not answer is given up after eight seconds', async () => {
    const timeout = vi.spyOn(AbortSignal, 'timeout').mockImplementation((ms) => {
      expect(ms).toBe(8_000);
      return AbortSignal.any([AbortSignal.abort(new DOMException('too slow', 'TimeoutError'))]);
    });
    const { kind, message } = await failureOf(await endpointTokens(() => undefined));
    timeout.mockRestore();
    expect(kind).toBe('brokerUnreachable');
    expect(message).toBe('The token endpoint does not answer');
  });
});

describe.skipIf(withoutOpenssl() !== undefined)('a token endpoint with a certificate', () => {
  test('of an unknown authority receives no secret', async ({ place }) => {
    const { certificate, key } = new Authority(place.folder, 'own').issue('sso', { address: '127.0.0.1' });
    const requests: unknown[] = [];
    const https = createServer({ cert: readFileSync(certificate), key: readFileSync(key) }, (request) => {
      requests.push(request.headers);
    });
    await new Promise<void>((resolve) => https.listen(0, '127.0.0.1', resolve));
    place.onEnd(() => https.close());
    const url = `https://127.0.0.1:${(https.address() as AddressInfo).port}/token`;
    const tokens = new BearerTokens({
      kind: 'endpoint',
      url,
      clientId: 'me',
      clientSecret: new Secret(secret),
    });
    const { kind, hint } = await failureOf(tokens);
    expect(kind).toBe('untrusted');
    expect(hint).toContain('NODE_EXTRA_CA_CERTS');
    expect(requests).toEqual([]);
  });
});

describe('a token file', () => {
  test('is read for each authentication, without the line break at its end', async ({ place }) => {
    const path = join(place.folder, 'token');
    const tokens = new BearerTokens({ kind: 'file', path });
    for (const token of ['first', 'second']) {
      writeFileSync(path, `${token}\n`);
      expect(await tokens.current()).toBe(token);
    }
  });

  test('that is about to expire is not presented: its successor is waited for', async ({ place }) => {
    const path = join(place.folder, 'token');
    const [last, next] = [tokenFor('me', 5), tokenFor('me', 600)];
    writeFileSync(path, last);
    const timer = setTimeout(() => writeFileSync(path, next), 300);
    place.onEnd(() => clearTimeout(timer));
    expect(await new BearerTokens({ kind: 'file', path }).current()).toBe(next);
  });

  test('that is missing, empty or no token is waited for, and not shown', async ({ place }) => {
    const path = join(place.folder, 'token');
    const tokens = new BearerTokens({ kind: 'file', path });
    expect(await failureOf(tokens)).toMatchObject({ kind: 'brokerUnreachable', detail: /ENOENT/ });
    for (const [content, reason] of [
      ['', 'is empty'],
      [`{"access_token":"${secret}"}`, 'holds no bearer token'],
      ['x'.repeat(70_000), 'more than 65536 bytes'],
    ] as const) {
      writeFileSync(path, content);
      const { kind, detail } = await failureOf(tokens);
      expect([kind, detail.includes(reason), detail.includes('access_token')]).toEqual([
        'brokerUnreachable',
        true,
        false,
      ]);
    }
  });
});

describe('the environment', () => {
  const named = {
    KAFKA_BROKERS: 'kafka:9093',
    SCHEMA_REGISTRY_URL: 'https://registry',
    KAFKA_SECURITY_PROTOCOL: 'SASL_SSL',
    KAFKA_SASL_MECHANISM: 'OAUTHBEARER',
  };
  const prefix = 'KAFKA_SASL_OAUTHBEARER';
  const client = {
    [`${prefix}_TOKEN_ENDPOINT_URL`]: 'https://sso/token',
    [`${prefix}_CLIENT_ID`]: 'reelflow',
    [`${prefix}_CLIENT_SECRET`]: secret,
  };

  test('names an endpoint with its client, and shows no secret', () => {
    const endpoints = endpointsFromEnvironment({ ...named, ...client, [`${prefix}_SCOPE`]: 'kafka' });
    expect(endpoints?.security).toMatchObject({
      tls: {},
      sasl: {
        mechanism: 'OAUTHBEARER',
        tokens: { url: 'https://sso/token', clientId: 'reelflow', scope: 'kafka' },
      },
    });
    expect(
      [JSON.stringify(endpoints), inspect(endpoints, { depth: 9, showHidden: true })].join(),
    ).not.toContain(secret);
  });

  test.for(['http://127.0.0.1:1/token', 'http://localhost/token', 'http://[::1]:1/token'])(
    '%s stays on this machine',
    (url) => {
      expect(() =>
        endpointsFromEnvironment({ ...named, ...client, [`${prefix}_TOKEN_ENDPOINT_URL`]: url }),
      ).not.toThrow();
    },
  );

  test.for([
    ['plain http to another machine', { ...client, [`${prefix}_TOKEN_ENDPOINT_URL`]: 'http://sso/token' }],
    [
      'plain http to a name that only starts as loopback',
      { ...client, [`${prefix}_TOKEN_ENDPOINT_URL`]: 'http://127.0.0.1.evil.org/' },
    ],
    [
      'a password in the URL',
      { ...client, [`${prefix}_TOKEN_ENDPOINT_URL`]: `https://a:${encodeURIComponent(secret)}@sso/` },
    ],
    ['an endpoint without its client', { [`${prefix}_TOKEN_ENDPOINT_URL`]: 'https://sso/token' }],
    ['a client without its secret', { ...client, [`${prefix}_CLIENT_SECRET`]: '' }],
    ['a secret given twice', { ...client, [`${prefix}_CLIENT_SECRET_FILE`]: '/x' }],
    [
      'a secret file that is missing',
      { ...client, [`${prefix}_CLIENT_SECRET`]: '', [`${prefix}_CLIENT_SECRET_FILE`]: '/none' },
    ],
    ['an endpoint and a file', { ...client, [`${prefix}_TOKEN_FILE`]: '/dev/null' }],
    ['a token file that is missing', { [`${prefix}_TOKEN_FILE`]: '/none' }],
    ['neither endpoint nor file', {}],
    ['a user beside a token', { ...client, KAFKA_SASL_USERNAME: 'alice' }],
    ['a token for another mechanism', { ...client, KAFKA_SASL_MECHANISM: 'PLAIN' }],
    ['a token without SASL', { ...client, KAFKA_SECURITY_PROTOCOL: 'SSL' }],
    [
      'a certificate without TLS',
      { KAFKA_SECURITY_PROTOCOL: '', KAFKA_SASL_MECHANISM: '', KAFKA_SSL_CERTIFICATE_FILE: '/x' },
    ],
  ] as [string, NodeJS.ProcessEnv][])('%s is a usage error, and shows no secret', ([, change]) => {
    const read = () => endpointsFromEnvironment({ ...named, ...change });
    expect(read).toThrow(ReelflowError);
    try {
      read();
    } catch (thrown) {
      const { kind, message, detail, hint } = thrown as ReelflowError;
      expect(kind).toBe('usage');
      expect(`${message} ${detail} ${hint}`).not.toContain(secret);
    }
  });
});
