/**
 * The declarations that come with reelflow, each a file `built-in/<name>.sql`. `npm run build` writes them into one JSON file,
 * so that an installed package starts without reading YAML.
 */
import { existsSync, readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
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
  : await readFiles();

async function readFiles(): Promise<Declarations> {
  const { DeclarationFile } = await import('./declaration-file.ts');
  const { readCube, readGoldTable } = await import('./read-declaration.ts');
  const file = (name: string) => new DeclarationFile(`${builtInFolder}${name}.sql`);
  return {
    cubes: cubeNames.map((name) => readCube(file(name))),
    tables: tableNames.map((name) => readGoldTable(file(name))),
  };
}
