/**
 * The cubes in plain JavaScript, twice: from the rows that a log of chunks leaves behind, and as the sum of the deltas
 * that a store has published. What they agree on is that the algebra is right.
 */
import { decodeDeltaHeader, decodeDeltaRows } from '../../topics/delta-wire.ts';
import { Dictionary } from '../../topics/dictionary.ts';
import { nullInt } from '../../topics/row-plan.ts';
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
  if (measures.every((value) => value === 0)) return;
  const sums = cubes.get(text) ?? measures.map(() => 0);
  const next = sums.map((sum, i) => sum + sign * (measures[i] as number));
  if (next.every((value) => value === 0)) cubes.delete(text);
  else cubes.set(text, next);
}

/** The rows that a log leaves behind: the last of each key, unless it was deleted or its group was replaced later. */
export class Rows {
  readonly of: Record<CubeDataset, Map<string, Row>> = {
    'title.ratings': new Map(),
    'title.basics': new Map(),
    'title.principals': new Map(),
    'title.akas': new Map(),
    'title.crew': new Map(),
    'title.episode': new Map(),
  };

  apply({ dataset, records, deletes, replaces = [] }: Chunk): void {
    const stored = this.of[dataset];
    for (const [key, { tconst, titleId }] of stored) {
      const id = Number(String(tconst ?? titleId).slice(2));
      if (replaces.includes(Math.floor(id / 50))) stored.delete(key);
    }
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
      const crew = this.of['title.crew'].get(String(tconst));
      for (const [cube, list] of Object.entries({ director: crew?.directors, writer: crew?.writers })) {
        const people = new Set(String(list ?? '').match(/\bnm\d+\b/g));
        for (const person of people) add(cubes, [cube, Number(person.slice(2)), rating], [1, votes]);
      }
      this.#addFeatures(cubes, String(tconst), rating, votes);
    }
    return cubes;
  }

  /** Adds what each dataset knows of a rated title. */
  #addFeatures(cubes: Cubes, tconst: string, rating: number, votes: number): void {
    const number = Number(tconst.slice(2));
    add(cubes, ['feature_ratings', number, rating], [1, votes]);
    const basics = this.of['title.basics'].get(tconst);
    if (basics !== undefined) {
      const { titleType, isAdult, startYear, runtimeMinutes, genres } = basics as Record<
        string,
        string | null
      >;
      const attributes = [titleType, isAdult ? 1 : 0, startYear, runtimeMinutes, genres];
      add(cubes, ['feature_basics', number, ...attributes.map((value) => value ?? null)], [1]);
    }
    const episode = this.of['title.episode'].get(tconst);
    if (episode !== undefined) {
      const series = Number(String(episode.parentTconst).slice(2));
      add(cubes, ['feature_episode', number, series, episode.seasonNumber as number | null], [1]);
    }
    const principals = [...this.of['title.principals'].values()].filter((row) => row.tconst === tconst);
    const people = new Set(principals.map(({ nconst }) => nconst));
    add(cubes, ['feature_principals', number], [principals.length, people.size]);
    const akas = [...this.of['title.akas'].values()].filter(({ titleId }) => titleId === tconst);
    const regions = new Set(akas.map(({ region }) => region).filter((region) => region !== null));
    add(cubes, ['feature_akas', number], [akas.length, regions.size]);
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
    const { at } = decodeDeltaHeader(message, schemaId);
    for (const { cube, columns, length } of decodeDeltaRows(message, at, dictionary)) {
      rows += length;
      for (let row = 0; row < length; row++) {
        const values = columns.map(({ kind, values: { [row]: value = 0 } }) => {
          if (value === nullInt && kind !== 'long') return null;
          return kind === 'string' ? dictionary.textOf(value) : value;
        });
        const measures = values.filter((_, c) => columns[c]?.kind === 'long') as number[];
        if (measures.every((value) => value === 0)) throw new Error(`a row of ${cube} that changes nothing`);
        add(cubes, [cube, ...values.filter((_, c) => columns[c]?.kind !== 'long')], measures);
      }
    }
  }
  return rows;
}
