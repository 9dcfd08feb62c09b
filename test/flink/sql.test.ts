/**
 * The SQL that the declarations give, the checks of real topics and registry, and the client of the SQL gateway against a
 * server that fails. `test/flink/cluster/` runs Flink itself.
 */
import { mkdirSync, readFileSync, utimesSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import { describe, expect } from 'vitest';
import { parse } from 'yaml';
import { causeIn, SqlGateway } from '../../flink/gateway.ts';
import { newestCheckpoint } from '../../flink/run.ts';
import { datasetsRead, type FlinkJob, flinkStatements } from '../../flink/sql.ts';
import { deleteBefore, ensureCompactedTopics, ensureRetainedTopics } from '../../kafka/topics.ts';
import type { Endpoints } from '../../runtime/config.ts';
import { Secret } from '../../runtime/credentials.ts';
import { type Cube, relationOf } from '../../tables/cubes/cube.ts';
import { cubes } from '../../tables/cubes/cube-set.ts';
import { goldTables } from '../../tables/gold-tables.ts';
import { topicNamesIn } from '../../topics/catalog.ts';
import { Authority, withoutOpenssl } from '../support/certificates.ts';
import { sendTo } from '../support/damage.ts';
import { broker, lastJson, type Place, spoken, test } from '../support/harness.ts';

const job: FlinkJob = {
  cubes,
  tables: goldTables.filter(({ onlyDuckdb }) => onlyDuckdb === undefined),
  names: topicNamesIn('films'),
  endpoints: { brokers: ['one:9092', 'two:9092'], registryUrl: 'http://registry:8081' },
  destination: { kind: 'topics' },
  shards: 12,
};
const sqlOf = (more: Partial<FlinkJob> = {}) => flinkStatements({ ...job, ...more }, String).join(';\n');

describe('the SQL', () => {
  test('has a source for each dataset, a view for each cube and a result for each table of the declarations', () => {
    const sql = sqlOf();
    for (const dataset of datasetsRead(cubes).keys()) {
      expect(sql).toContain(`'topic' = 'films.imdb.${dataset}'`);
      expect(sql).toContain(`CREATE TEMPORARY VIEW \`${relationOf(dataset)}\` AS`);
    }
    for (const { name, onlyDuckdb } of cubes) {
      expect(sql.includes(`CREATE TEMPORARY VIEW \`${name}\` AS`), name).toBe(onlyDuckdb === undefined);
    }
    for (const { name } of job.tables) {
      expect(sql).toContain(`'topic' = 'films.reelflow.gold.${name}'`);
      expect(sql).toContain(`INSERT INTO \`${name}\``);
    }
    expect(job.tables.map(({ name }) => name)).toEqual(
      expect.arrayContaining([
        'genre_analysis',
        'decade_trends',
        'title_ratings_agg',
        'contributor_analysis',
        'region_analysis',
      ]),
    );
  });

  test('includes an added cube, unless only DuckDB computes it', () => {
    const kind: Cube = {
      name: 'kind',
      reads: { 'title.basics': ['tconst', 'titleType'], 'title.ratings': ['tconst', 'averageRating'] },
      key: ['titleType', 'rating'],
      texts: ['titleType'],
      measures: ['titles'],
      contribution: `SELECT titleType, averageRating AS rating, count(*) AS titles
        FROM title_basics JOIN title_ratings ON title_basics.tconst = title_ratings.tconst
        GROUP BY titleType, averageRating`,
    };
    expect(sqlOf()).not.toContain('titleType');
    const sql = sqlOf({ cubes: [...cubes, kind] });
    expect(sql).toContain('CREATE TEMPORARY VIEW `kind` AS\nSELECT `titleType`, `averageRating` AS `rating`');
    expect(sql).toMatch(/`title_basics_chunks` \(\n {2}`records` .*`titleType` STRING,?/);
    expect(sqlOf({ cubes: [...cubes, { ...kind, onlyDuckdb: 'a reason' }] })).toBe(sqlOf());
  });

  test('keeps the last version of each key in the order of its partition, with deletes after the records of their chunk', () => {
    const akas = flinkStatements(job, String).find((statement) =>
      statement.startsWith('CREATE TEMPORARY VIEW `title_akas`'),
    );
    expect(akas).toContain(
      'PARTITION BY `titleId`, `ordering` ORDER BY `chunk_offset` DESC, `deleted` DESC, `place` DESC',
    );
    expect(akas).toContain('WHERE `newest` = 1 AND `deleted` = 0');
  });

  test('drops rows of groups that a later chunk of their partition replaces, and reads chunks from before replacements', () => {
    const statement = (start: string) =>
      flinkStatements(job, String).find((text) => text.startsWith(start)) ?? '';
    const chunks = statement('CREATE TEMPORARY TABLE `title_akas_chunks`');
    // Flink reads a field that the writer's schema lacks only if it is nullable.
    expect(chunks).toContain('`replaces` ARRAY<INT NOT NULL>,');
    expect(chunks).toContain("`chunk_partition` INT NOT NULL METADATA FROM 'partition' VIRTUAL");
    const replaced = statement('CREATE TEMPORARY VIEW `title_akas_replaced`');
    expect(replaced).toContain('MAX(`chunk_offset`) AS `replaced_at`');
    const akas = statement('CREATE TEMPORARY VIEW `title_akas` AS');
    expect(akas).toContain('`titleId` / 50 AS `id_group`');
    expect(akas).toMatch(
      /ON .*`chunk_partition` = .*\n.*`id_group` = .*\n.*`replaced_at` > `versions`.`chunk_offset`\nWHERE `replaced`.`replaced_at` IS NULL$/,
    );
  });

  test('separates the parts of a key, and null from every text', () => {
    expect(sqlOf()).toContain(
      "COALESCE(CAST(`startYear` AS STRING), '\\N') || U&'\\0009' || COALESCE(CAST(`genres` AS STRING), '\\N')",
    );
  });

  test('ends a bounded job at the given offsets, and checkpoints an unbounded one exactly once', () => {
    const ends = new Map([
      [
        'films.imdb.title.ratings',
        new Map([
          [0, 7],
          [1, 0],
        ]),
      ],
    ]);
    const bounded = sqlOf({ destination: { kind: 'files', folder: 'file:///out', ends } });
    expect(bounded).toContain(
      "'scan.bounded.specific-offsets' = 'partition:0,offset:7;partition:1,offset:0'",
    );
    expect(bounded).toContain("SET 'execution.runtime-mode' = 'batch'");
    expect(bounded).not.toContain('upsert-kafka');
    expect(bounded).not.toContain('group.id');
    const unbounded = sqlOf({ checkpoints: "s3://bucket/it's", from: 'file:///chk-3' });
    expect(unbounded).not.toContain('scan.bounded');
    expect(unbounded).toContain("'properties.group.id' = 'films.reelflow-flink'");
    expect(unbounded).toContain("SET 'execution.checkpointing.mode' = 'EXACTLY_ONCE'");
    expect(unbounded).toContain("SET 'execution.checkpointing.dir' = 's3://bucket/it''s'");
    expect(unbounded).toContain("SET 'execution.state-recovery.path' = 'file:///chk-3'");
    expect(unbounded).toContain("SET 'parallelism.default' = '12'");
    expect(unbounded.match(/'sink.delivery-guarantee' = 'exactly-once'/g)).toHaveLength(job.tables.length);
  });

  test('reuses objects, so Flink does not copy a chunk for each of its rows', () => {
    const files = { kind: 'files', folder: 'file:///out', ends: new Map() } as const;
    for (const sql of [sqlOf(), sqlOf({ destination: files })]) {
      expect(sql).toContain("SET 'pipeline.object-reuse' = 'true'");
    }
  });

  test('survives ten minutes without task managers, and restarts within seconds', () => {
    const value = (name: string) => {
      const set = new RegExp(`SET 'restart-strategy.exponential-delay.${name}' = '(\\d+)`).exec(sqlOf());
      return Number(set?.[1]);
    };
    let [backoff, waited] = [value('initial-backoff'), 0];
    expect(backoff).toBeLessThanOrEqual(5);
    for (let attempt = 1; attempt <= value('attempts-before-reset-backoff'); attempt++) {
      waited += backoff;
      backoff = Math.min(backoff * value('backoff-multiplier'), value('max-backoff'));
    }
    expect(waited).toBeGreaterThan(600);
  });

  test('passes TLS and passwords on, and shows no password when it is printed', ({ place }) => {
    const folder = place.files('tls', { 'ca.pem': 'PEM' });
    const endpoints: Endpoints = {
      ...job.endpoints,
      security: {
        tls: { caFile: join(folder, 'ca.pem') },
        sasl: { mechanism: 'SCRAM-SHA-512', username: 'us"er', password: new Secret("pass'word") },
      },
      registrySecurity: { credentials: { username: 'reader', password: new Secret('letmein') } },
    };
    const printed = sqlOf({ endpoints });
    expect(printed).not.toMatch(/pass''?word|letmein/);
    expect(printed).toContain("'properties.security.protocol' = 'SASL_SSL'");
    expect(printed).toContain("'properties.ssl.truststore.certificates' = 'PEM'");
    const sent = flinkStatements({ ...job, endpoints }, (secret) => secret.reveal()).join();
    expect(sent).toContain('username="us\\"er" password="pass\'\'word"');
    expect(sent).toContain("'avro-confluent.basic-auth.user-info' = 'reader:letmein'");
    expect(sent).toContain("'value.avro-confluent.basic-auth.user-info' = 'reader:letmein'");
  });
});

describe.skipIf(withoutOpenssl() !== undefined)('a client certificate', () => {
  test('is passed with its key as PKCS #8, which is not shown when it is printed', ({ place }) => {
    const authority = new Authority(place.folder, 'own');
    const { certificate, key } = authority.issue('client', { keyPassword: 'open it' });
    const client = { certificateFile: certificate, keyFile: key, keyPassword: new Secret('open it') };
    const endpoints: Endpoints = { ...job.endpoints, security: { tls: { client } } };
    const printed = sqlOf({ endpoints });
    expect(printed).toContain("'properties.security.protocol' = 'SSL'");
    expect(printed).toContain(readFileSync(certificate, 'utf8'));
    expect(printed).toContain("'properties.ssl.keystore.key' = '[secret]'");
    const sent = flinkStatements({ ...job, endpoints }, (secret) => secret.reveal()).join();
    expect(sent).toContain("'properties.ssl.keystore.key' = '-----BEGIN PRIVATE KEY-----");
  });
});

describe('refused before Flink starts', () => {
  const sourcesOf = ({ names }: Place) =>
    [...datasetsRead(cubes).keys()].map((dataset) => names.source(dataset));
  const sql = (place: Place) => place.run(['flink', 'sql', '--namespace', place.namespace]);

  test('OAUTHBEARER', () => {
    const tokens = { kind: 'file', path: '/token' } as const;
    const endpoints: Endpoints = {
      ...job.endpoints,
      security: { sasl: { mechanism: 'OAUTHBEARER', tokens } },
    };
    expect(() => sqlOf({ endpoints })).toThrow('Flink jobs cannot use OAUTHBEARER');
  });

  test('missing topics', async ({ place }) => {
    const finished = await sql(place);
    expect(spoken(finished)).toContain(`There is no topic ${place.namespace}.imdb.`);
    expect(finished.code).toBe(18);
  });

  test('a title topic with another partition count', async ({ place }) => {
    const odd = place.names.source('title.akas');
    await ensureRetainedTopics(
      broker,
      sourcesOf(place).map((topic) => ({ topic, partitions: topic === odd ? 3 : 2 })),
    );
    const finished = await sql(place);
    expect(spoken(finished)).toContain(`Topic ${odd} has another partition count`);
    expect(finished.code).toBe(18);
  });

  test('a topic with messages but without a schema in the registry; an empty topic needs none', async ({
    place,
  }) => {
    await ensureRetainedTopics(
      broker,
      sourcesOf(place).map((topic) => ({ topic, partitions: 2 })),
    );
    const printed = await place.run(['flink', 'sql', '--namespace', place.namespace, '--json']);
    expect(lastJson<string[]>(printed).at(-1)).toMatch(/^EXECUTE STATEMENT SET BEGIN/);
    const topic = place.names.source('title.basics');
    await sendTo(topic, 1, [Buffer.from([0, 0, 0, 0, 1, 0])]);
    const finished = await sql(place);
    expect(spoken(finished)).toContain(`The Schema Registry has no schema of ${topic}`);
    expect(finished.code).toBe(18);
  });

  test('a topic that lost its first messages', async ({ place }) => {
    await ensureRetainedTopics(
      broker,
      sourcesOf(place).map((topic) => ({ topic, partitions: 2 })),
    );
    const topic = place.names.source('title.ratings');
    await sendTo(topic, 0, [Buffer.from('a'), Buffer.from('b')]);
    await deleteBefore(broker, topic, [{ partition: 0, offset: 1 }]);
    const finished = await sql(place);
    expect(spoken(finished)).toContain(`${topic} lost messages`);
    expect(finished.code).toBe(10);
  });

  test('result topics that would not keep every row', async ({ place }) => {
    const topic = place.names.goldTable('genre_analysis');
    await ensureRetainedTopics(broker, [{ topic, partitions: 2 }]);
    await expect(ensureCompactedTopics(broker, [{ topic, partitions: 2 }])).rejects.toThrow(
      'newest message of each key',
    );
  });

  test.for([
    [['run', '--bounded'], 'belong together'],
    [['run', '--out', 'tables'], 'belong together'],
    [['submit'], 'One of --gateway and --rest'],
    [['submit', '--rest', 'http://a:1', '--gateway', 'http://a:2'], 'One of --gateway and --rest'],
    [['submit', '--rest', 'flink:8081'], 'is not an HTTP address'],
  ] as [string[], string][])('%j', async ([args, what], { place }) => {
    const finished = await place.run(['flink', ...args]);
    expect(spoken(finished)).toContain(what);
    expect(finished.code).toBe(2);
  });
});

describe('a cluster', () => {
  /** A server on 127.0.0.1 that answers each request by a function. */
  async function server(place: Place, answer: (method: string, path: string) => unknown): Promise<string> {
    const http = createServer((request, response) => {
      request.resume();
      response.setHeader('content-type', 'application/json');
      response.end(JSON.stringify(answer(request.method ?? '', request.url ?? '')));
    });
    await new Promise<void>((resolve) => http.listen(0, '127.0.0.1', resolve));
    place.onEnd(() => new Promise((resolve) => http.close(resolve)));
    return `http://127.0.0.1:${(http.address() as AddressInfo).port}`;
  }

  const submit = async (place: Place, ...more: string[]) => {
    const topics = [...datasetsRead(cubes).keys()].map((dataset) => place.names.source(dataset));
    await ensureRetainedTopics(
      broker,
      topics.map((topic) => ({ topic, partitions: 2 })),
    );
    return place.run(['flink', 'submit', '--namespace', place.namespace, ...more]);
  };

  test.for(['--rest', '--gateway'])(
    'that cannot be reached by %s is exit code 23, and creates no topic',
    async (way, { place }) => {
      const finished = await submit(place, way, 'http://127.0.0.1:1');
      expect(spoken(finished)).toContain('Flink cannot be reached');
      expect(finished.code).toBe(23);
      expect(await place.readTopic(place.names.goldTable('genre_analysis'))).toEqual([]);
    },
  );

  test.for(['--rest', '--gateway'])(
    'that is another kind of server is exit code 23 by %s',
    async (way, { place }) => {
      const finished = await submit(place, way, await server(place, () => ({ hello: 'world' })));
      expect(spoken(finished)).toContain('The answer is not that of a');
      expect(finished.code).toBe(23);
    },
  );

  test('of another version is refused', async ({ place }) => {
    const finished = await submit(
      place,
      '--rest',
      await server(place, () => ({ 'flink-version': '1.20.1' })),
    );
    expect(spoken(finished)).toContain('The cluster runs Flink 1.20.1');
    expect(finished.code).toBe(24);
  });

  test.for([
    ['RUNNING', 19],
    ['RESTARTING', 19],
    ['CANCELED', 24],
  ] as const)('with a job of the namespace that is %s: exit code %d', async ([status, code], { place }) => {
    const data = [
      { fields: ['aa', 'another', 'RUNNING'] },
      { fields: ['bb', place.names.goldTable('tables'), status] },
    ];
    let asked = 0;
    const url = await server(place, (method, path) => {
      if (method === 'DELETE') return {};
      if (path.endsWith('/sessions')) return { sessionHandle: 's' };
      if (path.endsWith('/statements')) asked += 1;
      if (path.endsWith('/statements')) return { operationHandle: 'o' };
      // The client lists the jobs first. Its next statement fails.
      if (path.endsWith('/status')) return { status: asked === 1 ? 'FINISHED' : 'ERROR' };
      return asked === 1 ? { results: { data } } : { errors: ['no'] };
    });
    const finished = await submit(place, '--gateway', url);
    expect(spoken(finished).includes('Job bb')).toBe(code === 19);
    expect(finished.code).toBe(code);
  });

  test('that fails a statement gives its innermost cause, without the password', async ({ place }) => {
    const trace = `<Exception on server side:\norg.apache.flink.A: outer\n\tat a.b.C(D.java:1)
Caused by: org.apache.flink.table.api.ValidationException: no connector for 'password' = 'letmein'\nin this table\n\t... 3 more\n`;
    const url = await server(place, (method, path) => {
      if (path.endsWith('/sessions')) return { sessionHandle: 's' };
      if (path.endsWith('/statements')) return { operationHandle: 'o' };
      if (path.endsWith('/status')) return { status: 'ERROR' };
      return method === 'DELETE' ? {} : { errors: ['Internal server error.', trace] };
    });
    const gateway = await SqlGateway.open({ url, secrets: [new Secret('letmein')] });
    const failed = gateway.execute('CREATE TEMPORARY TABLE `title_akas_chunks` (…)');
    await expect(failed).rejects.toMatchObject({
      kind: 'flinkFailed',
      message: 'Flink failed to run CREATE TEMPORARY TABLE `title_akas_chunks`',
      detail: "no connector for 'password' = '[secret]'\nin this table",
    });
  });
});

test('a trace without a cause is its own cause, and a cause of one word is shown with its exception', () => {
  expect(causeIn('Session does not exist.')).toBe('Session does not exist.');
  expect(
    causeIn(
      'a.B: outer\n\tat a.b.C(D.java:1)\nCaused by: java.lang.ClassNotFoundException: a.b.Source\n\t... 3 more',
    ),
  ).toBe('ClassNotFoundException: a.b.Source');
});

test('a job starts from the newest complete checkpoint of any job', ({ place }) => {
  const write = (path: string, seconds: number) => {
    const folder = join(place.folder, path);
    mkdirSync(folder, { recursive: true });
    writeFileSync(join(folder, '_metadata'), '');
    utimesSync(join(folder, '_metadata'), seconds, seconds);
  };
  expect(newestCheckpoint(place.folder)).toBeUndefined();
  write('aaaa/chk-9', 1_000);
  write('bbbb/chk-2', 3_000);
  write('cccc/chk-7', 2_000);
  mkdirSync(join(place.folder, 'bbbb/chk-3'));
  expect(newestCheckpoint(place.folder)).toBe(join(place.folder, 'bbbb/chk-2'));
});

describe('deploy/flink', () => {
  const file = (path: string) => readFileSync(new URL(`../../${path}`, import.meta.url), 'utf8');
  const pom = file('flink/pom.xml');
  const version = /<flink\.version>(.*?)</.exec(pom)?.[1] ?? '';
  const connector = /<kafka\.connector\.version>(.*?)</.exec(pom)?.[1] ?? '';
  interface Service {
    image: string;
    command?: string | string[];
    ports?: string[];
    restart?: string;
    volumes?: string[];
    profiles: string[];
    environment: Record<string, string>;
    depends_on?: Record<string, { condition: string }>;
  }
  const compose = parse(file('deploy/flink/compose.yaml'), { merge: true }) as {
    services: Record<string, Service>;
    volumes: Record<string, unknown>;
  };

  test('uses the versions that the tests use', () => {
    const dockerfile = file('deploy/flink/Dockerfile');
    expect(dockerfile).toContain(`FROM flink:${version}-java17`);
    expect(dockerfile).toContain(`flink-sql-connector-kafka:${connector}`);
    expect(dockerfile).toContain(`flink-sql-avro-confluent-registry:${version}`);
    const manifest = parse(file('deploy/flink/kubernetes.yaml')) as {
      spec: { image: string; flinkVersion: string; flinkConfiguration: Record<string, unknown> };
    };
    expect(manifest.spec.image).toBe(`reelflow-flink:${version}`);
    expect(manifest.spec.flinkVersion).toBe(`v${version.split('.').slice(0, 2).join('_')}`);
    // The operator accepts only texts.
    for (const value of Object.values(manifest.spec.flinkConfiguration)) expect(value).toBeTypeOf('string');
    for (const name of ['jobmanager', 'taskmanager', 'sql-gateway']) {
      expect(compose.services[name]?.image).toBe(`reelflow-flink:${version}`);
    }
  });

  test('publishes no port of Flink, starts only with its profile, and names only existing services and volumes', () => {
    const ours = parse(file('docker-compose.yml')) as { services: Record<string, unknown> };
    const known = Object.keys({ ...ours.services, ...compose.services });
    for (const { ports, profiles, depends_on: needs = {}, volumes = [] } of Object.values(compose.services)) {
      expect(ports).toBeUndefined();
      expect(profiles.length).toBeGreaterThan(0);
      for (const name of Object.keys(needs)) expect(known).toContain(name);
      for (const volume of volumes) expect(compose.volumes).toHaveProperty(volume.split(':')[0] as string);
    }
  });

  test('restarts a task manager that Flink ended', () => {
    expect(compose.services.taskmanager?.restart).toBe('unless-stopped');
  });

  test('submits from inside the network, where the addresses of broker and registry are the same for Flink and reelflow', () => {
    const pipeline = parse(file('docker-compose.yml'), { merge: true }) as {
      services: Record<string, Service>;
    };
    const { environment, command } = compose.services['flink-submit'] as Service;
    expect(command).toEqual(['flink', 'submit']);
    expect(environment).toMatchObject(pipeline.services.processor?.environment ?? { none: true });
    expect(environment.FLINK_SQL_GATEWAY_URL).toBe('http://sql-gateway:8083');
  });
});
