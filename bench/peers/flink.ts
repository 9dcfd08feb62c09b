/**
 * Flink SQL as one streaming job in a local cluster, over our chunk topics (UNNEST) or over row topics; and the SQL that
 * `reelflow flink` makes of our own declarations.
 */
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { localFolder } from '../../cli/options.ts';
import { flinkJars } from '../../flink/local.ts';
import { findJvm, resolveJars } from '../../kafka/local/jars.ts';
import { ensureRetainedTopics } from '../../kafka/topics.ts';
import { environmentOf } from '../../runtime/config.ts';
import { program } from '../stages.ts';
import { comparedTables } from './check.ts';
import { Absent, here, jarsOf, java, type Peer, type Workshop } from './peer.ts';
import { lastValues } from './results.ts';

/** The columns that gold needs of each dataset. */
const sources = {
  ratings: {
    dataset: 'title.ratings',
    columns: { tconst: 'STRING', averageRating: 'DOUBLE', numVotes: 'INT' },
  },
  basics: {
    dataset: 'title.basics',
    columns: { tconst: 'STRING', startYear: 'INT', runtimeMinutes: 'INT', genres: 'STRING' },
  },
  principals: { dataset: 'title.principals', columns: { tconst: 'STRING', nconst: 'STRING' } },
  akas: { dataset: 'title.akas', columns: { titleId: 'STRING', region: 'STRING' } },
  names: { dataset: 'name.basics', columns: { nconst: 'STRING', primaryName: 'STRING' } },
} as const;

const notNull = ['tconst', 'titleId', 'nconst', 'averageRating', 'numVotes'];

export const flinkSql = (input: 'chunks' | 'rows'): Peer => ({
  name: `flink-sql-${input}`,
  input,
  setup:
    'Flink 2.2.0, local cluster in one JVM, parallelism 2, 8 GB heap, state on the heap, no checkpoints, mini-batches of 50,000, object reuse, results to upsert-kafka',
  without:
    'no recovery (no checkpoints), no files; rows that change or come twice would count twice; replay not included',
  prepare: async (workshop) => {
    const command = await java();
    const jars = await jarsOf('flink/pom.xml', workshop.say);
    await ensureRetainedTopics(
      workshop.broker,
      comparedTables.map(({ name: table }) => ({ topic: resultTopic(workshop, table), partitions: 2 })),
    );
    const statements = join(workshop.out, 'gold.sql');
    writeFileSync(statements, [...sourceTables(workshop, input), ...sinkTables(workshop), gold()].join('\n'));
    const opens = ['java.lang', 'java.util', 'java.time', 'java.util.concurrent'].flatMap((name) => [
      '--add-opens',
      `java.base/${name}=ALL-UNNAMED`,
    ]);
    return {
      command,
      args: [
        ...['-Xmx8g', '-XX:+UseParallelGC', '-Dorg.slf4j.simpleLogger.defaultLogLevel=warn', ...opens],
        ...['-cp', join(jars, '*'), here('flink/FlinkSql.java'), statements],
      ],
    };
  },
  collect: async (workshop) => {
    for (const { name: table } of comparedTables) {
      await lastValues(workshop.broker, resultTopic(workshop, table), join(workshop.out, `${table}.json`));
    }
  },
});

/** As users have it: rows may change, come twice or late. */
export const reelflowFlink: Peer = {
  name: 'reelflow-flink',
  input: 'chunks',
  setup:
    '`reelflow flink run --bounded`: Flink 2.3.0 in one JVM, batch mode, a slot for each of 4 partitions, 2 GB heap, the last version of each key wins',
  without: 'nothing kept for the next time; replay not included, its own start is',
  prepare: async ({ endpoints, prefix, out, say }) => {
    const jars = join(localFolder, 'jars');
    const found = await findJvm(process.env, jars, flinkJars);
    if ('why' in found) throw new Absent(found.why);
    await resolveJars({ jars, env: process.env, set: flinkJars, onProgress: say });
    const namespace = prefix('chunks').replace(/\.imdb\.$/, '');
    const places = ['--namespace', namespace, '--state', join(out, 'state'), '--jars', jars];
    return {
      command: process.execPath,
      args: [program, 'flink', 'run', '--bounded', '--out', out, ...places],
      env: environmentOf(endpoints),
    };
  },
};

const gold = () => readFileSync(here('flink/gold.sql'), 'utf8');
const resultTopic = ({ namespace }: Workshop, table: string) => `${namespace}.${table}`;

function sourceTables({ endpoints, prefix }: Workshop, input: 'chunks' | 'rows'): string[] {
  return Object.entries(sources).flatMap(([name, { dataset, columns }]) => {
    const fields = Object.entries(columns).map(
      ([column, type]) => `${column} ${type}${notNull.includes(column) ? ' NOT NULL' : ''}`,
    );
    const connector = `WITH ('connector' = 'kafka', 'topic' = '${prefix(input)}${dataset}',
      'properties.bootstrap.servers' = '${endpoints.brokers.join(',')}', 'scan.startup.mode' = 'earliest-offset',
      'scan.bounded.mode' = 'latest-offset', 'value.format' = 'avro-confluent',
      'value.avro-confluent.url' = '${endpoints.registryUrl}');`;
    if (input === 'rows') return [`CREATE TEMPORARY TABLE ${name} (${fields.join(', ')}) ${connector}`];
    const wanted = Object.keys(columns).join(', ');
    return [
      `CREATE TEMPORARY TABLE ${name}_chunks (records ARRAY<ROW<${fields.join(', ')}> NOT NULL> NOT NULL) ${connector}`,
      `CREATE TEMPORARY VIEW ${name} AS SELECT ${wanted} FROM ${name}_chunks CROSS JOIN UNNEST(records) AS r (${wanted});`,
    ];
  });
}

function sinkTables(workshop: Workshop): string[] {
  const types: Readonly<Record<string, string>> = {
    BIGINT: 'BIGINT',
    INTEGER: 'INT',
    DOUBLE: 'DOUBLE',
    VARCHAR: 'STRING',
  };
  return comparedTables.map(({ name: table, key, columns }) => {
    const fields = Object.entries(columns).map(([name, type]) => `${name} ${types[type]}`);
    return `CREATE TEMPORARY TABLE ${table} (${fields.join(', ')}, PRIMARY KEY (${key.join(', ')}) NOT ENFORCED)
      WITH ('connector' = 'upsert-kafka', 'topic' = '${resultTopic(workshop, table)}',
      'properties.bootstrap.servers' = '${workshop.endpoints.brokers.join(',')}',
      'key.format' = 'json', 'value.format' = 'json',
      'sink.buffer-flush.max-rows' = '50000', 'sink.buffer-flush.interval' = '1 s');`;
  });
}
