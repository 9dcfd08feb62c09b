/** The three ways to have Flink compute the gold tables: into files, into topics here, into topics by a cluster. */
import { createHash, randomUUID } from 'node:crypto';
import { globSync, mkdirSync, renameSync, rmSync, statSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { pathToFileURL } from 'node:url';
import { DuckDBInstance } from '@duckdb/node-api';
import { sqlFile, sqlPath, sqlText } from '../database/sql.ts';
import type { Broker } from '../kafka/client.ts';
import { ensureCompactedTopics } from '../kafka/topics.ts';
import type { Endpoints } from '../runtime/config.ts';
import type { Secret } from '../runtime/credentials.ts';
import { ReelflowError } from '../runtime/errors.ts';
import { cubes } from '../tables/cubes/cube-set.ts';
import { goldTables } from '../tables/gold-tables.ts';
import type { TopicNames } from '../topics/catalog.ts';
import type { Registry } from '../topics/registry.ts';
import { clusterVersion, SqlGateway } from './gateway.ts';
import { schemaOfGoldTable } from './gold-topic.ts';
import { flinkVersion, type LocalGateway, withLocalGateway } from './local.ts';
import { inspectSources, type Sources } from './sources.ts';
import { type FlinkJob, flinkStatements, flinkTls, jobName } from './sql.ts';

export interface FlinkContext {
  readonly broker: Broker;
  readonly registry: Registry;
  readonly names: TopicNames;
  readonly endpoints: Endpoints;
  /** Holds log, temporary files and checkpoints of a local Flink. */
  readonly folder: string;
  /** The cache of jars. */
  readonly jars: string;
  readonly env: NodeJS.ProcessEnv;
  readonly signal: AbortSignal;
  readonly onProgress?: (line: string) => void;
}

const tables = goldTables.filter(({ onlyDuckdb }) => onlyDuckdb === undefined);
const reveal = (secret: Secret) => secret.reveal();

function secretsOf({ security, registryCredentials }: Endpoints): Secret[] {
  const { tls, sasl } = security ?? {};
  const { key } = (tls && flinkTls(tls)) ?? {};
  const password = sasl !== undefined && 'password' in sasl ? sasl.password : undefined;
  return [key, password, registryCredentials?.password].filter((secret) => secret !== undefined);
}

function jobOf(context: FlinkContext, { shards }: Sources, destination: FlinkJob['destination']): FlinkJob {
  const { names, endpoints } = context;
  return { cubes, tables, names, endpoints, shards, destination };
}

/**
 * A session of a gateway, in which every statement of a job is carried out.
 * @param check looks at the session before
 * @returns the job's id
 */
async function carryOut(
  context: FlinkContext,
  job: FlinkJob,
  gateway: { url: string; properties?: Readonly<Record<string, string>> },
  check?: (session: SqlGateway) => Promise<void>,
): Promise<string> {
  const session = await SqlGateway.open({
    ...gateway,
    signal: context.signal,
    secrets: secretsOf(context.endpoints),
  });
  try {
    await check?.(session);
    let id: string | undefined;
    for (const statement of flinkStatements(job, reveal)) id = (await session.execute(statement)) ?? id;
    if (id === undefined) throw new ReelflowError('flinkFailed', 'Flink has started no job');
    return id;
  } finally {
    await session.close();
  }
}

// Bounded

export interface BoundedReport {
  readonly tables: Readonly<Record<string, { readonly rows: number; readonly bytes: number }>>;
  /** [0, end) by topic and partition, as in a manifest. */
  readonly input: Readonly<Record<string, Readonly<Record<string, readonly [number, number]>>>>;
  readonly seconds: number;
}

/**
 * Computes the tables from the messages that are there now, into `out/<table>.parquet`: rows in the order of gold.
 * Files there are replaced one by one when all is computed.
 * @throws ReelflowError as `inspectSources`, `withLocalGateway` and `SqlGateway.execute` do; goldUnusable
 */
export async function runBounded(context: FlinkContext, out: string): Promise<BoundedReport> {
  const started = performance.now();
  const sources = await inspectSources(context, cubes);
  const parts = join(resolve(context.folder), `parts-${randomUUID()}`);
  try {
    mkdirSync(out, { recursive: true });
    await withLocalGateway(context, (local) =>
      carryOut(
        context,
        jobOf(context, sources, { kind: 'files', folder: pathToFileURL(parts).href, ends: sources.ends }),
        { url: local.url, properties: { 'table.dml-sync': 'true' } },
      ),
    );
    return {
      tables: await gather(parts, out),
      input: Object.fromEntries(
        [...sources.ends].map(([topic, ends]) => [
          topic,
          Object.fromEntries([...ends].map(([partition, end]) => [partition, [0, end] as const])),
        ]),
      ),
      seconds: (performance.now() - started) / 1000,
    };
  } finally {
    rmSync(parts, { recursive: true, force: true });
  }
}

/** The parts that Flink wrote, each table as one file. */
async function gather(parts: string, out: string): Promise<BoundedReport['tables']> {
  const instance = await DuckDBInstance.create(':memory:');
  const connection = await instance.connect();
  const report: Record<string, { rows: number; bytes: number }> = {};
  const written: [string, string][] = [];
  try {
    for (const { name, order, columns } of tables) {
      const types = Object.entries(columns);
      const files = globSync('part-*', { cwd: join(parts, name) }).map((file) => join(parts, name, file));
      const struct = types.map(([column, type]) => `${sqlText(column)}: ${sqlText(type)}`).join(', ');
      await connection.run(
        `CREATE TABLE ${name} (${types.map(([column, type]) => `"${column}" ${type}`).join(', ')})`,
      );
      if (files.length > 0) {
        await connection.run(`INSERT INTO ${name} SELECT * FROM
          read_json([${files.map(sqlFile).join(', ')}], format = 'newline_delimited', hive_partitioning = false, columns = {${struct}})`);
      }
      const path = join(out, `${name}.parquet`);
      const partial = `${path}.${randomUUID()}`;
      written.push([partial, path]);
      await connection.run(
        `COPY (FROM ${name} ORDER BY ${order}) TO ${sqlPath(partial)} (FORMAT parquet, COMPRESSION zstd)`,
      );
      const rows = await connection.runAndReadAll(`SELECT count(*) FROM ${name}`);
      report[name] = { rows: Number(rows.getRows()[0]?.[0]), bytes: statSync(partial).size };
    }
    for (const [partial, path] of written) renameSync(partial, path);
    return report;
  } finally {
    for (const [partial] of written) rmSync(partial, { force: true });
    connection.closeSync();
    instance.closeSync();
  }
}

// Unbounded

/** The topics of the results, with their schemas. */
async function prepareResults({ broker, registry, names }: FlinkContext, shards: number): Promise<void> {
  const topics = tables.map(({ name }) => ({ topic: names.goldTable(name), partitions: shards }));
  await ensureCompactedTopics(broker, topics);
  for (const table of tables) {
    const { name } = table;
    await registry.register(names.goldTable(name), name, JSON.stringify(schemaOfGoldTable(table)));
  }
}

/**
 * Keeps the tables up to date on their topics until the signal, from the newest checkpoint in the folder.
 * @param onStart receives the checkpoint that it starts from, or undefined
 * @throws as `runBounded`
 */
export async function runUnbounded(
  context: FlinkContext,
  onStart?: (from: string | undefined) => void,
): Promise<void> {
  const sources = await inspectSources(context, cubes);
  await prepareResults(context, sources.shards);
  const job = jobOf(context, sources, { kind: 'topics' });
  // Only the same statements can use a checkpoint: others start from the topics, in a folder of their own.
  const identity = createHash('sha256')
    .update(flinkStatements(job, String).join())
    .digest('hex')
    .slice(0, 16);
  const checkpoints = join(resolve(context.folder), 'checkpoints', identity);
  try {
    await withLocalGateway(context, async (local) => {
      const newest = newestCheckpoint(checkpoints);
      onStart?.(newest);
      await carryOut(
        context,
        {
          ...job,
          checkpoints: pathToFileURL(checkpoints).href,
          ...(newest !== undefined && { from: pathToFileURL(newest).href }),
        },
        { url: local.url, properties: { 'table.dml-sync': 'true' } },
      );
    });
  } catch (thrown) {
    if (!context.signal.aborted) throw thrown;
  }
}

/** The newest complete checkpoint under a folder, whatever job wrote it: `<job>/chk-<n>` with a file `_metadata`. */
export function newestCheckpoint(folder: string): string | undefined {
  return globSync('*/chk-*/_metadata', { cwd: folder })
    .map((path) => join(folder, path))
    .map((path) => ({ path, mtimeMs: statSync(path).mtimeMs }))
    .sort((a, b) => b.mtimeMs - a.mtimeMs)
    .map(({ path }) => path.slice(0, -'/_metadata'.length))[0];
}

// On a cluster

export type Cluster = { readonly gateway: string } | { readonly rest: string };

/**
 * Starts the job on a cluster, where it stays.
 * @param checkpoints a URI that the cluster can write to; its own setting when undefined
 * @param from a checkpoint or savepoint to go on from
 * @returns the job's id
 * @throws as `runBounded`; flinkUnreachable; busy, when the cluster runs such a job already
 */
export async function submit(
  context: FlinkContext,
  cluster: Cluster,
  options: { checkpoints?: string; from?: string } = {},
): Promise<string> {
  const sources = await inspectSources(context, cubes);
  const job = { ...jobOf(context, sources, { kind: 'topics' }), ...options };
  if ('gateway' in cluster) {
    const probe = await SqlGateway.open({ url: cluster.gateway, signal: context.signal });
    await probe.close();
    await prepareResults(context, sources.shards);
    return carryOut(context, job, { url: cluster.gateway }, (session) => refuseSecond(session, job));
  }
  const version = await clusterVersion(cluster.rest, context.signal);
  if (!version.startsWith(`${flinkVersion}.`)) {
    throw new ReelflowError('flinkFailed', `The cluster runs Flink ${version}`, {
      detail: `${cluster.rest}: jobs made here are for Flink ${flinkVersion}.`,
      hint: 'Use the SQL gateway of the cluster: --gateway.',
    });
  }
  await prepareResults(context, sources.shards);
  return withLocalGateway(context, (local) =>
    carryOut(context, job, { url: local.url, properties: remote(cluster.rest, local) }, (session) =>
      refuseSecond(session, job),
    ),
  );
}

/** Two jobs of one name would use the same transactions, and each would abort those of the other permanently. */
async function refuseSecond(session: SqlGateway, { names }: FlinkJob): Promise<void> {
  const ended = ['FINISHED', 'CANCELED', 'FAILED', 'SUSPENDED'];
  const found = (await session.jobs()).find(
    ({ name, status }) => name === jobName(names) && !ended.includes(status),
  );
  if (found === undefined) return;
  throw new ReelflowError('busy', 'The cluster keeps these tables up to date already', {
    detail: `Job ${found.id}, ${found.name}, is ${found.status.toLowerCase()}.`,
    hint: 'Cancel it first; with --from and its last checkpoint or a savepoint the new one goes on where it was.',
  });
}

function remote(rest: string, { connectors }: LocalGateway): Record<string, string> {
  const { hostname, port, protocol } = new URL(rest);
  return {
    'execution.target': 'remote',
    'rest.address': hostname,
    'rest.port': port || (protocol === 'https:' ? '443' : '80'),
    'security.ssl.rest.enabled': String(protocol === 'https:'),
    'pipeline.jars': connectors.map((jar) => pathToFileURL(jar).href).join(';'),
  };
}
