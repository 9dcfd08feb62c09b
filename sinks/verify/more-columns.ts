/** What the declarations of users read and the tables of reelflow do not: the batch computation reads it too. */
import { type Cube, gateOf } from '../../tables/cubes/cube.ts';
import type { GoldTable } from '../../tables/gold-table.ts';
import { type DatasetName, datasets } from '../../topics/catalog.ts';

/** Relation, and the columns that it always has. */
const heldColumns = {
  'title.ratings': ['tconst', 'averageRating', 'numVotes'],
  'title.basics': ['tconst', 'titleType', 'isAdult', 'startYear', 'runtimeMinutes', 'genres'],
  'title.principals': ['tconst', 'ordering', 'nconst'],
  'title.akas': ['titleId', 'ordering', 'region', 'language'],
  'title.crew': ['tconst', 'directors', 'writers'],
  'title.episode': ['tconst', 'parentTconst', 'seasonNumber'],
} as const;

export type MoreColumns = ReadonlyMap<DatasetName, readonly string[]>;

/** By dataset, the columns besides `heldColumns`. */
export function moreColumnsOf(cubes: readonly Cube[]): MoreColumns {
  const more = new Map<DatasetName, string[]>();
  for (const [dataset, held] of Object.entries(heldColumns) as [
    keyof typeof heldColumns,
    readonly string[],
  ][]) {
    const read = new Set(cubes.flatMap(({ reads }) => reads[dataset] ?? []));
    const columns = [...read].filter((column) => !held.includes(column));
    if (columns.length > 0) more.set(dataset, columns);
  }
  return more;
}

/** Datasets of which cubes with another gate than title.ratings read the rows of unrated titles. */
export const datasetsOfUnrated = (cubes: readonly Cube[]): ReadonlySet<string> =>
  new Set(
    cubes.filter((cube) => gateOf(cube) !== 'title.ratings').flatMap(({ reads }) => Object.keys(reads)),
  );

/** The relations of names that tables of users read: they may show any name, and those of reelflow only some. */
export const namesForUsers = (tables: readonly GoldTable[]): ReadonlySet<string> =>
  new Set(tables.filter(({ file }) => file !== undefined).flatMap(({ reads }) => reads));

/** The rows of rated titles, and those of all others. */
export const ofRated = (id: string) => `WHERE ${id} IN (SELECT tconst FROM batch_ratings)`;
export const ofUnrated = (id: string) => `WHERE ${id} NOT IN (SELECT tconst FROM batch_ratings)`;
/** The relation with the rows of unrated titles, beside one with those of rated titles. */
export const unratedRelation = (relation: string) => `unrated_${relation}`;

/** Whether a column holds texts, not ids or numbers. */
export function isText(dataset: DatasetName, column: string): boolean {
  const type = datasets[dataset].columns.find(({ name }) => name === column)?.type ?? '';
  return type.endsWith('string') && !/Tconst$|^nconst$|^tconst$|^titleId$/.test(column);
}
