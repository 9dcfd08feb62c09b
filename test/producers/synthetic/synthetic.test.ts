/**
 * The synthetic dataset: its bytes against themselves, and its statistics, computed by DuckDB, against those of the full
 * dumps of early 2026.
 */
import { createHash } from 'node:crypto';
import { mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { gunzipSync } from 'node:zlib';
import { type DuckDBConnection, DuckDBInstance } from '@duckdb/node-api';
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest';
import { generateCommand } from '../../../cli/generate.ts';
import { syntheticTables } from '../../../producers/synthetic/rows.ts';
import { generate } from '../../../producers/synthetic/synthetic.ts';
import { type DatasetName, datasetNames, datasets } from '../../../topics/catalog.ts';

let dir: string;
beforeAll(async () => {
  dir = await mkdtemp(join(tmpdir(), 'reelflow-generate-'));
});
afterAll(() => rm(dir, { recursive: true }));

const lines = (bytes: Buffer) => bytes.toString().trimEnd().split('\n');
const hashes = async (folder: string) =>
  Object.fromEntries(
    await Promise.all(
      (await readdir(folder)).map(async (file) => [
        file,
        createHash('sha256')
          .update(await readFile(join(folder, file)))
          .digest('hex'),
      ]),
    ),
  );

describe('generate', () => {
  it('writes the same bytes for the same seed and number, others for another seed', async () => {
    const [a, b, c] = [join(dir, 'a'), join(dir, 'b'), join(dir, 'c')] as const;
    const written = await generate({ titles: 3000, out: a, seed: 7 });
    await generate({ titles: 3000, out: b, seed: 7 });
    await generate({ titles: 3000, out: c, seed: 8 });
    expect(await hashes(b)).toEqual(await hashes(a));
    const others = Object.values(await hashes(c));
    for (const hash of Object.values(await hashes(a))) expect(others).not.toContain(hash);
    expect(written.map(({ file }) => file).sort()).toEqual(datasetNames.map((name) => `${name}.tsv`).sort());
    for (const { dataset, file, rows, bytes } of written) {
      const content = await readFile(join(a, file));
      const [header, ...data] = lines(content);
      expect(content).toHaveLength(bytes);
      expect(data).toHaveLength(rows);
      const names = datasets[dataset].columns.map(({ name }) => name);
      expect(header).toBe(names.join('\t'));
      expect(data.filter((row) => row.split('\t').length !== names.length)).toEqual([]);
    }
  });

  it('shuffles the same rows', async () => {
    const [a, b, c] = [join(dir, 'sorted'), join(dir, 'shuffled'), join(dir, 'shuffled-again')] as const;
    await generate({ titles: 2000, out: a });
    await generate({ titles: 2000, out: b, order: 'random' });
    await generate({ titles: 2000, out: c, order: 'random' });
    expect(await hashes(c)).toEqual(await hashes(b));
    for (const file of await readdir(a)) {
      const [sorted, shuffled] = [lines(await readFile(join(a, file))), lines(await readFile(join(b, file)))];
      expect(shuffled[0]).toBe(sorted[0]);
      expect(shuffled).not.toEqual(sorted);
      expect(shuffled.toSorted()).toEqual(sorted.toSorted());
    }
  });

  it('compresses the same rows, and writes only the selected datasets', async () => {
    const [plain, packed] = [join(dir, 'plain'), join(dir, 'packed')] as const;
    const only: DatasetName[] = ['title.ratings', 'title.akas'];
    await generate({ titles: 1000, out: plain, datasets: only });
    await generate({ titles: 1000, out: packed, datasets: only, gzip: true });
    expect((await readdir(packed)).sort()).toEqual(['title.akas.tsv.gz', 'title.ratings.tsv.gz']);
    for (const name of only) {
      const unpacked = gunzipSync(await readFile(join(packed, `${name}.tsv.gz`)));
      expect(unpacked.equals(await readFile(join(plain, `${name}.tsv`)))).toBe(true);
    }
  });

  it('writes the smallest numbers of titles', async () => {
    for (const titles of [1, 2, 9]) {
      const written = await generate({ titles, out: join(dir, `few-${titles}`) });
      expect(written.find(({ dataset }) => dataset === 'title.basics')?.rows).toBe(titles);
    }
  });

  it('refuses a folder that is not empty, and an invalid number', async () => {
    const out = join(dir, 'full');
    await generate({ titles: 1, out, datasets: ['title.crew'] });
    await expect(generate({ titles: 1, out })).rejects.toMatchObject({ kind: 'input' });
    await writeFile(join(dir, 'file'), '');
    await expect(generate({ titles: 1, out: join(dir, 'file') })).rejects.toMatchObject({ kind: 'input' });
    for (const titles of [0, 1.5, 30_000_001, Number.NaN]) {
      await expect(generate({ titles, out: join(dir, 'never') })).rejects.toMatchObject({ kind: 'usage' });
    }
    expect(await readdir(dir)).not.toContain('never');
  });
});

it('the command prints the written files as one JSON line', async () => {
  const printed: string[] = [];
  const stdout = vi
    .spyOn(process.stdout, 'write')
    .mockImplementation((text) => printed.push(String(text)) > 0);
  try {
    const out = join(dir, 'command');
    await generateCommand().parseAsync(['--titles', '500', '--out', out, '--seed', '3', '--json'], {
      from: 'user',
    });
  } finally {
    stdout.mockRestore();
  }
  expect(printed).toHaveLength(1);
  const result = JSON.parse(printed[0] ?? '');
  expect(result).toMatchObject({ titles: 500, seed: 3 });
  expect(result.files).toHaveLength(7);
});

it('more than a million titles have all 2,381 genres strings', () => {
  const { write, rows } = syntheticTables(1_150_000, 1)['title.basics'];
  const row = Buffer.alloc(4096);
  const genres = new Set<string>();
  for (let n = 0; n < rows; n++) {
    const line = row.toString('latin1', 0, write(row, 0, n) - 1);
    genres.add(line.slice(line.lastIndexOf('\t') + 1));
  }
  genres.delete('\\N');
  expect(genres.size).toBe(2381);
});

describe('200,000 titles have the statistics of the full dumps', () => {
  const titles = 200_000;
  let connection: DuckDBConnection;
  let rows: Record<string, number>;

  beforeAll(async () => {
    const out = join(dir, 'many');
    const written = await generate({ titles, out });
    rows = Object.fromEntries(written.map((file) => [file.dataset, file.rows]));
    connection = await (await DuckDBInstance.create()).connect();
    for (const { dataset, file } of written) {
      await connection.run(`CREATE VIEW ${dataset.replace('.', '_')} AS SELECT * FROM read_csv('${join(out, file)}',
        all_varchar = true, header = true, delim = '\t', quote = '', escape = '', nullstr = '\\N')`);
    }
  });
  afterAll(() => connection.closeSync());

  const one = async (query: string) => {
    const row = (await connection.runAndReadAll(query)).getRowObjectsJson()[0] ?? {};
    return Object.fromEntries(Object.entries(row).map(([name, value]) => [name, Number(value)]));
  };
  const near = (value: number | undefined, wanted: number, tolerance: number) => {
    expect(value).toBeGreaterThanOrEqual(wanted * (1 - tolerance));
    expect(value).toBeLessThanOrEqual(wanted * (1 + tolerance));
  };

  it('rows per title', () => {
    near(rows['title.ratings'], titles * 0.133, 0.02);
    near(rows['title.principals'], (titles * 98) / 12.3, 0.02);
    near(rows['title.akas'], (titles * 55.3) / 12.3, 0.02);
    near(rows['title.episode'], (titles * 9.5) / 12.3, 0.02);
    near(rows['name.basics'], (titles * 15.1) / 12.3, 0.02);
    expect(rows['title.crew']).toBe(titles);
  });

  it('ids are unique, sorted as strings, of 7 and of 8 digits', async () => {
    for (const [table, id] of [
      ['title_basics', 'tconst'],
      ['title_ratings', 'tconst'],
      ['name_basics', 'nconst'],
    ]) {
      const { unsorted, odd, seven, eight } = await one(`
        SELECT sum((${id} <= before)::INT) AS unsorted, sum((NOT regexp_full_match(${id}, '(tt|nm)(\\d{7}|[1-9]\\d{7})'))::INT) AS odd,
          avg((length(${id}) = 9)::INT) AS seven, avg((length(${id}) = 10)::INT) AS eight
        FROM (SELECT ${id}, lag(${id}) OVER () AS before FROM ${table})`);
      expect({ unsorted, odd }).toEqual({ unsorted: 0, odd: 0 });
      expect(seven).toBeGreaterThan(0.1);
      expect(eight).toBeGreaterThan(0.1);
    }
  });

  it('basics', async () => {
    const found =
      await one(`SELECT avg((startYear IS NULL)::INT) AS years, avg((runtimeMinutes IS NULL)::INT) AS runtimes,
      avg((genres IS NULL)::INT) AS genres, count(DISTINCT genres) AS texts, sum((primaryTitle = 'None')::INT) AS none,
      sum((startYear = '2115')::INT) AS late, sum((runtimeMinutes = '51420')::INT) AS long,
      sum((primaryTitle <> originalTitle)::INT) AS translated FROM title_basics`);
    near(found.years, 0.118, 0.05);
    near(found.runtimes, 0.64, 0.02);
    near(found.genres, 0.043, 0.05);
    expect(found.texts).toBeGreaterThan(1200);
    expect(found.texts).toBeLessThanOrEqual(2381);
    for (const odd of [found.none, found.late, found.long, found.translated]) expect(odd).toBeGreaterThan(0);
    const genres = await one(`SELECT count(DISTINCT genre) AS genres, max(len(list)) AS most,
      sum((list <> list_sort(list))::INT) AS unsorted FROM (SELECT string_split(genres, ',') AS list, unnest(list) AS genre
      FROM title_basics WHERE genres IS NOT NULL)`);
    expect(genres).toEqual({ genres: 28, most: 3, unsorted: 0 });
  });

  it('ratings', async () => {
    const found =
      await one(`SELECT count(DISTINCT averageRating) AS values, min(averageRating::DOUBLE) AS low,
      max(averageRating::DOUBLE) AS high, avg(averageRating::DOUBLE) AS mean, median(numVotes::INT) AS median,
      quantile_cont(numVotes::INT, 0.95) AS p95, max(numVotes::INT) AS most FROM title_ratings`);
    expect(found).toMatchObject({ values: 91, low: 1, high: 10 });
    near(found.mean, 6.9, 0.03);
    near(found.median, 64, 0.05);
    near(found.p95, 4242, 0.15);
    expect(found.most).toBeGreaterThan(200_000);
    expect(found.most).toBeLessThanOrEqual(2_700_000);
  });

  it('principals', async () => {
    const found = await one(`SELECT count(DISTINCT tconst) AS titles, count(DISTINCT nconst) AS people,
      avg((job IS NULL)::INT) AS jobs, avg((characters IS NULL)::INT) AS characters,
      count(*) - count(DISTINCT (tconst, nconst)) AS again, count(DISTINCT (tconst, ordering)) AS keys,
      sum((characters LIKE '%\\"%' ESCAPE '~')::INT) AS escaped, sum((NOT json_valid(characters))::INT) AS broken
      FROM title_principals`);
    near(found.titles, titles * 0.9, 0.01);
    near(found.people, (titles * 7.0) / 12.3, 0.02);
    near(found.jobs, 0.81, 0.02);
    near(found.characters, 0.51, 0.02);
    expect(found).toMatchObject({ keys: rows['title.principals'], broken: 0 });
    expect(found.again).toBeGreaterThan(titles / 10);
    expect(found.escaped).toBeGreaterThan(0);
    const tail = await one(`SELECT median(credits) AS median, max(credits) AS most
      FROM (SELECT count(*) AS credits FROM title_principals GROUP BY nconst)`);
    expect(tail.median).toBeLessThan(12);
    expect(tail.most).toBeGreaterThan(1000);
  });

  it('names', async () => {
    const { unknown, people } = await one(`SELECT sum((n.nconst IS NULL)::INT) AS unknown, count(*) AS people
      FROM (SELECT DISTINCT nconst FROM title_principals) LEFT JOIN name_basics n USING (nconst)`);
    near(unknown, (people ?? 0) * 0.01, 0.2);
    const found =
      await one(`SELECT sum((primaryProfession = '')::INT) AS blank, sum((primaryProfession IS NULL)::INT) AS none,
      sum((strlen(primaryName) > length(primaryName))::INT) AS accented FROM name_basics`);
    for (const count of Object.values(found)) expect(count).toBeGreaterThan(100);
  });

  it('akas, episodes and crew', async () => {
    const akas =
      await one(`SELECT avg((region IS NULL)::INT) AS regions, sum((attributes LIKE '%\x02%')::INT) AS separators,
      count(*) - count(DISTINCT (titleId, region)) FILTER (region IS NOT NULL) AS again FROM title_akas`);
    near(akas.regions, 0.22, 0.05);
    expect(akas.separators).toBeGreaterThan(0);
    expect(akas.again).toBeGreaterThan(0);
    const { orphans, wrong } = await one(`SELECT sum((p.tconst IS NULL)::INT) AS orphans,
      sum((t.titleType <> 'tvEpisode')::INT) AS wrong FROM title_episode e JOIN title_basics t ON t.tconst = e.tconst
      LEFT JOIN title_basics p ON p.tconst = parentTconst AND p.titleType = 'tvSeries'`);
    expect({ orphans, wrong }).toEqual({ orphans: 0, wrong: 0 });
    const crew =
      await one(`SELECT avg((directors IS NULL)::INT) AS directors, avg((writers IS NULL)::INT) AS writers
      FROM title_crew`);
    near(crew.directors, 0.43, 0.05);
    near(crew.writers, 0.48, 0.05);
  });
});
