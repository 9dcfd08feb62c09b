/** What cubes declare, what follows from it, and that no two declarations share a fingerprint. */
import { describe, expect, test } from 'vitest';
import { type Cube, columnsOf } from '../../tables/cubes/cube.ts';
import { cubeSetOf, cubes, projectionOf } from '../../tables/cubes/cube-set.ts';
import { type DatasetName, datasets } from '../../topics/catalog.ts';
import { sameCubesIn } from '../../topics/cube-versions.ts';

const titleCube = cubes[0] as Cube;

test('no two cubes have one name', () => {
  expect(new Set(cubes.map(({ name }) => name)).size).toBe(cubes.length);
});

describe.each(cubes.map((cube) => [cube.name, cube] as const))('cube %s', (_, cube) => {
  test('has its key, then its measures, and declares no text outside its key', () => {
    const columns = columnsOf(cube);
    expect(columns.map(({ name }) => name)).toEqual([...cube.key, ...cube.measures]);
    expect(columns.filter(({ kind }) => kind === 'long').map(({ name }) => name)).toEqual(cube.measures);
    expect(columns.filter(({ kind }) => kind === 'string').map(({ name }) => name)).toEqual(cube.texts ?? []);
  });

  test('declares each column of its key that is a text of a dataset', () => {
    for (const [name, columns] of Object.entries(cube.reads)) {
      for (const { name: column, type } of datasets[name as DatasetName].columns) {
        const isId = /^(tconst|nconst|titleId|parentTconst)$/.test(column);
        if (isId || !columns.includes(column) || !cube.key.includes(column)) continue;
        expect(cube.texts?.includes(column) ?? false, column).toBe(type.endsWith('string'));
      }
    }
  });

  test('reads title.ratings, and of every dataset the key first', () => {
    expect(cube.reads['title.ratings']).toBeDefined();
    for (const [name, columns] of Object.entries(cube.reads)) {
      const dataset = datasets[name as DatasetName];
      const key = dataset.columns.slice(0, dataset.keyColumns).map((column) => column.name);
      expect(columns.slice(0, key.length)).toEqual(key);
      for (const column of columns) expect(dataset.columns.map((each) => each.name)).toContain(column);
    }
  });
});

test('a store keeps each column once that some cube reads', () => {
  for (const [dataset, columns] of projectionOf(cubes)) {
    expect(new Set(columns).size).toBe(columns.length);
    const read = cubes.flatMap((cube) => cube.reads[dataset] ?? []);
    expect([...columns].sort()).toEqual([...new Set(read)].sort());
  }
});

test('a cube that does not read the dataset that gates it is refused', () => {
  const unrated: Cube = { ...titleCube, reads: { 'title.basics': ['tconst'] } };
  expect(() => projectionOf([unrated])).toThrow('title.ratings');
  expect(projectionOf([{ ...unrated, gate: 'title.basics' }]).size).toBe(1);
});

test('any change of a declaration changes the version of this cube only', () => {
  const changed: Cube[] = [
    { ...titleCube, name: 'titles' },
    { ...titleCube, texts: [] },
    { ...titleCube, key: ['genres', 'rating'] },
    { ...titleCube, measures: ['titles'] },
    { ...titleCube, contribution: `${titleCube.contribution} ` },
    { ...titleCube, reads: { ...titleCube.reads, 'title.crew': ['tconst'] } },
  ];
  const prints = [[titleCube], [], ...changed.map((cube) => [cube])].map(cubeSetOf);
  expect(new Set(prints).size).toBe(prints.length);
  expect(cubeSetOf([{ ...titleCube, onlyDuckdb: 'why' }])).toBe(cubeSetOf([titleCube]));
  const [, other] = cubes;
  const both = cubeSetOf([{ ...titleCube, measures: ['titles'] }, other as Cube]);
  expect(sameCubesIn(both, cubeSetOf(cubes))).toEqual([other?.name]);
});
