/**
 * What a cube is: datasets, key, integer measures, and the SQL by which the rows of a set of titles contribute.
 * A contribution is a pure function of the rows of the titles it is given, so the change of a cube is the contribution
 * of the affected titles after a micro-batch minus the one before it: late ratings, corrected rows, deletes and any
 * order of arrival come out right without a word about them.
 */
import { createHash } from 'node:crypto';
import { messageOf } from '../../runtime/errors.ts';
import type { DatasetName } from '../../topics/catalog.ts';
import { checkPortable } from '../portable-sql.ts';
import { contributorCube } from './contributor.ts';
import { akaFeatures, basicFeatures, principalFeatures, ratingFeatures } from './features.ts';
import { regionCube } from './region.ts';
import { titleCube } from './title.ts';

export interface Cube {
  readonly name: string;
  /** Its array in the delta schema. Cubes may share one: there, a column that is not theirs is null, a measure 0. */
  readonly array: string;
  /**
   * Columns that the contribution reads, by dataset, the dataset's key first. In the SQL a dataset is the relation
   * `title_basics` …, ids are integers, averageRating is ten times its value, strings are dictionary numbers.
   * A title contributes only while it is rated, so every cube reads title.ratings; and only while it has rows in every
   * dataset that the cube reads, so that its first rows in one of them have no contribution before.
   */
  readonly reads: Readonly<Partial<Record<DatasetName, readonly string[]>>>;
  readonly key: readonly string[];
  readonly measures: readonly string[];
  /** SELECT of the key and the measures, grouped by the key. */
  readonly contribution: string;
  /** Why only DuckDB computes it. A cube without a reason is in SQL that Flink takes too. */
  readonly onlyDuckdb?: string;
}

export const cubes: readonly Cube[] = declared([
  titleCube,
  contributorCube,
  regionCube,
  ratingFeatures,
  basicFeatures,
  principalFeatures,
  akaFeatures,
]);

/**
 * The cubes, each in SQL that both engines take or with the reason why only DuckDB does.
 * @throws RangeError that names the cube and what one of the engines would not take
 */
export function declared(set: readonly Cube[]): readonly Cube[] {
  for (const { name, reads, contribution, onlyDuckdb } of set) {
    const relations = Object.keys(reads).map((dataset) => relationOf(dataset as DatasetName));
    try {
      if (onlyDuckdb === undefined)
        checkPortable(contribution, [...relations, ...Object.values(reads).flat()]);
    } catch (thrown) {
      throw new RangeError(`cube ${name}: ${messageOf(thrown)}`);
    }
  }
  return set;
}

/** The relation that a contribution reads a dataset by. */
export function relationOf(dataset: DatasetName): string {
  return dataset.replace('.', '_');
}

/** The columns that a store keeps of each dataset: all that some cube reads. */
export function projectionOf(set: readonly Cube[]): Map<DatasetName, string[]> {
  const projection = new Map<DatasetName, string[]>();
  for (const cube of set) {
    if (cube.reads['title.ratings'] === undefined)
      throw new RangeError(`cube ${cube.name} does not read title.ratings`);
    for (const [name, columns] of Object.entries(cube.reads)) {
      const kept = projection.get(name as DatasetName) ?? [];
      projection.set(name as DatasetName, [...new Set([...kept, ...columns])]);
    }
  }
  return projection;
}

/**
 * The rule by which chunks become rows. Version 2 knows `replaces`. A reader of an older version ignores it silently and
 * keeps removed rows, so its stores and deltas must not be mixed with those of a newer one.
 */
const rowRule = 2;

/** Changes with any declaration and with the row rule: stores and deltas of another cube set are not comparable. */
export function fingerprintOf(set: readonly Cube[]): string {
  return createHash('sha256').update(JSON.stringify({ rowRule, set })).digest('hex').slice(0, 16);
}
