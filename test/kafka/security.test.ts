/**
 * TLS, SASL and basic authentication. Method: a real broker with a listener that wants both, a certificate that only its
 * own file vouches for, and users made by Kafka's own tool; before the registry a door that asks for a password. The
 * command line is the client. Where there is no Java the tests with a broker are skipped, and the run says so.
 */
import { execFileSync } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { readFileSync, writeFileSync } from 'node:fs';
import { createServer, request, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { networkInterfaces } from 'node:os';
import { dirname, join } from 'node:path';
import { inspect } from 'node:util';
import { afterAll, beforeAll, describe, expect, inject, vi } from 'vitest';
import { startJvmBroker } from '../../kafka/local/jvm.ts';
import { freePorts } from '../../kafka/local/probe.ts';
import { seedOf } from '../../kafka/seeds.ts';
import { endpointsFromEnvironment } from '../../runtime/config.ts';
import type { Credentials } from '../../runtime/credentials.ts';
import { ReelflowError } from '../../runtime/errors.ts';
import { readManifest } from '../../sinks/gold/manifest.ts';
import { type Finished, lastJson, type Place, smallDataset, spoken, test } from '../support/harness.ts';
import { jars, jvm, skippedText } from '../support/jvm.ts';
import { temporaryFolder } from '../support/temporary-folder.ts';

vi.setConfig({ testTimeout: 300_000, hookTimeout: 300_000 });

/** Beside the java that is used. */
const keytoolCommand =
  'found' in jvm && jvm.found !== 'java' ? join(dirname(jvm.found), 'keytool') : 'keytool';
const why = skippedText();

const password = `pass-${randomBytes(9).toString('hex')}`;
const registryPassword = `door-${randomBytes(9).toString('hex')}`;
const wrong = `wrong-${randomBytes(9).toString('hex')}`;
const basic = (user: string, secret: string) =>
  `Basic ${Buffer.from(`${user}:${secret}`).toString('base64')}`;

/** The broker listens there too, where this machine has IPv6. */
const hasIPv6 = Object.values(networkInterfaces())
  .flat()
  .some((address) => address?.address === '::1');

describe.skipIf(why !== '')(`a broker that wants TLS and a login, a registry that wants one${why}`, () => {
  const folder = temporaryFolder();
  const finished: Finished[] = [];
  let plainPort: number;
  let securePort: number;
  let ipv6Port: number;
  let elsewherePort: number;
  let door: Server;
  let stop = async () => {};
  let env: NodeJS.ProcessEnv;

  beforeAll(async () => {
    const ports = (await freePorts(5)) as [number, number, number, number, number];
    const [plain, controllerPort, secure, ipv6, elsewhere] = ports;
    [plainPort, securePort, ipv6Port, elsewherePort] = [plain, secure, ipv6, elsewhere];
    const onIPv6 = hasIPv6 ? `,IPV6://[::1]:${ipv6Port}` : '';
    const { keyStore, certificate } = certificateFor('127.0.0.1', folder);
    const scram = 'org.apache.kafka.common.security.scram.ScramLoginModule required;';
    const broker = await startJvmBroker({
      folder,
      jars,
      brokerPort: plainPort,
      controllerPort,
      env: process.env,
      formatArguments: ['256', '512'].flatMap((bits) => [
        '--add-scram',
        `SCRAM-SHA-${bits}=[name=alice,password=${password}]`,
      ]),
      brokerProperties: {
        listeners: `PLAINTEXT://127.0.0.1:${plainPort},SECURE://127.0.0.1:${securePort},ELSEWHERE://127.0.0.1:${elsewherePort},CONTROLLER://127.0.0.1:${controllerPort}${onIPv6}`,
        'advertised.listeners': `PLAINTEXT://127.0.0.1:${plainPort},SECURE://127.0.0.1:${securePort},ELSEWHERE://nowhere.invalid:9092${onIPv6}`,
        'listener.security.protocol.map':
          'PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,SECURE:SASL_SSL,IPV6:PLAINTEXT,ELSEWHERE:PLAINTEXT',
        'ssl.keystore.type': 'PKCS12',
        'ssl.keystore.location': keyStore,
        'ssl.keystore.password': 'of-a-test',
        'sasl.enabled.mechanisms': 'PLAIN,SCRAM-SHA-256,SCRAM-SHA-512',
        'listener.name.secure.plain.sasl.jaas.config': `org.apache.kafka.common.security.plain.PlainLoginModule required user_alice="${password}";`,
        'listener.name.secure.scram-sha-256.sasl.jaas.config': scram,
        'listener.name.secure.scram-sha-512.sasl.jaas.config': scram,
      },
    });
    stop = () => broker.stop();
    door = await basicAuthDoor(inject('registryUrl'), basic('bob', registryPassword));
    const { port } = door.address() as AddressInfo;
    const passwordFile = join(folder, 'registry-password');
    writeFileSync(passwordFile, `${registryPassword}\n`);
    env = {
      KAFKA_BROKERS: `127.0.0.1:${securePort}`,
      KAFKA_SECURITY_PROTOCOL: 'SASL_SSL',
      KAFKA_SSL_CA_FILE: certificate,
      KAFKA_SASL_MECHANISM: 'SCRAM-SHA-512',
      KAFKA_SASL_USERNAME: 'alice',
      KAFKA_SASL_PASSWORD: password,
      SCHEMA_REGISTRY_URL: `http://127.0.0.1:${port}${new URL(inject('registryUrl')).pathname}`,
      SCHEMA_REGISTRY_USERNAME: 'bob',
      SCHEMA_REGISTRY_PASSWORD_FILE: passwordFile,
    };
  });

  afterAll(async () => {
    await stop();
    door?.close();
  });

  const run = async (place: Place, args: readonly string[], change: NodeJS.ProcessEnv = {}) => {
    const result = await place.run([...args, '--verbose'], { ...env, ...change });
    finished.push(result);
    return result;
  };

  test('the whole pipeline runs through both', async ({ place }) => {
    const data = await smallDataset(join(place.folder, 'data'), 300, 5);
    for (const args of [
      place.args('replay', data, '--json'),
      place.args('process', '--until-caught-up', '--json'),
      place.args('sink', '--once', '--json'),
    ]) {
      const result = await run(place, args);
      expect(result, result.stderr.slice(-3_000)).toMatchObject({ code: 0 });
    }
    const { snapshot } = lastJson<{ snapshot: string }>(finished.at(-1) as Finished);
    expect(readManifest(place.gold, snapshot).tables.genre_analysis?.rows).toBeGreaterThan(0);
  });

  // Method: this listener advertises itself, so that all connections are to ::1.
  test.skipIf(!hasIPv6)('an IPv6 address in brackets names a broker', async ({ place }) => {
    const data = await smallDataset(join(place.folder, 'data'), 50, 6);
    const plain = {
      KAFKA_BROKERS: `[::1]:${ipv6Port}`,
      KAFKA_SECURITY_PROTOCOL: '',
      KAFKA_SSL_CA_FILE: '',
      KAFKA_SASL_MECHANISM: '',
      KAFKA_SASL_USERNAME: '',
      KAFKA_SASL_PASSWORD: '',
    };
    for (const args of [
      place.args('replay', data, '--json'),
      place.args('process', '--until-caught-up', '--json'),
      ['services', 'status', '--json'],
    ]) {
      const result = await run(place, args, plain);
      expect(result, result.stderr.slice(-3_000)).toMatchObject({ code: 0 });
    }
  });

  test.concurrent.for(['PLAIN', 'SCRAM-SHA-256', 'SCRAM-SHA-512'])(
    '%s lets us in',
    async (mechanism, { place }) => {
      const result = await run(place, ['services', 'status', '--json'], { KAFKA_SASL_MECHANISM: mechanism });
      expect(lastJson(result)).toMatchObject({
        how: 'environment',
        services: [{ healthy: true }, { healthy: true }],
      });
    },
  );

  const lag = (place: Place) => ['lag', '--namespace', place.namespace];

  test.concurrent.for(['PLAIN', 'SCRAM-SHA-256'])(
    'a wrong password for %s is refused access',
    async (mechanism, { place }) => {
      const result = await run(place, lag(place), {
        KAFKA_SASL_MECHANISM: mechanism,
        KAFKA_SASL_PASSWORD: wrong,
      });
      expect(result.code).toBe(20);
      expect(spoken(result)).toContain('The broker refuses the user or the password');
      expect(spoken(result)).toContain(`${mechanism} as alice`);
    },
  );

  test.concurrent('a certificate without a trusted authority is refused', async ({ place }) => {
    const result = await run(place, lag(place), { KAFKA_SSL_CA_FILE: '' });
    expect(result.code).toBe(21);
    expect(spoken(result)).toContain("The broker's certificate is not trusted");
    expect(spoken(result)).toContain('KAFKA_SSL_CA_FILE');
  });

  test.concurrent('a certificate of another name is not trusted', async ({ place }) => {
    const result = await run(place, lag(place), { KAFKA_BROKERS: `localhost:${securePort}` });
    expect(result.code).toBe(21);
    expect(spoken(result)).toContain("does not match certificate's altnames");
  });

  /** Commands that would wait for a broker, and the page, which stays and logs. */
  const waiting = (place: Place) => {
    const empty = place.files('data', { 'title.ratings.tsv': 'tconst\taverageRating\tnumVotes\n' });
    const stages = [
      place.args('replay', join(empty, 'title.ratings.tsv')),
      place.args('process'),
      place.args('sink'),
    ];
    return [...stages, lag(place), ['status', '--namespace', place.namespace]];
  };
  const pageLog = async (place: Place, change: NodeJS.ProcessEnv) => {
    const args = ['monitor', '--namespace', place.namespace, '--listen', String((await freePorts(1))[0])];
    const page = place.start(args, { ...env, ...change });
    const { reason } = await page.logged('an outage', ({ msg }) => msg.startsWith('Kafka broker outage'));
    expect(await page.terminate()).toMatchObject({ code: 0 });
    return reason;
  };
  const none = { KAFKA_SASL_MECHANISM: '', KAFKA_SASL_USERNAME: '', KAFKA_SASL_PASSWORD: '' };

  test.concurrent('TLS to a port that speaks none ends each command, and says so', async ({ place }) => {
    const change = { KAFKA_BROKERS: `127.0.0.1:${plainPort}` };
    for (const args of waiting(place)) {
      const result = await run(place, args, change);
      expect(result.code, result.stderr).toBe(4);
      expect(spoken(result)).toContain('does the port speak TLS?');
      expect(spoken(result)).toContain('set KAFKA_SECURITY_PROTOCOL to PLAINTEXT');
    }
    expect(await pageLog(place, change)).toContain('does the port speak TLS?');
  });

  test.concurrent('plain text to a port that requires TLS ends each command, and says so', async ({
    place,
  }) => {
    const change = { ...none, KAFKA_SECURITY_PROTOCOL: '', KAFKA_SSL_CA_FILE: '' };
    for (const args of waiting(place)) {
      const result = await run(place, args, change);
      expect(result.code, result.stderr).toBe(4);
      expect(spoken(result)).toContain('it requires TLS');
      expect(spoken(result)).toContain('Set KAFKA_SECURITY_PROTOCOL to SSL');
    }
    expect(await pageLog(place, change)).toContain('it requires TLS');
  });

  test.concurrent('an advertised address that this host cannot reach is named by each command', async ({
    place,
  }) => {
    const at = `127.0.0.1:${elsewherePort}`;
    const change = { ...none, KAFKA_BROKERS: at, KAFKA_SECURITY_PROTOCOL: '', KAFKA_SSL_CA_FILE: '' };
    // The configured address tells a sink that its topics are missing, and it waits for them.
    for (const args of waiting(place).filter(([command]) => command !== 'sink')) {
      const result = await run(place, args, change);
      expect(result.code, result.stderr).toBe(4);
      expect(spoken(result)).toContain(`nowhere.invalid:9092, which ${at} names`);
      expect(spoken(result)).toContain('advertised.listeners');
    }
    expect(await pageLog(place, change)).toContain('nowhere.invalid:9092');
  });

  test.concurrent('a login at a port that takes none is named', async ({ place }) => {
    const result = await run(place, lag(place), {
      KAFKA_BROKERS: `127.0.0.1:${plainPort}`,
      KAFKA_SECURITY_PROTOCOL: 'SASL_PLAINTEXT',
      KAFKA_SSL_CA_FILE: '',
    });
    expect(result.code).toBe(4);
    expect(spoken(result)).toContain('the port takes no login');
  });

  test.concurrent('a registry that does not know the password is named', async ({ place }) => {
    const data = place.files('one', {
      'title.ratings.tsv': 'tconst\taverageRating\tnumVotes\ntt0000001\t5.0\t1\n',
    });
    const result = await run(place, place.args('replay', join(data, 'title.ratings.tsv')), {
      SCHEMA_REGISTRY_PASSWORD_FILE: '',
      SCHEMA_REGISTRY_PASSWORD: wrong,
    });
    expect(result.code).toBe(20);
    expect(spoken(result)).toContain('The Schema Registry denies access');
    expect(spoken(result)).toContain('as bob');
  });

  test('no password is in any output, as it is or encoded', () => {
    const said = finished.map(({ stdout, stderr }) => stdout + stderr).join('\n');
    expect(finished.length).toBeGreaterThan(8);
    expect(said).toContain('"level":"debug"');
    for (const secret of [password, registryPassword, wrong]) {
      for (const form of [
        secret,
        Buffer.from(secret).toString('base64').slice(0, -3),
        Buffer.from(secret).toString('hex'),
      ]) {
        expect(said.includes(form), `a password as ${form.slice(0, 5)}…`).toBe(false);
      }
    }
    for (const login of [basic('bob', registryPassword), basic('bob', wrong)])
      expect(said).not.toContain(login);
  });
});

describe('the environment', () => {
  test('IPv6 addresses of broker and registry are in brackets, as in a URL', () => {
    const named = {
      KAFKA_BROKERS: '[::1]:9092, [2001:db8::7]:9093,kafka:9092',
      SCHEMA_REGISTRY_URL: 'http://[::1]:8081',
    };
    expect(endpointsFromEnvironment(named)).toMatchObject({
      brokers: ['[::1]:9092', '[2001:db8::7]:9093', 'kafka:9092'],
      registryUrl: 'http://[::1]:8081',
    });
    expect(['[2001:db8::7]:9093', 'kafka:9092'].map(seedOf)).toEqual(['2001|db8||7:9093', 'kafka:9092']);
  });

  const named = { KAFKA_BROKERS: 'kafka:9093', SCHEMA_REGISTRY_URL: 'https://registry' };
  const login = {
    KAFKA_SASL_MECHANISM: 'PLAIN',
    KAFKA_SASL_USERNAME: 'alice',
    KAFKA_SASL_PASSWORD: password,
  };

  test.for([
    ['a login without its protocol', { ...login }],
    ['an authority without TLS', { KAFKA_SSL_CA_FILE: '/ca.pem' }],
    ['SASL without a mechanism', { ...login, KAFKA_SASL_MECHANISM: '', KAFKA_SECURITY_PROTOCOL: 'SASL_SSL' }],
    ['SASL without a login', { KAFKA_SASL_MECHANISM: 'PLAIN', KAFKA_SECURITY_PROTOCOL: 'SASL_SSL' }],
    ['a user without a password', { SCHEMA_REGISTRY_USERNAME: 'bob' }],
    ['a password without a user', { SCHEMA_REGISTRY_PASSWORD: password }],
    [
      'two passwords',
      {
        SCHEMA_REGISTRY_USERNAME: 'bob',
        SCHEMA_REGISTRY_PASSWORD: password,
        SCHEMA_REGISTRY_PASSWORD_FILE: '/x',
      },
    ],
    [
      'a password file that is not there',
      { SCHEMA_REGISTRY_USERNAME: 'bob', SCHEMA_REGISTRY_PASSWORD_FILE: '/none' },
    ],
    ['an IPv6 address without brackets', { KAFKA_BROKERS: '::1:9092' }],
    ['brackets around a name', { KAFKA_BROKERS: '[kafka]:9092' }],
    ['a broken IPv6 address', { KAFKA_BROKERS: '[::1::]:9092' }],
    ['a port that there is not', { KAFKA_BROKERS: 'kafka:70000' }],
    ['a password in the URL', { SCHEMA_REGISTRY_URL: `http://bob:${password}@registry` }],
    ['a protocol that Kafka does not have', { ...login, KAFKA_SECURITY_PROTOCOL: `${password}` }],
  ] as [string, NodeJS.ProcessEnv][])('%s is bad usage, and shows no password', ([, change]) => {
    const read = () => endpointsFromEnvironment({ ...named, ...change });
    expect(read).toThrow(ReelflowError);
    try {
      read();
    } catch (thrown) {
      const { kind, message, detail, hint } = thrown as ReelflowError;
      expect(kind).toBe('usage');
      expect(`${message} ${detail} ${hint}`).not.toContain(password);
    }
  });

  test('a secret is only shown on request', () => {
    const { security } =
      endpointsFromEnvironment({ ...named, ...login, KAFKA_SECURITY_PROTOCOL: 'SASL_SSL' }) ?? {};
    const secret = (security as { sasl: Credentials }).sasl.password;
    expect(secret.reveal()).toBe(password);
    expect(
      [`${secret}`, JSON.stringify(security), inspect(security, { depth: 9, showHidden: true })].join(),
    ).not.toContain(password);
  });
});

/** A key and a self-signed certificate for one address. @returns the key store for the broker, the certificate as PEM */
function certificateFor(address: string, folder: string): { keyStore: string; certificate: string } {
  const keyStore = join(folder, 'broker.p12');
  const certificate = join(folder, 'ca.pem');
  const keytool = (...args: string[]) =>
    execFileSync(
      keytoolCommand,
      [...args, '-keystore', keyStore, '-storepass', 'of-a-test', '-storetype', 'PKCS12'],
      {
        stdio: 'pipe',
      },
    );
  keytool(
    '-genkeypair',
    '-alias',
    'broker',
    '-keyalg',
    'EC',
    '-dname',
    'CN=broker',
    '-ext',
    `SAN=IP:${address}`,
  );
  keytool('-exportcert', '-alias', 'broker', '-rfc', '-file', certificate);
  expect(readFileSync(certificate, 'utf8')).toContain('BEGIN CERTIFICATE');
  return { keyStore, certificate };
}

/** A reverse proxy that passes on only what comes with this authorization. */
async function basicAuthDoor(target: string, authorization: string): Promise<Server> {
  const { hostname, port } = new URL(target);
  const server = createServer((incoming, outgoing) => {
    if (incoming.headers.authorization !== authorization) {
      incoming.resume();
      outgoing.writeHead(401, { 'content-type': 'application/json', 'www-authenticate': 'Basic' });
      outgoing.end('{"error_code":401,"message":"Unauthorized"}');
      return;
    }
    const { authorization: _, ...headers } = incoming.headers;
    const passed = request(
      { hostname, port, method: incoming.method, path: incoming.url, headers },
      (answer) => {
        outgoing.writeHead(answer.statusCode ?? 502, answer.headers);
        answer.pipe(outgoing);
      },
    );
    passed.on('error', () => outgoing.destroy());
    incoming.pipe(passed);
  });
  const { promise, resolve } = Promise.withResolvers<void>();
  server.listen(0, '127.0.0.1', resolve);
  await promise;
  return server;
}
