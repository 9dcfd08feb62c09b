/** The names of people in the sink's store: rows of name.basics by id. */
import type { DuckDBConnection } from '@duckdb/node-api';

/** Rows to write, in the order of arrival. */
export interface PeopleRows {
  readonly length: number;
  /** `<nconst>US<name>RS` …, with `SOH` for a null name. US, RS and SOH are the control characters below. */
  readonly text: string;
  /** Rows whose name contains one of these characters: id, name, and place from 1. In `text` each has an empty line. */
  readonly odd: readonly (readonly [number, string, number])[];
  /** Whether the store may already hold some of them. */
  readonly mayExist: boolean;
  /** Whether a person may occur more than once; the last row counts. */
  readonly mayRepeat: boolean;
  /** Ids to delete after the upserts. */
  readonly deletes: readonly number[];
  /** Ids of replaced groups that no longer occur. No upsert has one of them. */
  readonly removed: readonly number[];
}

export interface WrittenPeople {
  /** Rows that the records changed. */
  readonly changed: number;
  /** Rows that replacements removed. */
  readonly removed: number;
}

export const unitSeparator = 0x1f;
export const recordSeparator = 0x1e;
export const nullMark = 0x01;

/** Upserts and deletes rows. @param onChange receives a SELECT or VALUES of the ids that change, and its parameters */
export async function writePeople(
  connection: DuckDBConnection,
  { length, text, odd, mayExist, mayRepeat, deletes, removed }: PeopleRows,
  onChange: (ids: string, values?: string[]) => Promise<void>,
): Promise<WrittenPeople> {
  let changed = 0;
  const place = mayRepeat ? ', place' : '';
  const all = `
    SELECT split_part(line, chr(${unitSeparator}), 1)::INTEGER AS nconst,
      nullif(split_part(line, chr(${unitSeparator}), 2), chr(${nullMark})) AS primaryName${place}
    FROM (
      SELECT unnest(lines) AS line${mayRepeat ? ', generate_subscripts(lines, 1) AS place' : ''}
      FROM (SELECT string_split($1, chr(${recordSeparator})) AS lines)
    ) WHERE line <> ''
    ${odd.map(([id, , at], i) => `UNION ALL SELECT ${id}, $${i + 2}::VARCHAR${mayRepeat ? `, ${at}` : ''}`).join(' ')}`;
  const rows = mayRepeat
    ? `SELECT nconst, primaryName FROM (${all}) QUALIFY row_number() OVER (PARTITION BY nconst ORDER BY place DESC) = 1`
    : all;
  const values: string[] = [text, ...odd.map(([, name]) => name)];
  if (length > 0 && !mayExist) {
    await connection.run(`INSERT INTO names ${rows}`, values);
    await onChange(`SELECT nconst FROM (${rows})`, values);
    changed += length;
  } else if (length > 0) {
    await connection.run(
      `CREATE OR REPLACE TEMP TABLE latest_names AS
      SELECT latest.*, stored.rowid AS storedRow
      FROM (${rows}) AS latest LEFT JOIN names AS stored USING (nconst)
      WHERE stored.rowid IS NULL OR latest.primaryName IS DISTINCT FROM stored.primaryName`,
      values,
    );
    await connection.run('DELETE FROM names WHERE rowid IN (SELECT storedRow FROM latest_names)');
    await connection.run('INSERT INTO names SELECT nconst, primaryName FROM latest_names');
    await onChange('SELECT nconst FROM latest_names');
    changed += await count(connection, 'latest_names');
  }
  for (const ids of [deletes, removed]) {
    if (ids.length > 0) await onChange(`VALUES ${ids.map((id) => `(${id})`).join(', ')}`);
  }
  changed += await deletePeople(connection, deletes);
  return { changed, removed: await deletePeople(connection, removed) };
}

async function deletePeople(connection: DuckDBConnection, ids: readonly number[]): Promise<number> {
  if (ids.length === 0) return 0;
  const { rowsChanged } = await connection.run(`DELETE FROM names WHERE nconst IN (${ids.join(', ')})`);
  return rowsChanged;
}

async function count(connection: DuckDBConnection, from: string): Promise<number> {
  const rows = await connection.runAndReadAll(`SELECT count(*) FROM ${from}`);
  return Number(rows.getRows()[0]?.[0]);
}
