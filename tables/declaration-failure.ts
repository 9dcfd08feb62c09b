/**
 * The SQL of a declaration fails on real rows. The check of declarations tries samples and extreme values, but not every
 * combination of them.
 */
import { messageOf, ReelflowError } from '../runtime/errors.ts';

/**
 * The result of a statement that runs a declaration.
 * @param name of the cube or table
 * @throws DeclarationFailure if values of the rows make the SQL fail
 */
export async function ofDeclaration<T>(name: string, work: Promise<T>): Promise<T> {
  try {
    return await work;
  } catch (thrown) {
    const reason = messageOf(thrown);
    throw /^(Out of Range|Conversion|Invalid Input) Error/.test(reason)
      ? new DeclarationFailure(name, reason.split('\n')[0] as string, thrown)
      : thrown;
  }
}

/** The failure of one cube or table. */
export class DeclarationFailure extends ReelflowError {
  /** Its name. */
  readonly declaration: string;

  constructor(declaration: string, reason: string, cause?: unknown) {
    super('declarationUnusable', `${declaration} cannot be computed`, {
      detail: reason,
      hint: `Correct ${declaration}.sql, or move it out of the folder, and start again; nothing is lost.`,
      cause,
    });
    this.declaration = declaration;
  }
}
