/** Single rows of cubes, for stores of the sink that no processor fills. */
import { type Cube, columnsOf, rowsOf } from '../../tables/cubes/cube.ts';
import { cubes } from '../../tables/cubes/cube-set.ts';
import type { CubeRows } from '../../topics/cube-rows.ts';

/** @param values of the key and the measures: dictionary numbers for texts, `nullInt` for null */
export function rowOf(cube: Cube, ...values: number[]): CubeRows {
  const columns = columnsOf(cube).map(({ kind }, c) =>
    (kind === 'long' ? Float64Array : Int32Array).of(values[c] as number),
  );
  return rowsOf(cube, columns, 1);
}

/** A built-in cube. */
export function cubeNamed(name: string): Cube {
  const cube = cubes.find((each) => each.name === name);
  if (cube === undefined) throw new RangeError(`there is no cube ${name}`);
  return cube;
}
