/** The cubes and tables that a command works with: the built-in ones, and those of `--tables`. */
import { ReelflowError } from '../runtime/errors.ts';
import type { Declarations } from '../tables/built-in.ts';
import type { TablesFlags } from './options.ts';

/**
 * Reads and checks them before the command does anything else.
 * @throws ReelflowError declarationUnusable; usage, for a built-in table that does not exist
 */
export async function declarationsOf({ tables, only }: TablesFlags): Promise<Declarations> {
  const [{ builtIn }, { declarationsWith }] = await Promise.all([
    import('../tables/built-in.ts'),
    import('../tables/user-declarations.ts'),
  ]);
  const known = builtIn.tables.map(({ name }) => name);
  const unknown = only?.find((name) => !known.includes(name));
  if (unknown !== undefined) {
    throw new ReelflowError('usage', `There is no built-in table ${unknown}`, {
      detail: `The built-in tables are ${known.join(', ')}.`,
      hint: 'Name some of these with --only.',
    });
  }
  return declarationsWith(tables === '' ? undefined : tables, only);
}
