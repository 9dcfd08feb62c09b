/**
 * Dumps of successive days that are made of one dataset: rows, whole titles and people vanish and return, and ratings,
 * years and names change. A later day has later file dates.
 */
import { createHash } from 'node:crypto';
import { readdirSync, utimesSync } from 'node:fs';
import { join } from 'node:path';
import { type DatasetName, datasetNames, datasets } from '../../topics/catalog.ts';
import { textOf, writeDatasets } from './harness.ts';

/** A number below `limit` that depends on nothing but the text. */
function lot(text: string, limit: number): number {
  return createHash('sha256').update(text).digest().readUInt32LE() % limit;
}

function rowsOfDay(dataset: DatasetName, rows: readonly string[], day: number): string[] {
  return rows.flatMap((row) => {
    const [id = '', ...values] = row.split('\t');
    // A title vanishes from all files; it may return on the next day.
    if (lot(`${id} ${day}`, 15) === 0 || lot(`${row} ${day}`, 30) === 0) return [];
    if (lot(`${id} changes ${day}`, 6) !== 0) return [row];
    const place = datasets[dataset].columns.findIndex(({ name }) => name === changing[dataset]);
    if (place < 0) return [row];
    values[place - 1] = String(1_000 + lot(`${id} value ${day}`, 900));
    return [[id, ...values].join('\t')];
  });
}

/** The column in which rows change. */
const changing: Partial<Record<DatasetName, string>> = {
  'title.ratings': 'numVotes',
  'title.basics': 'startYear',
  'name.basics': 'primaryName',
};

/**
 * Writes the dump of a day.
 * @param base folder of the dataset
 * @param day from 1; dates of files are days of January 2026
 * @param shuffled rows in random order
 * @returns the folder
 */
export function dumpOfDay(folder: string, base: string, day: number, shuffled = false): string {
  const texts = datasetNames.map((dataset) => {
    const [header = '', ...rows] = textOf(base, dataset).trimEnd().split('\n');
    const left = rowsOfDay(dataset, rows, day);
    if (shuffled) left.sort((a, b) => lot(a, 2 ** 32) - lot(b, 2 ** 32));
    return [dataset, `${[header, ...left].join('\n')}\n`] as const;
  });
  writeDatasets(folder, Object.fromEntries(texts));
  const date = new Date(Date.UTC(2026, 0, day));
  for (const name of readdirSync(folder)) utimesSync(join(folder, name), date, date);
  return folder;
}
