/**
 * Verifies that a snapshot equals its input. It reads the input again, from the topics at exactly the offsets of the manifest
 * or from files, recomputes the tables with the independent batch computation, and compares files, figures, content hashes
 * and accounting. It changes nothing but a temporary folder of its own.
 */
import { join } from 'node:path';
import type { DuckDBConnection } from '@duckdb/node-api';
import { confine, interruptOn, withDatabase } from '../../database/duckdb.ts';
import { databasePath } from '../../database/sql.ts';
import { asStorageError, type Storage } from '../../database/storage-errors.ts';
import { ReelflowError } from '../../runtime/errors.ts';
import { withTemporaryFolder } from '../../runtime/files.ts';
import { builtIn, type Declarations, hasUserDeclarations } from '../../tables/built-in.ts';
import { currentSnapshot, readManifest, snapshotFolder } from '../gold/manifest.ts';
import { computeGold } from './batch-gold.ts';
import { checkHistory, historyFromSnapshot, uncheckedEarlierRows } from './batch-history.ts';
import { compareTable, type Difference } from './compare.ts';
import { batchGold } from './file-gold.ts';
import {
  checkAccounting,
  checkContent,
  checkFiles,
  checkPositions,
  checkTableNames,
  type Finding,
  type TopicAccounting,
  undeclaredTables,
} from './manifest-checks.ts';
import { requireSameCluster } from './same-cluster.ts';
import { type InputTopics, loadTopicRows, type ReadProgress } from './topic-rows.ts';

export interface VerifyOptions {
  readonly gold: string;
  /** Default: the newest. */
  readonly snapshot?: string;
  /** The topics, or a folder of IMDb files. */
  readonly input: InputTopics | { readonly folder: string };
  /** The memory limit of DuckDB, in DuckDB's notation. */
  readonly memoryLimit: string;
  /** Positions of record batches that cannot be decoded and were skipped: `topic:partition:offset`. */
  readonly skipBatches?: readonly string[];
  /** Default: the built-in ones. */
  readonly declarations?: Declarations;
  readonly signal: AbortSignal;
  readonly onProgress?: (progress: ReadProgress) => void;
}

export interface Verification {
  readonly snapshot: string;
  /** Of the pipeline that made the snapshot. */
  readonly namespace: string;
  /** Whether there are no findings. */
  readonly equal: boolean;
  /** By table: rows of the recomputed table, and the number of all differences in figures, files and hashes. */
  readonly tables: Readonly<Record<string, { readonly rows: number; readonly differences: number }>>;
  /** By topic; null if the input was files. */
  readonly accounting: Readonly<Record<string, TopicAccounting>> | null;
  /** The first differences of each table, and all other findings. */
  readonly findings: readonly Finding[];
  /** Tables and cubes whose file is missing or is not the one that the manifest describes. */
  readonly altered: readonly string[];
  /** Tables of the snapshot that are declared nowhere here. They are findings, because nothing verifies them. */
  readonly undeclared: readonly string[];
  /** Tables that are declared here and that the snapshot lacks without a reason. They are findings too. */
  readonly absent: readonly string[];
  /** What this input cannot check. */
  readonly unchecked: readonly string[];
  readonly seconds: number;
}

const schema = 'batch';
const catalog = 'verify';
/** Differences of a table that become findings. */
const shownPerTable = 5;

/**
 * @throws ReelflowError goldUnusable, when the snapshot does not exist; foreignCluster; sourceLost or sourceReplaced, when
 *   the topics no longer hold the input; input, for files that cannot be read; diskFull; the reason of `signal`
 */
export async function verifySnapshot(options: VerifyOptions): Promise<Verification> {
  const startedMs = performance.now();
  const { gold, input, signal } = options;
  const id = options.snapshot ?? newestOf(gold);
  const manifest = readManifest(gold, id);
  const { cubes, tables: declared } = options.declarations ?? builtIn;
  const { leftOut = {} } = manifest;
  const wanted = declared.filter(({ name }) => leftOut[name] === undefined);
  const absent = wanted.map(({ name }) => name).filter((name) => manifest.tables[name] === undefined);
  const declarations = { cubes, tables: wanted.filter(({ name }) => !absent.includes(name)) };
  if (!('folder' in input)) await requireSameCluster(manifest, input);
  return inTemporaryDatabase(options, async (connection, temporary) => {
    if (hasUserDeclarations(declarations)) {
      await confine(connection, [temporary, gold, ...('folder' in input ? [input.folder] : [])], 'open');
    }
    const tables: Record<string, { rows: number; differences: number }> = {};
    const findings: Finding[] = [];
    let accounting: Verification['accounting'] = null;

    // 1. Check the files, before the computation starts.
    const ofFiles = await checkFiles(gold, manifest);
    const altered = new Set(ofFiles.map(({ about }) => about));
    const undeclared = undeclaredTables(manifest, wanted);
    findings.push(...checkTableNames(manifest, wanted), ...ofFiles);

    // 2. Recompute the tables.
    const ofLeftOut = Object.entries(leftOut).map(
      ([name, why]) => `table ${name}, which is left out: ${why}`,
    );
    let unchecked: Verification['unchecked'] = [];
    const takeHistory = async () => {
      findings.push(...(await historyFromSnapshot(connection, manifest, snapshotFolder(gold, id))));
      unchecked = uncheckedEarlierRows;
    };
    if ('folder' in input) {
      await batchGold(connection, input.folder, schema, declarations, takeHistory);
    } else {
      const { counts, hasHistory } = await loadTopicRows(connection, catalog, manifest, input, {
        ...options,
        declarations,
      });
      signal.throwIfAborted();
      if (hasHistory) findings.push(...(await checkHistory(connection, manifest)));
      else await takeHistory();
      await computeGold(connection, schema, declarations, true);
      const accounted = checkAccounting(manifest, counts);
      accounting = accounted.accounting;
      findings.push(...accounted.findings, ...checkPositions(manifest));
    }

    // 3. Compare figure by figure, then check the manifest's claims about the content.
    for (const table of declarations.tables) {
      signal.throwIfAborted();
      const { name } = table;
      const folder = snapshotFolder(gold, id);
      const { rows, differences, first } = await compareTable(
        connection,
        table,
        schema,
        folder,
        shownPerTable,
      );
      const claims = await checkContent(connection, schema, manifest, table, rows);
      const ofFile = findings.filter(({ about }) => about === name).length;
      tables[name] = { rows, differences: differences + ofFile + claims.length };
      if (first.some(({ kind }) => kind === 'file')) altered.add(name);
      findings.push(...first.map((difference) => ({ about: name, text: textOf(difference) })));
      if (differences > first.length) {
        findings.push({ about: name, text: `and ${differences - first.length} more` });
      }
      findings.push(...claims);
    }
    const seconds = (performance.now() - startedMs) / 1000;
    const equal = findings.length === 0;
    const { namespace } = manifest;
    return {
      ...{ snapshot: id, namespace, equal, tables, accounting, findings },
      ...{ altered: [...altered], undeclared, absent, unchecked: [...unchecked, ...ofLeftOut], seconds },
    };
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

/** Runs `work` with a database in a temporary folder, and removes the folder. */
function inTemporaryDatabase<T>(
  { memoryLimit, signal }: VerifyOptions,
  work: (connection: DuckDBConnection, folder: string) => Promise<T>,
): Promise<T> {
  return withTemporaryFolder('verify', async (folder) => {
    const settings = {
      memory_limit: memoryLimit,
      temp_directory: join(folder, 'spill'),
      // Row numbers must follow the input, and tables the order of their query.
      preserve_insertion_order: 'true',
    };
    try {
      const path = databasePath(join(folder, `${catalog}.duckdb`));
      const interruptible = (connection: DuckDBConnection) => {
        const stopInterrupting = interruptOn(signal, connection);
        return work(connection, folder).finally(stopInterrupting);
      };
      return await withDatabase(interruptible, path, settings);
    } catch (thrown) {
      signal.throwIfAborted();
      throw asStorageError(thrown, temporaryStorage(folder));
    }
  });
}

const temporaryStorage = (path: string): Storage => ({
  path,
  folder: 'the folder for temporary files',
  kind: 'stateUnusable',
  unusable: 'The folder for temporary files cannot be used',
  hint: 'Check its permissions, or set TMPDIR to another folder.',
  hintWhenFull: 'Free disk space, or set TMPDIR to another folder.',
});

/** Describes a difference. */
function textOf({ kind, key, column, expected, actual }: Difference): string {
  switch (kind) {
    case 'file':
      return `expected ${expected}, found ${actual}`;
    case 'columns':
      return `its columns are ${actual}; the contract is ${expected}`;
    case 'missing':
      return `${key}: the row is missing`;
    case 'extra':
      return `${key}: the input gives no such row`;
    case 'value':
      return `${key}: ${column}: ${actual}, the input gives ${expected}`;
    case 'duplicate':
    case 'order':
      return `${key}: found ${actual}, expected ${expected}`;
  }
}
