/** The dataset of a file, from its name: IMDb's, Kaggle's and what browsers make of them. */
import { basename, dirname } from 'node:path';
import { type DatasetName, datasetNames } from '../topics/catalog.ts';

/** `title.basics.tsv.gz`, `title_basics.tsv`, `title.basics (1).tsv`, `title.basics.tsv (1).gz`. */
const fileName = /^(title|name)[._ -](\w+?)(?: ?\(\d+\))?\.tsv(?: ?\(\d+\))?(?:\.gz)?$/i;
/** The name inside IMDb's gzip files. Kaggle puts it in a folder named after the dataset. */
const innerName = /^data\.tsv(?:\.gz)?$/i;

/** The dataset that a path names; undefined for any other file. */
export function datasetOf(path: string): DatasetName | undefined {
  const base = basename(path);
  const name = innerName.test(base) ? `${basename(dirname(path)).replace(/\.tsv$/i, '')}.tsv` : base;
  const [, kind, rest] = fileName.exec(name) ?? [];
  const dataset = `${kind}.${rest}`.toLowerCase();
  return datasetNames.find((known) => known === dataset);
}

/** The dataset that a file of an unreadable format is named after: `title.basics.csv`, `title.basics.tsv.zip`. */
export function similarTo(entry: string): DatasetName | undefined {
  const normal = entry.toLowerCase().replaceAll('_', '.');
  return datasetNames.find((dataset) => normal.startsWith(`${dataset}.`));
}
