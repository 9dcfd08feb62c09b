/**
 * DuckDB of Python with extensions from their Python packages, as another engine that reads what reelflow wrote. Needs
 * Python with `lake-requirements.txt`.
 */
import { execFile } from 'node:child_process';
import { promisify } from 'node:util';
import { python } from './python.ts';

const run = promisify(execFile);

/** Runs statements in one session, with these extensions loaded. @returns the rows of each */
export async function pythonDuckdb(
  extensions: readonly string[],
  statements: readonly string[],
): Promise<unknown[][][]> {
  const program = `
import duckdb, glob, importlib, json, sys
connection = duckdb.connect()
for name in json.loads(sys.argv[1]):
    package = importlib.import_module(f"duckdb_extension_{name}")
    [extension] = glob.glob(f"{list(package.__path__)[0]}/extensions/v{duckdb.__version__}/{name}.duckdb_extension")
    connection.execute(f"LOAD '{extension}'")
print(json.dumps([connection.execute(one).fetchall() for one in json.loads(sys.argv[2])], default=str))`;
  const args = ['-c', program, JSON.stringify(extensions), JSON.stringify(statements)];
  const { stdout } = await run(python, args, { maxBuffer: 1 << 26 });
  // Extensions write lines of their own before.
  return JSON.parse(stdout.trim().split('\n').at(-1) ?? '') as unknown[][][];
}
