/**
 * DuckDB straight from the files, for all gold tables but those of history, which one dump does not determine: the queries of the
 * batch computation in sinks/verify over rows that are not checked. Arguments: folder of the files, folder for the results.
 */
import { type BatchRelation, computeGold } from '../../sinks/verify/batch-gold.ts';
import { builtIn } from '../../tables/built-in.ts';
import { isOfHistory } from '../../tables/gold-tables.ts';
import { db, file, writeResult } from './duckdb-files.ts';

const id = (column: string) => `${column}[3:]::INTEGER AS ${column}`;
const ids = (column: string) =>
  `list_transform(string_split(${column}, ','), lambda id: id[3:]::INTEGER) AS ${column}`;
const rated = (column = 'tconst') => `${column}[3:]::INTEGER IN (SELECT tconst FROM batch_ratings)`;

const relations: Record<BatchRelation, string> = {
  batch_ratings: `SELECT ${id('tconst')}, averageRating::DOUBLE AS rating, numVotes::BIGINT AS votes
    FROM ${file('title.ratings')}`,
  batch_basics: `SELECT ${id('tconst')}, titleType, isAdult = '1' AS isAdult, startYear::INTEGER AS startYear,
    runtimeMinutes::INTEGER AS runtimeMinutes, genres FROM ${file('title.basics')} WHERE ${rated()}`,
  batch_principals: `SELECT ${id('tconst')}, ordering::INTEGER AS ordering, ${id('nconst')}
    FROM ${file('title.principals')} WHERE ${rated()}`,
  batch_akas: `SELECT ${id('titleId')}, ordering::INTEGER AS ordering, region, language
    FROM ${file('title.akas')} WHERE ${rated('titleId')}`,
  batch_crew: `SELECT ${id('tconst')}, ${ids('directors')}, ${ids('writers')} FROM ${file('title.crew')} WHERE ${rated()}`,
  batch_episodes: `SELECT ${id('tconst')}, ${id('parentTconst')}, seasonNumber::INTEGER AS seasonNumber
    FROM ${file('title.episode')} WHERE ${rated()}`,
  batch_title_names: `SELECT ${id('tconst')}, primaryTitle, originalTitle FROM ${file('title.basics')}
    WHERE ${rated()} OR tconst[3:]::INTEGER IN (SELECT parentTconst FROM batch_episodes)`,
  batch_names: `SELECT ${id('nconst')}, primaryName FROM ${file('name.basics')}`,
};
for (const [relation, query] of Object.entries(relations)) {
  await db.run(`CREATE TABLE ${relation} AS ${query}`);
}
await computeGold(db, 'gold');
for (const table of builtIn.tables) {
  if (isOfHistory(table)) continue;
  await writeResult(table.name, `gold.${table.name}`);
}
process.stdout.write('done\n');
