/**
 * Client certificates and bearer tokens to the Schema Registry. Method: an https proxy before the real registry that
 * requires both; the command line reaches it with the files that the environment names.
 */
import { spawn } from 'node:child_process';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, inject } from 'vitest';
import { freePorts } from '../../kafka/local/probe.ts';
import { endpointsFromEnvironment } from '../../runtime/config.ts';
import { registryAccess } from '../../runtime/registry-security.ts';
import { Registry } from '../../topics/registry.ts';
import { Authority, type Pair, withoutOpenssl } from '../support/certificates.ts';
import { lastJson, spoken, test } from '../support/harness.ts';
import { RegistryProxy } from '../support/registry-proxy.ts';
import { temporaryFolder } from '../support/temporary-folder.ts';

const why = withoutOpenssl();

describe.skipIf(why !== undefined)(`a registry that wants certificate and token${why ?? ''}`, () => {
  const folder = temporaryFolder();
  const tokenFile = join(folder, 'token');
  const token = 'token-that-no-text-shows';
  let proxy: RegistryProxy;
  let server: Pair;
  let client: Pair;
  let stranger: Pair;
  let env: NodeJS.ProcessEnv;

  beforeAll(async () => {
    const authority = new Authority(folder, 'ours');
    server = authority.issue('registry', { address: '127.0.0.1' });
    client = authority.issue('client');
    stranger = new Authority(folder, 'others').issue('stranger');
    proxy = await RegistryProxy.before(inject('registryUrl'), {
      cert: readFileSync(server.certificate),
      key: readFileSync(server.key),
      ca: readFileSync(authority.certificate),
      requestCert: true,
      rejectUnauthorized: true,
    });
    proxy.answer = ({ headers }) =>
      headers.authorization === `Bearer ${token}`
        ? undefined
        : { status: 401, body: '{"error_code":40101,"message":"Unauthorized"}' };
    writeFileSync(tokenFile, `${token}\n`);
    env = {
      KAFKA_BROKERS: inject('brokers').join(','),
      SCHEMA_REGISTRY_URL: proxy.url,
      SCHEMA_REGISTRY_BEARER_TOKEN_FILE: tokenFile,
      SCHEMA_REGISTRY_SSL_CA_FILE: authority.certificate,
      SCHEMA_REGISTRY_SSL_CERTIFICATE_FILE: client.certificate,
      SCHEMA_REGISTRY_SSL_KEY_FILE: client.key,
    };
  });
  afterAll(async () => {
    await proxy?.close();
  });

  const registryWith = (change: NodeJS.ProcessEnv) => {
    const { registryUrl: url = '', registrySecurity } = endpointsFromEnvironment({ ...env, ...change }) ?? {};
    return new Registry({ url, access: registryAccess(registrySecurity), patienceMs: 100 });
  };

  test('accepts both, and the token is read again for each request', async ({ place }) => {
    const registry = registryWith({});
    const topic = place.names.source('title.ratings');
    const id = await registry.register(topic, 'imdb.title.ratings');
    writeFileSync(tokenFile, 'expired');
    await expect(registry.latest(topic)).rejects.toMatchObject({
      kind: 'accessRefused',
      detail: expect.stringMatching(
        /HTTP 401: error 40101, Unauthorized \(with the token of .*certificate of/,
      ),
    });
    writeFileSync(tokenFile, token);
    expect(await registry.latest(topic)).toBe(id);
  });

  test('is reached by the commands, and no secret is in their output', async ({ place }) => {
    const good = await place.run(['services', 'status', '--json'], env);
    expect(lastJson(good)).toMatchObject({ services: [{ healthy: true }, { healthy: true }] });
    const data = place.files('one', {
      'title.ratings.tsv': 'tconst\taverageRating\tnumVotes\ntt0000001\t5.0\t1\n',
    });
    const args = place.args('replay', join(data, 'title.ratings.tsv'), '--verbose', '--upsert');
    const sent = await place.run(args, env);
    expect(sent, sent.stderr.slice(-3_000)).toMatchObject({ code: 0 });
    const expired = join(folder, 'expired');
    writeFileSync(expired, 'expired-token');
    const refused = await place.run(args, { ...env, SCHEMA_REGISTRY_BEARER_TOKEN_FILE: expired });
    expect(refused.code).toBe(20);
    expect(spoken(refused)).toContain('The Schema Registry denies access');
    for (const { stdout, stderr } of [good, sent, refused])
      expect(stdout + stderr).not.toMatch(/token-that|expired-token/);
  });

  // Method: Node's own server cuts the connection without a reason; OpenSSL's sends the alert of the standard.
  test('that does not know the certificate is named so', async () => {
    const [port] = (await freePorts(1)) as [number];
    const { certificate, key } = server;
    const program = spawn('openssl', [
      ...['s_server', '-quiet', '-accept', `127.0.0.1:${port}`, '-cert', certificate, '-key', key],
      ...['-CAfile', env.SCHEMA_REGISTRY_SSL_CA_FILE ?? '', '-Verify', '1', '-verify_return_error'],
    ]);
    try {
      const registry = registryWith({
        SCHEMA_REGISTRY_URL: `https://127.0.0.1:${port}`,
        SCHEMA_REGISTRY_SSL_CERTIFICATE_FILE: stranger.certificate,
        SCHEMA_REGISTRY_SSL_KEY_FILE: stranger.key,
      });
      await expect
        .poll(() => registry.latest('any').catch(({ kind }: { kind: string }) => kind), { timeout: 60_000 })
        .toBe('accessRefused');
    } finally {
      program.kill();
    }
  });

  test('whose certificate is not trusted is named so', async () => {
    const registry = registryWith({ SCHEMA_REGISTRY_SSL_CA_FILE: '' });
    await expect(registry.latest('any')).rejects.toMatchObject({
      kind: 'untrusted',
      hint: expect.stringContaining('SCHEMA_REGISTRY_SSL_CA_FILE'),
    });
  });

  test.for<[string, () => NodeJS.ProcessEnv]>([
    ['a token besides a user', () => ({ SCHEMA_REGISTRY_USERNAME: 'bob', SCHEMA_REGISTRY_PASSWORD: 'x' })],
    ['a token over plain http', () => ({ SCHEMA_REGISTRY_URL: 'http://registry:8081' })],
    ['certificates for plain http', () => ({ SCHEMA_REGISTRY_URL: inject('registryUrl') })],
    ['a certificate without its key', () => ({ SCHEMA_REGISTRY_SSL_KEY_FILE: '' })],
    ["another certificate's key", () => ({ SCHEMA_REGISTRY_SSL_KEY_FILE: stranger.key })],
    ['a token file that is not there', () => ({ SCHEMA_REGISTRY_BEARER_TOKEN_FILE: '/none' })],
  ])('%s is bad usage', ([, change]) => {
    expect(() => endpointsFromEnvironment({ ...env, ...change() })).toThrow(
      expect.objectContaining({ kind: 'usage' }),
    );
  });
});
