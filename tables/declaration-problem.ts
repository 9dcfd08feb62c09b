/** What is wrong with declarations. Apart from the reader of the files, which loads a parser of YAML. */
import { ReelflowError } from '../runtime/errors.ts';

/** What is wrong with a declaration. */
export interface Problem {
  readonly file: string;
  /** From 1. */
  readonly line: number;
  readonly reason: string;
  readonly hint: string;
}

/** A problem of one declaration, for those who collect the problems of several. */
export class DeclarationProblem extends Error {
  readonly problem: Problem;

  constructor(problem: Problem) {
    super(`${problem.file}:${problem.line}: ${problem.reason}`);
    this.problem = problem;
  }
}

/** The failure of a command because of its declarations. */
export function declarationsUnusable(problems: readonly Problem[]): ReelflowError {
  const isOne = problems.length === 1;
  const what = isOne ? 'A declaration cannot be used' : 'Declarations cannot be used';
  const [{ hint } = { hint: '' }] = problems;
  return new ReelflowError('declarationUnusable', what, {
    detail: problems
      .map(({ file, line, reason, hint }) => `${file}:${line}: ${reason}${isOne ? '' : `. ${hint}`}`)
      .join('\n'),
    hint: isOne ? hint : 'Correct these files, or move them out of the folder.',
  });
}
