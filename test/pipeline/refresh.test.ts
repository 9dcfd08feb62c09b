/**
 * Dumps of three days, one after the other, through the whole pipeline: gold and its content hashes are those of a fresh
 * pipeline that saw the newest dump alone, whatever came before, in any order of rows and with any number of shards.
 */
import { join } from 'node:path';
import { expect, vi } from 'vitest';
import type { Manifest } from '../../sinks/gold/manifest.ts';
import { goldTables, isOfHistory } from '../../tables/gold-tables.ts';
import { dumpOfDay } from '../support/dump-days.ts';
import { type Place, smallDataset, test } from '../support/harness.ts';

vi.setConfig({ testTimeout: 600_000 });

/** More rows vanish than in a real dump. */
const plausible = ['--max-removed', '50'];

/** The tables of history tell of earlier dumps, too. */
const determined = goldTables.filter((table) => !isOfHistory(table)).map(({ name }) => name);
const hashesOf = ({ tables }: Manifest) =>
  Object.fromEntries(determined.map((name) => [name, tables[name]?.contentHash]));

async function stages(place: Place): Promise<Manifest> {
  await place.process();
  await place.sink();
  return place.manifest;
}

test('gold and content hashes after three dumps are those of a fresh pipeline fed only the last', async ({
  place,
  newPlace,
}) => {
  const base = await smallDataset(join(place.folder, 'base'), 400, 31);
  const [first, second, third] = [1, 2, 3].map((day) =>
    dumpOfDay(join(place.folder, `day-${day}`), base, day, day === 2),
  ) as [string, string, string];
  const freshSecond = hashesOf(await newPlace().pipeline(second));
  const freshThird = hashesOf(await newPlace().pipeline(third));
  expect(freshThird).not.toEqual(freshSecond);

  // Each stage after each dump.
  await place.pipeline(first, { replay: ['--shards', '1'] });
  const { plan } = await place.replay(second, ...plausible);
  expect(plan?.['title.ratings']?.vanished.ids).toBeGreaterThan(0);
  expect(plan?.['title.ratings']?.new.ids).toBeGreaterThan(0);
  expect(plan?.['name.basics']?.vanished.ids).toBeGreaterThan(0);
  expect(hashesOf(await stages(place))).toEqual(freshSecond);
  expect(await place.differences(second)).toEqual([]);
  await place.replay(third, ...plausible);
  expect(hashesOf(await stages(place))).toEqual(freshThird);
  const verified = await place.run(['verify', '--data', third, '--gold', place.gold]);
  expect(verified, verified.stderr).toMatchObject({ code: 0 });

  // The stages only after the last dump, and the same dump again.
  const eight = newPlace();
  await eight.replay(first, '--shards', '8');
  await eight.replay(second, ...plausible);
  await eight.replay(third, ...plausible);
  expect(hashesOf(await stages(eight))).toEqual(freshThird);
  // Three dumps are more than twice the last: without the option the topics would get a base.
  expect(await eight.replay(third, '--base-above', '100')).toMatchObject({ produced: 0, rejected: 0 });
  expect(await eight.sink()).toMatchObject({ snapshot: null });
});
