/**
 * Declarations of a user: a folder of SQL files beside the built-in ones. They are read and checked in a child process with
 * limits before anything starts.
 */
import { fork } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { builtIn, type Declarations } from './built-in.ts';
import type { ProcessAnswer } from './check-process.ts';
import { declarationsUnusable } from './declaration-problem.ts';

const ending = import.meta.url.endsWith('.ts') ? 'ts' : 'js';
const program = fileURLToPath(new URL(`./check-process.${ending}`, import.meta.url));

/**
 * The cubes and tables of a folder.
 * @param timeoutMs the longest time for one of its files
 * @throws ReelflowError declarationUnusable, with file, line and hint of each problem
 */
export async function userDeclarations(folder: string, timeoutMs = 30_000): Promise<Declarations> {
  const child = fork(program, [folder], {
    execArgv: ['--max-old-space-size=512', '--disable-warning=ExperimentalWarning'],
    stdio: ['ignore', 'ignore', 'pipe', 'ipc'],
  });
  let trace = '';
  child.stderr?.setEncoding('utf8').on('data', (text: string) => {
    trace += text;
  });
  let file = folder;
  let answer: ProcessAnswer | undefined;
  // The time of a file begins with its check: a busy machine may take long to start the child.
  let timer: NodeJS.Timeout | undefined;
  child.on('message', (message: ProcessAnswer) => {
    clearTimeout(timer);
    if (message.kind !== 'checking') {
      answer = message;
      return;
    }
    file = message.file;
    timer = setTimeout(() => child.kill('SIGKILL'), timeoutMs);
  });
  const end = await new Promise<string>((resolve) => {
    child.on('error', (error) => resolve(error.message));
    child.on('close', (code, signal) => resolve(signal ?? `exit code ${code}`));
  });
  clearTimeout(timer);
  if (answer?.kind === 'declarations') return answer;
  if (answer === undefined && end === 'exit code 1')
    throw new Error(`the check of ${file} failed: ${trace.trim()}`);
  throw declarationsUnusable(
    answer?.kind === 'problems'
      ? answer.problems
      : [
          {
            file,
            line: 1,
            reason: `its check did not end within ${timeoutMs / 1000} s, or used too much memory (${end})`,
            hint: 'Simplify the SQL.',
          },
        ],
  );
}

/**
 * The built-in declarations and those of a user.
 * @param only keep just these built-in tables, and the cubes that they or the user's tables read; undefined means all
 */
export async function declarationsWith(
  folder: string | undefined,
  only?: readonly string[],
): Promise<Declarations> {
  const tables =
    only === undefined ? builtIn.tables : builtIn.tables.filter(({ name }) => only.includes(name));
  const own = folder === undefined ? { cubes: [], tables: [] } : await userDeclarations(folder);
  const all = [...tables, ...own.tables];
  const read = new Set(all.flatMap(({ reads }) => reads));
  // The names of titles are of the position that cubes over title.basics have reached.
  if (read.has('title_names')) read.add('feature_basics');
  // A cube that no table reads costs as much as any other.
  const cubes = only === undefined ? builtIn.cubes : builtIn.cubes.filter(({ name }) => read.has(name));
  return { cubes: [...cubes, ...own.cubes], tables: all };
}
