/** SQL of the tables that hold the cubes. */
import { createHash } from 'node:crypto';
import type { CubeColumn } from '../topics/cube-rows.ts';

/** A cube as the sink keeps it: cubes of one name with other columns are other cubes. */
export interface CubeShape {
  readonly name: string;
  readonly columns: readonly CubeColumn[];
}

/** The table of a cube. Its name differs with the columns, so that members of two versions never write into one table. */
export function cubeTable({ name, columns }: CubeShape): string {
  const text = JSON.stringify(columns.map((column) => [column.name, column.kind]));
  return `cube_${name}_${createHash('sha256').update(text).digest('hex').slice(0, 8)}`;
}

const isMeasure = ({ kind }: CubeColumn) => kind === 'long';

/** The columns of a cube that hold dictionary numbers. */
export const textsOf = ({ columns }: CubeShape) =>
  columns.filter(({ kind }) => kind === 'string').map(({ name }) => name);

/** Column definitions. Measures are integers below 2^53 in DOUBLE columns: their sums are exact in any order. */
export const definitionsOf = ({ columns }: CubeShape) =>
  columns.map((column) => `${column.name} ${isMeasure(column) ? 'DOUBLE' : 'INTEGER'}`).join(', ');

/** SELECT of the rows of a cube, summed per shard, without those that sum to 0. */
export function selectSums(shape: CubeShape, type: 'BIGINT' | 'DOUBLE'): string {
  const names = (ofMeasures: boolean) =>
    shape.columns.filter((column) => isMeasure(column) === ofMeasures).map(({ name }) => name);
  const key = ['shard', ...names(false)].join(', ');
  const measures = names(true);
  return `
    SELECT ${key}, ${measures.map((name) => `sum(${name})::${type} AS ${name}`).join(', ')}
    FROM sink.${cubeTable(shape)} GROUP BY ${key}
    HAVING ${measures.map((name) => `sum(${name}) <> 0`).join(' OR ')}`;
}
