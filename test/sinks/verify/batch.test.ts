/**
 * The batch computation against figures computed by hand, on files with every kind of invalid row and of odd format. Then the
 * comparison, against snapshots that each differ in one thing.
 */
import { mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { gzipSync } from 'node:zlib';
import { type DuckDBConnection, DuckDBInstance } from '@duckdb/node-api';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { batchGold } from '../../../sinks/verify/file-gold.ts';
import { genreColumns } from '../../../tables/training-features.ts';
import { compareGold } from '../../support/gold-differences.ts';

const files: Record<string, string[]> = {
  'title.ratings': [
    'tconst averageRating numVotes',
    'tt0000001 6.0 100',
    'tt0000002 8.0 50',
    'tt0000003 7.5 10',
    'tt0000005 9.0 1',
    'tt0000007 5 3',
    'tt0000003 7.0 20',
  ],
  'title.basics': [
    'tconst titleType primaryTitle originalTitle isAdult startYear endYear runtimeMinutes genres',
    'tt0000001 movie "One" One 0 1994 \\N 100 Drama',
    'tt0000002 movie None None 0 1999 \\N \\N Drama',
    'tt0000003 movie Three Three 1 \\N \\N 90 Comedy,Kitsch',
    'tt0000006 movie Unrated Unrated 0 2001 \\N 80 Drama',
    'tt0000007 movie Seven Sept 0 1994 \\N \\N \\N',
  ],
  'title.principals': [
    'tconst ordering nconst category job characters',
    'tt0000001 1 nm0000001 actor \\N ["Self"]',
    'tt0000001 2 nm0000001 writer \\N \\N',
    'tt0000002 1 nm0000002 actor \\N ["A_\\"B\\"_C"]',
    'tt0000005 1 nm0000001 actor \\N \\N',
    'tt0000006 1 nm0000003 actor \\N \\N',
    'tt0000002 1 nm10000000 actor \\N \\N',
  ],
  'title.akas': [
    'titleId ordering title region language types attributes isOriginalTitle',
    'tt0000001 1 One \\N \\N original \\N 1',
    'tt0000001 2 Eins DE de \\N \\N 0',
    'tt0000001 3 Eins! DE de \\N a\x02b 0',
    'tt0000002 1 Zwei DE de \\N \\N \\N',
    'tt0000002 2 Two GB \\N \\N \\N 0',
  ],
  'name.basics': [
    'nconst primaryName birthYear deathYear primaryProfession knownForTitles',
    'nm0000001 Ann_Ö 1900 \\N actor tt0000001',
    'nm0000002 Bob \\N \\N  \\N',
  ],
};

/** Rows that producers reject, each for one reason. */
const badRows: Record<string, (string | Buffer)[]> = {
  'title.ratings': [
    'tt0000004 11.0 5',
    'tt0000004 0.9 5',
    'tt0000004 7.55 5',
    'tt0000004 7.5 -5',
    'tt0000004 7.5 2147483648',
    'tt0000004 7.5 \\N',
    'tt00000004 7.5 5',
    'tt4 7.5 5',
    'nm0000004 7.5 5',
    'tt0000003 7.5',
    'tt0000003 7.5 9 9',
    'tt0000003 7.5 9 ',
    '',
  ],
  'title.basics': [
    'tt0000005 movie Five Five 2 1990 \\N 1 Drama',
    'tt0000005 movie Five Five 0 199O \\N 1 Drama',
    Buffer.from('tt0000005\tmovie\t\xff\tFive\t0\t1990\t\\N\t1\tDrama', 'latin1'),
  ],
  'title.principals': ['tt0000001 3 nm1 actor \\N \\N', 'tt0000001 -3 nm0000001 actor \\N \\N'],
  'title.akas': ['tt0000001 9 Neun DE de \\N \\N 7', 'tt0000001 x Neun DE de \\N \\N 0'],
  'name.basics': ['nm0000001 Wrong nineteen \\N actor \\N'],
};

/** A row of title_features: attributes, then the columns of the genres and `genre_other`, then the prepared columns. */
const features = (
  known: unknown[],
  trueGenres: string[],
  { log10, year, runtime, split }: { log10: number; year: number; runtime: number; split: string },
): unknown[] => {
  const [, , , startYear, runtimeMinutes, , genres] = known;
  return [
    ...known,
    log10,
    year,
    startYear === null,
    runtime,
    runtimeMinutes === null,
    genres === null,
    ...[...genreColumns.keys(), 'genre_other'].map((column) => trueGenres.includes(column)),
    split,
  ];
};

const weighted = (rating: number, votes: number) => (votes * rating + 25_000 * 7) / (votes + 25_000);

const expected = {
  genre_analysis: [
    ['Drama', '2', 7, '150', 1996.5, Math.SQRT2, 8, 6],
    ['Comedy,Kitsch', '1', 7, '20', null, null, 7, 7],
  ],
  decade_trends: [[1990, '3', 19 / 3, '153', 100, Math.sqrt(7 / 3)]],
  title_ratings_agg: [
    [1994, 'Drama', '1', 6, '100', 6, 6, null],
    [1994, null, '1', 5, '3', 5, 5, null],
    [1999, 'Drama', '1', 8, '50', 8, 8, null],
  ],
  contributor_analysis: [
    ['nm0000001', 'Ann Ö', '2', '3', 7.5, '101', Math.sqrt(4.5), 9, 6],
    ['nm10000000', null, '1', '1', 8, '50', null, 8, 8],
  ],
  region_analysis: [
    ['DE', '2', '3', 7, '150', Math.SQRT2, 8, 6],
    ['GB', '1', '1', 8, '50', null, 8, 8],
  ],
  genres: [
    ['Drama', '2', 7, '150', Math.SQRT2, 8, 6],
    ['Comedy', '1', 7, '20', null, 7, 7],
    ['Kitsch', '1', 7, '20', null, 7, 7],
  ],
  title_types: [['movie', '4', 6.5, '173', Math.sqrt(5 / 3), 8, 5]],
  languages: [['de', '2', '3', 7, '150', Math.SQRT2, 8, 6]],
  // The mean of all ratings is 7.
  titles: [
    ['tt0000001', '"One"', 'One', 'movie', 1994, 100, ['Drama'], 6, '100', weighted(6, 100)],
    ['tt0000002', 'None', 'None', 'movie', 1999, null, ['Drama'], 8, '50', weighted(8, 50)],
    ['tt0000003', 'Three', 'Three', 'movie', null, 90, ['Comedy', 'Kitsch'], 7, '20', 7],
    ['tt0000007', 'Seven', 'Sept', 'movie', 1994, null, null, 5, '3', weighted(5, 3)],
  ],
  top_titles: [
    ['movie', 1, 'tt0000002', 'None', 1999, 8, '50', weighted(8, 50)],
    ['movie', 2, 'tt0000003', 'Three', null, 7, '20', 7],
    ['movie', 3, 'tt0000007', 'Seven', 1994, 5, '3', weighted(5, 3)],
    ['movie', 4, 'tt0000001', '"One"', 1994, 6, '100', weighted(6, 100)],
  ],
  series: [],
  seasons: [],
  directors: [],
  writers: [],
  // Known years are 1994, 1999 and 1994, known runtimes 100 and 90. Buckets, as Python's hashlib has them: 86, 81, 74, 22, 89.
  title_features: [
    features(
      ['tt0000001', '"One"', 'movie', 1994, 100, false, ['Drama'], 6, '100', '2', '1', '3', '1'],
      ['genre_drama'],
      { log10: 2, year: -1 / Math.sqrt(3), runtime: Math.SQRT1_2, split: 'validation' },
    ),
    features(
      ['tt0000002', 'None', 'movie', 1999, null, false, ['Drama'], 8, '50', '1', '1', '2', '2'],
      ['genre_drama'],
      { log10: Math.log10(50), year: 2 / Math.sqrt(3), runtime: 0, split: 'validation' },
    ),
    features(
      ['tt0000003', 'Three', 'movie', null, 90, true, ['Comedy', 'Kitsch'], 7, '20', '0', '0', '0', '0'],
      ['genre_comedy', 'genre_other'],
      { log10: Math.log10(20), year: 0, runtime: -Math.SQRT1_2, split: 'train' },
    ),
    features(['tt0000005', null, null, null, null, null, null, 9, '1', '1', '1', '0', '0'], [], {
      log10: 0,
      year: 0,
      runtime: 0,
      split: 'train',
    }),
    features(['tt0000007', 'Seven', 'movie', 1994, null, false, null, 5, '3', '0', '0', '0', '0'], [], {
      log10: Math.log10(3),
      year: -1 / Math.sqrt(3),
      runtime: 0,
      split: 'validation',
    }),
  ],
};
const tables = Object.keys(expected) as (keyof typeof expected)[];

let dir: string;
let instance: DuckDBInstance;
let connection: DuckDBConnection;

beforeEach(async () => {
  dir = await mkdtemp(join(tmpdir(), 'reelflow-batch-'));
  instance = await DuckDBInstance.create();
  connection = await instance.connect();
});

afterEach(async () => {
  connection.closeSync();
  instance.closeSync();
  await rm(dir, { recursive: true });
});

const lineOf = (row: string | Buffer) =>
  typeof row === 'string' ? Buffer.from(row.replaceAll(' ', '\t').replaceAll('_', ' ')) : row;

/** Writes the datasets. In `rows`, blanks separate fields, and underscores stand for blanks. */
async function write(
  rows: Record<string, (string | Buffer)[]>,
  { end = '\n', gzip = false, header = (line: string) => line } = {},
): Promise<void> {
  for (const [dataset, [first = '', ...lines]] of Object.entries(rows)) {
    const all = [Buffer.from(header(String(first)).replaceAll(' ', '\t')), ...lines.map(lineOf)];
    const bytes = Buffer.concat(all.map((line) => Buffer.concat([line, Buffer.from(end)])));
    await writeFile(join(dir, `${dataset}.tsv${gzip ? '.gz' : ''}`), gzip ? gzipSync(bytes) : bytes);
  }
}

async function expectGold(schema = 'batch'): Promise<void> {
  for (const table of tables) {
    const rows = (await connection.runAndReadAll(`SELECT * FROM ${schema}.${table}`)).getRowsJson();
    const wanted = expected[table].map((row) =>
      row.map((value) => (typeof value === 'number' ? expect.closeTo(value, 12) : value)),
    );
    expect(rows, table).toEqual(wanted);
  }
}

describe('batchGold', () => {
  it('gives the figures computed by hand', async () => {
    await write(files);
    await batchGold(connection, dir);
    await expectGold();
  });

  it('takes the last row of each key, also in a file that several threads read', async () => {
    const credits = 150_000;
    const ids = Array.from({ length: credits / 10 }, (_, n) => `tt${String(n + 1).padStart(7, '0')}`);
    const rows = (person: string) =>
      ids.flatMap((id) =>
        Array.from({ length: 10 }, (_, n) => `${id}\t${n + 1}\t${person}\tactor\t\\N\t\\N`),
      );
    const write = (dataset: string, header: string, lines: readonly string[]) =>
      writeFile(join(dir, `${dataset}.tsv`), `${[header, ...lines].join('\n')}\n`);
    await write(
      'title.ratings',
      'tconst\taverageRating\tnumVotes',
      ids.map((id) => `${id}\t7.0\t10`),
    );
    await write(
      'title.basics',
      'tconst\ttitleType\tprimaryTitle\toriginalTitle\tisAdult\tstartYear\tendYear\truntimeMinutes\tgenres',
      ids.map((id) => `${id}\tmovie\tOne\tOne\t0\t1994\t\\N\t\\N\tDrama`),
    );
    await write('title.principals', 'tconst\tordering\tnconst\tcategory\tjob\tcharacters', [
      ...rows('nm0000001'),
      ...rows('nm0000002'),
    ]);
    await batchGold(connection, dir);
    const query = 'SELECT nconst, total_titles FROM batch.contributor_analysis';
    expect((await connection.runAndReadAll(query)).getRowsJson()).toEqual([
      ['nm0000002', String(ids.length)],
    ]);
  });

  it('reads gzip, snake_case headers and CR LF', async () => {
    await write(files, {
      gzip: true,
      end: '\r\n',
      header: (line) => line.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`),
    });
    await batchGold(connection, dir, 'other');
    await expectGold('other');
  });

  it('reads values of equal meaning, as pandas, Excel and Windows write them', async () => {
    const odd = (dataset: string, change: (fields: string[]) => string[]) => {
      const [header = '', ...lines] = files[dataset] as string[];
      return [header, ...lines.map((line) => change(line.split(' ')).join(' '))];
    };
    const float = (text = '') => (/^\d+$/.test(text) ? `${text}.0` : text);
    const missing = (text = '', as = '') => (text === '\\N' ? as : text);
    await write({
      'title.ratings': odd('title.ratings', ([id = '', rating = '', votes]) => [
        id,
        rating.includes('.') ? `${rating}0` : rating,
        `${float(votes)}\r`,
      ]),
      'title.basics': odd('title.basics', ([id = '', type = '', one = '', two = '', ...rest]) => {
        const [adult, start, end, runtime, genres] = rest;
        return [
          ...[id, type, one, two, float(adult), missing(float(start)), missing(end, 'NaN')],
          ...[missing(float(runtime), '<NA>'), missing(genres, 'NaN')],
        ];
      }),
      'title.principals': odd('title.principals', ([id = '', ordering, ...rest]) => [
        id,
        float(ordering),
        ...rest.map((field) => (field.includes('"') ? `"${field.replaceAll('"', '""')}"` : field)),
      ]),
      'title.akas': odd('title.akas', ([id = '', ordering, title = '', region, ...rest]) => [
        id,
        float(ordering),
        title,
        missing(region, 'nan'),
        ...rest.slice(0, -1),
        missing(float(rest.at(-1))),
      ]),
      'name.basics': odd('name.basics', (fields) => fields.map((field) => missing(float(field)))),
    });
    await batchGold(connection, dir);
    await expectGold();
  });

  it('reads files in which everything is in quotes', async () => {
    const inQuotes = (row: string) =>
      row
        .split(' ')
        .map((field) => `"${field.replaceAll('"', '""')}"`)
        .join(' ');
    const quoted = Object.entries(files).map(([dataset, rows]) => [
      dataset,
      (rows as string[]).map(inQuotes),
    ]);
    await write(Object.fromEntries(quoted));
    await batchGold(connection, dir);
    await expectGold();
  });

  it('reads CR LF under an LF header, with the same meaning', async () => {
    const [header = '', ...rows] = files['title.basics'] ?? [];
    await write({ ...files, 'title.basics': [header, ...rows.map((row) => `${row}\r`)] });
    await batchGold(connection, dir);
    await expectGold();
  });

  it('finds files that browsers, archives and Kaggle renamed, and reads gzip under any name', async () => {
    await write(files);
    const move = async (dataset: string, to: string, pack = false) => {
      const bytes = await readFile(join(dir, `${dataset}.tsv`));
      await rm(join(dir, `${dataset}.tsv`));
      await mkdir(dirname(join(dir, to)), { recursive: true });
      await writeFile(join(dir, to), pack ? gzipSync(bytes) : bytes);
    };
    await move('title.ratings', 'title_ratings (1).tsv');
    await move('title.basics', 'title.basics.tsv/data.tsv');
    await move('title.akas', 'title.akas.tsv (2).gz', true);
    await move('title.principals', 'title-principals.TSV', true);
    await move('name.basics', 'name.basics.tsv.gz');
    await batchGold(connection, dir);
    await expectGold();
  });

  it.each([
    ['cut off', (packed: Buffer) => packed.subarray(0, -10)],
    ['without its trailer', (packed: Buffer) => packed.subarray(0, -8)],
    [
      'with another checksum',
      (packed: Buffer) => Buffer.from(packed.map((byte, n) => (n === packed.length - 8 ? byte ^ 1 : byte))),
    ],
    [
      'with another length',
      (packed: Buffer) => Buffer.from(packed.map((byte, n) => (n === packed.length - 4 ? byte ^ 1 : byte))),
    ],
    ['with other bytes behind it', (packed: Buffer) => Buffer.concat([packed, Buffer.from('more')])],
  ])('refuses a gzip file that is %s', async (_, damage) => {
    await write(files);
    const bytes = await readFile(join(dir, 'title.ratings.tsv'));
    await rm(join(dir, 'title.ratings.tsv'));
    await writeFile(join(dir, 'title.ratings.tsv.gz'), damage(gzipSync(bytes)));
    await expect(batchGold(connection, dir)).rejects.toThrow('could not be read');
  });

  it('reads all members of a gzip file, with or without zero bytes between them, and all header fields', async () => {
    await write(files);
    const bytes = await readFile(join(dir, 'title.ratings.tsv'));
    await rm(join(dir, 'title.ratings.tsv'));
    const path = join(dir, 'title.ratings.tsv.gz');
    const [first, second] = [gzipSync(bytes.subarray(0, 50)), gzipSync(bytes.subarray(50))];
    for (const between of [0, 700, 70_000]) {
      await writeFile(path, Buffer.concat([first, Buffer.alloc(between), second, Buffer.alloc(between)]));
      await batchGold(connection, dir);
      await expectGold();
    }
    const named = Buffer.from(first);
    named[3] = 4 | 8 | 16 | 2;
    const fields = Buffer.from('\x03\0abctitle\0comment\0\0\0', 'latin1');
    await writeFile(path, Buffer.concat([named.subarray(0, 10), fields, named.subarray(10), second]));
    await batchGold(connection, dir);
    await expectGold();
    await writeFile(path, Buffer.concat([first, second, Buffer.alloc(7), Buffer.from('more')]));
    await expect(batchGold(connection, dir)).rejects.toThrow('could not be read');
  });

  it('reads columns in any order beside unknown ones', async () => {
    const turned = files['title.ratings']?.map((line) => `${line.split(' ').reverse().join(' ')} more`);
    await write({ ...files, 'title.ratings': turned ?? [] });
    await batchGold(connection, dir);
    await expectGold();
  });

  it('skips rows that producers reject', async () => {
    const rows = Object.entries(files).map(([dataset, good]) => [
      dataset,
      [...good, ...(badRows[dataset] ?? [])],
    ]);
    await write(Object.fromEntries(rows));
    await batchGold(connection, dir);
    await expectGold();
  });

  for (const [dataset, rows] of Object.entries(badRows)) {
    for (const row of rows) {
      it(`rejects ${dataset} ${JSON.stringify(String(row))} alone`, async () => {
        await write({ ...files, [dataset]: [...(files[dataset] ?? []), row] });
        await batchGold(connection, dir);
        await expectGold();
      });
    }
  }

  it('treats a missing optional dataset as empty', async () => {
    const { 'title.ratings': ratings = [], 'title.basics': basics = [] } = files;
    await write({ 'title.ratings': ratings, 'title.basics': basics });
    await batchGold(connection, dir);
    const count = async (table: string) =>
      (await connection.runAndReadAll(`SELECT count(*) FROM batch.${table}`)).getRowsJson()[0]?.[0];
    expect(await Promise.all(tables.map(count))).toEqual([
      '2',
      '1',
      '3',
      '0',
      '0',
      '3',
      '1',
      '0',
      '4',
      '4',
      '0',
      '0',
      '0',
      '0',
      '5',
    ]);
  });

  it('names a missing or duplicate dataset, and a missing column', async () => {
    const { 'title.ratings': _, ...others } = files;
    await write(others);
    await expect(batchGold(connection, dir)).rejects.toThrow('title.ratings is missing');
    const none = join(dir, 'none');
    await expect(batchGold(connection, none)).rejects.toMatchObject({ detail: `${none} does not exist.` });
    await write({ 'title.ratings': ['tconst averageRating votes', 'tt0000001 6.0 100'] });
    await expect(batchGold(connection, dir)).rejects.toThrow('title.ratings lacks the column numVotes');
    await write({ 'title.ratings': files['title.ratings'] ?? [] }, { gzip: true });
    await expect(batchGold(connection, dir)).rejects.toThrow('title.ratings occurs twice');
  });
});

describe('compareGold', () => {
  let gold: string;

  /** A snapshot in which a query replaces one table. */
  async function publish(changed?: keyof typeof expected, query?: string): Promise<void> {
    for (const table of tables) {
      const from = table === changed ? query : `FROM batch.${table}`;
      await connection.run(`COPY (${from}) TO '${gold}/${table}.parquet' (FORMAT parquet)`);
    }
  }

  beforeEach(async () => {
    gold = join(dir, 'gold');
    await mkdir(gold);
    await write(files);
    await batchGold(connection, dir);
  });

  const compare = (perTable?: number) => compareGold(connection, 'batch', gold, perTable);

  it('finds nothing in an equal snapshot, even if doubles differ by rounding', async () => {
    await publish(
      'genre_analysis',
      'SELECT * REPLACE (avg_year + 1e-7 AS avg_year) FROM batch.genre_analysis',
    );
    expect(await compare()).toEqual([]);
  });

  it('finds an altered double', async () => {
    await publish(
      'genre_analysis',
      'SELECT * REPLACE (avg_rating + 1e-8 AS avg_rating) FROM batch.genre_analysis',
    );
    const found = await compare();
    expect(found.map(({ kind, key, column }) => [kind, key, column])).toEqual([
      ['value', 'genres=Drama', 'avg_rating'],
      ['value', 'genres=Comedy,Kitsch', 'avg_rating'],
    ]);
  });

  it('finds an altered integer, a null and a name', async () => {
    await publish(
      'contributor_analysis',
      `SELECT * REPLACE (total_votes + (nconst = 'nm0000001')::BIGINT AS total_votes, nullif(min_rating, 8) AS min_rating,
         coalesce(primaryName, 'X') AS primaryName) FROM batch.contributor_analysis`,
    );
    expect(await compare()).toEqual(
      [
        ['nm10000000', 'primaryName', 'NULL', 'X'],
        ['nm0000001', 'total_votes', '101', '102'],
        ['nm10000000', 'min_rating', '8.0', 'NULL'],
      ].map(([nconst, column, was, is]) => ({
        table: 'contributor_analysis',
        kind: 'value',
        key: `nconst=${nconst}`,
        column,
        expected: was,
        actual: is,
      })),
    );
  });

  it('finds a missing, an extra and a duplicate row, even with a null in the key', async () => {
    await publish('title_ratings_agg', 'FROM batch.title_ratings_agg WHERE genres IS NOT NULL');
    expect(await compare()).toMatchObject([{ kind: 'missing', key: 'startYear=1994, genres=NULL' }]);
    await publish(
      'region_analysis',
      "FROM batch.region_analysis UNION ALL SELECT 'XX', 1, 1, 1.0, 1, NULL, 1.0, 1.0",
    );
    expect(await compare()).toMatchObject([{ table: 'region_analysis', kind: 'extra', key: 'region=XX' }]);
    await publish('decade_trends', 'FROM batch.decade_trends UNION ALL FROM batch.decade_trends');
    expect(await compare()).toMatchObject([{ kind: 'duplicate', key: 'decade=1990', actual: '2 rows' }]);
  });

  it('finds rows out of order', async () => {
    await publish(
      'title_ratings_agg',
      'FROM batch.title_ratings_agg ORDER BY startYear DESC, genres NULLS LAST',
    );
    expect(await compare()).toMatchObject([{ kind: 'order', key: 'startYear=1999, genres=Drama' }, {}, {}]);
  });

  it('finds a wrong type, a wrong name, another order of columns and an extra column', async () => {
    for (const query of [
      'SELECT * REPLACE (total_titles::INTEGER AS total_titles) FROM batch.genre_analysis',
      'SELECT * RENAME (total_titles AS titles) FROM batch.genre_analysis',
      'SELECT * EXCLUDE genres, genres FROM batch.genre_analysis',
      'SELECT *, 1 AS more FROM batch.genre_analysis',
    ]) {
      await publish('genre_analysis', query);
      expect(await compare()).toMatchObject([{ table: 'genre_analysis', kind: 'columns' }]);
    }
  });

  it('finds a missing file', async () => {
    await publish();
    await rm(join(gold, 'decade_trends.parquet'));
    expect(await compare()).toMatchObject([{ table: 'decade_trends', kind: 'file' }]);
  });

  it('returns at most the requested number of differences per table', async () => {
    await publish(
      'title_ratings_agg',
      'SELECT * REPLACE (total_votes + 1 AS total_votes) FROM batch.title_ratings_agg',
    );
    expect(await compare(2)).toHaveLength(2);
  });
});
