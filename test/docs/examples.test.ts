/**
 * `docs/examples` on gold of the real pipeline: each engine gives the rows that are computed here from the rows of the
 * files. Needs Python with `docs/requirements.txt`, in `.venv` or where REELFLOW_PYTHON says, and for Spark pyspark and
 * Java; without them the tests are skipped, and say so.
 */
import { execFile } from 'node:child_process';
import { readdirSync, utimesSync } from 'node:fs';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { headerOf, Place, writeDatasets } from '../support/harness.ts';
import { hasPackages, python, whyNoSpark } from '../support/python.ts';

const run = promisify(execFile);
const top = join(import.meta.dirname, '..', '..');
const examples = join(top, 'docs', 'examples');
const hasEngines = await hasPackages('pandas, polars, duckdb, pyarrow');
const noSpark = await whyNoSpark();

type Row = Readonly<Record<string, unknown>>;

/** Answers of one engine, in the order of the questions; one Python for all of them. */
async function answers(engine: string, questions: readonly (readonly [string, Row])[]): Promise<Row[][]> {
  const program = `
import importlib, json, sys
sys.path.insert(0, sys.argv[1])
from gold import Gold
answers = []
for name, options in json.loads(sys.argv[4]):
    ask = getattr(importlib.import_module(name), f"with_{sys.argv[3]}")
    answers.append(ask(Gold(sys.argv[2]), **options))
print(json.dumps(answers, default=lambda value: value.item()))`;
  const args = ['-c', program, examples, place.gold, engine, JSON.stringify(questions)];
  const { stdout } = await run(python, args, { maxBuffer: 1 << 24 });
  return JSON.parse(stdout.trim().split('\n').at(-1) ?? '');
}

const near = (rows: readonly Row[]) =>
  rows.map((row) =>
    Object.fromEntries(
      Object.entries(row).map(([name, value]) => [
        name,
        typeof value === 'number' && !Number.isInteger(value) ? expect.closeTo(value, 9) : value,
      ]),
    ),
  );

// Ids in several blocks, so in several partitions; some titles share figures, and some have no year or are not films.
const titles = Array.from({ length: 60 }, (_, n) => ({
  tconst: `tt${1_000_000 + n * 7_919}`,
  titleType: n % 5 === 0 ? 'short' : 'movie',
  startYear: n % 7 === 0 ? null : 1985 + ((n * 3) % 20),
  averageRating: (20 + ((n * 13) % 75)) / 10,
  numVotes: n % 11 === 3 ? 500 : 10 + n * n * 17,
}));
/** A week later: some titles gained votes, one lost some, one vanished and one is new. */
const later = [
  ...titles.slice(1).map((title, n) => ({
    ...title,
    averageRating: n % 4 === 0 ? Math.round(title.averageRating * 10 + 3) / 10 : title.averageRating,
    numVotes: title.numVotes + (n % 3 === 0 ? 100 * (n % 6) : n === 7 ? -5 : 0),
  })),
  { tconst: 'tt9000001', titleType: 'movie', startYear: 1999, averageRating: 9.9, numVotes: 1_000_000 },
];
/** n of each person's titles: the first n. */
const credits = { nm0000001: 50, nm0000002: 12, nm0000003: 12, nm0000004: 1 };

const descending = (of: string) => (a: Row, b: Row) =>
  Number(b[of]) - Number(a[of]) || (String(a.tconst) < String(b.tconst) ? -1 : 1);

function bestFilms(decade: number, halfway: number, rows: number): Row[] {
  const films = later.filter(({ titleType }) => titleType === 'movie');
  const mean = films.reduce((sum, film) => sum + film.averageRating, 0) / films.length;
  return films
    .filter(({ startYear }) => startYear !== null && Math.floor(startYear / 10) * 10 === decade)
    .map(({ tconst, startYear, averageRating, numVotes }) => {
      const share = numVotes / (numVotes + halfway);
      const weighted_rating = share * averageRating + (1 - share) * mean;
      return { tconst, startYear, averageRating, numVotes, weighted_rating };
    })
    .sort(descending('weighted_rating'))
    .slice(0, rows);
}

function movers(ranking: 'votes' | 'rating', rows: number): Row[] {
  const before = new Map(titles.map((title) => [title.tconst, title]));
  const size = (row: Row) => Math.abs(Number(ranking === 'votes' ? row.votes_gained : row.rating_change));
  return later
    .flatMap(({ tconst, titleType, startYear, averageRating, numVotes }) => {
      const was = before.get(tconst);
      const votes_gained = numVotes - (was?.numVotes ?? 0);
      const rating_change =
        was === undefined ? null : Math.round((averageRating - was.averageRating) * 10) / 10;
      const isRated = was !== undefined && Math.min(was.numVotes, numVotes) >= 100;
      const isMover = ranking === 'votes' ? votes_gained > 0 : isRated && rating_change !== 0;
      return isMover ? [{ tconst, titleType, startYear, votes_gained, rating_change, averageRating }] : [];
    })
    .sort((a, b) => size(b) - size(a) || (a.tconst < b.tconst ? -1 : 1))
    .slice(0, rows)
    .map((row, n) => ({ place: n + 1, ...row }));
}

function career(person: keyof typeof credits): Row[] {
  const people = Object.entries(credits).map(([nconst, n]) => {
    const ids = new Set(titles.slice(0, n).map(({ tconst }) => tconst));
    // The first title is gone later.
    const own = later.filter(({ tconst }) => ids.has(tconst));
    const total = (of: 'numVotes' | 'averageRating') => own.reduce((sum, title) => sum + title[of], 0);
    return {
      nconst,
      titles: own.length,
      votes: total('numVotes'),
      average: total('averageRating') / own.length,
    };
  });
  const known = people.filter(({ titles: n }) => n > 0);
  const own = known.filter(({ nconst }) => nconst === person);
  const rank = (of: 'titles' | 'votes', value: number) =>
    1 + known.filter((other) => other[of] > value).length;
  return own.map(({ nconst, titles: n, votes, average }) => ({
    nconst,
    primaryName: `Person ${nconst}`,
    total_titles: n,
    total_votes: votes,
    avg_rating: average,
    votes_rank: rank('votes', votes),
    titles_rank: rank('titles', n),
    people: known.length,
  }));
}

/** A title has one of three directors, or two; the first title is gone later. */
const directorsOf = (n: number) => (n % 10 === 9 ? ['nm0000001', 'nm0000002'] : [`nm000000${1 + (n % 3)}`]);

function consistentDirectors(least: number, rating: number, top: number): Row[] {
  return ['nm0000001', 'nm0000002', 'nm0000003']
    .map((nconst) => {
      const ids = new Set(
        titles.flatMap(({ tconst }, n) => (directorsOf(n).includes(nconst) ? [tconst] : [])),
      );
      const ratings = later.filter(({ tconst }) => ids.has(tconst)).map(({ averageRating }) => averageRating);
      const avg_rating = ratings.reduce((sum, one) => sum + one, 0) / ratings.length;
      const squares = ratings.reduce((sum, one) => sum + (one - avg_rating) ** 2, 0);
      const rating_volatility = Math.sqrt(squares / (ratings.length - 1));
      const primaryName = `Person ${nconst}`;
      return { nconst, primaryName, total_titles: ratings.length, avg_rating, rating_volatility };
    })
    .filter((director) => director.total_titles >= least && director.avg_rating >= rating)
    .sort((a, b) => a.rating_volatility - b.rating_volatility)
    .slice(0, top);
}

/** Titles from the tenth on are episodes of one series: of four seasons, or of none. */
const seasonOf = (n: number) => (n % 5 === 4 ? null : 1 + (n % 5));
const series = 'tt1000000';

function seasons(): Row[] {
  const rows = [1, 2, 3, 4].map((seasonNumber) => {
    const ids = new Set(
      titles.slice(10).flatMap(({ tconst }, n) => (seasonOf(n) === seasonNumber ? [tconst] : [])),
    );
    const own = later.filter(({ tconst }) => ids.has(tconst));
    const total = (of: 'numVotes' | 'averageRating') => own.reduce((sum, title) => sum + title[of], 0);
    const [best] = [...own].sort(
      (a, b) =>
        b.averageRating - a.averageRating || b.numVotes - a.numVotes || (a.tconst < b.tconst ? -1 : 1),
    );
    return {
      seasonNumber,
      total_episodes: own.length,
      avg_rating: total('averageRating') / own.length,
      best_episode: best?.tconst,
      best_rating: best?.averageRating,
      total_votes: total('numVotes'),
    };
  });
  return rows.map((row, n) => ({
    ...row,
    change: n === 0 ? null : row.avg_rating - (rows[n - 1]?.avg_rating ?? 0),
  }));
}

const table = (dataset: Parameters<typeof headerOf>[0], rows: readonly (readonly unknown[])[]) =>
  headerOf(dataset) + rows.map((row) => `${row.map((cell) => cell ?? '\\N').join('\t')}\n`).join('');

const files = (of: readonly (typeof titles)[number][]) => ({
  'title.basics': table(
    'title.basics',
    of.map(({ tconst, titleType, startYear }) => [
      tconst,
      titleType,
      'A title',
      'A title',
      0,
      startYear,
      null,
      90,
      'Drama',
    ]),
  ),
  'title.ratings': table(
    'title.ratings',
    of.map(({ tconst, averageRating, numVotes }) => [tconst, averageRating.toFixed(1), numVotes]),
  ),
  'title.principals': table(
    'title.principals',
    of.flatMap(({ tconst }) => {
      const place = titles.findIndex((title) => title.tconst === tconst);
      const people = Object.entries(credits).filter(([, n]) => place >= 0 && place < n);
      return people.map(([nconst], n) => [tconst, n + 1, nconst, 'actor', null, null]);
    }),
  ),
  'title.crew': table(
    'title.crew',
    titles.map(({ tconst }, n) => [tconst, directorsOf(n).join(), null]),
  ),
  'title.episode': table(
    'title.episode',
    titles.slice(10).map(({ tconst }, n) => [tconst, series, seasonOf(n), n + 1]),
  ),
  'name.basics': table(
    'name.basics',
    Object.keys(credits).map((nconst) => [nconst, `Person ${nconst}`, null, null, null, null]),
  ),
});

let place: Place;

beforeAll(async () => {
  place = new Place();
  if (!hasEngines) return;
  const first = writeDatasets(join(place.folder, 'first'), files(titles));
  // The date of a dump is the time of its files.
  const weekAgo = new Date(Date.now() - 8 * 86_400_000);
  for (const name of readdirSync(first)) utimesSync(join(first, name), weekAgo, weekAgo);
  await place.pipeline(first);
  const refresh = { replay: ['--max-removed', '100'] };
  await place.pipeline(writeDatasets(join(place.folder, 'later'), files(later)), refresh);
}, 240_000);

afterAll(() => place.close(false));

const questions = [
  ['best_films', { decade: 1990, halfway: 5_000, top: 100 }],
  ['best_films', { decade: 1980, halfway: 0, top: 2 }],
  ['movers', { days: 7, ranking: 'votes', top: 8 }],
  ['movers', { days: 30, ranking: 'rating', top: 100 }],
  ['career', { person: 'Person nm0000002' }],
  ['career', { person: "it's no name" }],
  ['consistent_directors', { titles: 10, rating: 2, top: 2 }],
  ['seasons', { series }],
] as const;

describe.skipIf(!hasEngines)('examples (Python: docs/requirements.txt)', () => {
  it.for(['duckdb', 'pandas', 'polars', 'spark'])(
    'have the rows of the files with %s',
    { timeout: 600_000 },
    async (engine, { skip, task }) => {
      if (engine === 'spark' && task.file.projectName !== 'spark') return skip('slow: npm run test:spark');
      if (engine === 'spark' && noSpark !== undefined) return skip(noSpark);
      const expected = [
        bestFilms(1990, 5_000, 100),
        bestFilms(1980, 0, 2),
        movers('votes', 8),
        movers('rating', 100),
        career('nm0000002'),
        [],
        consistentDirectors(10, 2, 2),
        seasons(),
      ];
      expect(expected.map(({ length }) => length)).toEqual([
        expect.any(Number),
        2,
        8,
        expect.any(Number),
        1,
        0,
        2,
        4,
      ]);
      expect(await answers(engine, questions)).toEqual(expected.map(near));
    },
  );

  it('print a table, and their question as help', async () => {
    const names = readdirSync(examples).filter((name) => name.endsWith('.py') && name !== 'gold.py');
    expect(new Set(names)).toEqual(new Set(questions.map(([name]) => `${name}.py`)));
    const print = async (...args: string[]) => (await run(python, args)).stdout;
    const [films, help] = await Promise.all([
      print(join(examples, 'best_films.py'), place.gold, '--decade', '1990', '--halfway', '5000'),
      print(join(examples, 'movers.py'), '--help'),
    ]);
    const [first] = bestFilms(1990, 5_000, 1);
    const [header, line] = films.split('\n').map((text) => text.split(/ {2,}/));
    expect(header).toEqual(['tconst', 'startYear', 'averageRating', 'numVotes', 'weighted_rating']);
    expect(line?.slice(0, 2)).toEqual([first?.tconst, String(first?.startYear)]);
    expect(help).toContain('Which titles moved most since last week');
  });
});
