/**
 * Client certificates and bearer tokens. Method: a real broker with a port that wants a certificate of its authority, and a
 * port that wants tokens and ends each session after twelve seconds. Files change while clients run. Without Java or
 * OpenSSL these tests are skipped, and the run says why.
 */
import { randomBytes } from 'node:crypto';
import { copyFileSync, readFileSync, renameSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { inspect } from 'node:util';
import { pino } from 'pino';
import { afterAll, beforeAll, describe, expect, inject, vi } from 'vitest';
import { type Broker, clusterIdOf, createBroker } from '../../kafka/client.ts';
import { isPassing } from '../../kafka/failures.ts';
import { startJvmBroker } from '../../kafka/local/jvm.ts';
import { freePorts } from '../../kafka/local/probe.ts';
import { endpointsFromEnvironment } from '../../runtime/config.ts';
import { ReelflowError } from '../../runtime/errors.ts';
import { currentSnapshot } from '../../sinks/gold/manifest.ts';
import { Authority, keyStoreOf, type Pair, withoutOpenssl } from '../support/certificates.ts';
import { type Finished, type Place, smallDataset, test, until } from '../support/harness.ts';
import { jars, skippedText, whyNoJava } from '../support/jvm.ts';
import { temporaryFolder } from '../support/temporary-folder.ts';
import { issued, TokenServer, tokenFor } from '../support/token-server.ts';

vi.setConfig({ testTimeout: 300_000, hookTimeout: 300_000 });

const why = skippedText(whyNoJava ?? withoutOpenssl());

const sessionMs = 12_000;
const keyPassword = `key-${randomBytes(9).toString('hex')}`;
const clientSecret = `client-${randomBytes(9).toString('hex')}`;
const login = Buffer.from(`reelflow:${clientSecret}`).toString('base64');

describe.skipIf(why !== '')(`a broker that wants certificates and tokens${why}`, () => {
  const folder = temporaryFolder();
  /** All that commands, errors and logs said. */
  const said: string[] = [];
  const tokens = new Set<string>();
  const newToken = (seconds: number, sub = 'reelflow') => {
    const token = tokenFor(sub, seconds);
    tokens.add(token);
    return token;
  };
  let own: Authority;
  let client: Pair;
  let locked: Pair;
  let renewed: Pair;
  let expired: Pair;
  let foreign: Pair;
  let server: TokenServer;
  let certificatePort: number;
  let tokenPort: number;
  let stop = async () => {};

  beforeAll(async () => {
    own = new Authority(folder, 'own');
    client = own.issue('client');
    locked = own.issue('locked', { keyPassword });
    renewed = own.issue('renewed');
    expired = own.issue('expired', { years: [2019, 2020] });
    foreign = new Authority(folder, 'foreign').issue('client');
    const keyStore = join(folder, 'broker.pem');
    writeFileSync(keyStore, keyStoreOf(own.issue('broker', { address: '127.0.0.1' })));
    server = await TokenServer.start(({ authorization }) =>
      authorization === `Basic ${login}`
        ? issued(newToken(20), 20)
        : { status: 401, body: '{"error":"invalid_client"}' },
    );
    const [plain, controllerPort, mutual, bearer] = (await freePorts(4)) as [number, number, number, number];
    [certificatePort, tokenPort] = [mutual, bearer];
    const listeners = `PLAINTEXT://127.0.0.1:${plain},MUTUAL://127.0.0.1:${mutual},BEARER://127.0.0.1:${bearer}`;
    const broker = await startJvmBroker({
      folder,
      jars,
      brokerPort: plain,
      controllerPort,
      env: process.env,
      brokerProperties: {
        listeners: `${listeners},CONTROLLER://127.0.0.1:${controllerPort}`,
        'advertised.listeners': listeners,
        'listener.security.protocol.map':
          'PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,MUTUAL:SSL,BEARER:SASL_SSL',
        'ssl.keystore.type': 'PEM',
        'ssl.keystore.location': keyStore,
        'ssl.truststore.type': 'PEM',
        'ssl.truststore.location': own.certificate,
        'listener.name.mutual.ssl.client.auth': 'required',
        'sasl.enabled.mechanisms': 'OAUTHBEARER',
        'listener.name.bearer.oauthbearer.sasl.jaas.config':
          'org.apache.kafka.common.security.oauthbearer.OAuthBearerLoginModule required;',
        'listener.name.bearer.oauthbearer.connections.max.reauth.ms': String(sessionMs),
      },
    });
    stop = () => broker.stop();
  });

  afterAll(async () => {
    await stop();
    server?.stop();
  });

  const registry = () => ({ SCHEMA_REGISTRY_URL: inject('registryUrl') });
  const withPair = ({ certificate, key }: Pair): NodeJS.ProcessEnv => ({
    ...registry(),
    KAFKA_BROKERS: `127.0.0.1:${certificatePort}`,
    KAFKA_SECURITY_PROTOCOL: 'SSL',
    KAFKA_SSL_CA_FILE: own.certificate,
    KAFKA_SSL_CERTIFICATE_FILE: certificate,
    KAFKA_SSL_KEY_FILE: key,
  });
  const withTokens = (source: NodeJS.ProcessEnv): NodeJS.ProcessEnv => ({
    ...registry(),
    KAFKA_BROKERS: `127.0.0.1:${tokenPort}`,
    KAFKA_SECURITY_PROTOCOL: 'SASL_SSL',
    KAFKA_SSL_CA_FILE: own.certificate,
    KAFKA_SASL_MECHANISM: 'OAUTHBEARER',
    ...source,
  });
  const withEndpoint = (secret = clientSecret): NodeJS.ProcessEnv =>
    withTokens({
      KAFKA_SASL_OAUTHBEARER_TOKEN_ENDPOINT_URL: server.url,
      KAFKA_SASL_OAUTHBEARER_CLIENT_ID: 'reelflow',
      KAFKA_SASL_OAUTHBEARER_CLIENT_SECRET: secret,
    });
  const clientOf = (env: NodeJS.ProcessEnv): Broker =>
    createBroker(
      endpointsFromEnvironment(env) as NonNullable<ReturnType<typeof endpointsFromEnvironment>>,
      pino({ level: 'trace' }, { write: (line: string) => void said.push(line) }),
    );
  /** What a command would report. */
  const refusalOf = async (env: NodeJS.ProcessEnv): Promise<ReelflowError> => {
    try {
      await clusterIdOf(clientOf(env));
    } catch (thrown) {
      said.push(inspect(thrown, { depth: 9, showHidden: true }));
      expect(thrown).toBeInstanceOf(ReelflowError);
      return thrown as ReelflowError;
    }
    return expect.unreachable('the broker answered');
  };
  /** A token file that is replaced again and again by one with a token of so many seconds. */
  const renewedFile = (place: Place, seconds: number, everyMs: number): NodeJS.ProcessEnv => {
    const file = join(place.folder, 'token');
    const put = () => {
      writeFileSync(`${file}.new`, newToken(seconds));
      renameSync(`${file}.new`, file);
    };
    put();
    const timer = setInterval(put, everyMs);
    place.onEnd(() => clearInterval(timer));
    return withTokens({ KAFKA_SASL_OAUTHBEARER_TOKEN_FILE: file });
  };

  // The two that take long start first, so that the others run meanwhile.
  test.concurrent('processor and sink outlive their sessions and the tokens that they started with', async ({
    place,
  }) => {
    const succeeds = async (finished: Promise<Finished>) => {
      const { code, stdout, stderr } = await finished;
      said.push(stdout, stderr);
      expect(code, stderr.slice(-3_000)).toBe(0);
    };
    const replay = async (name: string, titles: number) => {
      const data = await smallDataset(join(place.folder, name), titles, titles);
      await succeeds(place.run(place.args('replay', data, '--upsert', '--verbose'), withEndpoint()));
    };
    await replay('data', 50);
    const processor = place.start(
      place.args('process', '--window', '200ms', '--verbose'),
      renewedFile(place, 12, 500),
    );
    const sink = place.start(place.args('sink', '--interval', '500ms', '--verbose'), withEndpoint());
    await until('the first snapshot', () => currentSnapshot(place.gold) !== undefined);
    const [before, requests] = [currentSnapshot(place.gold), server.requests.length];
    await sleep(sessionMs + 2_000);
    expect(server.requests.length).toBeGreaterThan(requests);
    await replay('more', 80);
    await until('another snapshot', () => currentSnapshot(place.gold) !== before);
    for (const member of [processor, sink]) await succeeds(member.terminate());
  });

  test.concurrent('requests succeed through the ends of sessions of a few seconds', async ({ place }) => {
    const { kafka } = clientOf(renewedFile(place, 8, 250));
    const admin = kafka.admin();
    const producer = kafka.producer();
    await Promise.all([admin.connect(), producer.connect()]);
    const topic = `${place.namespace}.sessions`;
    await admin.createTopics({ topics: [{ topic }] });
    const endMs = performance.now() + 10_000;
    let sent = 0;
    const repeat = async (request: () => Promise<unknown>) => {
      while (performance.now() < endMs) {
        await request();
        await sleep(100);
      }
    };
    await Promise.all([
      repeat(() => admin.describeCluster()),
      repeat(async () => {
        await producer.send({ topic, messages: [{ value: 'x' }] });
        sent++;
      }),
    ]);
    expect((await admin.fetchTopicOffsets(topic))[0]?.offset).toBe(String(sent));
    await Promise.all([admin.disconnect(), producer.disconnect()]);
  });

  test.concurrent('a certificate with an encrypted key is accepted', async ({ place }) => {
    const passwordFile = join(place.folder, 'password');
    writeFileSync(passwordFile, `${keyPassword}\n`);
    const env = { ...withPair(locked), KAFKA_SSL_KEY_PASSWORD_FILE: passwordFile };
    expect(await clusterIdOf(clientOf(env))).toMatch(/^[\w-]{22}$/);
  });

  test.concurrent('a wrong password of the key, and the key of another certificate, are usage errors', async () => {
    expect(await refusalOf({ ...withPair(locked), KAFKA_SSL_KEY_PASSWORD: 'wrong' })).toMatchObject({
      kind: 'usage',
      message: 'The file of KAFKA_SSL_KEY_FILE cannot be used',
    });
    expect(await refusalOf({ ...withPair(client), KAFKA_SSL_KEY_FILE: foreign.key })).toMatchObject({
      kind: 'usage',
      message: 'The key is not that of the client certificate',
    });
  });

  test.concurrent('a missing certificate is reported with the variables to set', async () => {
    const none = { KAFKA_SSL_CERTIFICATE_FILE: '', KAFKA_SSL_KEY_FILE: '' };
    expect(await refusalOf({ ...withPair(client), ...none })).toMatchObject({
      kind: 'accessRefused',
      message: 'The broker requires a client certificate',
      hint: 'Set KAFKA_SSL_CERTIFICATE_FILE and KAFKA_SSL_KEY_FILE.',
    });
  });

  test.concurrent('an expired certificate is reported with its date', async () => {
    expect(await refusalOf(withPair(expired))).toMatchObject({
      kind: 'accessRefused',
      message: 'The client certificate has expired',
      detail: expect.stringContaining('expired at 2020-12-31T00:00:00.000Z'),
    });
  });

  test.concurrent('a certificate of a foreign authority is refused', async () => {
    expect(await refusalOf(withPair(foreign))).toMatchObject({
      kind: 'accessRefused',
      message: 'The broker refuses the client certificate',
    });
  });

  test.concurrent('new connections use the files as they are then', async ({ place }) => {
    const at = { certificate: join(place.folder, 'tls.pem'), key: join(place.folder, 'tls.key') };
    const put = (pair: Pair) => {
      copyFileSync(pair.certificate, at.certificate);
      copyFileSync(pair.key, at.key);
    };
    put(client);
    const broker = clientOf(withPair(at));
    const id = await clusterIdOf(broker);
    put(foreign);
    await expect(clusterIdOf(broker)).rejects.toMatchObject({ kind: 'accessRefused' });
    // Half of a renewal: waiting helps.
    copyFileSync(client.certificate, at.certificate);
    const half = await clusterIdOf(broker).catch((thrown: unknown) => thrown);
    expect(half).toMatchObject({ message: 'The key is not that of the client certificate' });
    expect(isPassing(half)).toBe(true);
    put(renewed);
    expect(await clusterIdOf(broker)).toBe(id);
  });

  test.concurrent('a wrong client secret is refused by the token endpoint', async () => {
    expect(await refusalOf(withEndpoint('wrong'))).toMatchObject({
      kind: 'accessRefused',
      message: 'The token endpoint refuses the client',
      detail: expect.stringContaining('invalid_client (as reelflow)'),
    });
  });

  test.concurrent('a token endpoint that does not answer is waited out, as a broker', async () => {
    const [port] = await freePorts(1);
    const url = `http://127.0.0.1:${port}/token`;
    const env = { ...withEndpoint(), KAFKA_SASL_OAUTHBEARER_TOKEN_ENDPOINT_URL: url };
    const failure = await refusalOf(env);
    expect(failure).toMatchObject({ message: 'The token endpoint does not answer' });
    expect(isPassing(failure)).toBe(true);
  });

  test.concurrent('an expired token is reported with its date', async ({ place }) => {
    const file = join(place.folder, 'token');
    const token = newToken(-3_600);
    writeFileSync(file, token);
    const { exp } = JSON.parse(Buffer.from(token.split('.')[1] as string, 'base64url').toString());
    expect(await refusalOf(withTokens({ KAFKA_SASL_OAUTHBEARER_TOKEN_FILE: file }))).toMatchObject({
      kind: 'accessRefused',
      message: 'The access token has expired',
      detail: expect.stringContaining(`expired at ${new Date(exp * 1_000).toISOString()}`),
    });
  });

  test.concurrent('a token that the broker does not accept is refused, with its issuer', async ({
    place,
  }) => {
    const file = join(place.folder, 'token');
    writeFileSync(file, newToken(600, ''));
    expect(await refusalOf(withTokens({ KAFKA_SASL_OAUTHBEARER_TOKEN_FILE: file }))).toMatchObject({
      kind: 'accessRefused',
      message: 'The broker refuses the access token',
      detail: expect.stringContaining('issuer a-test'),
    });
  });

  test.concurrent('a mechanism that the port does not support is named', async () => {
    const user = { KAFKA_SASL_USERNAME: 'reelflow', KAFKA_SASL_PASSWORD: clientSecret };
    expect(await refusalOf({ ...withTokens({}), KAFKA_SASL_MECHANISM: 'PLAIN', ...user })).toMatchObject({
      kind: 'accessRefused',
      message: 'The broker does not support PLAIN',
    });
  });

  test('no password, secret, token or key is in any output', () => {
    const all = said.join('\n');
    expect(all).toContain('"level":"debug"');
    const keys = [client, foreign].map(({ key }) => readFileSync(key, 'utf8').split('\n')[1] as string);
    for (const secret of [keyPassword, clientSecret, login, ...tokens, ...keys]) {
      for (const form of [secret, Buffer.from(secret).toString('base64').slice(0, -3)]) {
        expect(all.includes(form), `a secret as ${form.slice(0, 5)}…`).toBe(false);
      }
    }
  });
});
