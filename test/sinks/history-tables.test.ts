/**
 * The tables of history on a real broker: dumps of five days, with a title that vanishes and returns, one that is rated
 * late, and weeks without a change. After each day `verify` recomputes them from the topics, and the history must hold
 * the file of every day until then.
 */
import { cpSync, mkdirSync, renameSync, rmSync, utimesSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, inject, test } from 'vitest';
import { withDatabase } from '../../database/duckdb.ts';
import { exitCodes, ReelflowError } from '../../runtime/errors.ts';
import { currentSnapshot, type Manifest, readManifest, tableFile } from '../../sinks/gold/manifest.ts';
import { reportPage } from '../../sinks/gold/report.ts';
import { verifySnapshot } from '../../sinks/verify/verify.ts';
import { idText } from '../../topics/catalog.ts';
import { Registry } from '../../topics/registry.ts';
import { broker, headerOf, lastJson, Place, spoken } from '../support/harness.ts';

const registry = new Registry({ url: inject('registryUrl') });
const tables = ['rating_history', 'trends', 'movers'] as const;
const titles = Array.from({ length: 60 }, (_, i) => i * 1_499 + 1);
type Rated = readonly [stars: number, votes: number];

/** What the dumps of these days say. A title without an entry has no rating. */
function ratingsOf(day: number): Map<number, Rated> {
  return new Map(
    titles.flatMap((id, i): [number, Rated][] => {
      if (i === 0 && (day === 3 || day === 4)) return [];
      if (i === 1 && day < 9) return [];
      const rising = i % 4 === 0 ? Math.min(day, 9) : 0;
      const votes = 200 + i + (i % 3 === 0 ? rising * 1_000 : 0) + (i === 7 && day === 40 ? 5 : 0);
      return [[id, [i % 5 === 0 ? 5 + rising / 10 : 7, votes]]];
    }),
  );
}

/** In December 2025: a Monday is the first, so days 1 to 4 are of one week. Day 40 is in January. */
const days = [1, 3, 4, 9, 40];
const dateOf = (day: number) => new Date(Date.UTC(2025, 11, day, 7, 30));
const dayText = (day: number) => dateOf(day).toISOString().slice(0, 10);

let place: Place;
/** By day, the folder of its dump and the snapshot after it. */
const dumps = new Map<number, string>();
const snapshots = new Map<number, Manifest>();

function writeDump(name: string, day: number, ratings: ReadonlyMap<number, Rated>): string {
  const folder = join(place.folder, name);
  mkdirSync(folder);
  const basics = titles.map((id, i) => {
    const genres = i % 7 === 0 ? '\\N' : i % 2 === 0 ? 'Drama' : 'Comedy,Drama';
    return `${idText('tt', id)}\tmovie\tReel ${i}\tReel ${i}\t0\t${1990 + i}\t\\N\t90\t${genres}\n`;
  });
  const rows = [...ratings].map(
    ([id, [stars, votes]]) => `${idText('tt', id)}\t${stars.toFixed(1)}\t${votes}\n`,
  );
  writeFileSync(join(folder, 'title.basics.tsv'), headerOf('title.basics') + basics.join(''));
  writeFileSync(join(folder, 'title.ratings.tsv'), headerOf('title.ratings') + rows.join(''));
  for (const file of ['title.basics.tsv', 'title.ratings.tsv']) {
    utimesSync(join(folder, file), dateOf(day), dateOf(day));
  }
  return folder;
}

const refresh = (folder: string, ...more: string[]) => place.replay(folder, '--max-removed', '50', ...more);

async function publish(folder: string, ...more: string[]): Promise<Manifest> {
  await refresh(folder, ...more);
  await place.process();
  const { snapshot } = await place.sink();
  return readManifest(place.gold, String(snapshot));
}

const hashesOf = (manifest: Manifest) => tables.map((table) => manifest.tables[table]?.contentHash);

const verify = (input: 'topics' | string, gold = place.gold) =>
  verifySnapshot({
    gold,
    input: input === 'topics' ? { broker, registry, names: place.names } : { folder: input },
    memoryLimit: '500MB',
    signal: new AbortController().signal,
  });

async function rows(sql: string): Promise<unknown[][]> {
  return withDatabase(async (connection) => {
    return (await connection.runAndReadAll(sql)).getRowsJson();
  });
}

const fileIn = ({ id }: Manifest, table: (typeof tables)[number], gold = place.gold) =>
  `read_parquet('${tableFile(gold, id, table)}')`;

/** The newest rows up to a day, as lines of a ratings file. */
const newestRows = (manifest: Manifest, day: number) =>
  rows(`
    SELECT tconst || ' ' || averageRating || ' ' || numVotes FROM ${fileIn(manifest, 'rating_history')}
    WHERE day <= DATE '${dayText(day)}'
    QUALIFY row_number() OVER (PARTITION BY tconst ORDER BY day DESC) = 1 AND averageRating IS NOT NULL
    ORDER BY tconst`);

const linesOf = (day: number) =>
  [...ratingsOf(day)]
    .map(([id, [stars, votes]]) => [`${idText('tt', id)} ${stars.toFixed(1)} ${votes}`])
    .sort();

beforeAll(async () => {
  place = new Place();
  for (const day of days) {
    const folder = writeDump(`day-${day}`, day, ratingsOf(day));
    dumps.set(day, folder);
    snapshots.set(day, await publish(folder, ...(day === 1 ? ['--shards', '2'] : [])));
    const { findings, equal } = await verify('topics');
    expect({ findings, equal }, `day ${day}`).toEqual({ findings: [], equal: true });
  }
}, 240_000);

afterAll(() => place.close(false));

const last = () => snapshots.get(40) as Manifest;

describe('rating_history', () => {
  test('holds the file of every day, in the snapshot of that day and in all later ones', async () => {
    for (const [n, day] of days.entries()) {
      for (const later of days.slice(n)) {
        expect(await newestRows(snapshots.get(later) as Manifest, day), `${day} in ${later}`).toEqual(
          linesOf(day),
        );
      }
    }
    expect(last().history).toEqual({ days: 400, newest: dayText(40), gaps: {} });
  });

  test('has a row for each change, and null from the day on which a title vanished', async () => {
    const of = (id: number) =>
      rows(
        `SELECT day, averageRating FROM ${fileIn(last(), 'rating_history')} WHERE tconst = '${idText('tt', id)}' ORDER BY day`,
      );
    expect(await of(titles[0] as number)).toEqual([
      ['2025-12-01', 5.1],
      ['2025-12-03', null],
      ['2025-12-09', 5.9],
    ]);
    expect(await of(titles[2] as number)).toEqual([['2025-12-01', 7]]);
  });

  test('the same dump, sent again whole, changes no table', async () => {
    await refresh(dumps.get(40) as string, '--full');
    await place.process();
    const { snapshot } = await place.sink();
    // Every row was sent again, so the positions differ and the tables do not.
    expect(hashesOf(readManifest(place.gold, snapshot ?? currentSnapshot(place.gold) ?? ''))).toEqual(
      hashesOf(last()),
    );
  });
});

// In one batch after the last dump; the gold that is compared was made in one batch a dump.
test('a sink without state, killed between its steps, reads the history again and publishes the same', async () => {
  const [gold, state] = [join(place.folder, 'gold-3'), join(place.folder, 'state-3')];
  const args = ['sink', '--once', '--json', '--gold', gold, '--state', state, '--namespace', place.namespace];
  const points = [
    'after-delta-commit',
    'after-history-commit',
    'after-titles-commit',
    'after-parquet-before-manifest',
  ];
  for (const point of points) {
    const killed = await place.run(args, { REELFLOW_CRASH_AT: point });
    expect(killed.signal, `${point}\n${killed.stderr}`).toBe('SIGKILL');
  }
  const { snapshot } = lastJson<{ snapshot: string }>(await place.run(args));
  expect(hashesOf(readManifest(gold, snapshot))).toEqual(hashesOf(last()));
});

test('--history prunes, verify agrees, and a longer one reads the topic again', async () => {
  const [gold, state] = [join(place.folder, 'gold-4'), join(place.folder, 'state-4')];
  const args = ['sink', '--once', '--json', '--gold', gold, '--state', state, '--namespace', place.namespace];
  cpSync(place.gold, gold, { recursive: true });
  const refused = await place.run([...args, '--history', '0']);
  expect(refused, refused.stderr).toMatchObject({ code: exitCodes.usage, stdout: '' });
  expect(spoken(refused)).toBe(
    'Error: --history 0 would change the history of ratings\n' +
      'Detail: Of its 400 days, the first 400 would be lost.\n' +
      'Hint: Leave --history out to keep its length, or add --accept-loss.\n',
  );
  const accepted = (days: number) => place.run([...args, '--history', String(days), '--accept-loss']);
  const short = lastJson<{ snapshot: string }>(await accepted(33));
  const manifest = readManifest(gold, short.snapshot);
  expect(manifest.history).toMatchObject({ days: 33 });
  expect((await verify('topics', gold)).findings).toEqual([]);
  // The cut-off is day 7: of the days before it only the newest row stays, and none of the title that had vanished.
  const kept = await rows(
    `SELECT count(*)::INTEGER, count(DISTINCT tconst)::INTEGER FROM ${fileIn(manifest, 'rating_history', gold)} WHERE day <= DATE '2025-12-07'`,
  );
  expect(kept).toEqual([[titles.length - 2, titles.length - 2]]);
  // Without the option the length stays, in the state and in a new one.
  for (const folder of [state, `${state}-new`]) {
    const kept = await place.run([...args, '--state', folder]);
    expect(kept, kept.stderr).toMatchObject({ code: 0 });
    expect(readManifest(gold, currentSnapshot(gold) ?? '').history).toMatchObject({ days: 33 });
  }
  const longer = await place.run([...args, '--history', '400']);
  expect(longer, longer.stderr).toMatchObject({ code: exitCodes.usage, stdout: '' });
  expect(spoken(longer)).toContain('days before a base would be lost');
  const long = lastJson<{ snapshot: string }>(await accepted(400));
  expect(hashesOf(readManifest(gold, long.snapshot))).toEqual(hashesOf(last()));
});

describe('trends and movers', () => {
  test('count by week and genre what the dumps changed', async () => {
    const found = await rows(`
      SELECT window_start, genre, titles_new, titles_gone, titles_changed, votes_gained, round(avg_change, 6)
      FROM ${fileIn(last(), 'trends')} WHERE period = 'week' AND window_start < DATE '2026-01-01' AND (genre = 'Drama' OR genre IS NULL)
      ORDER BY window_start, genre`);
    const genreOf = (i: number) => (i % 7 === 0 ? null : 'Drama');
    // By hand: the week of days 3 and 4 against day 1, and that of day 9 against day 4.
    const expected = [
      ['2025-12-01', 1, 4],
      ['2025-12-08', 4, 9],
    ].flatMap(([monday, from, to]) =>
      ['Drama', null].map((genre) => {
        const [before, after] = [ratingsOf(Number(from)), ratingsOf(Number(to))];
        const own = titles.filter((_, i) => genreOf(i) === genre);
        const moved = own.filter((id) => String(before.get(id)) !== String(after.get(id)));
        const both = moved.filter((id) => before.has(id) && after.has(id));
        const votes = (of: Map<number, Rated>) => moved.reduce((sum, id) => sum + (of.get(id)?.[1] ?? 0), 0);
        const change = both.reduce(
          (sum, id) => sum + Math.round(((after.get(id)?.[0] ?? 0) - (before.get(id)?.[0] ?? 0)) * 10),
          0,
        );
        const counts = [
          moved.filter((id) => !before.has(id)).length,
          moved.filter((id) => !after.has(id)).length,
          both.length,
        ];
        const mean = both.length === 0 ? null : Number((change / 10 / both.length).toFixed(6));
        return [monday, genre, ...counts.map(String), String(votes(after) - votes(before)), mean];
      }),
    );
    expect(found).toEqual(expected);
  });

  test('name the titles that moved most within the days before the newest dump', async () => {
    const snapshot = snapshots.get(9) as Manifest;
    const found = await rows(`
      SELECT tconst, numVotes::INTEGER, votes_gained::INTEGER, round(rating_change, 1)
      FROM ${fileIn(snapshot, 'movers')} WHERE days = 7 AND ranking = 'votes' AND place <= 2`);
    // Day 2 has the file of day 1. The title that was rated first on day 9 has gained its 201 votes.
    const gained = titles.flatMap((id) => {
      const [before, after] = [ratingsOf(1).get(id), ratingsOf(9).get(id)];
      return after === undefined ? [] : [[id, after[1], after[1] - (before?.[1] ?? 0)] as const];
    });
    const best = gained.sort(([a, , x], [b, , y]) => y - x || a - b).slice(0, 2);
    expect(found.map((row) => row.slice(0, 3))).toEqual(
      best.map(([id, ...votes]) => [idText('tt', id), ...votes]),
    );
    // On day 40 one title changed, and nothing in the 30 days before it.
    const late = await rows(
      `SELECT ranking, tconst, votes_gained::INTEGER, rating_change FROM ${fileIn(last(), 'movers')} WHERE days = 7`,
    );
    expect(late).toEqual([['votes', idText('tt', titles[7] as number), 5, 0]]);
  });
});

describe('verify', () => {
  test('with files checks the newest rows, and says what it cannot check', async () => {
    const good = await verify(dumps.get(40) as string);
    expect(good.findings).toEqual([]);
    expect(good.unchecked).toEqual([expect.stringContaining('the input determines the newest row')]);
    expect((await verify('topics')).unchecked).toEqual([]);
    const other = await verify(dumps.get(1) as string);
    expect(other.findings).toContainEqual({
      about: 'rating_history',
      text: expect.stringContaining('its newest row is not its rating in the input'),
    });
  });

  test.each([
    ['a changed day', 'day - 1 AS day', 'tconst'],
    ['changed votes', 'numVotes + 1 AS numVotes', 'tconst'],
  ])('from the topics finds %s of an earlier row', async (_, change) => {
    const copy = join(place.folder, `copy-${change.length}`);
    cpSync(place.gold, copy, { recursive: true });
    const id = currentSnapshot(copy) ?? '';
    const path = tableFile(copy, id, 'rating_history');
    const column = change.split(' AS ')[1] as string;
    await rows(`COPY (
      SELECT * EXCLUDE file_row_number
      REPLACE (CASE WHEN file_row_number = 0 THEN ${change.split(' AS ')[0]} ELSE ${column} END AS ${column}) FROM read_parquet('${path}', file_row_number = true)) TO '${path}.new' (FORMAT parquet)`);
    renameSync(`${path}.new`, path);
    const { findings } = await verify('topics', copy);
    expect(findings.filter(({ about }) => about === 'rating_history').map(({ text }) => text)).toContainEqual(
      expect.stringContaining(idText('tt', titles[0] as number)),
    );
    rmSync(copy, { recursive: true });
  });
});

describe('gold show', () => {
  test('--title shows the rows of a title and draws them', async () => {
    const show = (table: string, title: string, ...more: string[]) =>
      place.run(['gold', 'show', table, '--gold', place.gold, '--title', title, ...more]);
    const title = idText('tt', titles[0] as number);
    const { stdout, code } = await show('rating_history', title);
    expect(code).toBe(0);
    expect(stdout).toContain('2025-12-03');
    expect(stdout).toContain(`Rating of ${title} by day`);
    expect(stdout).toContain('3 of 3 rows');
    const json = lastJson<{ rows: unknown[][] }>(await show('rating_history', title, '--json'));
    expect(json.rows).toHaveLength(3);
    expect((await show('rating_history', 'tt9999999')).stdout).toMatch(
      /^rating_history .* has no title tt9999999\.\n$/,
    );
    expect(await show('rating_history', 'nm0000001')).toMatchObject({
      code: 2,
      stderr: expect.stringContaining('such as tt0111161'),
    });
    const wrong = await show('genre_analysis', 'tt0000001');
    expect(wrong.stderr).toContain('has no rows of single titles');
    expect(wrong.code).toBe(new ReelflowError('usage', '', {}).exitCode);
  });
});

test('the report draws the history by date, and the movers', async () => {
  const page = await reportPage(place.gold, (snapshots.get(9) as Manifest).id);
  const sectionOf = (table: string) => page.split(`<section id="${table}">`)[1]?.split('</section>')[0] ?? '';
  // Three days with changes, on an axis of dates.
  expect(sectionOf('rating_history')).toMatch(/<svg[\s\S]*2025-12-0\d/);
  for (const table of ['trends', 'movers']) expect(sectionOf(table).split('<figure>')).toHaveLength(3);
  expect(sectionOf('movers')).toContain(idText('tt', titles[48] as number));
  expect(sectionOf('movers')).not.toContain('No rows.');
});

// Last, because it changes the log.
test('an older dump withdraws the later days of the titles that it touches', async () => {
  const [first, second] = [titles[12] as number, titles[5] as number];
  const folder = writeDump('older', 3, ratingsOf(3));
  const manifest = await publish(folder, '--allow-older');
  expect((await verify('topics')).findings).toEqual([]);
  expect(await newestRows(manifest, 3)).toEqual(linesOf(3));
  const newestOf = (id: number) =>
    rows(`SELECT max(day) FROM ${fileIn(manifest, 'rating_history')} WHERE tconst = '${idText('tt', id)}'`);
  expect(await newestOf(first)).toEqual([[dayText(3)]]);
  expect(await newestOf(second)).toEqual([[dayText(1)]]);
});
