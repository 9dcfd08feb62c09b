/**
 * Tables of users as one batch computation. Their declaration is the only text that says what they are, so it is taken from
 * there: the contribution of all titles at once, then the SQL of the table. What is independent of the stream is the rest: rows
 * of the files or topics, and no deltas, shards, windows and order of arrival.
 */
import type { DuckDBConnection } from '@duckdb/node-api';
import { type Cube, columnsOf } from '../../tables/cubes/cube.ts';
import { ofDeclaration } from '../../tables/declaration-failure.ts';
import type { GoldTable } from '../../tables/gold-table.ts';
import { datasetsOfUnrated, unratedRelation } from './more-columns.ts';

/** The relation that holds the columns of a table and the exact sums. */
export const exactTable = (table: string) => `${table}_exact`;

/** The datasets as contributions read them, but with texts in place of dictionary numbers. */
const datasetViews = {
  title_ratings:
    'SELECT tconst, round(rating * 10)::INTEGER AS averageRating, votes AS numVotes FROM batch_ratings',
  title_basics: 'SELECT * REPLACE (isAdult::INTEGER AS isAdult) FROM (rows of batch_basics)',
  title_principals: 'FROM (rows of batch_principals)',
  title_akas: 'FROM (rows of batch_akas)',
  title_crew: 'FROM (rows of batch_crew)',
  title_episode: 'FROM (rows of batch_episodes)',
};

const types = { int: 'INTEGER', string: 'VARCHAR', long: 'BIGINT' } as const;

/** Computes tables and their `exactTable`s from the relations of the batch computation. */
export async function computeDeclared(
  connection: DuckDBConnection,
  schema: string,
  cubes: readonly Cube[],
  tables: readonly GoldTable[],
): Promise<void> {
  const beyond = datasetsOfUnrated(cubes);
  for (const [name, query] of Object.entries(datasetViews)) {
    const whole = query.replace(/\(rows of (\w+)\)/, (_, relation: string) =>
      beyond.has(name.replace('_', '.'))
        ? `(FROM ${relation} UNION ALL FROM ${unratedRelation(relation)})`
        : relation,
    );
    await connection.run(`CREATE OR REPLACE TEMP VIEW ${name} AS ${whole}`);
  }
  await connection.run('CREATE OR REPLACE TEMP VIEW names AS FROM batch_names');
  await connection.run('CREATE OR REPLACE TEMP VIEW title_names AS FROM batch_title_names');
  const read = new Set(tables.flatMap(({ reads }) => reads));
  const used = cubes.filter(({ name }) => read.has(name));
  for (const cube of used) {
    const columns = columnsOf(cube).map(({ name, kind }) => `${name}::${types[kind]} AS ${name}`);
    await ofDeclaration(
      cube.name,
      connection.run(
        `CREATE OR REPLACE TEMP TABLE ${cube.name} AS SELECT ${columns.join(', ')} FROM (${cube.contribution})`,
      ),
    );
  }
  for (const { name, integers, select, beside = '', order } of tables) {
    await ofDeclaration(name, connection.run(`CREATE OR REPLACE TEMP TABLE integers AS ${integers}`));
    await connection.run(`CREATE OR REPLACE TABLE "${schema}"."${exactTable(name)}" AS FROM integers`);
    await ofDeclaration(
      name,
      connection.run(
        `CREATE OR REPLACE TABLE "${schema}"."${name}" AS SELECT ${select} FROM integers ${beside} ORDER BY ${order}`,
      ),
    );
  }
  await connection.run('DROP TABLE IF EXISTS integers');
  for (const { name } of used) await connection.run(`DROP TABLE ${name}`);
  for (const view of [...Object.keys(datasetViews), 'names', 'title_names'])
    await connection.run(`DROP VIEW ${view}`);
}
