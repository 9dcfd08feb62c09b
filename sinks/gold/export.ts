/**
 * A snapshot as Delta tables, one per gold table, written by delta-rs through its Python package: the reference engine for
 * Delta, and the only one that installs from a public registry. Each export is a commit with the id of the snapshot. A table
 * whose last commit has the same content gets no commit. A table is replaced whole or not at all.
 */
import { spawn } from 'node:child_process';
import { existsSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { text } from 'node:stream/consumers';
import { fileURLToPath } from 'node:url';
import { messageOf, ReelflowError } from '../../runtime/errors.ts';
import { fileSha256 } from '../../runtime/files.ts';
import { readManifest, tableFile } from './manifest.ts';

export interface DeltaExport {
  readonly snapshot: string;
  readonly folder: string;
  /** Version of delta-rs. */
  readonly deltalake: string;
  /** By table: its newest version, and whether this export made it. */
  readonly tables: Readonly<Record<string, { version: number; rows: number; written: boolean }>>;
}

const script = fileURLToPath(new URL('./export_delta.py', import.meta.url));
const errorMax = 2_000;

/** The default Python: of the environment, of a `.venv` here, of the system. */
export function defaultPython(env: NodeJS.ProcessEnv): string {
  const local = join('.venv', 'bin', 'python');
  return env.REELFLOW_PYTHON ?? (existsSync(local) ? local : 'python3');
}

/**
 * Writes the tables of a snapshot to `<folder>/<table>`.
 * @param python a Python with deltalake and pyarrow
 * @throws ReelflowError goldUnusable, if a file is missing or was altered; usage, if Python or its packages are missing or the
 *   tables cannot be written
 */
export async function exportDelta(
  gold: string,
  id: string,
  folder: string,
  python: string,
): Promise<DeltaExport> {
  const { tables } = readManifest(gold, id);
  for (const [table, { sha256 }] of Object.entries(tables)) {
    const file = tableFile(gold, id, table);
    if (existsSync(file) && (await fileSha256(file)) === sha256) continue;
    throw new ReelflowError('goldUnusable', `A file of snapshot ${id} is missing or was altered`, {
      detail: file,
      hint: `Nothing was exported. Run \`reelflow verify ${id}\` to see everything that is wrong with it.`,
    });
  }
  const job = {
    folder: resolve(folder),
    snapshot: id,
    tables: Object.entries(tables).map(([name, { contentHash }]) => ({
      name,
      contentHash,
      file: resolve(tableFile(gold, id, name)),
    })),
  };
  const answer = JSON.parse(await runPython(python, job)) as Pick<DeltaExport, 'deltalake' | 'tables'>;
  return { snapshot: id, folder: job.folder, ...answer };
}

/** Runs the script with a job. @returns its output */
async function runPython(python: string, job: object): Promise<string> {
  const child = spawn(python, [script], { stdio: ['pipe', 'pipe', 'pipe'] });
  const { promise: ended, resolve: end, reject } = Promise.withResolvers<number | null>();
  child.once('error', reject);
  child.once('close', end);
  // A Python that ends early does not read its job. Its exit code is reported.
  child.stdin.on('error', () => undefined).end(JSON.stringify(job));
  const output = Promise.all([text(child.stdout), text(child.stderr)]);
  try {
    const code = await ended;
    const [stdout, stderr] = await output;
    if (code === 0) return stdout;
    throw exportError(python, stderr.trim().slice(-errorMax));
  } catch (thrown) {
    throw thrown instanceof ReelflowError ? thrown : exportError(python, messageOf(thrown));
  }
}

function exportError(python: string, message: string): ReelflowError {
  const isMissing = /ModuleNotFoundError|ENOENT|EACCES/.test(message);
  return new ReelflowError(
    'usage',
    isMissing ? 'Python with deltalake is missing' : 'The tables were not exported',
    {
      detail: `${python}: ${message.split('\n').at(-1)}`,
      hint: isMissing
        ? 'Run `python3 -m venv .venv && .venv/bin/pip install deltalake pyarrow`, or name another Python with --python.'
        : 'Tables that were exported before stay. Run the export again to write the others.',
    },
  );
}
