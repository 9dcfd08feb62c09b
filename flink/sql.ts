/**
 * The Flink SQL of a job, generated from the declarations of cubes and gold tables. The contributions and tables are the SQL
 * that DuckDB runs, over views of the source topics. `flink sql`, `submit` and `run` differ only in the end of the input and in
 * the destination.
 */
import { sqlText } from '../database/sql.ts';
import type { Endpoints } from '../runtime/config.ts';
import type { Secret } from '../runtime/credentials.ts';
import type { Cube } from '../tables/cubes/cube.ts';
import { projectionOf } from '../tables/cubes/cube-set.ts';
import type { GoldColumnType, GoldTable } from '../tables/gold-table.ts';
import { quotedForFlink } from '../tables/portable-sql.ts';
import type { DatasetName, TopicNames } from '../topics/catalog.ts';
import { chunkTable, replacedView, rowsView } from './chunk-rows.ts';
import { brokerOptions, formatOptions } from './connections.ts';
import { schemaOfGoldTable } from './gold-topic.ts';
import { identifier, view, withOptions } from './sql-text.ts';

/** Where the results go. */
type Destination =
  /** Upsert topics, without an end. */
  | { readonly kind: 'topics' }
  /** JSON lines in `folder/<table>/`, from the messages before the offsets in `ends`, by topic and partition. */
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
  /** URI of the checkpoints; undefined means the setting of the cluster. */
  readonly checkpoints?: string;
  /** URI of a checkpoint or savepoint to start from. */
  readonly from?: string;
}

/** The name of the job of a namespace on a cluster. */
export const jobName = (names: TopicNames) => names.goldTable('tables');

/** Datasets that some table or cube reads, with the columns, the key first. */
export function datasetsRead(cubes: readonly Cube[]): Map<DatasetName, readonly string[]> {
  const shared = cubes.filter(({ onlyDuckdb }) => onlyDuckdb === undefined);
  return new Map<DatasetName, readonly string[]>([
    ...projectionOf(shared),
    ['name.basics', ['nconst', 'primaryName']],
  ]);
}

/** Statements in order, without semicolons. @param reveal writes a password */
export function flinkStatements(job: FlinkJob, reveal: (secret: Secret) => string): string[] {
  const reads = [...datasetsRead(job.cubes)];
  const cubes = job.cubes.filter(({ onlyDuckdb }) => onlyDuckdb === undefined);
  const tables = job.tables.filter(({ onlyDuckdb }) => onlyDuckdb === undefined);
  return [
    ...settings(job),
    ...reads.map(([dataset, columns]) => chunkTable(job, dataset, columns, reveal)),
    ...reads.map(([dataset]) => replacedView(dataset)),
    ...reads.map(([dataset, columns]) => rowsView(dataset, columns)),
    view('names', 'SELECT `nconst`, `primaryName` FROM `name_basics`'),
    ...cubes.map(({ name, contribution }) => view(name, quotedForFlink(contribution))),
    ...tables.map(({ name, integers }) => view(`${name}_integers`, quotedForFlink(integers))),
    ...tables.map((table) => resultTable(job, table, reveal)),
    `EXECUTE STATEMENT SET BEGIN\n${tables.map((table) => `${insert(job, table)};`).join('\n')}\nEND`,
  ];
}

// Settings

function settings({ destination, shards, names, checkpoints, from }: FlinkJob): string[] {
  const values: Record<string, string> = {
    'pipeline.name': `${jobName(names)}${destination.kind === 'files' ? ' bounded' : ''}`,
    'parallelism.default': String(shards),
    'table.local-time-zone': 'UTC',
    // Without this setting, Flink copies the whole chunk for each of its rows between operators.
    'pipeline.object-reuse': 'true',
  };
  if (destination.kind === 'files') values['execution.runtime-mode'] = 'batch';
  else {
    Object.assign(values, {
      'execution.runtime-mode': 'streaming',
      'execution.checkpointing.mode': 'EXACTLY_ONCE',
      'execution.checkpointing.interval': '10 s',
      'execution.checkpointing.externalized-checkpoint-retention': 'RETAIN_ON_CANCELLATION',
      // The job survives ten minutes without a broker or task managers. Flink counts each attempt without a slot at once.
      // After the same time, a message that cannot be read ends the job, which would otherwise restart permanently.
      'restart-strategy.type': 'exponential-delay',
      'restart-strategy.exponential-delay.initial-backoff': '1 s',
      'restart-strategy.exponential-delay.backoff-multiplier': '2',
      'restart-strategy.exponential-delay.max-backoff': '60 s',
      'restart-strategy.exponential-delay.attempts-before-reset-backoff': '16',
      'restart-strategy.exponential-delay.reset-backoff-threshold': '10 min',
      'state.backend.type': 'rocksdb',
      'execution.checkpointing.incremental': 'true',
      // A change of a title affects up to five tables. A mini-batch writes the changes together.
      'table.exec.mini-batch.enabled': 'true',
      'table.exec.mini-batch.allow-latency': '1 s',
      'table.exec.mini-batch.size': '2000',
      // Flink cannot infer that `rowKey` is unique. Each key comes from one task, with its versions in order.
      'table.exec.sink.require-on-conflict': 'false',
      'table.exec.sink.upsert-materialize': 'NONE',
      ...(checkpoints !== undefined && { 'execution.checkpointing.dir': checkpoints }),
      ...(from !== undefined && { 'execution.state-recovery.path': from }),
    });
  }
  return Object.entries(values).map(([key, value]) => `SET ${sqlText(key)} = ${sqlText(value)}`);
}

// Results

const flinkTypes: Readonly<Record<GoldColumnType, string>> = {
  BIGINT: 'BIGINT',
  INTEGER: 'INT',
  DOUBLE: 'DOUBLE',
  VARCHAR: 'STRING',
  BOOLEAN: 'BOOLEAN',
  'VARCHAR[]': 'ARRAY<STRING>',
  DATE: 'DATE',
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
    return `CREATE TEMPORARY TABLE ${identifier(table.name)} (\n${columns.join(',\n')}\n) ${withOptions({
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
) ${withOptions({
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
    // The default maximum of a broker. A job that is down longer loses the changes of its open transaction.
    'properties.transaction.timeout.ms': '900000',
  })}`;
}

/** The key of a row as text: its parts as the files write them, with `\N` for null, separated by tabs. */
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
