/** The Python of the tests: in `.venv`, or where REELFLOW_PYTHON says. */
import { execFile } from 'node:child_process';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { findJvm } from '../../kafka/local/jars.ts';

const run = promisify(execFile);
const top = join(import.meta.dirname, '..', '..');

export const python = process.env.REELFLOW_PYTHON ?? join(top, '.venv', 'bin', 'python');

export const hasPackages = (packages: string): Promise<boolean> =>
  run(python, ['-c', `import ${packages}`]).then(
    () => true,
    () => false,
  );

/** Why Spark cannot run here; undefined when it can. */
export async function whyNoSpark(): Promise<string | undefined> {
  const jvm = await findJvm(process.env, join(top, '.reelflow', 'jars'));
  if ('why' in jvm) return jvm.why;
  return (await hasPackages('pyspark')) ? undefined : 'no pyspark: see docs/requirements.txt';
}
