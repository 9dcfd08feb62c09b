/**
 * The cubes in plain JavaScript, twice: from the rows that a log of chunks leaves behind, and as the sum of the deltas
 * that a store has published. What they agree on is that the algebra is right.
 */
import { cubePlan, cubesOnTheWire, decodeDeltaHeader, decodeDeltaRows } from '../topics/deltas.ts';
import { Dictionary } from '../topics/dictionary.ts';
import { Columns, nullInt } from '../topics/rows.ts';
import { type Chunk, type CubeDataset, keyOf, type Row } from './chunks.ts';

/** Measures by cube and key, e.g. `region DE 83` → [1, 2, 900]; rows of zeros are absent. */
export type Cubes = Map<string, number[]>;

function add(
  cubes: Cubes,
  key: readonly (string | number | null)[],
  measures: readonly number[],
  sign = 1,
): void {
  const text = JSON.stringify(key);
  const sums = cubes.get(text) ?? measures.map(() => 0);
  const next = sums.map((sum, i) => sum + sign * (measures[i] as number));
  if (next.every((value) => value === 0)) cubes.delete(text);
  else cubes.set(text, next);
}

/** What is left of a log: the last row of each key that was not deleted after it. */
export class Rows {
  readonly of: Record<CubeDataset, Map<string, Row>> = {
    'title.ratings': new Map(),
    'title.basics': new Map(),
    'title.principals': new Map(),
    'title.akas': new Map(),
  };

  apply({ dataset, records, deletes }: Chunk): void {
    for (const row of records) this.of[dataset].set(keyOf(dataset, row), row);
    for (const key of deletes) this.of[dataset].delete(keyOf(dataset, key));
  }

  /** The batch computation. */
  cubes(): Cubes {
    const cubes: Cubes = new Map();
    const rated = [...this.of['title.ratings'].values()];
    for (const { tconst, averageRating, numVotes } of rated) {
      const rating = Math.round(Number(averageRating) * 10);
      const votes = Number(numVotes);
      for (const basics of this.of['title.basics'].values()) {
        if (basics.tconst !== tconst) continue;
        const { startYear, genres, runtimeMinutes } = basics;
        const key = ['title', startYear as number | null, genres as string | null, rating];
        add(cubes, key, [1, votes, Number(runtimeMinutes ?? 0), runtimeMinutes === null ? 0 : 1]);
      }
      const credits = countBy([...this.of['title.principals'].values()], 'tconst', tconst, 'nconst');
      for (const [nconst, count] of credits) {
        add(cubes, ['contributor', Number(nconst.slice(2)), rating], [1, count, votes]);
      }
      const akas = countBy([...this.of['title.akas'].values()], 'titleId', tconst, 'region');
      for (const [region, count] of akas) add(cubes, ['region', region, rating], [1, count, votes]);
    }
    return cubes;
  }
}

/** How often each value of `by` occurs, null left out, in rows whose `column` is `value`. */
function countBy(rows: readonly Row[], column: string, value: unknown, by: string): Map<string, number> {
  const counts = new Map<string, number>();
  for (const row of rows) {
    if (row[column] !== value || row[by] === null) continue;
    counts.set(String(row[by]), (counts.get(String(row[by])) ?? 0) + 1);
  }
  return counts;
}

/** Adds the rows of delta messages to `cubes`. @returns how many rows there were @throws Error at a row of zeros */
export function addDeltas(cubes: Cubes, messages: readonly Buffer[], schemaId: number): number {
  let rows = 0;
  for (const message of messages) {
    const dictionary = new Dictionary();
    const columns: Record<string, Columns> = Object.fromEntries(
      cubesOnTheWire.map((wire) => [wire.name, new Columns(cubePlan(wire, dictionary))]),
    );
    const { at } = decodeDeltaHeader(message, schemaId);
    decodeDeltaRows(message, at, columns);
    for (const { name } of cubesOnTheWire) {
      const { plan, length } = columns[name] as Columns;
      const keyLength = plan.names.indexOf('rating') + 1;
      rows += length;
      for (let row = 0; row < length; row++) {
        const values = plan.forms.map((form, c) => {
          const value = (columns[name] as Columns).column(c)[row] as number;
          if (value === nullInt && form !== 'long') return null;
          return form === 'dictionary' ? dictionary.textOf(value) : value;
        });
        const measures = values.slice(keyLength) as number[];
        if (measures.every((value) => value === 0)) throw new Error(`a row of ${name} that changes nothing`);
        add(cubes, [name, ...values.slice(0, keyLength)], measures);
      }
    }
  }
  return rows;
}
