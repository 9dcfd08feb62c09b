/** Reads declarations of cubes and gold tables from their SQL files. */
import { z } from 'zod';
import { messageOf } from '../runtime/errors.ts';
import { datasetNames } from '../topics/catalog.ts';
import type { Cube } from './cubes/cube.ts';
import { type DeclarationFile, sqlToken } from './declaration-file.ts';
import type { GoldTable } from './gold-table.ts';

const identifier = z.string().regex(/^[A-Za-z_]\w*$/, 'a name of letters, digits and _ is expected');
const sentence = z.string().min(1);
const names = z.array(identifier).min(1);

const columnTypes = ['BIGINT', 'INTEGER', 'DOUBLE', 'VARCHAR', 'VARCHAR[]', 'BOOLEAN', 'DATE'] as const;
const columnType = z.enum(columnTypes);
const column = z.union(
  [columnType, z.strictObject({ type: columnType, about: sentence.optional(), unit: sentence.optional() })],
  {
    error: `expected one of ${columnTypes.join(', ')}; or { type: TYPE, about: What it means., unit: UNIT }`,
  },
);
const plot = z.strictObject({
  title: sentence,
  kind: z.enum(['bar', 'line']),
  x: sentence,
  y: sentence,
});

const tableMetadata = z.strictObject({
  kind: z.literal('table'),
  about: sentence,
  reads: names,
  key: names,
  attributes: names.optional(),
  measures: z.array(identifier),
  columns: z.record(identifier, column),
  rowsBy: z.enum(['tconst', 'nconst']).optional(),
  standardised: names.optional(),
  constants: z.record(identifier, sentence).optional(),
  order: sentence,
  plots: z.array(plot).default([]),
  onlyDuckdb: sentence.optional(),
});

const dataset = z.enum(datasetNames);

const cubeMetadata = z.strictObject({
  kind: z.literal('cube'),
  about: sentence,
  reads: z.partialRecord(dataset, names),
  gate: dataset.optional(),
  key: names,
  texts: names.optional(),
  measures: names,
  onlyDuckdb: sentence.optional(),
});

/** @throws DeclarationProblem */
export function readGoldTable(file: DeclarationFile): GoldTable {
  const { columns, about, attributes, rowsBy, standardised, constants, onlyDuckdb, ...rest } =
    file.metadata(tableMetadata);
  const notes = Object.entries(columns).flatMap(([name, of]) =>
    typeof of === 'string' || of.about === undefined
      ? []
      : [[name, { about: of.about, ...(of.unit !== undefined && { unit: of.unit }) }] as const],
  );
  const { integers, select, beside } = splitSql(file, Object.keys(columns));
  return {
    name: file.name,
    about,
    reads: rest.reads,
    plots: rest.plots,
    integers,
    key: rest.key,
    ...(attributes && { attributes }),
    measures: rest.measures,
    columns: Object.fromEntries(
      Object.entries(columns).map(([name, of]) => [name, typeof of === 'string' ? of : of.type]),
    ),
    ...(notes.length > 0 && { notes: Object.fromEntries(notes) }),
    select,
    ...(beside !== '' && { beside }),
    ...(rowsBy && { rowsBy }),
    ...(standardised && { standardised }),
    ...(constants && { constants }),
    order: rest.order,
    ...(onlyDuckdb && { onlyDuckdb }),
  };
}

/** @throws DeclarationProblem */
export function readCube(file: DeclarationFile): Cube {
  const { reads, gate, key, texts, measures, onlyDuckdb } = file.metadata(cubeMetadata);
  return {
    name: file.name,
    reads,
    ...(gate && { gate }),
    key,
    ...(texts && { texts }),
    measures,
    // The fingerprint of a cube set covers this text with its white space, so the indentation must stay.
    contribution: `\n${file.sql}`.replace(/\n/g, '\n    '),
    ...(onlyDuckdb && { onlyDuckdb }),
  };
}

/** A cube whose measures are 0 where those of the declaration are null, as `sum` over no values is. */
export function withoutNulls(cube: Cube): Cube {
  const { key, measures, contribution } = cube;
  const columns = [...key, ...measures.map((name) => `coalesce(${name}, 0) AS ${name}`)];
  return { ...cube, contribution: `SELECT ${columns.join(', ')} FROM (${contribution}) AS contribution` };
}

/** White space and comments. */
const gap = '(?:\\s|--[^\\n]*\\n|/\\*[\\s\\S]*?\\*/)*';

/**
 * The two forms of a table. `WITH integers AS (A) SELECT B FROM integers C` has the integer form A, and computes the columns
 * B of the final form. A plain SELECT is both forms.
 */
function splitSql(file: DeclarationFile, columns: readonly string[]) {
  const { sql } = file;
  const start = new RegExp(`^${gap}WITH\\s+integers\\s+AS\\s*\\(`, 'i').exec(sql)?.[0];
  if (start === undefined) return { integers: sql, select: columns.join(', '), beside: '' };
  try {
    const close = topLevel(sql, start.length, /\)/y);
    const select = new RegExp(`${gap}SELECT\\s`, 'iy');
    select.lastIndex = close + 1;
    if (!select.test(sql)) throw new RangeError('WITH integers AS (…) is not followed by SELECT');
    const from = topLevel(sql, select.lastIndex, /FROM\s+integers\b/iy);
    const beside = sql.slice(from).replace(/^FROM\s+integers/i, '');
    return {
      integers: sql.slice(start.length, close),
      select: sql.slice(select.lastIndex, from).trim(),
      beside: beside.trim(),
    };
  } catch (thrown) {
    throw file.problem(
      file.sqlLine,
      messageOf(thrown),
      'Write one SELECT, or WITH integers AS (SELECT …) SELECT … FROM integers.',
    );
  }
}

/** The first match of a pattern at the beginning of a word outside brackets, texts and comments. */
function topLevel(sql: string, start: number, wanted: RegExp): number {
  let depth = 0;
  for (let at = start; at < sql.length; ) {
    wanted.lastIndex = at;
    if (depth === 0 && wanted.test(sql)) return at;
    sqlToken.lastIndex = at;
    const length = sqlToken.exec(sql)?.[0].length ?? 1;
    if (length === 1)
      depth += sql[at] === '(' || sql[at] === '[' ? 1 : sql[at] === ')' || sql[at] === ']' ? -1 : 0;
    at += length;
  }
  throw new RangeError(
    wanted.source === '\\)' ? 'a bracket is not closed' : 'the last SELECT is not FROM integers',
  );
}
