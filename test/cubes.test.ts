/** What cubes declare and what the delta schema carries are two texts that must say the same. */
import { describe, expect, test } from 'vitest';
import { type Cube, cubes, fingerprintOf, projectionOf } from '../processors/cubes/cube.ts';
import { titleCube } from '../processors/cubes/title.ts';
import { type DatasetName, datasets } from '../topics/catalog.ts';
import { cubesOnTheWire } from '../topics/deltas.ts';

test('the delta schema has one array for each cube', () => {
  expect(cubesOnTheWire.map(({ name }) => name).sort()).toEqual(cubes.map(({ name }) => name).sort());
});

describe.each(cubes.map((cube) => [cube.name, cube] as const))('cube %s', (_, cube) => {
  const wire = cubesOnTheWire.find(({ name }) => name === cube.name);

  test('has its key, then its measures, in the order of the delta schema', () => {
    expect(wire?.fields.map(({ name }) => name)).toEqual([...cube.key, ...cube.measures]);
  });

  test('has longs for measures, no null among them, and the rating as the last part of its key', () => {
    const types = new Map(wire?.fields.map(({ name, type }) => [name, type]));
    for (const measure of cube.measures) expect(types.get(measure)).toBe('long');
    expect(cube.key.at(-1)).toBe('rating');
    expect(types.get('rating')).toBe('int');
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

test('a cube that does not read title.ratings is refused', () => {
  const unrated: Cube = { ...titleCube, reads: { 'title.basics': ['tconst'] } };
  expect(() => projectionOf([unrated])).toThrow('title.ratings');
});

test('any change of a declaration changes the fingerprint', () => {
  const changed: Cube[] = [
    { ...titleCube, name: 'titles' },
    { ...titleCube, key: ['genres', 'rating'] },
    { ...titleCube, measures: ['titles'] },
    { ...titleCube, contribution: `${titleCube.contribution} ` },
    { ...titleCube, reads: { ...titleCube.reads, 'title.crew': ['tconst'] } },
  ];
  const prints = [[titleCube], [], ...changed.map((cube) => [cube])].map(fingerprintOf);
  expect(new Set(prints).size).toBe(prints.length);
  expect(fingerprintOf([{ ...titleCube }])).toBe(fingerprintOf([titleCube]));
});
