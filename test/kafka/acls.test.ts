/**
 * Commands on a cluster with ACLs: which rights they need, and what they say without one of them. Method: a real broker with an
 * authorizer; its port without a login belongs to the administrator. The table of rights is that of the documentation. Each
 * command runs as a user with exactly these rights, and for each of them as a user who lacks it. Flink takes minutes to start: a
 * plain client makes the requests of its jobs instead.
 */
import { appendFileSync, readdirSync, readFileSync, utimesSync } from 'node:fs';
import { join } from 'node:path';
import kafkajs from 'kafkajs';
import { afterAll, beforeAll, describe, expect, inject, vi } from 'vitest';
import { inspectSources } from '../../flink/sources.ts';
import { type Broker, createBroker, withAdmin } from '../../kafka/client.ts';
import { asBrokerError } from '../../kafka/failures.ts';
import { startJvmBroker } from '../../kafka/local/jvm.ts';
import { freePorts } from '../../kafka/local/probe.ts';
import { commitAlone } from '../../kafka/membership.ts';
import { scanTopic } from '../../kafka/scan.ts';
import { ensureCompactedTopics } from '../../kafka/topics.ts';
import { Secret } from '../../runtime/credentials.ts';
import { exitCodes } from '../../runtime/errors.ts';
import { createLogger } from '../../runtime/logger.ts';
import { cubes } from '../../tables/cubes/cube-set.ts';
import { datasetNames, type TopicNames } from '../../topics/catalog.ts';
import { Registry } from '../../topics/registry.ts';
import { failureOf } from '../support/failure.ts';
import { Place, type Running, smallDataset, spoken, test, until } from '../support/harness.ts';
import { jars, skippedText } from '../support/jvm.ts';
import { temporaryFolder } from '../support/temporary-folder.ts';

vi.setConfig({ testTimeout: 300_000, hookTimeout: 300_000 });

const why = skippedText();

const { AclOperationTypes: operations, AclResourceTypes: types } = kafkajs;
const { LITERAL, PREFIXED } = kafkajs.ResourcePatternTypes;

const documented = readFileSync(new URL('../../docs/operations.md', import.meta.url), 'utf8');

/** A finished pipeline, so that every topic and group exists. */
const base = new Place();
/** One with messages that no processor has read. */
const raw = new Place();
const data = join(base.folder, 'data');
const later = join(base.folder, 'later');

/** The commands of the table in docs/operations.md, as this test runs them. */
const lines: Readonly<Record<string, { readonly place: Place; readonly args: readonly string[] }>> = {
  replay: { place: base, args: [later, '--max-removed', '100', '--max-rejected', '100'] },
  'replay --upsert': { place: raw, args: [data, '--upsert', '--max-rejected', '100'] },
  process: { place: raw, args: ['--until-caught-up'] },
  sink: { place: base, args: ['--interval', '1s'] },
  lag: { place: base, args: [] },
  status: { place: base, args: ['--gold', base.gold, '--state', base.state] },
  monitor: { place: base, args: ['--listen', String((await freePorts(1))[0]), '--json'] },
  reset: { place: base, args: [] },
  verify: { place: base, args: ['--gold', base.gold] },
  'dlq list': { place: base, args: [] },
  'dlq replay': { place: base, args: [] },
};
/** A table that Flink maintains. */
const result = { topic: base.names.goldTable('genre_analysis'), partitions: 4 };
/** Commands of Flink, as the requests that they and their jobs make. */
const flink: Readonly<Record<string, (client: Broker) => Promise<unknown>>> = {
  'flink sql, flink run --bounded': readAsFlink,
  'flink submit, flink run': async (client) => {
    await readAsFlink(client);
    await ensureCompactedTopics(client, [result]);
    await commitAlone(client, base.names.flinkGroup, [
      { topic: base.names.source('title.ratings'), partition: 0, next: 0 },
    ]);
    await sendInTransaction(client, result.topic);
  },
};
/** These change what others read, so they run after them, in this order. */
const changing = ['dlq replay', 'replay', 'reset'];

type Type = keyof typeof types;
type Operation = keyof typeof operations;

/** Rights on the resources of one column. */
interface Right {
  readonly type: Type;
  readonly resources: readonly string[];
  /** As Kafka calls it, such as DescribeConfigs. */
  readonly operation: string;
  readonly isOptional: boolean;
}

const cellsOf = (line: string) =>
  line
    .split('|')
    .slice(1, -1)
    .map((cell) => cell.trim());

/** By command, what docs/operations.md says that it needs. */
function documentedRights(): Map<string, Right[]> {
  const tables = documented.match(/^\| command .*source topics.*(?:\n\|.*)+/gm) ?? [];
  return new Map(tables.flatMap(rightsIn));
}

function rightsIn(table: string): [command: string, Right[]][] {
  const [head = '', , ...rows] = table.split('\n');
  const [, ...heads] = cellsOf(head);
  return rows.map((row) => {
    const [command = '', ...cells] = cellsOf(row);
    const name = command.replaceAll('`', '');
    const { names } = (lines[name] ?? { place: base }).place;
    const rights = cells.flatMap((cell, i) =>
      cell
        .split(', ')
        .filter((operation) => operation !== '')
        .map((operation): Right => {
          const isOptional = operation.startsWith('(');
          return {
            ...resourcesOf(heads[i] ?? '', names),
            operation: operation.replace(/^\(|\)$/g, ''),
            isOptional,
          };
        }),
    );
    return [name, rights];
  });
}

function resourcesOf(head: string, names: TopicNames): Pick<Right, 'type' | 'resources'> {
  const sources = datasetNames.map((dataset) => names.source(dataset));
  if (head === 'source topics') return { type: 'TOPIC', resources: sources };
  if (head === 'transactional ids') return { type: 'TRANSACTIONAL_ID', resources: sources };
  const [, kind = '', name = ''] = /^([a-z ]*?) ?`(.*)`$/.exec(head) ?? [];
  const types: Record<string, Type> = { group: 'GROUP', 'transactional ids': 'TRANSACTIONAL_ID' };
  return { type: types[kind] ?? 'TOPIC', resources: [`${names.namespace}.${name}`] };
}

const rights = documentedRights();

/** A user for each command with exactly its rights, and one for each right that it then lacks. */
interface User {
  readonly command: string;
  readonly lacks?: Right;
}
const users = [...rights].flatMap(([command, own]): User[] => [
  ...own.map((lacks) => ({ command, lacks })),
  { command },
]);
/** It may describe all topics. */
const describer = users.length;

describe.skipIf(why !== '')(`users with the rights of the documentation${why}`, () => {
  const folder = temporaryFolder();
  let address = '';
  let stop = async () => {};

  beforeAll(async () => {
    const [plain, controllerPort, login] = (await freePorts(3)) as [number, number, number];
    const logins = Array.from({ length: users.length + 1 }, (_, i) => `user_u${i}="p${i}"`).join(' ');
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
        'listener.name.login.plain.sasl.jaas.config': `org.apache.kafka.common.security.plain.PlainLoginModule required ${logins};`,
        'authorizer.class.name': 'org.apache.kafka.metadata.authorizer.StandardAuthorizer',
        'super.users': 'User:ANONYMOUS',
      },
    });
    stop = () => started.stop();
    address = `127.0.0.1:${login}`;
    const admin = createBroker(
      { brokers: [`127.0.0.1:${plain}`], registryUrl: inject('registryUrl') },
      createLogger('silent'),
    );
    await withAdmin(admin, async (client) => {
      await client.createAcls({
        acl: [
          ...users.flatMap(({ command, lacks }, i) => aclsOf(i, without(rights.get(command) ?? [], lacks))),
          ...aclsOf(describer, [{ type: 'TOPIC', resources: ['*'], operation: 'Describe' }]),
        ],
      });
    });
    await smallDataset(data, 60, 3);
    await smallDataset(later, 60, 4);
    // Both folders are written within milliseconds.
    const newer = new Date(Date.now() + 60_000);
    // A row that is refused, for the topic of dead letters.
    for (const one of [data, later]) appendFileSync(join(one, 'title.ratings.tsv'), 'tt0000001\tmany\t1\n');
    for (const file of readdirSync(later)) utimesSync(join(later, file), newer, newer);
    const succeed = async (place: Place, args: string[]) => {
      const finished = await place.run(args, { KAFKA_BROKERS: `127.0.0.1:${plain}` });
      expect(finished, finished.stderr.slice(-3_000)).toMatchObject({ code: 0 });
    };
    await succeed(raw, raw.args('replay', data, '--max-rejected', '100'));
    await succeed(raw, raw.args('process', '--until-caught-up'));
    await sendUnusable(admin, raw.names);
    await succeed(base, base.args('replay', data, '--max-rejected', '100'));
    await sendUnusable(admin, base.names);
    await succeed(base, base.args('process', '--until-caught-up'));
    await succeed(base, base.args('sink', '--once'));
    await ensureCompactedTopics(admin, [result]);
  });

  afterAll(async () => {
    await base.close(false);
    await raw.close(false);
    await stop();
  });

  const start = (place: Place, args: readonly string[], namespace: string, user: number) =>
    place.start(args, {
      KAFKA_BROKERS: address,
      KAFKA_SECURITY_PROTOCOL: 'SASL_PLAINTEXT',
      KAFKA_SASL_MECHANISM: 'PLAIN',
      KAFKA_SASL_USERNAME: `u${user}`,
      KAFKA_SASL_PASSWORD: `p${user}`,
      REELFLOW_NAMESPACE: namespace,
    });

  /** What a command does with the rights of a user. */
  const outcome = async (place: Place, command: string, user: number) => {
    const { place: of, args } = lines[command] as (typeof lines)[string];
    const running = start(place, [...command.split(' '), ...args], of.namespace, user);
    const timer = setTimeout(() => running.kill('SIGKILL'), 60_000);
    if (command === 'sink') {
      running
        .logged(
          'a snapshot',
          ({ msg }) => msg === 'snapshot published' || msg === 'every table equals the newest snapshot',
        )
        .then(
          () => running.kill('SIGTERM'),
          () => undefined,
        );
    }
    const page = command === 'monitor' ? await firstView(running) : '';
    if (command === 'monitor') running.kill('SIGTERM');
    const finished = await running.done;
    clearTimeout(timer);
    return { ...finished, text: spoken(finished) + page };
  };

  test('the tables name every command that this test runs, and no other', () => {
    expect([...rights.keys()].sort()).toEqual([...Object.keys(lines), ...Object.keys(flink)].sort());
  });

  const check = async (command: string, newPlace: () => Place) => {
    for (const [i, user] of users.entries()) {
      if (user.command !== command) continue;
      const { lacks } = user;
      const { code, text, stderr } = await outcome(newPlace(), command, i);
      const [resource = ''] = lacks?.resources ?? [];
      const about = `${command} without ${lacks?.operation} on ${resource}\n${text}${stderr.slice(-2_000)}`;
      expect(text, about).not.toContain('defect');
      if (lacks === undefined || lacks.isOptional) {
        expect(code, about).toBe(0);
        continue;
      }
      expect(text, about).toMatch(namesRight(lacks));
      if (command === 'monitor') expect(stderr, about).toContain('not observed');
      // The page stays, so that it shows when the right is there.
      expect(code, about).toBe(command === 'monitor' ? 0 : exitCodes.accessRefused);
    }
  };

  test.concurrent.for(Object.keys(lines).filter((command) => !changing.includes(command)))(
    '%s needs exactly its rights, and names the one that is missing',
    (command, { newPlace }) => check(command, newPlace),
  );

  test.concurrent.for(Object.entries(flink))('%s: needs exactly its rights', async ([command, requests]) => {
    for (const [i, user] of users.entries()) {
      if (user.command !== command) continue;
      const sasl = { mechanism: 'PLAIN' as const, username: `u${i}`, password: new Secret(`p${i}`) };
      const client = createBroker(
        { brokers: [address], registryUrl: inject('registryUrl'), security: { sasl } },
        createLogger('silent'),
      );
      const done = requests(client).catch((thrown) => {
        throw asBrokerError(thrown, client.endpoints);
      });
      if (user.lacks === undefined) await done;
      else expect((await failureOf(done, 'accessRefused')).detail).toMatch(namesRight(user.lacks));
    }
  });

  test.for(changing)(
    '%s needs exactly its rights, and names the one that is missing',
    (command, { newPlace }) => check(command, newPlace),
  );

  test.concurrent('Create on a topic is named when it is missing', async ({ place }) => {
    const { code, ...finished } = await start(place, ['replay', data], 'fresh', describer).done;
    expect(spoken({ code, ...finished })).toContain('Create on topic fresh.imdb.');
    expect(code).toBe(exitCodes.accessRefused);
  });

  test.concurrent('a sink that runs once warns that it lacks Read on its group', async ({ place }) => {
    const user = users.findIndex(({ command, lacks }) => command === 'sink' && lacks?.type === 'GROUP');
    const { code, stderr } = await start(place, ['sink', '--once'], base.namespace, user).done;
    expect(code, stderr.slice(-3_000)).toBe(0);
    expect(stderr).toMatch(/"level":"warn".*(Read|Describe) on group .*offsets not committed/);
  });

  test.concurrent('a check of lag fails on a group that the user may not describe', async ({ place }) => {
    const args = ['lag', '--fail-on', 'ERR', '--over', '1ms'];
    const { code, ...finished } = await start(place, args, base.namespace, describer).done;
    expect(spoken({ code, ...finished })).toContain(`Describe on group ${base.names.processorGroup}`);
    expect(code).toBe(exitCodes.lagging);
  });
});

/** What an error says that names the right; a resource that ends with `*` is a prefix. */
function namesRight({ type, operation, resources }: Right): RegExp {
  const kind = { TOPIC: 'topic', GROUP: 'group', TRANSACTIONAL_ID: 'transactional id' }[type as 'TOPIC'];
  const names = resources.join('|').replaceAll('.', '\\.').replaceAll('*', '');
  return new RegExp(`(${operation}|Describe) on ${kind} (${names})`);
}

/** Looks at the sources as the command does, and reads a message of each. */
async function readAsFlink(client: Broker): Promise<void> {
  const registry = new Registry({ url: inject('registryUrl') });
  const { ends } = await inspectSources({ broker: client, registry, names: base.names }, cubes);
  for (const topic of ends.keys()) {
    for await (const _ of scanTopic(client, topic)) break;
  }
}

async function sendInTransaction({ kafka }: Broker, topic: string): Promise<void> {
  // Named as Flink's connector names them.
  const producer = kafka.producer({
    transactionalId: `${topic}-0-1`,
    idempotent: true,
    maxInFlightRequests: 1,
  });
  try {
    await producer.connect();
    const transaction = await producer.transaction();
    await transaction.send({ topic, messages: [{ key: 'k', value: null }] });
    await transaction.commit();
  } finally {
    await producer.disconnect();
  }
}

/** Read and Write include Describe, so a user without Describe may not have them either. */
const without = (all: readonly Right[], lacks: Right | undefined) =>
  all.filter(
    (right) =>
      right !== lacks && !(lacks?.operation === 'Describe' && `${right.resources}` === `${lacks.resources}`),
  );

function aclsOf(user: number, allowed: readonly Omit<Right, 'isOptional'>[]): kafkajs.AclEntry[] {
  return allowed.flatMap(({ type, resources, operation }) =>
    resources.map((resourceName) => ({
      principal: `User:u${user}`,
      host: '*',
      resourceType: types[type],
      resourceName: resourceName.replace(/(?<=.)\*$/, ''),
      resourcePatternType: /.\*$/.test(resourceName) ? PREFIXED : LITERAL,
      operation: operations[operation.replace(/(?<=.)[A-Z]/g, '_$&').toUpperCase() as Operation],
      permissionType: kafkajs.AclPermissionTypes.ALLOW,
    })),
  );
}

/** Messages that become dead letters of processor and sink; one is a chunk in a wrong partition, which can be replayed. */
async function sendUnusable(broker: Broker, names: TopicNames): Promise<void> {
  const producer = broker.kafka.producer();
  await producer.connect();
  for (const dataset of ['title.ratings', 'name.basics'] as const) {
    await producer.send({ topic: names.source(dataset), messages: [{ key: 'tt1', value: 'garbage' }] });
  }
  for await (const { partition, messages } of scanTopic(broker, names.source('title.crew'))) {
    const [{ key, value } = { key: null, value: null }] = messages;
    await producer.send({
      topic: names.source('title.crew'),
      messages: [{ key, value, partition: (partition + 1) % 4 }],
    });
    break;
  }
  await producer.disconnect();
}

/** The first view of the page in which the groups were looked at. */
async function firstView(running: Running): Promise<string> {
  await until('the page listens', () => running.stdout.includes('\n'));
  const { url } = JSON.parse(running.stdout) as { url: string };
  const { body } = await fetch(new URL('events', url));
  let text = '';
  for await (const bytes of body ?? []) {
    text += Buffer.from(bytes).toString();
    if (/^data: .*"verdict".*\n\n/m.test(text)) return text;
  }
  return text;
}
