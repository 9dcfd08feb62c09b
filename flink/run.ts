/** Computes the gold tables with Flink: into files, into topics on this machine, or into topics on a cluster. */
import { createHash, randomUUID } from 'node:crypto';
import { globSync, renameSync, rmSync, statSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { pathToFileURL } from 'node:url';
import { withDatabase } from '../database/duckdb.ts';
import { sqlFile, sqlPath, sqlText } from '../database/sql.ts';
import type { Broker } from '../kafka/client.ts';
import { ensureCompactedTopics } from '../kafka/topics.ts';
import type { Endpoints } from '../runtime/config.ts';
import type { Secret } from '../runtime/credentials.ts';
import { ReelflowError } from '../runtime/errors.ts';
import { makeFolder } from '../runtime/files.ts';
import type { Declarations } from '../tables/built-in.ts';
import type { GoldTable } from '../tables/gold-table.ts';
import type { TopicNames } from '../topics/catalog.ts';
import type { Registry } from '../topics/registry.ts';
import { flinkTls } from './connections.ts';
import { clusterVersion, SqlGateway } from './gateway.ts';
import { schemaOfGoldTable } from './gold-topic.ts';
import { flinkVersion, type LocalGateway, withLocalGateway } from './local.ts';
import { inspectSources, type SourceTopics } from './sources.ts';
import { type FlinkJob, flinkStatements, jobName } from './sql.ts';

export interface FlinkContext {
  readonly broker: Broker;
  readonly registry: Registry;
  readonly names: TopicNames;
  readonly declarations: Declarations;
  readonly endpoints: Endpoints;
  /** Holds log, temporary files and checkpoints of a local Flink. */
  readonly folder: string;
  /** The cache of jars. */
  readonly jars: string;
  readonly env: NodeJS.ProcessEnv;
  readonly signal: AbortSignal;
  readonly onProgress?: (line: string) => void;
}

/** The tables that Flink computes. */
const sharedTables = ({ declarations }: FlinkContext) =>
  declarations.tables.filter(({ onlyDuckdb }) => onlyDuckdb === undefined);
const reveal = (secret: Secret) => secret.reveal();

function secretsOf({ security, registrySecurity }: Endpoints): Secret[] {
  const { tls, sasl } = security ?? {};
  const { key } = (tls && flinkTls(tls)) ?? {};
  const password = sasl !== undefined && 'password' in sasl ? sasl.password : undefined;
  return [key, password, registrySecurity?.credentials?.password].filter((secret) => secret !== undefined);
}

function jobOf(
  context: FlinkContext,
  { shards }: SourceTopics,
  destination: FlinkJob['destination'],
): FlinkJob {
  const { names, endpoints, declarations } = context;
  const tables = sharedTables(context);
  return { cubes: declarations.cubes, tables, names, endpoints, shards, destination };
}

/**
 * Runs the statements of a job in a session of a gateway.
 * @param check runs first; it may refuse the session
 * @returns the job's id
 */
async function runJob(
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
    if (id === undefined) throw new ReelflowError('flinkFailed', 'Flink started no job');
    return id;
  } finally {
    await session.close();
  }
}

// Bounded

interface BoundedReport {
  readonly tables: Readonly<Record<string, { readonly rows: number; readonly bytes: number }>>;
  /** [0, end) by topic and partition, as in a manifest. */
  readonly input: Readonly<Record<string, Readonly<Record<string, readonly [number, number]>>>>;
  readonly seconds: number;
}

/**
 * Computes the tables from the present messages into `out/<table>.parquet`, with the rows in the order of gold. When all
 * tables are ready, it replaces existing files one by one.
 * @throws ReelflowError as `inspectSources`, `withLocalGateway` and `SqlGateway.execute` do; goldUnusable
 */
export async function runBounded(context: FlinkContext, out: string): Promise<BoundedReport> {
  const started = performance.now();
  const sources = await inspectSources(context, context.declarations.cubes);
  const parts = join(resolve(context.folder), `parts-${randomUUID()}`);
  try {
    makeFolder(out);
    await withLocalGateway(context, (local) =>
      runJob(
        context,
        jobOf(context, sources, { kind: 'files', folder: pathToFileURL(parts).href, ends: sources.ends }),
        { url: local.url, properties: { 'table.dml-sync': 'true' } },
      ),
    );
    return {
      tables: await gather(sharedTables(context), parts, out),
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

/** Merges the parts that Flink wrote into one file per table. */
async function gather(
  tables: readonly GoldTable[],
  parts: string,
  out: string,
): Promise<BoundedReport['tables']> {
  const report: Record<string, { rows: number; bytes: number }> = {};
  const written: [string, string][] = [];
  await withDatabase(async (connection) => {
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
  }).finally(() => {
    for (const [partial] of written) rmSync(partial, { force: true });
  });
  return report;
}

// Unbounded

/** Creates the result topics and registers their schemas. */
async function prepareResults(context: FlinkContext, shards: number): Promise<void> {
  const { broker, registry, names } = context;
  const tables = sharedTables(context);
  const topics = tables.map(({ name }) => ({ topic: names.goldTable(name), partitions: shards }));
  await ensureCompactedTopics(broker, topics);
  for (const table of tables) {
    const { name } = table;
    await registry.register(names.goldTable(name), name, JSON.stringify(schemaOfGoldTable(table)));
  }
}

/**
 * Keeps the tables up to date on their topics until the signal, from the newest checkpoint in the folder.
 * @param onStart receives the checkpoint that the job starts from, if there is one
 * @throws as `runBounded`
 */
export async function runUnbounded(
  context: FlinkContext,
  onStart?: (from: string | undefined) => void,
): Promise<void> {
  const sources = await inspectSources(context, context.declarations.cubes);
  await prepareResults(context, sources.shards);
  const job = jobOf(context, sources, { kind: 'topics' });
  // Only the same statements can start from a checkpoint. Other statements start from the beginning, in another folder.
  const identity = createHash('sha256')
    .update(flinkStatements(job, String).join())
    .digest('hex')
    .slice(0, 16);
  const checkpoints = join(resolve(context.folder), 'checkpoints', identity);
  try {
    await withLocalGateway(context, async (local) => {
      const newest = newestCheckpoint(checkpoints);
      onStart?.(newest);
      await runJob(
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

/** The newest complete checkpoint in a folder, of any job: `<job>/chk-<n>` with a file `_metadata`. */
export function newestCheckpoint(folder: string): string | undefined {
  return globSync('*/chk-*/_metadata', { cwd: folder })
    .map((path) => join(folder, path))
    .map((path) => ({ path, mtimeMs: statSync(path).mtimeMs }))
    .sort((a, b) => b.mtimeMs - a.mtimeMs)
    .map(({ path }) => path.slice(0, -'/_metadata'.length))[0];
}

// On a cluster

type Cluster = { readonly gateway: string } | { readonly rest: string };

/**
 * Starts the job on a cluster, detached.
 * @param options.checkpoints a URI that the cluster can write to; undefined means the setting of the cluster
 * @param options.from a checkpoint or savepoint to start from
 * @returns the job's id
 * @throws as `runBounded`; flinkUnreachable; busy, when the cluster already runs a job of this namespace
 */
export async function submit(
  context: FlinkContext,
  cluster: Cluster,
  options: { checkpoints?: string; from?: string } = {},
): Promise<string> {
  const sources = await inspectSources(context, context.declarations.cubes);
  const job = { ...jobOf(context, sources, { kind: 'topics' }), ...options };
  if ('gateway' in cluster) {
    const probe = await SqlGateway.open({ url: cluster.gateway, signal: context.signal });
    await probe.close();
    await prepareResults(context, sources.shards);
    return runJob(context, job, { url: cluster.gateway }, (session) => refuseSecond(session, job));
  }
  const version = await clusterVersion(cluster.rest, context.signal);
  if (!version.startsWith(`${flinkVersion}.`)) {
    throw new ReelflowError('flinkFailed', `The cluster runs Flink ${version}`, {
      detail: `${cluster.rest}: this version of reelflow makes jobs for Flink ${flinkVersion}.`,
      hint: 'Use the SQL gateway of the cluster: --gateway.',
    });
  }
  await prepareResults(context, sources.shards);
  return withLocalGateway(context, (local) =>
    runJob(context, job, { url: local.url, properties: remote(cluster.rest, local) }, (session) =>
      refuseSecond(session, job),
    ),
  );
}

/** Two jobs of one name would use the same transactional ids, and each would permanently fence the other. */
async function refuseSecond(session: SqlGateway, { names }: FlinkJob): Promise<void> {
  const ended = ['FINISHED', 'CANCELED', 'FAILED', 'SUSPENDED'];
  const found = (await session.jobs()).find(
    ({ name, status }) => name === jobName(names) && !ended.includes(status),
  );
  if (found === undefined) return;
  throw new ReelflowError('busy', 'The cluster already keeps these tables up to date', {
    detail: `Job ${found.id}, ${found.name}, is ${found.status.toLowerCase()}.`,
    hint: 'Cancel it first. To continue from its state, pass its last checkpoint or a savepoint with --from.',
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
