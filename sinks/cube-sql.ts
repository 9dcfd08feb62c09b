/** SQL of the tables that hold the cubes. */
import { createHash } from 'node:crypto';
import type { CubeColumn } from '../topics/cube-rows.ts';

/** A cube as the sink keeps it: cubes of one name with other columns are other cubes. */
export interface CubeShape {
  readonly name: string;
  readonly columns: readonly CubeColumn[];
}

/** The table of a cube. Its name differs with the columns, so that members of two versions never write into one table. */
export const cubeTable = (shape: CubeShape) => `cube_${shape.name}_${columnsHash(shape)}`;

/** The name of the file of a cube that is not declared: no declared one has a point in its name. */
export const undeclaredFile = (shape: CubeShape) => `${shape.name}.${columnsHash(shape)}`;

function columnsHash({ columns }: CubeShape): string {
  const text = JSON.stringify(columns.map((column) => [column.name, column.kind]));
  return createHash('sha256').update(text).digest('hex').slice(0, 8);
}

/** The temporary table with the sums of a cube. */
export const sumsTable = ({ name }: CubeShape) => `${name}_sums`;

/** The revision of the cube that a row came with. No column of a cube can have this name. */
export const revisionColumn = '"the revision"';

const isMeasure = ({ kind }: CubeColumn) => kind === 'long';
const keyOf = ({ columns }: CubeShape) => [
  'shard',
  ...columns.filter((column) => !isMeasure(column)).map(({ name }) => name),
];
const measuresOf = ({ columns }: CubeShape) => columns.filter(isMeasure).map(({ name }) => name);

/** The columns of a cube that hold dictionary numbers. */
export const textsOf = ({ columns }: CubeShape) =>
  columns.filter(({ kind }) => kind === 'string').map(({ name }) => name);

/** Column definitions. Measures are integers below 2^53 in DOUBLE columns: their sums are exact in any order. */
export const definitionsOf = ({ columns }: CubeShape) =>
  [
    'shard INTEGER',
    `${revisionColumn} INTEGER`,
    ...columns.map((column) => `${column.name} ${isMeasure(column) ? 'DOUBLE' : 'INTEGER'}`),
  ].join(', ');

/** A SELECT of the sums over a relation per shard and key, without those that are 0. */
function selectSumsOf(shape: CubeShape, relation: string, type: string, constant = ''): string {
  const measures = measuresOf(shape);
  const [shard, ...key] = keyOf(shape);
  const sums = measures.map((name) => `sum(${name})::${type} AS ${name}`);
  return `
    SELECT ${[shard, ...(constant === '' ? [] : [constant]), ...namesInOrder(shape, key, sums)].join(', ')}
    FROM ${relation} GROUP BY ${keyOf(shape).join(', ')}
    HAVING ${measures.map((name) => `sum(${name}) <> 0`).join(' OR ')}`;
}

/** Key and sums in the order of the cube's columns. */
function namesInOrder({ columns }: CubeShape, key: string[], sums: string[]): string[] {
  const keys = key.values();
  const measures = sums.values();
  return columns.map((column) => String((isMeasure(column) ? measures : keys).next().value));
}

/**
 * SELECT of the rows of a cube, summed per shard, without those that sum to 0.
 * @param revision of the sums, for a table of the cube
 */
export function selectSums(shape: CubeShape, type: 'BIGINT' | 'DOUBLE', revision?: number): string {
  const constant = revision === undefined ? '' : `${revision}::INTEGER AS ${revisionColumn}`;
  return selectSumsOf(shape, `sink.${cubeTable(shape)}`, type, constant);
}

/** A SELECT of the sums of the rows that meet a condition on the key. */
export const selectSumsWhere = (shape: CubeShape, condition: string) =>
  selectSumsOf(shape, `(FROM sink.${cubeTable(shape)} WHERE ${condition})`, 'BIGINT');

/** A SELECT of the rows after a revision as they came, with texts in place of dictionary numbers. */
export function selectRecent(shape: CubeShape, revision: number): string {
  const columns = shape.columns.map((column) =>
    isMeasure(column) ? `${column.name}::BIGINT AS ${column.name}` : column.name,
  );
  const recent = `(SELECT shard, ${columns.join(', ')} FROM sink.${cubeTable(shape)} WHERE ${revisionColumn} > ${revision})`;
  return selectWithTexts(shape, recent, 'recent');
}

/** A SELECT of sums with texts in place of dictionary numbers. @param sums a relation, and its name in the SELECT */
export function selectWithTexts(shape: CubeShape, sums: string, name: string): string {
  const texts = textsOf(shape);
  const columns = ['shard', ...shape.columns.map((column) => column.name)].map((column) =>
    texts.includes(column) ? `${column}_text.value AS ${column}` : `${name}.${column}`,
  );
  const dictionaries = texts.map(
    (text) => `LEFT JOIN sink.dictionary AS ${text}_text ON ${text}_text.number = ${name}.${text}`,
  );
  return `SELECT ${columns.join(', ')} FROM ${sums} AS ${name} ${dictionaries.join(' ')}`;
}

/** What the columns of a file hold that was written from `selectWithTexts`, by their types in DuckDB. */
export const kindOfType: Readonly<Record<string, CubeColumn['kind']>> = {
  INTEGER: 'int',
  VARCHAR: 'string',
  BIGINT: 'long',
};

/** Statements that add the rows of a cube after a revision to its sums. They touch only the keys of these rows. */
export function addRecent(shape: CubeShape, revision: number): string[] {
  const key = keyOf(shape);
  const names = ['shard', ...shape.columns.map(({ name }) => name)].join(', ');
  const sums = sumsTable(shape);
  const same = key.map((name) => `old.${name} IS NOT DISTINCT FROM recent.${name}`).join(' AND ');
  return [
    `CREATE OR REPLACE TEMP TABLE recent AS
      SELECT ${names} FROM sink.${cubeTable(shape)} WHERE ${revisionColumn} > ${revision}`,
    `CREATE OR REPLACE TEMP TABLE replaced AS
      SELECT old.rowid AS row, ${names
        .split(', ')
        .map((name) => `old.${name}`)
        .join(', ')}
      FROM ${sums} AS old SEMI JOIN recent ON ${same}`,
    `DELETE FROM ${sums} WHERE rowid IN (SELECT row FROM replaced)`,
    `INSERT INTO ${sums} ${selectSumsOf(
      shape,
      `(SELECT ${names} FROM replaced UNION ALL SELECT ${names} FROM recent)`,
      'BIGINT',
    )}`,
    'DROP TABLE recent',
    'DROP TABLE replaced',
  ];
}
