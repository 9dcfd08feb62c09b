/** The declared cubes, and what follows from a set of cubes. */
import { createHash } from 'node:crypto';
import { messageOf } from '../../runtime/errors.ts';
import { type DatasetName, datasetNames } from '../../topics/catalog.ts';
import { type CubeVersions, cubeSetText } from '../../topics/cube-versions.ts';
import { builtIn } from '../built-in.ts';
import { checkPortable } from '../portable-sql.ts';
import { type Cube, gateOf, relationOf } from './cube.ts';

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
    if (cube.reads[gateOf(cube)] === undefined) {
      throw new RangeError(`cube ${cube.name} does not read ${gateOf(cube)}, which gates it`);
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

/** The version of each cube: it changes with the declaration and with the row rule. Deltas of two versions never mix. */
export function versionsOf(set: readonly Cube[]): CubeVersions {
  const version = ({ onlyDuckdb: _, ...cube }: Cube) =>
    createHash('sha256').update(JSON.stringify({ rowRule, cube })).digest('hex').slice(0, 12);
  return new Map(set.map((cube) => [cube.name, version(cube)]));
}

/** The cubes and their versions as deltas carry them. */
export const cubeSetOf = (set: readonly Cube[]) => cubeSetText(versionsOf(set));

/** The gates of the cubes that read a dataset. */
export function gatesOf(set: readonly Cube[], dataset: DatasetName): ReadonlySet<DatasetName> {
  return new Set(set.filter(({ reads }) => reads[dataset] !== undefined).map(gateOf));
}

/** The datasets that some cube reads. */
export function datasetsIn(set: readonly Cube[]): DatasetName[] {
  const read = new Set(set.flatMap((cube) => Object.keys(cube.reads)));
  return datasetNames.filter((name) => read.has(name));
}
