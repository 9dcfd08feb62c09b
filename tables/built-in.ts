/**
 * The declarations that come with reelflow, each a file `built-in/<name>.sql`. `npm run build` writes them into one JSON file,
 * so that an installed package starts without reading YAML.
 */
import { createHash } from 'node:crypto';
import { existsSync, readFileSync, renameSync, writeFileSync } from 'node:fs';
import { dirname } from 'node:path';
import { fileURLToPath } from 'node:url';
import { makeFolder } from '../runtime/files.ts';
import type { Cube } from './cubes/cube.ts';
import type { GoldTable } from './gold-table.ts';

/**
 * The attributes of a title, for `title_features`, are four cubes, each with the columns of one dataset. So a change in one
 * dataset needs no row of the others. Each contribution is a join in which a title without rows contributes nothing. A title has
 * at most one row in each cube, and always one in `feature_ratings`. A changed value subtracts the old row and adds the new one.
 */
const cubeNames = [
  'title',
  'contributor',
  'region',
  'language',
  'feature_ratings',
  'feature_basics',
  'feature_principals',
  'feature_akas',
  'feature_episode',
  'director',
  'writer',
];

/** In the order in which snapshots, reports and lists name them. */
const tableNames = [
  'genre_analysis',
  'decade_trends',
  'title_ratings_agg',
  'contributor_analysis',
  'region_analysis',
  'title_features',
  'genres',
  'title_types',
  'languages',
  'directors',
  'writers',
  'titles',
  'top_titles',
  'series',
  'seasons',
  'rating_history',
  'trends',
  'movers',
];

export interface Declarations {
  readonly cubes: readonly Cube[];
  readonly tables: readonly GoldTable[];
}

export const builtInFolder = fileURLToPath(new URL('built-in/', import.meta.url));
const compiled = new URL('built-in.json', import.meta.url);

export const builtIn: Declarations = existsSync(compiled)
  ? JSON.parse(readFileSync(compiled, 'utf8'))
  : await ofCheckout();

/** Whether some of these are of a user. */
export const hasUserDeclarations = ({ cubes, tables }: Declarations): boolean =>
  cubes.some((cube) => !builtIn.cubes.includes(cube)) || tables.some(({ file }) => file !== undefined);

/**
 * Loading a YAML parser and reading all files takes half as long again as a short command. So a checkout keeps the result, with
 * the hash of all that it was made from: the files, and the code that reads them.
 */
async function ofCheckout(): Promise<Declarations> {
  const kept = fileURLToPath(new URL('../node_modules/.cache/built-in.json', import.meta.url));
  const hash = createHash('sha256');
  for (const name of [...cubeNames, '', ...tableNames]) hash.update(`${name}\n${name && sqlOf(name)}`);
  for (const reader of ['declaration-file.ts', 'read-declaration.ts']) {
    hash.update(readFileSync(new URL(reader, import.meta.url)));
  }
  const made = hash.digest('hex');
  try {
    const { from, declarations } = JSON.parse(readFileSync(kept, 'utf8'));
    if (from === made) return declarations;
  } catch {
    // There is none, or it cannot be read.
  }
  const declarations = await readFiles();
  try {
    makeFolder(dirname(kept));
    writeFileSync(`${kept}.${process.pid}`, JSON.stringify({ from: made, declarations }));
    renameSync(`${kept}.${process.pid}`, kept);
  } catch {
    // The folder belongs to another user: the next start reads the files again.
  }
  return declarations;
}

function sqlOf(name: string): string {
  return readFileSync(`${builtInFolder}${name}.sql`, 'utf8');
}

/** Reads the SQL files. @throws DeclarationProblem */
async function readFiles(): Promise<Declarations> {
  const { DeclarationFile } = await import('./declaration-file.ts');
  const { readCube, readGoldTable } = await import('./read-declaration.ts');
  const file = (name: string) => new DeclarationFile(`${builtInFolder}${name}.sql`);
  return {
    cubes: cubeNames.map((name) => readCube(file(name))),
    tables: tableNames.map((name) => readGoldTable(file(name))),
  };
}
