/**
 * `docs/train.py` on gold of the real pipeline. Ratings follow from the genres here, so a model that has learnt from the
 * right columns and the right titles must find it out, whatever read the frame. Needs Python with `docs/requirements.txt`,
 * in `.venv` or where REELFLOW_PYTHON says, and for Spark pyspark and Java; without them the tests are skipped, and say so.
 */
import { execFile } from 'node:child_process';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { Place, smallDataset, textOf, writeDatasets } from '../../support/harness.ts';
import { hasPackages, python, whyNoSpark } from '../../support/python.ts';

const run = promisify(execFile);
const top = join(import.meta.dirname, '..', '..', '..');
const hasEngines = await hasPackages('pandas, polars, duckdb, sklearn, pyarrow');
const why = 'no Python with docs/requirements.txt: see the head of docs/train.py';
const noSpark = await whyNoSpark();

let place: Place | undefined;
/** Titles with a rating. */
let rated: string[];

beforeAll(async () => {
  if (!hasEngines) return;
  place = new Place();
  const made = await smallDataset(join(place.folder, 'made'), 4_000, 5);
  const basics = textOf(made, 'title.basics');
  const titles = basics
    .trimEnd()
    .split('\n')
    .slice(1)
    .map((line) => line.split('\t'))
    .filter(([tconst], n) => n % 4 === 0 && /^tt(\d{7}|[1-9]\d{7,8})$/.test(String(tconst)));
  rated = [...titles.map(([tconst]) => String(tconst)), 'tt99999999'];
  const ratings = titles.map(([tconst, ...rest]) => {
    const genres = String(rest.at(-1)).split(',');
    return `${tconst}\t${genres.includes('Drama') ? '8.5' : genres.includes('Comedy') ? '5.0' : '2.5'}\t${7 + genres.length}`;
  });
  // One that title.basics does not know: nothing of it but its rating may be null in the frame.
  const text = ['tconst\taverageRating\tnumVotes', ...ratings, 'tt99999999\t2.5\t0', ''].join('\n');
  const data = writeDatasets(join(place.folder, 'data'), { 'title.basics': basics, 'title.ratings': text });
  await place.pipeline(data);
}, 240_000);

afterAll(() => place?.close(false));

it.for(['pandas', 'polars', 'duckdb', 'spark'])(
  'a model learns from the frame that %s reads',
  { timeout: 600_000 },
  async (engine, { skip }) => {
    if (place === undefined) return skip(why);
    if (engine === 'spark' && noSpark !== undefined) return skip(noSpark);
    const { stdout } = await run(python, [join(top, 'docs', 'train.py'), place.gold, '--engine', engine]);
    const report = JSON.parse(stdout) as {
      titles: Record<'train' | 'validation' | 'test', number>;
      features: number;
      nulls: number;
      meanAbsoluteError: Record<'model' | 'mean', Record<'validation' | 'test', number>>;
    };
    const { train, validation, test } = report.titles;
    expect(train + validation + test).toBe(rated.length);
    expect(train / rated.length).toBeGreaterThan(0.75);
    expect(Math.min(validation, test) / rated.length).toBeGreaterThan(0.05);
    expect(report.nulls).toBe(0);
    for (const split of ['validation', 'test'] as const) {
      const { model, mean } = report.meanAbsoluteError;
      expect(model[split]).toBeLessThan(mean[split] / 2);
    }
  },
);
