/**
 * The child process that reads and checks a folder of declarations: `check-process.ts FOLDER`. SQL that exhausts memory or
 * time, or ends DuckDB, ends only this process.
 */
import type { Cube } from './cubes/cube.ts';
import { readFolder } from './declaration-folder.ts';
import type { Problem } from './declaration-problem.ts';
import type { GoldTable } from './gold-table.ts';

export type ProcessAnswer =
  /** Sent before each file. */
  | { readonly kind: 'checking'; readonly file: string }
  | { readonly kind: 'problems'; readonly problems: readonly Problem[] }
  | { readonly kind: 'declarations'; readonly cubes: readonly Cube[]; readonly tables: readonly GoldTable[] };

const answer = (message: ProcessAnswer) => process.send?.(message);

const { problems, cubes, tables } = await readFolder(process.argv[2] ?? '', (file) =>
  answer({ kind: 'checking', file }),
);
answer(problems.length > 0 ? { kind: 'problems', problems } : { kind: 'declarations', cubes, tables });
process.disconnect?.();
