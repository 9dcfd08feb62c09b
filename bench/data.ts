/** The synthetic datasets of the measurements: made once for each size and order, and kept. */
import { existsSync, renameSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { localFolder } from '../cli/options.ts';
import { type Broker, withAdmin } from '../kafka/client.ts';
import { generate, type RowOrder } from '../producers/synthetic/synthetic.ts';
import { type DatasetName, datasetNames } from '../topics/catalog.ts';

export type Say = (line: string) => void;

/**
 * The folder of a synthetic dataset, seed 1, which is made if it is not there yet.
 * @param datasets all seven by default
 */
export async function syntheticData(
  options: {
    readonly titles: number;
    readonly order?: RowOrder;
    readonly gzip?: boolean;
    readonly datasets?: readonly DatasetName[];
  },
  say: Say,
): Promise<string> {
  const { titles, order = 'id', gzip = false, datasets = datasetNames } = options;
  const kind = [
    ...(datasets.length === datasetNames.length ? [] : [`${datasets.length}-datasets`]),
    ...(order === 'random' ? ['random'] : []),
    ...(gzip ? ['gz'] : []),
  ];
  const folder = join(localFolder, 'data', [`titles-${titles}-seed-1`, ...kind].join('-'));
  if (existsSync(folder)) return folder;
  const part = `${folder}.part`;
  say(`writing ${titles.toLocaleString('en-US')} titles to ${folder}`);
  rmSync(part, { recursive: true, force: true });
  await generate({ titles, seed: 1, out: part, order, gzip, datasets });
  renameSync(part, folder);
  return folder;
}

/** Deletes all topics whose names begin with a text. */
export async function removeTopics(broker: Broker, prefix: string): Promise<void> {
  await withAdmin(broker, async (admin) => {
    const topics = (await admin.listTopics()).filter((name) => name.startsWith(prefix));
    if (topics.length > 0) await admin.deleteTopics({ topics });
  });
}
