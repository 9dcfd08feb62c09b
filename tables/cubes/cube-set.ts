/** The declared cubes, and what follows from a set of cubes. */
import { createHash } from 'node:crypto';
import { messageOf } from '../../runtime/errors.ts';
import type { DatasetName } from '../../topics/catalog.ts';
import { builtIn } from '../built-in.ts';
import { checkPortable } from '../portable-sql.ts';
import { type Cube, relationOf } from './cube.ts';

/** The built-in cubes. */
export const cubes: readonly Cube[] = declaredCubes(builtIn.cubes);

/**
 * Checks that each cube is in SQL that DuckDB and Flink share, or gives the reason why only DuckDB computes it.
 * @throws RangeError that names the cube and what one of the engines rejects
 */
export function declaredCubes(set: readonly Cube[]): readonly Cube[] {
  for (const { name, reads, contribution, onlyDuckdb } of set) {
    if (onlyDuckdb !== undefined) continue;
    const relations = Object.keys(reads).map((dataset) => relationOf(dataset as DatasetName));
    try {
      checkPortable(contribution, [...relations, ...Object.values(reads).flat()]);
    } catch (thrown) {
      throw new RangeError(`cube ${name}: ${messageOf(thrown)}`);
    }
  }
  return set;
}

/** The columns of each dataset that some cube reads: what a store keeps. */
export function projectionOf(set: readonly Cube[]): Map<DatasetName, string[]> {
  const projection = new Map<DatasetName, string[]>();
  for (const cube of set) {
    if (cube.reads['title.ratings'] === undefined) {
      throw new RangeError(`cube ${cube.name} does not read title.ratings`);
    }
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

/** Changes with any declaration and with the row rule: stores and deltas of different cube sets are not comparable. */
export function fingerprintOf(set: readonly Cube[]): string {
  return createHash('sha256').update(JSON.stringify({ rowRule, set })).digest('hex').slice(0, 16);
}
