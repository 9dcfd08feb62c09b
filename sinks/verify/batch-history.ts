/**
 * The history of ratings as a batch computation, and the tables over it: the oracle for the stream. From the topics it is
 * recomputed from every version of every rating. A folder of files, and a log that begins at a base, determine the newest
 * rows only: then the earlier ones are taken from the snapshot, checked among themselves, and the other tables recomputed
 * from them.
 */

import { existsSync } from 'node:fs';
import { join } from 'node:path';
import type { DuckDBConnection } from '@duckdb/node-api';
import { parquetFile } from '../../database/sql.ts';
import { isOwnFault } from '../../database/storage-errors.ts';
import { counted } from '../../runtime/counted.ts';
import { groupSize } from '../../topics/id-groups.ts';
import type { Manifest } from '../gold/manifest.ts';
import type { Finding } from './manifest-checks.ts';
import { messageTable, replacedTable, rowTable } from './row-loader.ts';

export const historyDaysDefault = 400;

/** What `verify` cannot check from one dump: files, or topics that no longer hold the messages before a base. */
export const uncheckedEarlierRows = [
  'rating_history: the input determines the newest row of each title only. Earlier rows were checked among themselves, and trends and movers were recomputed from them.',
];

const ratings = 'title.ratings';

/** By gold table, as in batch-gold.ts. They read `batch_history`, `batch_span`, `batch_basics` and `batch_title_names`. */
export const historyQueries: Readonly<Record<string, string>> = {
  rating_history: `
      SELECT format('tt{:07d}', tconst) AS tconst, day, tenths / 10 AS averageRating, votes AS numVotes, tenths
      FROM batch_history ORDER BY tconst, day`,
  trends: `
      WITH windows AS (
        SELECT DISTINCT tconst, period, window_start, greatest(window_start - 1, beginning) AS day_before,
          CASE period WHEN 'week' THEN window_start + 6 ELSE last_day(window_start) END AS day_after
        FROM (
          SELECT tconst, day, 'week' AS period, day - (isodow(day)::INTEGER - 1) AS window_start FROM batch_history
          UNION ALL SELECT tconst, day, 'month', make_date(year(day), month(day), 1) FROM batch_history
        ), batch_span
        WHERE day > beginning),
      net AS (
        SELECT w.tconst, w.period, w.window_start, b.tenths AS t0, b.votes AS v0, a.tenths AS t1, a.votes AS v1
        FROM windows AS w
        ASOF LEFT JOIN batch_history AS b ON b.tconst = w.tconst AND b.day <= w.day_before
        ASOF LEFT JOIN batch_history AS a ON a.tconst = w.tconst AND a.day <= w.day_after)
      SELECT period, window_start, genre,
        sum((t0 IS NULL)::INTEGER)::BIGINT AS titles_new, sum((t1 IS NULL)::INTEGER)::BIGINT AS titles_gone,
        count(t0 + t1) AS titles_changed, (coalesce(sum(v1), 0) - coalesce(sum(v0), 0))::BIGINT AS votes_gained,
        avg((t1 - t0) / 10) AS avg_change, coalesce(sum(t1 - t0), 0)::BIGINT AS change_tenths
      FROM net LEFT JOIN (
        SELECT DISTINCT tconst, unnest(regexp_split_to_array(genres, ',')) AS genre FROM batch_basics WHERE genres <> ''
      ) AS tags USING (tconst)
      WHERE coalesce(t0, t1) IS NOT NULL
      GROUP BY ALL ORDER BY period, window_start, genre NULLS LAST`,
  movers: `
      WITH spans AS (
        SELECT DISTINCT tconst, days, newest, greatest(newest - days, beginning) AS day_before
        FROM batch_history, batch_span, (VALUES (7), (30)) AS lengths(days)),
      net AS (
        SELECT s.days, s.tconst, b.tenths AS t0, b.votes AS v0, a.tenths AS t1, a.votes AS v1
        FROM spans AS s
        ASOF LEFT JOIN batch_history AS b ON b.tconst = s.tconst AND b.day <= s.day_before
        ASOF JOIN batch_history AS a ON a.tconst = s.tconst AND a.day <= s.newest),
      ranked AS (
        SELECT 'votes' AS ranking, v1 - coalesce(v0, 0) AS size, * FROM net WHERE t1 > 0 AND size > 0
        UNION ALL
        SELECT 'rating', greatest(t1 - t0, t0 - t1), * FROM net WHERE t1 <> t0 AND v0 >= 100 AND v1 >= 100),
      best AS (
        SELECT *, (row_number() OVER (PARTITION BY days, ranking ORDER BY -size, tconst))::INTEGER AS place
        FROM ranked QUALIFY place <= 100)
      SELECT days::INTEGER AS days, ranking, place, format('tt{:07d}', best.tconst) AS tconst, primaryTitle, titleType,
        startYear,
        t1 / 10 AS averageRating, (t1 - t0) / 10 AS rating_change, v1 AS numVotes, v1 - coalesce(v0, 0) AS votes_gained,
        t1 AS tenths, t1 - t0 AS change_tenths
      FROM best LEFT JOIN batch_basics ON batch_basics.tconst = best.tconst
        LEFT JOIN batch_title_names ON batch_title_names.tconst = best.tconst
      ORDER BY days, ranking DESC, place`,
};

/** The relations of `historyQueries` alone. */
export const historyRelations = ['batch_history', 'batch_span'] as const;

/** Creates `batch_history` from the rows that the loaders hold. */
export async function historyFromRows(connection: DuckDBConnection, historyDays: number): Promise<void> {
  const [rows, replaced, messages] = [rowTable(ratings), replacedTable(ratings), messageTable(ratings)];
  // A dump older than the cut-off of its partition counts as of the cut-off.
  await connection.run(`CREATE OR REPLACE TEMP TABLE batch_messages AS
    SELECT message, firstRow, rowCount,
      greatest(day, max(day) OVER (PARTITION BY partition ORDER BY message) - ${historyDays}) AS day
    FROM ${messages}`);
  await connection.run(`CREATE OR REPLACE TEMP TABLE batch_said AS
    SELECT tconst, day, averageRating AS tenths, numVotes AS votes, row_number() OVER (ORDER BY message, line) AS place
    FROM (
      SELECT tconst, day, message, r.rowid AS line, averageRating, numVotes
      FROM ${rows} AS r ASOF JOIN (FROM batch_messages WHERE rowCount > 0) AS m ON r.rowid >= m.firstRow
      UNION ALL
      SELECT known.tconst, day, message, -1, NULL, NULL
      FROM ${replaced} JOIN batch_messages USING (message)
      JOIN (SELECT DISTINCT tconst FROM ${rows}) AS known ON known.tconst // ${groupSize} = idGroup
    )`);
  // The last version of each day. A day counts if nothing was said about an earlier day after it.
  await connection.run(`CREATE OR REPLACE TEMP TABLE batch_days AS
    SELECT tconst, day, tenths, votes
    FROM (SELECT * FROM batch_said QUALIFY row_number() OVER (PARTITION BY tconst, day ORDER BY place DESC) = 1)
    QUALIFY place >= max(place) OVER (PARTITION BY tconst ORDER BY day)`);
  await connection.run(`CREATE OR REPLACE TEMP TABLE batch_changes AS
    SELECT * FROM batch_days
    QUALIFY (coalesce(tenths, -1), coalesce(votes, -1))
      <> lag((coalesce(tenths, -1), coalesce(votes, -1)), 1, (-1, -1)) OVER (PARTITION BY tconst ORDER BY day)`);
  const newest = `(SELECT max(day) FROM ${messages})`;
  await connection.run(`CREATE OR REPLACE TEMP TABLE batch_history AS
    SELECT tconst, make_date(day) AS day, tenths::BIGINT AS tenths, votes::BIGINT AS votes
    FROM batch_changes LEFT JOIN (
      SELECT tconst, max(day) AS base FROM batch_changes WHERE day <= ${newest} - ${historyDays} GROUP BY tconst
    ) USING (tconst)
    WHERE base IS NULL OR day > base OR (day = base AND tenths IS NOT NULL)`);
  await connection.run(`CREATE OR REPLACE TEMP TABLE batch_span AS
    SELECT make_date(newest) AS newest,
      greatest(make_date(newest - ${historyDays}), (SELECT min(day) FROM batch_history)) AS beginning
    FROM (SELECT max(day) AS newest FROM ${messages}) WHERE newest IS NOT NULL`);
  for (const table of ['batch_messages', 'batch_said', 'batch_days', 'batch_changes', messages]) {
    await connection.run(`DROP TABLE ${table}`);
  }
}

/** The manifest's claim about the newest dump, against `batch_span`. */
export async function checkHistory(connection: DuckDBConnection, { history }: Manifest): Promise<Finding[]> {
  if (history === undefined) return [];
  const reader = await connection.runAndReadAll('SELECT newest::VARCHAR FROM batch_span');
  const newest = reader.getRows()[0]?.[0] ?? null;
  if (newest === history.newest) return [];
  return [
    {
      about: 'rating_history',
      text: `the manifest says that the newest dump is of ${history.newest}, the input gives ${newest}`,
    },
  ];
}

/**
 * Creates `batch_history` from the snapshot, and checks it: against `batch_ratings`, which the input determines, and
 * against the rules that every history keeps.
 */
export async function historyFromSnapshot(
  connection: DuckDBConnection,
  manifest: Manifest,
  folder: string,
): Promise<Finding[]> {
  const path = join(folder, 'rating_history.parquet');
  const { days = historyDaysDefault, newest = null } = manifest.history ?? {};
  const claimed = (from: string) => `CREATE OR REPLACE TEMP TABLE batch_history AS ${from}`;
  const none = `SELECT 0 AS tconst, DATE '1970-01-01' AS day, 0::BIGINT AS tenths, 0::BIGINT AS votes WHERE false`;
  try {
    await connection.run(
      claimed(
        existsSync(path)
          ? `SELECT substr(tconst, 3)::INTEGER AS tconst, day, round(averageRating * 10)::BIGINT AS tenths,
               numVotes AS votes FROM ${parquetFile(path)}`
          : none,
      ),
    );
  } catch (thrown) {
    if (isOwnFault(thrown)) throw thrown;
    // The comparison of the tables says what is wrong with the file.
    await connection.run(claimed(none));
  }
  await connection.run(`CREATE OR REPLACE TEMP TABLE batch_span AS
    SELECT newest, greatest(newest - ${days}, (SELECT min(day) FROM batch_history)) AS beginning
    FROM (SELECT ${newest === null ? 'NULL' : `'${newest}'`}::DATE AS newest) WHERE newest IS NOT NULL`);
  const findings: Finding[] = [];
  for (const [text, query] of Object.entries(rules(days))) {
    const reader = await connection.runAndReadAll(
      `SELECT count(*)::INTEGER, format('tt{:07d}', min(tconst)) FROM (${query})`,
    );
    const [titles, first] = reader.getRows()[0] as [number, string | null];
    if (titles > 0)
      findings.push({ about: 'rating_history', text: `${first}: ${text} (${counted(titles, 'row')})` });
  }
  return findings;
}

/** By what is wrong: the titles for which it is. */
const rules = (days: number) => ({
  'its newest row is not its rating in the input': `
    SELECT coalesce(h.tconst, r.tconst) AS tconst
    FROM (SELECT * FROM batch_history QUALIFY day = max(day) OVER (PARTITION BY tconst)) AS h
    FULL JOIN batch_ratings AS r ON r.tconst = h.tconst
    WHERE h.votes IS DISTINCT FROM r.votes OR h.tenths IS DISTINCT FROM round(r.rating * 10)::BIGINT`,
  'a row equals the one before it': `
    SELECT tconst FROM batch_history
    QUALIFY (tenths, votes) IS NOT DISTINCT FROM lag((tenths, votes)) OVER (PARTITION BY tconst ORDER BY day)`,
  'its first row has no rating': `
    SELECT tconst FROM batch_history QUALIFY day = min(day) OVER (PARTITION BY tconst) AND tenths IS NULL`,
  'a row has a rating without votes, or votes without a rating': `
    SELECT tconst FROM batch_history WHERE (tenths IS NULL) <> (votes IS NULL)`,
  'a row is newer than the newest dump': `
    SELECT tconst FROM batch_history LEFT JOIN batch_span ON true WHERE newest IS NULL OR day > newest`,
  'two rows lie at or before the cut-off': `
    SELECT tconst FROM batch_history, batch_span WHERE day <= newest - ${days} GROUP BY tconst HAVING count(*) > 1`,
});
