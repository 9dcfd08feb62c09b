/**
 * The SQL of a declaration fails on real rows. The check of declarations tries samples and extreme values, but not every
 * combination of them.
 */
import { messageOf, ReelflowError } from '../runtime/errors.ts';

/**
 * The result of a statement that runs a declaration.
 * @param name of the cube or table
 * @throws ReelflowError declarationUnusable, if values of the rows make the SQL fail
 */
export async function ofDeclaration<T>(name: string, work: Promise<T>): Promise<T> {
  try {
    return await work;
  } catch (thrown) {
    const reason = messageOf(thrown);
    throw /^(Out of Range|Conversion|Invalid Input) Error/.test(reason)
      ? unusable(name, reason.split('\n')[0] as string, thrown)
      : thrown;
  }
}

export const unusable = (name: string, reason: string, cause?: unknown) =>
  new ReelflowError('declarationUnusable', `${name} cannot be computed`, {
    detail: reason,
    hint: `Correct ${name}.sql, or move it out of the folder, and start again; nothing is lost.`,
    cause,
  });
