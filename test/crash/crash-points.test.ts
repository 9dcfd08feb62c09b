/**
 * Every named crash point: a real process is killed there with SIGKILL, more than once, started again without it, and
 * at the end no result differs. Expected are the gold of a batch computation, and the content hashes of an undisturbed
 * pipeline over the same files.
 */
import { rmSync } from 'node:fs';
import { join } from 'node:path';
import { beforeAll, describe, expect, vi } from 'vitest';
import { currentSnapshot, type Manifest, readManifest } from '../../sinks/gold/manifest.ts';
import { type DatasetName, datasetNames } from '../../topics/catalog.ts';
import { followCurrent } from '../support/gold-reader.ts';
import { Place, recordsOnTopic, smallDataset, test, textOf, writeDatasets } from '../support/harness.ts';
import { temporaryFolder } from '../support/temporary-folder.ts';

vi.setConfig({ testTimeout: 600_000 });

/** Several micro-batches per shard, also while one is applied. */
const small = ['--max-records', '2000', '--window', '100ms'];

const folder = temporaryFolder();
/** A first dump, a later one, and the rows of both behind each other: what gold must be equal to. */
let first: string;
let second: string;
let both: string;
let undisturbed: Record<string, string>;

const hashesOf = ({ tables }: Manifest) =>
  Object.fromEntries(Object.entries(tables).map(([name, { contentHash }]) => [name, contentHash]));

/** Rows of a later dump: some corrected, some sent twice, some as they were. */
function laterRows(dataset: DatasetName, text: string): string[] {
  const rows = text.trimEnd().split('\n').slice(1);
  return rows.flatMap((row, n) => {
    if (n % 3 !== 0) return [];
    const columns = row.split('\t');
    if (dataset === 'title.ratings') columns[1] = n % 2 === 0 ? '9.9' : '1.1';
    if (dataset === 'title.principals' && n % 4 === 0) columns[2] = 'nm0000001';
    if (dataset === 'title.akas' && n % 5 === 0) columns[3] = 'XWW';
    const changed = columns.join('\t');
    return n % 9 === 0 ? [row, changed] : [changed];
  });
}

beforeAll(async () => {
  first = await smallDataset(join(folder, 'first'), 3_000, 23);
  const texts = datasetNames.map((dataset) => [dataset, textOf(first, dataset)] as const);
  const later = texts.map(([dataset, text]) => {
    const [header] = text.split('\n', 1);
    return [dataset, `${[header, ...laterRows(dataset, text)].join('\n')}\n`] as const;
  });
  const overlaid = texts.map(
    ([dataset, text]) => [dataset, `${text.trimEnd()}\n${laterRows(dataset, text).join('\n')}\n`] as const,
  );
  second = writeDatasets(join(folder, 'second'), Object.fromEntries(later));
  both = writeDatasets(join(folder, 'both'), Object.fromEntries(overlaid));
  const place = new Place();
  try {
    undisturbed = hashesOf(await place.pipeline(both));
  } finally {
    await place.close(false);
  }
});

/** Runs a stage until it dies of SIGKILL at the crash point. */
async function dies(place: Place, at: string, args: string[]): Promise<void> {
  const finished = await place.run(args, { REELFLOW_CRASH_AT: at });
  expect(finished, `${at} was not reached`).toMatchObject({
    signal: 'SIGKILL',
  });
}

/** Gold, content hashes, and the accounts of every topic, whose records are counted on the topics. */
async function expectUndisturbed(place: Place): Promise<void> {
  expect(await place.differences(both)).toEqual([]);
  const { manifest } = place;
  expect(hashesOf(manifest)).toEqual(undisturbed);
  for (const dataset of datasetNames) {
    const topic = place.names.source(dataset);
    const { applied, duplicate, rejected } = manifest.accounting[topic] ?? {};
    const counted = Number(applied) + Number(duplicate) + Number(rejected);
    expect(counted, topic).toBe(await recordsOnTopic(place.names, dataset));
    expect(rejected, topic).toBe(0);
  }
}

describe('a processor that is killed', () => {
  // Method: two lives that end at different passages of the point, then one that lives on. A delta that were published
  // twice, or not at all, would be refused by the sink or missing in gold.
  test.for([
    'after-append',
    'before-commit',
    'after-commit-before-publish',
    'after-publish-before-mark',
    'after-mark-before-offset-commit',
  ])('%s', async (point, { place }) => {
    await place.upsert(both);
    for (const passage of [1, 4]) {
      await dies(place, `${point}:${passage}`, place.args('process', '--until-caught-up', ...small));
    }
    await place.process(...small);
    expect(await place.sink()).toMatchObject({ refused: 0 });
    await expectUndisturbed(place);
  });
});

describe('a processor that is killed while it writes a backup', () => {
  // Method: a first life leaves backups of the first dump, the second one dies when its first new backup is whole but has
  // no name yet. Then the state is lost, so that a new member starts from the backups alone.
  test('after-backup-before-rename', async ({ place }) => {
    const shared = ['--backups', join(place.folder, 'backups')];
    await place.pipeline(first, { process: [...small, ...shared] });
    await place.upsert(second);
    const again = place.args('process', '--until-caught-up', ...small, ...shared);
    await dies(place, 'after-backup-before-rename', again);
    rmSync(place.state, { recursive: true });
    const taken = await place.run(again);
    expect(taken, taken.stderr).toMatchObject({ code: 0 });
    expect(taken.stderr).toContain('restored from backup');
    expect(await place.sink()).toMatchObject({ refused: 0 });
    await expectUndisturbed(place);
  });
});

describe('a sink that is killed', () => {
  // Method: a snapshot of the first dump exists, and a reader follows CURRENT. Then one life after the other ends at a
  // point, each on what the one before has left; after each CURRENT names a snapshot that is whole and not older.
  const points = [
    'after-delta-commit',
    'after-parquet-before-manifest',
    'after-manifest-before-current',
    'during-retention',
  ];
  test(points.join(', '), async ({ place }) => {
    await place.pipeline(first, { process: small });
    await place.upsert(second);
    await place.process(...small);
    const before = currentSnapshot(place.gold) ?? '';
    const reader = followCurrent(place.gold, 10);
    for (const point of points) {
      await dies(place, point, place.args('sink', '--once', '--keep', '1'));
      const current = currentSnapshot(place.gold) ?? '';
      expect(readManifest(place.gold, current).id).toBe(current);
      expect(current > before, point).toBe(point === 'during-retention');
    }
    // The last one died after it had published; nothing is left to do.
    expect(await place.sink('--keep', '1')).toMatchObject({ snapshot: null, refused: 0 });
    expect(await reader.stop()).toMatchObject({ violations: [] });
    await expectUndisturbed(place);
  });
});

describe('a producer that is killed', () => {
  // Method: small files reach the point when a file ends and when the run does.
  test('after-ack-before-journal', async ({ place }) => {
    await dies(place, 'after-ack-before-journal:2', place.args('replay', '--upsert', first));
    await dies(place, 'after-ack-before-journal:3', place.args('replay', '--upsert', first, '--resume'));
    await place.upsert(first, '--resume');
    await dies(place, 'after-ack-before-journal:1', place.args('replay', '--upsert', second));
    await place.upsert(second, '--resume');
    await place.process(...small);
    await place.sink();
    await expectUndisturbed(place);
  });
});
