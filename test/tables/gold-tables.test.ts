/** The SQL of gold tables on rows at the limits. */
import { expect, test } from 'vitest';
import { withDatabase } from '../../database/duckdb.ts';
import { goldTables } from '../../tables/gold-tables.ts';

test('a year whose decade is not an INTEGER leaves decade_trends, and no year makes it fail', async () => {
  await withDatabase(async (connection) => {
    await connection.run(`CREATE TABLE title AS
      SELECT unnest([-2147483647, -2147483641, -2147483640, 1994, 2147483647, NULL]::INTEGER[]) AS startYear,
        70 AS rating, 1::BIGINT AS titles, 5::BIGINT AS votes, 0::BIGINT AS runtimeSum, 0::BIGINT AS runtimeTitles`);
    const table = goldTables.find(({ name }) => name === 'decade_trends');
    const reader = await connection.runAndReadAll(`SELECT decade FROM (${table?.integers}) ORDER BY decade`);
    expect(reader.getRowsJson()).toEqual([[-2147483640], [1990], [2147483640]]);
  });
});

test('genres counts a title once in each of its genres, and in no empty one', async () => {
  await withDatabase(async (connection) => {
    await connection.run(`CREATE TABLE title AS
      SELECT unnest(['Drama', 'Drama,Drama', ',Action,', '', ',', 'Action,Drama', NULL]) AS genres,
        70 AS rating, 2::BIGINT AS titles, 5::BIGINT AS votes`);
    const table = goldTables.find(({ name }) => name === 'genres');
    const reader = await connection.runAndReadAll(
      `SELECT genre, total_titles::INTEGER FROM (${table?.integers}) ORDER BY genre`,
    );
    expect(reader.getRowsJson()).toEqual([
      ['Action', 4],
      ['Drama', 6],
    ]);
  });
});
