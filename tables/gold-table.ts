/**
 * What a gold table is. It has an integer form, from which its content hash is taken, and a final form whose doubles are
 * computed from these integers at the very end. So no figure depends on the order of the rows, the batches or the shards.
 */
import { createHash } from 'node:crypto';
import { messageOf } from '../runtime/errors.ts';
import type { ColumnNote } from './column-notes.ts';
import type { Cube } from './cubes/cube.ts';
import { cubes } from './cubes/cube-set.ts';
import { checkPortable } from './portable-sql.ts';

/** A figure of a gold table that is worth a chart. */
export interface Plot {
  readonly title: string;
  /** `bar`: the largest values, largest first; `line`: all values, in the order of x. */
  readonly kind: 'bar' | 'line';
  /** SQL over the columns of the final form: the label of a bar, or the number or date on the axis. */
  readonly x: string;
  /** SQL that aggregates the rows of one x. */
  readonly y: string;
}

/** A DuckDB type. */
export type GoldColumnType = 'BIGINT' | 'INTEGER' | 'DOUBLE' | 'VARCHAR' | 'VARCHAR[]' | 'BOOLEAN' | 'DATE';

export interface GoldTable {
  readonly name: string;
  /** The file of a user's declaration; absent for built-in tables. */
  readonly file?: string;
  /** What a row is, for readers who have only the file. */
  readonly about: string;
  /** The cubes and other relations of the sink that the integer form reads. */
  readonly reads: readonly string[];
  /** The terminal shows the first one. */
  readonly plots: readonly Plot[];
  /** SELECT of the integer form: key, attributes and measures, from the cubes and relations of names. */
  readonly integers: string;
  /** Columns that identify a row, in both forms. */
  readonly key: readonly string[];
  /** Texts that depend on the key. */
  readonly attributes?: readonly string[];
  readonly measures: readonly string[];
  /** Columns of the final form with their types, in order: a contract with readers. */
  readonly columns: Readonly<Record<string, GoldColumnType>>;
  /** Meaning and unit of columns that the common notes lack, or that mean something else in this table. */
  readonly notes?: Readonly<Record<string, ColumnNote>>;
  /** SQL that computes the columns of the final form from those of the integer form. */
  readonly select: string;
  /** A JOIN that the final form needs. It takes each distinct text apart once, not once per row. */
  readonly beside?: string;
  /**
   * A column of ids, `tconst` or `nconst`, that every relation but `dictionary` has: each row of the integer form is computed
   * from the rows with its id alone, and has the id as a text in the column of this name. Then a snapshot computes only the
   * rows of ids that changed.
   */
  readonly rowsBy?: string;
  /** Columns that the final form standardises. The relation `scales` holds their mean and deviation. */
  readonly standardised?: readonly string[];
  /** Figures that the manifest states, by name: SQL that aggregates all rows of the integer form. */
  readonly constants?: Readonly<Record<string, string>>;
  readonly order: string;
  /** Why only DuckDB computes it. The SQL of a table without a reason also runs on Flink. */
  readonly onlyDuckdb?: string;
}

/** Changes with everything that decides what the rows of a table are and what its file says about them. */
export function tableFingerprint({ file: _, plots: __, ...declared }: GoldTable): string {
  return createHash('sha256').update(JSON.stringify(declared)).digest('hex').slice(0, 16);
}

/**
 * Checks that each table is in SQL that DuckDB and Flink share, or gives the reason why only DuckDB computes it.
 * @throws RangeError that names the table and what one of the engines rejects
 */
export function declaredTables(
  tables: readonly GoldTable[],
  declared: readonly Cube[] = cubes,
): readonly GoldTable[] {
  const relations = declared.flatMap(({ name, key, measures }) => [name, ...key, ...measures]);
  for (const { name, integers, select, key, attributes = [], measures, onlyDuckdb } of tables) {
    if (onlyDuckdb !== undefined) continue;
    try {
      checkPortable(integers, [...relations, 'names', 'nconst', 'primaryName']);
      checkPortable(select, [...key, ...attributes, ...measures]);
    } catch (thrown) {
      throw new RangeError(`gold table ${name}: ${messageOf(thrown)}`);
    }
  }
  return tables;
}
