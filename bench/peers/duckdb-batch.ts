/**
 * The peer DuckDB: one process, straight from the files, the least that any engine has to do. Arguments: folder of the
 * files, folder for the results. Only the columns that gold needs are read; nothing is checked.
 */
import { readFileSync } from 'node:fs';
import { db, file, writeResult } from './duckdb-files.ts';
import { goldQueries } from './peer.ts';

await db.run('SET preserve_insertion_order = false');
await db.run(`CREATE TABLE ratings AS
  SELECT tconst, averageRating::DOUBLE AS rating, numVotes::BIGINT AS votes FROM ${file('title.ratings')}`);
await db.run(`CREATE TABLE titles AS SELECT genres, startYear::INT AS startYear, runtimeMinutes::INT AS runtimeMinutes,
  rating, votes FROM ${file('title.basics')} JOIN ratings USING (tconst)`);
await db.run(`CREATE VIEW credits AS SELECT tconst, nconst FROM ${file('title.principals')}`);
await db.run(`CREATE VIEW akas AS SELECT titleId, region FROM ${file('title.akas')}`);
await db.run(`CREATE VIEW names AS SELECT nconst, primaryName FROM ${file('name.basics')}`);
for (const [table, query] of goldQueries(readFileSync(new URL('./gold.sql', import.meta.url), 'utf8'))) {
  await writeResult(table, `(${query})`);
}
process.stdout.write('done\n');
