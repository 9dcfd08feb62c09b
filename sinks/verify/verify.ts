/**
 * Whether a snapshot is what its input gives: its input is read again, from the topics at exactly the offsets that the
 * manifest names or from files, its tables are computed by an independent batch computation, and files, figures, content
 * hashes and accounting are held against them. Nothing is changed but a folder of its own, which is removed.
 */
import { existsSync, mkdtempSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type DuckDBConnection, DuckDBInstance } from '@duckdb/node-api';
import { asStorageError, type Storage } from '../../database/storage-errors.ts';
import { clusterIdOf } from '../../kafka/client.ts';
import { ReelflowError } from '../../runtime/errors.ts';
import { fileSha256 } from '../../runtime/files.ts';
import { contentHash } from '../../tables/content-hash.ts';
import { goldTables } from '../../tables/gold-tables.ts';
import { startAfter } from '../../topics/position.ts';
import {
  currentSnapshot,
  filesOf,
  type Manifest,
  readManifest,
  type Scales,
  snapshotFolder,
} from '../gold/manifest.ts';
import { batchGold } from './batch.ts';
import { computeGold, exactTable } from './batch-gold.ts';
import { compareTables, type Difference } from './compare.ts';
import { loadSourceRows, type ReadProgress, type SourceCount, type Sources } from './source-rows.ts';

export interface VerifyOptions {
  readonly gold: string;
  /** Default: the newest. */
  readonly snapshot?: string;
  /** What to compute the tables from: the topics, or a folder of IMDb files. */
  readonly input: Sources | { readonly folder: string };
  /** DuckDB's limit, as DuckDB writes sizes. */
  readonly memoryLimit: string;
  /** Positions of record batches that cannot be decoded and were skipped: `topic:partition:offset`. */
  readonly skipBatches?: readonly string[];
  readonly signal: AbortSignal;
  readonly onProgress?: (progress: ReadProgress) => void;
}

/** Something that is not as it should be. */
export interface Finding {
  /** A table, `cubes/<cube>`, a topic, or `manifest`. */
  readonly about: string;
  readonly text: string;
}

/** How the records of a topic count: those in the log, and those that the manifest accounts for. */
export interface TopicAccounting {
  readonly records: number;
  readonly applied: number;
  readonly duplicate: number;
  readonly rejected: number;
}

export interface Verification {
  readonly snapshot: string;
  /** Whether there is no finding at all. */
  readonly equal: boolean;
  /** `rows`: of the table computed anew; `differences`: all of them, in figures, files and hashes. */
  readonly tables: Readonly<Record<string, { readonly rows: number; readonly differences: number }>>;
  /** By topic; null when the topics were not read. */
  readonly accounting: Readonly<Record<string, TopicAccounting>> | null;
  /** The first differences of each table, and everything else. */
  readonly findings: readonly Finding[];
  readonly seconds: number;
}

const schema = 'batch';
const catalog = 'verify';
/** So many differences of a table are told in words. */
const shownPerTable = 5;

/**
 * Verifies a snapshot.
 * @throws ReelflowError goldUnusable, when there is no such snapshot; foreignCluster; sourceLost or sourceReplaced, when the
 *   topics no longer hold the input; input, for files that cannot be read; diskFull; the reason of `signal`
 */
export async function verifySnapshot(options: VerifyOptions): Promise<Verification> {
  const startedMs = performance.now();
  const { gold, input, signal } = options;
  const id = options.snapshot ?? newestOf(gold);
  const manifest = readManifest(gold, id);
  if (!('folder' in input)) await requireSameCluster(manifest, input);
  return withDatabase(options, async (connection) => {
    const tables: Record<string, { rows: number; differences: number }> = {};
    const findings: Finding[] = [];
    let accounting: Verification['accounting'] = null;

    // 1. what the files are, before anything is computed
    findings.push(...(await checkFiles(gold, manifest)));
    for (const name of Object.keys(manifest.tables)) {
      if (goldTables.every((table) => table.name !== name))
        findings.push({ about: 'manifest', text: `it names a table ${name}` });
    }

    // 2. the tables anew
    if ('folder' in input) {
      await batchGold(connection, input.folder, schema);
    } else {
      const counts = await loadSourceRows(connection, catalog, manifest, input, options);
      signal.throwIfAborted();
      await computeGold(connection, schema);
      const accounted = checkAccounting(manifest, counts);
      accounting = accounted.accounting;
      findings.push(...accounted.findings, ...checkPositions(manifest));
    }

    // 3. figure by figure, and the manifest's claims about them
    signal.throwIfAborted();
    for (const compared of await compareTables(connection, schema, snapshotFolder(gold, id), shownPerTable)) {
      const { table, rows, differences, first } = compared;
      const claims = await checkClaims(connection, manifest, table, rows);
      const ofFile = findings.filter(({ about }) => about === table).length;
      tables[table] = { rows, differences: differences + ofFile + claims.length };
      findings.push(...first.map((difference) => ({ about: table, text: textOf(difference) })));
      if (differences > first.length) {
        findings.push({ about: table, text: `and ${differences - first.length} more` });
      }
      findings.push(...claims);
    }
    const seconds = (performance.now() - startedMs) / 1000;
    return { snapshot: id, equal: findings.length === 0, tables, accounting, findings, seconds };
  });
}

function newestOf(gold: string): string {
  const id = currentSnapshot(gold);
  if (id !== undefined) return id;
  throw new ReelflowError('goldUnusable', 'There is no snapshot to verify', {
    detail: `${gold} has no CURRENT.`,
    hint: 'Publish one with `reelflow sink --once`, or name the folder with --gold.',
  });
}

async function requireSameCluster(manifest: Manifest, { broker, names }: Sources): Promise<void> {
  const clusterId = await clusterIdOf(broker);
  if (manifest.clusterId === clusterId && manifest.namespace === names.namespace) return;
  throw new ReelflowError('foreignCluster', 'The snapshot belongs to another cluster or namespace', {
    detail: `${manifest.id}: cluster ${manifest.clusterId}, namespace '${manifest.namespace}'; this is ${clusterId}, '${names.namespace}'.`,
    hint: 'Name its brokers and its --namespace, or compare with the files: --data DIR.',
  });
}

/** A database on the disk in the system's folder for temporary files, which goes when `work` is done. */
async function withDatabase<T>(
  { memoryLimit, signal }: VerifyOptions,
  work: (connection: DuckDBConnection) => Promise<T>,
): Promise<T> {
  const folder = mkdtempSync(join(tmpdir(), 'reelflow-verify-'));
  let instance: DuckDBInstance | undefined;
  let connection: DuckDBConnection | undefined;
  const interrupt = () => connection?.interrupt();
  try {
    instance = await DuckDBInstance.create(join(folder, `${catalog}.duckdb`), {
      memory_limit: memoryLimit,
      temp_directory: join(folder, 'spill'),
      // Row numbers follow the input, and tables are written in the order of their query.
      preserve_insertion_order: 'true',
    });
    connection = await instance.connect();
    signal.addEventListener('abort', interrupt);
    return await work(connection);
  } catch (thrown) {
    signal.throwIfAborted();
    throw asStorageError(thrown, temporaryStorage(folder));
  } finally {
    signal.removeEventListener('abort', interrupt);
    connection?.closeSync();
    instance?.closeSync();
    rmSync(folder, { recursive: true, force: true });
  }
}

const temporaryStorage = (path: string): Storage => ({
  path,
  folder: 'the folder for temporary files',
  kind: 'stateUnusable',
  unusable: 'The folder for temporary files cannot be used',
  hint: 'Check its permissions, or name another folder in TMPDIR.',
  hintWhenFull: 'Make room, or name another folder in TMPDIR.',
});

/** Length and hash of each file. That a table is there and can be read is seen when it is compared. */
async function checkFiles(gold: string, manifest: Manifest): Promise<Finding[]> {
  const findings = goldTables
    .map(({ name }) => name)
    .filter((table) => manifest.tables[table] === undefined)
    .map((table): Finding => ({ about: table, text: 'the manifest does not name it' }));
  for (const { path, bytes, sha256 } of filesOf(manifest)) {
    const about = path.replace('.parquet', '');
    const file = join(snapshotFolder(gold, manifest.id), path);
    if (!existsSync(file)) {
      if (!(about in manifest.tables)) findings.push({ about, text: `${path} is missing` });
      continue;
    }
    const { size } = statSync(file);
    if (size !== bytes) {
      findings.push({ about, text: `${path} has ${size} bytes, the manifest says ${bytes}` });
    }
    const actual = await fileSha256(file);
    if (actual === sha256) continue;
    const text = `${path} was altered: its SHA-256 is ${actual}, the manifest says ${sha256}`;
    findings.push({ about, text });
  }
  return findings;
}

/** What the manifest claims about the content, against the table computed anew. */
async function checkClaims(
  connection: DuckDBConnection,
  manifest: Manifest,
  table: string,
  rows: number,
): Promise<Finding[]> {
  const claimed = manifest.tables[table];
  const declared = goldTables.find(({ name }) => name === table);
  if (claimed === undefined || declared === undefined) return [];
  const findings: Finding[] = [];
  if (claimed.rows !== rows) {
    findings.push({ about: table, text: `the manifest says ${claimed.rows} rows, the input gives ${rows}` });
  }
  const hash = await contentHash(connection, declared, `"${schema}"."${exactTable(table)}"`);
  if (hash !== claimed.contentHash) {
    findings.push({
      about: table,
      text: `the manifest's content hash is ${claimed.contentHash}, the input gives ${hash}`,
    });
  }
  return [...findings, ...(await checkScales(connection, table, claimed.scales ?? {}))];
}

/** Mean and deviation of the columns that a table standardises, as plain averages over doubles. */
async function checkScales(connection: DuckDBConnection, table: string, claimed: Scales): Promise<Finding[]> {
  const findings: Finding[] = [];
  for (const column of goldTables.find(({ name }) => name === table)?.standardised ?? []) {
    const rows = await connection.runAndReadAll(
      `SELECT count("${column}")::INTEGER, avg("${column}"), stddev_samp("${column}") FROM "${schema}"."${table}"`,
    );
    const [known, mean, deviation] = rows.getRows()[0] as (number | null)[];
    const same = (a: number | null | undefined, b: number | null | undefined) =>
      a === b || (a != null && b != null && Math.abs(a - b) <= 1e-9 * Math.max(1, Math.abs(b)));
    const given = claimed[column];
    if (given?.known === known && same(given?.mean, mean) && same(given?.deviation, deviation)) continue;
    const words = (of: readonly unknown[]) => `${of[0]} known values, mean ${of[1]}, deviation ${of[2]}`;
    const says = given === undefined ? 'nothing' : words([given.known, given.mean, given.deviation]);
    findings.push({
      about: table,
      text: `${column}: the manifest says ${says}; the input gives ${words([known, mean, deviation])}`,
    });
  }
  return findings;
}

/** Records in the log = applied + duplicate + rejected, topic by topic. */
function checkAccounting(
  manifest: Manifest,
  counts: ReadonlyMap<string, SourceCount>,
): { accounting: Record<string, TopicAccounting>; findings: Finding[] } {
  const accounting: Record<string, TopicAccounting> = {};
  const findings: Finding[] = [];
  for (const topic of new Set([...counts.keys(), ...Object.keys(manifest.accounting)])) {
    const records = counts.get(topic)?.records ?? 0;
    const claimed = manifest.accounting[topic] ?? { applied: 0, duplicate: 0, rejected: 0 };
    const { applied, duplicate, rejected } = claimed;
    accounting[topic] = { records, applied, duplicate, rejected };
    if (records === applied + duplicate + rejected) continue;
    findings.push({
      about: topic,
      text: `its range holds ${records} records, the manifest accounts for ${applied} applied + ${duplicate} duplicate + ${rejected} rejected`,
    });
  }
  return { accounting, findings };
}

/** The input is the positions of the shards, behind what they have lost: what a sink would restore from. */
function checkPositions({ input, shards }: Manifest): Finding[] {
  return Object.entries(shards).flatMap(([shard, { sources }]) =>
    Object.entries(sources).flatMap(([topic, { next, gaps }]) => {
      const [start, end] = input[topic]?.[shard] ?? [0, 0];
      const findings: string[] = [];
      if (start !== startAfter(gaps)) {
        findings.push(
          `shard ${shard} begins at offset ${startAfter(gaps)}, the manifest's input begins at ${start}`,
        );
      }
      if (end !== next) {
        findings.push(`shard ${shard} stands at offset ${next}, the manifest's input ends at ${end}`);
      }
      return findings.map((text) => ({ about: topic, text }));
    }),
  );
}

/** A difference in words. */
function textOf({ kind, key, column, expected, actual }: Difference): string {
  if (kind === 'columns') return `its columns are ${actual}; they must be ${expected}`;
  if (kind === 'file') return `${expected} is needed, there is ${actual}`;
  return [key, column, `${actual}, the input gives ${expected}`].filter((part) => part !== '').join(': ');
}
