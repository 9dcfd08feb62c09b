/**
 * What commands say when the broker denies them one right. Method: a real broker with an authorizer; its port without a login
 * belongs to the administrator. Each case has a user of its own who may do everything but one thing.
 */
import { appendFileSync, readdirSync, utimesSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import kafkajs from 'kafkajs';
import { afterAll, beforeAll, describe, expect, inject, vi } from 'vitest';
import { createBroker, withAdmin } from '../../kafka/client.ts';
import { findJvm } from '../../kafka/local/jars.ts';
import { startJvmBroker } from '../../kafka/local/jvm.ts';
import { freePorts } from '../../kafka/local/probe.ts';
import { exitCodes } from '../../runtime/errors.ts';
import { createLogger } from '../../runtime/logger.ts';
import { Place, smallDataset, spoken, test } from '../support/harness.ts';
import { temporaryFolder } from '../support/temporary-folder.ts';

vi.setConfig({ testTimeout: 300_000, hookTimeout: 300_000 });

const jars = fileURLToPath(new URL('../../.reelflow/jars', import.meta.url));
const jvm = await findJvm(process.env, jars);
const why = 'why' in jvm ? ` (skipped: ${jvm.why})` : '';

const { AclOperationTypes: operations, AclResourceTypes: types } = kafkajs;

/** The place of all cases: one finished pipeline, so that every topic and group exists. */
const base = new Place();
const { names } = base;
const data = join(base.folder, 'data');
const later = join(base.folder, 'later');

type Denied = readonly [type: keyof typeof types, name: string, operation: keyof typeof operations];

const ratings = names.source('title.ratings');
const { deltas, deadLetter, dumpIndex, processorGroup, sinkGroup } = names;

/** Command, what is denied to its user, what it says is missing; the exit code is that of a refused access. */
const cases: readonly (readonly [line: string, denied: Denied, missing: string])[] = [
  [`replay ${data} --upsert`, ['TOPIC', ratings, 'WRITE'], `Write on topic ${ratings}`],
  [`replay ${data} --upsert`, ['TOPIC', ratings, 'DESCRIBE'], `Describe on topic ${ratings}`],
  [
    `replay ${later} --max-removed 100`,
    ['TOPIC', ratings, 'DESCRIBE_CONFIGS'],
    `DescribeConfigs on topic ${ratings}`,
  ],
  [`replay ${later} --max-removed 100`, ['TRANSACTIONAL_ID', '*', 'ALL'], 'Describe on transactional id '],
  [`replay ${later} --max-removed 100`, ['TRANSACTIONAL_ID', '*', 'WRITE'], 'Write on transactional id '],
  [`replay ${later} --max-removed 100`, ['TOPIC', dumpIndex, 'READ'], `Read on topic ${dumpIndex}`],
  [`replay ${later} --max-removed 100`, ['TOPIC', dumpIndex, 'WRITE'], `Write on topic ${dumpIndex}`],
  [`replay ${data} --namespace fresh`, ['TOPIC', '*', 'CREATE'], 'Create on topic fresh.imdb.'],
  ['process --until-caught-up', ['TOPIC', ratings, 'READ'], `Read on topic ${ratings}`],
  ['process --until-caught-up', ['TOPIC', ratings, 'DESCRIBE'], `Describe on topic ${ratings}`],
  ['process --until-caught-up', ['TOPIC', deltas, 'READ'], `Read on topic ${deltas}`],
  ['process', ['GROUP', processorGroup, 'READ'], `Read on group ${processorGroup}`],
  ['process', ['GROUP', processorGroup, 'ALL'], `Describe on group ${processorGroup}`],
  ['sink --once', ['TOPIC', deltas, 'READ'], `Read on topic ${deltas}`],
  ['sink --once', ['TOPIC', deltas, 'DESCRIBE'], `Describe on topic ${deltas}`],
  ['sink', ['GROUP', sinkGroup, 'READ'], `Read on group ${sinkGroup}`],
  [
    'lag --fail-on ERR --over 1ms',
    ['GROUP', processorGroup, 'DESCRIBE'],
    `Describe on group ${processorGroup}`,
  ],
  ['reset', ['TOPIC', deltas, 'WRITE'], `Write on topic ${deltas}`],
  ['reset', ['TOPIC', deltas, 'DESCRIBE'], `Describe on topic ${deltas}`],
  ['reset', ['GROUP', processorGroup, 'DESCRIBE'], `Describe on group ${processorGroup}`],
  ['dlq list', ['TOPIC', deadLetter, 'READ'], `Read on topic ${deadLetter}`],
  ['dlq list', ['TOPIC', deadLetter, 'DESCRIBE'], `Describe on topic ${deadLetter}`],
  ['dlq replay', ['TOPIC', deadLetter, 'READ'], `Read on topic ${deadLetter}`],
];

describe.skipIf(why !== '')(`a user without one right${why}`, () => {
  const folder = temporaryFolder();
  let admin: ReturnType<typeof createBroker>;
  let address = '';
  let stop = async () => {};

  beforeAll(async () => {
    const [plain, controllerPort, login] = (await freePorts(3)) as [number, number, number];
    const users = cases.map((_, i) => `user_u${i}="p${i}"`).join(' ');
    const started = await startJvmBroker({
      folder,
      jars,
      brokerPort: plain,
      controllerPort,
      env: process.env,
      brokerProperties: {
        listeners: `PLAINTEXT://127.0.0.1:${plain},LOGIN://127.0.0.1:${login},CONTROLLER://127.0.0.1:${controllerPort}`,
        'advertised.listeners': `PLAINTEXT://127.0.0.1:${plain},LOGIN://127.0.0.1:${login}`,
        'listener.security.protocol.map': 'PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,LOGIN:SASL_PLAINTEXT',
        'sasl.enabled.mechanisms': 'PLAIN',
        'listener.name.login.plain.sasl.jaas.config': `org.apache.kafka.common.security.plain.PlainLoginModule required ${users};`,
        'authorizer.class.name': 'org.apache.kafka.metadata.authorizer.StandardAuthorizer',
        'super.users': 'User:ANONYMOUS',
      },
    });
    stop = () => started.stop();
    address = `127.0.0.1:${login}`;
    admin = createBroker(
      { brokers: [`127.0.0.1:${plain}`], registryUrl: inject('registryUrl') },
      createLogger('silent'),
    );
    const all = ['TOPIC', 'GROUP', 'TRANSACTIONAL_ID'] as const;
    const acl = {
      host: '*',
      resourcePatternType: kafkajs.ResourcePatternTypes.LITERAL,
      permissionType: kafkajs.AclPermissionTypes.ALLOW,
    };
    await withAdmin(admin, async (client) => {
      await client.createAcls({
        acl: [
          ...all.map((type) => ({
            ...acl,
            principal: 'User:*',
            resourceType: types[type],
            resourceName: '*',
            operation: operations.ALL,
          })),
          {
            ...acl,
            principal: 'User:*',
            resourceType: types.CLUSTER,
            resourceName: 'kafka-cluster',
            operation: operations.DESCRIBE,
          },
          ...cases.map(([, [type, resourceName, operation]], i) => ({
            ...acl,
            principal: `User:u${i}`,
            resourceType: types[type],
            resourceName,
            operation: operations[operation],
            permissionType: kafkajs.AclPermissionTypes.DENY,
          })),
        ],
      });
    });
    const env = { KAFKA_BROKERS: `127.0.0.1:${plain}` };
    await smallDataset(data, 60, 3);
    await smallDataset(later, 60, 4);
    // Both folders are written within milliseconds.
    const newer = new Date(Date.now() + 60_000);
    for (const file of readdirSync(later)) utimesSync(join(later, file), newer, newer);
    // A row that is refused, for the topic of dead letters.
    appendFileSync(join(data, 'title.ratings.tsv'), 'tt0000001\tmany\t1\n');
    for (const args of [
      base.args('replay', data, '--max-rejected', '100'),
      base.args('process', '--until-caught-up'),
      base.args('sink', '--once'),
    ]) {
      const finished = await base.run(args, env);
      expect(finished, finished.stderr.slice(-3_000)).toMatchObject({ code: 0 });
    }
  });

  afterAll(async () => {
    await base.close(false);
    await stop();
  });

  test.concurrent.for(cases.map((one, i) => [...one, i] as const))(
    '%s without %s says what is missing',
    async ([line, , missing, i], { place }) => {
      const running = place.start(line.split(' '), {
        KAFKA_BROKERS: address,
        KAFKA_SECURITY_PROTOCOL: 'SASL_PLAINTEXT',
        KAFKA_SASL_MECHANISM: 'PLAIN',
        KAFKA_SASL_USERNAME: `u${i}`,
        KAFKA_SASL_PASSWORD: `p${i}`,
        REELFLOW_NAMESPACE: base.namespace,
      });
      const timer = setTimeout(() => running.kill('SIGKILL'), 60_000);
      const finished = await running.done;
      clearTimeout(timer);
      const text = spoken(finished);
      expect(text + finished.stdout.slice(0, 500)).toContain(missing);
      expect(text).not.toContain('defect');
      expect(finished.code).toBe(line.startsWith('lag') ? exitCodes.lagging : exitCodes.accessRefused);
    },
  );
});
