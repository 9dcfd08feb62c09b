/**
 * Flink SQL, generated from the declarations of cubes and gold tables: chunk topics are unnested, the last version of
 * each key wins in the order of its partition, and over these rows stand the very contributions and tables that DuckDB
 * computes. What is printed, submitted and run differs only in where the rows come to an end and where they go.
 */
import { sqlText } from '../database/sql.ts';
import { readTls, type Sasl, type TlsFiles } from '../runtime/broker-security.ts';
import type { Endpoints } from '../runtime/config.ts';
import { Secret } from '../runtime/credentials.ts';
import { ReelflowError } from '../runtime/errors.ts';
import { type Cube, relationOf } from '../tables/cubes/cube.ts';
import { projectionOf } from '../tables/cubes/cube-set.ts';
import type { GoldColumnType, GoldTable } from '../tables/gold-table.ts';
import { quotedForFlink } from '../tables/portable-sql.ts';
import {
  type Column,
  type ColumnType,
  type DatasetName,
  datasets,
  type TopicNames,
} from '../topics/catalog.ts';
import { schemaOfGoldTable } from './gold-topic.ts';

/** Where the results go. */
export type Destination =
  /** Upsert topics, without an end. */
  | { readonly kind: 'topics' }
  /** JSON lines in `folder/<table>/`, from the messages before these offsets, by topic and partition. */
  | {
      readonly kind: 'files';
      readonly folder: string;
      readonly ends: ReadonlyMap<string, ReadonlyMap<number, number>>;
    };

export interface FlinkJob {
  readonly cubes: readonly Cube[];
  readonly tables: readonly GoldTable[];
  readonly names: TopicNames;
  readonly endpoints: Endpoints;
  readonly destination: Destination;
  /** Partition count of the title topics. */
  readonly shards: number;
  /** Where checkpoints go, a URI; the cluster's own setting when undefined. */
  readonly checkpoints?: string;
  /** A checkpoint or savepoint to go on from, a URI. */
  readonly from?: string;
}

/** What a cluster calls the job of a namespace. */
export const jobName = (names: TopicNames) => names.goldTable('tables');

/** Datasets whose rows some table or cube needs, with the columns that are read; the key first. */
export function datasetsRead(cubes: readonly Cube[]): Map<DatasetName, readonly string[]> {
  const shared = cubes.filter(({ onlyDuckdb }) => onlyDuckdb === undefined);
  return new Map<DatasetName, readonly string[]>([
    ...projectionOf(shared),
    ['name.basics', ['nconst', 'primaryName']],
  ]);
}

/** Statements in order, without their semicolons. @param reveal how a password is written */
export function flinkStatements(job: FlinkJob, reveal: (secret: Secret) => string): string[] {
  const reads = [...datasetsRead(job.cubes)];
  const cubes = job.cubes.filter(({ onlyDuckdb }) => onlyDuckdb === undefined);
  const tables = job.tables.filter(({ onlyDuckdb }) => onlyDuckdb === undefined);
  return [
    ...settings(job),
    ...reads.map(([dataset, columns]) => chunksTable(job, dataset, columns, reveal)),
    ...reads.map(([dataset, columns]) => rowsView(dataset, columns)),
    view('names', 'SELECT `nconst`, `primaryName` FROM `name_basics`'),
    ...cubes.map(({ name, contribution }) => view(name, quotedForFlink(contribution))),
    ...tables.map(({ name, integers }) => view(`${name}_integers`, quotedForFlink(integers))),
    ...tables.map((table) => resultTable(job, table, reveal)),
    `EXECUTE STATEMENT SET BEGIN\n${tables.map((table) => `${insert(job, table)};`).join('\n')}\nEND`,
  ];
}

const view = (name: string, query: string) => `CREATE TEMPORARY VIEW ${identifier(name)} AS\n${query.trim()}`;
const identifier = (name: string) => `\`${name}\``;
const list = (names: readonly string[]) => names.map(identifier).join(', ');
const options = (values: Readonly<Record<string, string>>) =>
  `WITH (\n${Object.entries(values)
    .map(([key, value]) => `  ${sqlText(key)} = ${sqlText(value)}`)
    .join(',\n')}\n)`;

// Settings

function settings({ destination, shards, names, checkpoints, from }: FlinkJob): string[] {
  const values: Record<string, string> = {
    'pipeline.name': `${jobName(names)}${destination.kind === 'files' ? ' bounded' : ''}`,
    'parallelism.default': String(shards),
    'table.local-time-zone': 'UTC',
    // Without it the whole chunk is copied for each of its rows on the way to the next operator.
    'pipeline.object-reuse': 'true',
  };
  if (destination.kind === 'files') values['execution.runtime-mode'] = 'batch';
  else {
    Object.assign(values, {
      'execution.runtime-mode': 'streaming',
      'execution.checkpointing.mode': 'EXACTLY_ONCE',
      'execution.checkpointing.interval': '10 s',
      'execution.checkpointing.externalized-checkpoint-retention': 'RETAIN_ON_CANCELLATION',
      // A broker or task managers that are away for ten minutes are waited for: each try without a slot counts, at once.
      // A message that cannot be read ends the job after the same time instead of repeating it permanently.
      'restart-strategy.type': 'exponential-delay',
      'restart-strategy.exponential-delay.initial-backoff': '1 s',
      'restart-strategy.exponential-delay.backoff-multiplier': '2',
      'restart-strategy.exponential-delay.max-backoff': '60 s',
      'restart-strategy.exponential-delay.attempts-before-reset-backoff': '16',
      'restart-strategy.exponential-delay.reset-backoff-threshold': '10 min',
      'state.backend.type': 'rocksdb',
      'execution.checkpointing.incremental': 'true',
      // A change of a title touches up to five tables: gathered, it is written once.
      'table.exec.mini-batch.enabled': 'true',
      'table.exec.mini-batch.allow-latency': '1 s',
      'table.exec.mini-batch.size': '2000',
      // Flink cannot see that `rowKey` tells all rows apart: each key comes from one task, its versions in order.
      'table.exec.sink.require-on-conflict': 'false',
      'table.exec.sink.upsert-materialize': 'NONE',
      ...(checkpoints !== undefined && { 'execution.checkpointing.dir': checkpoints }),
      ...(from !== undefined && { 'execution.state-recovery.path': from }),
    });
  }
  return Object.entries(values).map(([key, value]) => `SET ${sqlText(key)} = ${sqlText(value)}`);
}

// Sources

const avroTypes: Readonly<Record<ColumnType, string>> = {
  string: 'STRING NOT NULL',
  'nullable-string': 'STRING',
  int: 'INT NOT NULL',
  'nullable-int': 'INT',
  boolean: 'BOOLEAN NOT NULL',
  'nullable-boolean': 'BOOLEAN',
  tenths: 'DOUBLE NOT NULL',
};

function columnOf(dataset: DatasetName, name: string): Column {
  const column = datasets[dataset].columns.find((candidate) => candidate.name === name);
  if (column === undefined) throw new RangeError(`${dataset} has no column ${name}`);
  return column;
}

const chunksOf = (dataset: DatasetName) => `${relationOf(dataset)}_chunks`;
const keyOf = (dataset: DatasetName) =>
  datasets[dataset].columns.slice(0, datasets[dataset].keyColumns).map(({ name }) => name);

/** The chunks of the topic: the columns that are read of each record, and the offset of the chunk. */
function chunksTable(
  { names, endpoints, destination }: FlinkJob,
  dataset: DatasetName,
  columns: readonly string[],
  reveal: (secret: Secret) => string,
): string {
  const rows = (of: readonly string[]) =>
    `ARRAY<ROW<${of.map((name) => `${identifier(name)} ${avroTypes[columnOf(dataset, name).type]}`).join(', ')}> NOT NULL> NOT NULL`;
  const topic = names.source(dataset);
  return `CREATE TEMPORARY TABLE ${identifier(chunksOf(dataset))} (
  \`records\` ${rows(columns)},
  \`deletes\` ${rows(keyOf(dataset))},
  \`chunk_offset\` BIGINT NOT NULL METADATA FROM 'offset' VIRTUAL
) ${options({
    connector: 'kafka',
    topic,
    ...brokerOptions(endpoints, reveal),
    'scan.startup.mode': 'earliest-offset',
    ...(destination.kind === 'files' && {
      'scan.bounded.mode': 'specific-offsets',
      'scan.bounded.specific-offsets': [...(destination.ends.get(topic) ?? [])]
        .map(([partition, offset]) => `partition:${partition},offset:${offset}`)
        .join(';'),
    }),
    ...(destination.kind === 'topics' && { 'properties.group.id': names.flinkGroup }),
    'properties.isolation.level': 'read_committed',
    // A message is a chunk of up to a megabyte: the usual 500 at a time would fill the memory.
    'properties.max.poll.records': '8',
    ...formatOptions('', endpoints, reveal),
  })}`;
}

/** How a column is seen by contributions: ids as their digits, ratings in tenths, integers too large to overflow. */
function relational(dataset: DatasetName, name: string): string {
  const { type } = columnOf(dataset, name);
  const value = `\`rows\`.${identifier(name)}`;
  if (type === 'tenths') return `CAST(ROUND(${value} * 10) AS BIGINT)`;
  if (type === 'int' || type === 'nullable-int') return `CAST(${value} AS BIGINT)`;
  if (/^(tconst|titleId|parentTconst|nconst)$/.test(name))
    return `CAST(SUBSTRING(${value} FROM 3) AS BIGINT)`;
  return value;
}

/** The type that `relational` gives. */
function relationalType(dataset: DatasetName, name: string): string {
  const { type } = columnOf(dataset, name);
  const isNumber = relational(dataset, name).startsWith('CAST(');
  return isNumber ? 'BIGINT' : (avroTypes[type].split(' ')[0] as string);
}

/** The rows of a dataset: of each key the last version in its partition, unless that deletes it. */
function rowsView(dataset: DatasetName, columns: readonly string[]): string {
  const key = keyOf(dataset);
  const select = (of: 'records' | 'deletes', names: readonly string[]) => `
    SELECT \`chunk_offset\`, ${of === 'deletes' ? 1 : 0} AS \`deleted\`, \`rows\`.\`place\`,
      ${columns
        .map((name) =>
          names.includes(name)
            ? `${relational(dataset, name)} AS ${identifier(name)}`
            : `CAST(NULL AS ${relationalType(dataset, name)}) AS ${identifier(name)}`,
        )
        .join(',\n      ')}
    FROM ${identifier(chunksOf(dataset))} CROSS JOIN UNNEST(${identifier(of)}) WITH ORDINALITY AS \`rows\` (${list([...names, 'place'])})`;
  return view(
    relationOf(dataset),
    `SELECT ${list(columns)}
FROM (
  SELECT *, ROW_NUMBER() OVER (
    PARTITION BY ${list(key)} ORDER BY \`chunk_offset\` DESC, \`deleted\` DESC, \`place\` DESC
  ) AS \`newest\`
  FROM (${select('records', columns)}
    UNION ALL${select('deletes', key)}
  )
)
WHERE \`newest\` = 1 AND \`deleted\` = 0`,
  );
}

// Results

const flinkTypes: Readonly<Record<GoldColumnType, string>> = {
  BIGINT: 'BIGINT',
  INTEGER: 'INT',
  DOUBLE: 'DOUBLE',
  VARCHAR: 'STRING',
  BOOLEAN: 'BOOLEAN',
  'VARCHAR[]': 'ARRAY<STRING>',
};

function resultTable(
  { names, endpoints, destination }: FlinkJob,
  table: GoldTable,
  reveal: (secret: Secret) => string,
): string {
  const columns = Object.entries(table.columns).map(
    ([name, type]) => `  ${identifier(name)} ${flinkTypes[type]}`,
  );
  if (destination.kind === 'files') {
    return `CREATE TEMPORARY TABLE ${identifier(table.name)} (\n${columns.join(',\n')}\n) ${options({
      connector: 'filesystem',
      path: `${destination.folder}/${table.name}`,
      format: 'json',
    })}`;
  }
  const topic = names.goldTable(table.name);
  return `CREATE TEMPORARY TABLE ${identifier(table.name)} (
  \`row_key\` STRING NOT NULL,
${columns.join(',\n')},
  PRIMARY KEY (\`row_key\`) NOT ENFORCED
) ${options({
    connector: 'upsert-kafka',
    topic,
    ...brokerOptions(endpoints, reveal),
    'key.format': 'raw',
    'value.fields-include': 'EXCEPT_KEY',
    ...formatOptions('value.', endpoints, reveal),
    'value.avro-confluent.subject': `${topic}-value`,
    'value.avro-confluent.schema': JSON.stringify(schemaOfGoldTable(table)),
    'sink.delivery-guarantee': 'exactly-once',
    'sink.transactional-id-prefix': topic,
    // The longest that a broker allows by default: a job may be away for this long without losing a change.
    'properties.transaction.timeout.ms': '900000',
  })}`;
}

/** The key of a row as text: its parts as the files write them, `\N` for null, tabs in between. */
function rowKey({ key }: GoldTable): string {
  return key.map((name) => `COALESCE(CAST(${identifier(name)} AS STRING), '\\N')`).join(` || U&'\\0009' || `);
}

function insert({ destination }: FlinkJob, table: GoldTable): string {
  const columns = Object.entries(table.columns).map(
    ([name, type]) => `CAST(${identifier(name)} AS ${flinkTypes[type]})`,
  );
  const key = destination.kind === 'topics' ? `${rowKey(table)},\n  ` : '';
  return `INSERT INTO ${identifier(table.name)} SELECT ${key}${columns.join(', ')}
FROM (SELECT ${quotedForFlink(table.select)} FROM ${identifier(`${table.name}_integers`)})`;
}

// Connections

/**
 * The PEM texts of a TLS connection. They become part of the job: Flink does not read renewed files, so a renewed
 * certificate needs the job to be submitted again from its last checkpoint.
 */
export function flinkTls(tls: TlsFiles): { ca?: string; chain?: string; key?: Secret } {
  const { ca, client } = readTls(tls);
  return {
    ...(ca !== undefined && { ca }),
    ...(client !== undefined && {
      chain: client.chain,
      // Kafka reads keys as PKCS #8 only.
      key: new Secret(client.key.export({ type: 'pkcs8', format: 'pem' }).toString()),
    }),
  };
}

function brokerOptions({ brokers, security }: Endpoints, reveal: (secret: Secret) => string) {
  const { tls, sasl } = security ?? {};
  const { ca, chain, key } = tls === undefined ? {} : flinkTls(tls);
  const protocol = `${sasl === undefined ? '' : 'SASL_'}${tls === undefined ? 'PLAINTEXT' : 'SSL'}`;
  return {
    'properties.bootstrap.servers': brokers.join(','),
    ...(security !== undefined && { 'properties.security.protocol': protocol }),
    ...(ca !== undefined && {
      'properties.ssl.truststore.type': 'PEM',
      'properties.ssl.truststore.certificates': ca,
    }),
    ...(chain !== undefined &&
      key !== undefined && {
        'properties.ssl.keystore.type': 'PEM',
        'properties.ssl.keystore.certificate.chain': chain,
        'properties.ssl.keystore.key': reveal(key),
      }),
    ...(sasl !== undefined && saslOptions(sasl, reveal)),
  };
}

function saslOptions(sasl: Sasl, reveal: (secret: Secret) => string) {
  if (sasl.mechanism === 'OAUTHBEARER') {
    throw new ReelflowError('usage', 'Flink jobs cannot use OAUTHBEARER', {
      detail:
        "Kafka's client reads token endpoints and token files only if a Java property of the whole cluster allows each of them.",
      hint: 'Set KAFKA_SASL_MECHANISM to PLAIN or SCRAM, or use a client certificate (KAFKA_SSL_CERTIFICATE_FILE), for flink commands.',
    });
  }
  const module = sasl.mechanism === 'PLAIN' ? 'plain.PlainLoginModule' : 'scram.ScramLoginModule';
  const quoted = (value: string) => `"${value.replaceAll('\\', '\\\\').replaceAll('"', '\\"')}"`;
  return {
    'properties.sasl.mechanism': sasl.mechanism,
    // The connector's jar holds Kafka's classes under a name of its own.
    'properties.sasl.jaas.config': `org.apache.flink.kafka.shaded.org.apache.kafka.common.security.${module} required username=${quoted(sasl.username)} password=${quoted(reveal(sasl.password))};`,
  };
}

function formatOptions(
  prefix: '' | 'value.',
  { registryUrl, registryCredentials: credentials }: Endpoints,
  reveal: (secret: Secret) => string,
) {
  return {
    [`${prefix}format`]: 'avro-confluent',
    [`${prefix}avro-confluent.url`]: registryUrl,
    ...(credentials !== undefined && {
      [`${prefix}avro-confluent.basic-auth.credentials-source`]: 'USER_INFO',
      [`${prefix}avro-confluent.basic-auth.user-info`]: `${credentials.username}:${reveal(credentials.password)}`,
    }),
  };
}
