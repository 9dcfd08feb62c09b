/** What cubes declare and what the delta schema carries are two texts that must say the same. */
import { describe, expect, test } from 'vitest';
import type { Cube } from '../../tables/cubes/cube.ts';
import { cubes, fingerprintOf, projectionOf } from '../../tables/cubes/cube-set.ts';
import { type DatasetName, datasets } from '../../topics/catalog.ts';
import { cubesOnTheWire } from '../../topics/delta-wire.ts';

const titleCube = cubes[0] as Cube;

test('every array of the delta schema is that of some cube, and every cube has one', () => {
  expect(new Set(cubesOnTheWire.map(({ name }) => name))).toEqual(new Set(cubes.map(({ array }) => array)));
  expect(new Set(cubes.map(({ name }) => name)).size).toBe(cubes.length);
});

test.each(cubesOnTheWire)(
  'every field of array $name is a column of its cubes, and null or 0 for others',
  ({ name, fields }) => {
    const own = cubes.filter(({ array }) => array === name);
    for (const field of fields) {
      const having = own.filter(({ key, measures }) => [...key, ...measures].includes(field.name));
      expect(having.length).toBeGreaterThan(0);
      if (having.length < own.length) expect(field.type === 'long' || Array.isArray(field.type)).toBe(true);
    }
  },
);

describe.each(cubes.map((cube) => [cube.name, cube] as const))('cube %s', (_, cube) => {
  const wire = cubesOnTheWire.find(({ name }) => name === cube.array);

  test('has its key, then its measures, in the order of the delta schema', () => {
    const own = [...cube.key, ...cube.measures];
    expect(wire?.fields.map(({ name }) => name).filter((name) => own.includes(name))).toEqual(own);
  });

  test('has longs for measures, no null among them, and none in its key', () => {
    const types = new Map(wire?.fields.map(({ name, type }) => [name, type]));
    for (const measure of cube.measures) expect(types.get(measure)).toBe('long');
    for (const column of cube.key) expect([types.get(column)].flat()).not.toContain('long');
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
    { ...titleCube, array: 'region' },
    { ...titleCube, key: ['genres', 'rating'] },
    { ...titleCube, measures: ['titles'] },
    { ...titleCube, contribution: `${titleCube.contribution} ` },
    { ...titleCube, reads: { ...titleCube.reads, 'title.crew': ['tconst'] } },
  ];
  const prints = [[titleCube], [], ...changed.map((cube) => [cube])].map(fingerprintOf);
  expect(new Set(prints).size).toBe(prints.length);
  expect(fingerprintOf([{ ...titleCube }])).toBe(fingerprintOf([titleCube]));
});
