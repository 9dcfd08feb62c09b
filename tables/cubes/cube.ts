/**
 * What a cube is: the datasets that it reads, its key, integer measures, and the SQL by which the rows of a set of titles
 * contribute. A contribution is a pure function of the rows of these titles, so the change of a cube is the contribution of
 * the affected titles after a micro-batch minus the one before it. Late ratings, corrected rows, deletes and any order of
 * arrival need no rule of their own.
 */
import type { DatasetName } from '../../topics/catalog.ts';
import type { CubeColumn, CubeRows } from '../../topics/cube-rows.ts';

export interface Cube {
  readonly name: string;
  /**
   * Columns that the contribution reads, by dataset, the dataset's key first. In the SQL a dataset is the relation
   * `title_basics` …, ids are integers, averageRating is ten times its value, strings are dictionary numbers.
   * A title contributes only while it has rows in every dataset that the cube reads, so its first rows in one of them have no
   * contribution before.
   */
  readonly reads: Readonly<Partial<Record<DatasetName, readonly string[]>>>;
  /**
   * The dataset, one of those that it reads, that decides cheaply which new titles matter: the rows of others are not looked at.
   * Default: title.ratings, because few titles are rated.
   */
  readonly gate?: DatasetName;
  readonly key: readonly string[];
  /** Columns of the key that hold dictionary numbers of texts. */
  readonly texts?: readonly string[];
  readonly measures: readonly string[];
  /** SELECT of the key and the measures, grouped by the key. */
  readonly contribution: string;
  /** Why only DuckDB computes the cube. Without a reason, the SQL must run on Flink too. */
  readonly onlyDuckdb?: string;
}

/** The dataset without whose rows a title contributes nothing. */
export const gateOf = ({ gate = 'title.ratings' }: Cube): DatasetName => gate;

/** The columns of a cube, key before measures: what its deltas and the sink's table of it consist of. */
export function columnsOf({ key, texts = [], measures }: Cube): CubeColumn[] {
  return [
    ...key.map((name) => ({ name, kind: texts.includes(name) ? ('string' as const) : ('int' as const) })),
    ...measures.map((name) => ({ name, kind: 'long' as const })),
  ];
}

/** Rows of a cube. @param values of its columns, each at least `length` long */
export function rowsOf(cube: Cube, values: readonly (Int32Array | Float64Array)[], length: number): CubeRows {
  const columns = columnsOf(cube).map((column, c) => ({
    ...column,
    values: (values[c] as Int32Array).subarray(0, length),
  }));
  return { cube: cube.name, columns, length };
}

/** The name of the relation by which a contribution reads a dataset. */
export function relationOf(dataset: DatasetName): string {
  return dataset.replace('.', '_');
}
