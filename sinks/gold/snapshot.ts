/**
 * Publishes a snapshot:
 *
 * 1. write the files (`snapshot-files.ts`) into `snapshots/.<id>`, and sync each;
 * 2. write the manifest last, sync the folder;
 * 3. rename the folder to `snapshots/<id>`, sync its parent;
 * 4. swap the catalogue by rename: after a crash from here on CURRENT is older, so the next run publishes both again;
 * 5. swap CURRENT by rename, sync the gold folder.
 *
 * A reader that follows CURRENT finds a complete snapshot at every moment. A crash leaves a folder whose name starts with a
 * dot, which the next run removes, or a complete snapshot that CURRENT does not name, which counts as any other for
 * retention. A failure leaves nothing.
 * What a snapshot was made from is recorded last.
 */
import { mkdirSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { version as duckdbVersion } from '@duckdb/node-api';
import { asStorageError } from '../../database/storage-errors.ts';
import { crashPoint } from '../../runtime/crash-points.ts';
import { makeFolder, syncPath } from '../../runtime/files.ts';
import { contentHashVersion } from '../../tables/content-hash.ts';
import type { GoldTable } from '../../tables/gold-table.ts';
import { goldTables } from '../../tables/gold-tables.ts';
import { startAfter } from '../../topics/position.ts';
import { noRecords, type RecordCounts, sumOf } from '../../topics/record-counts.ts';
import type { CubeStore } from '../cube-store.ts';
import { writeCatalogue } from './catalogue.ts';
import { EarlierFiles, makerOf } from './earlier-files.ts';
import { goldStorage } from './gold-storage.ts';
import {
  currentSnapshot,
  type Manifest,
  manifestVersion,
  newestId,
  nextSnapshotId,
  snapshotFolder,
  snapshotsFolder,
} from './manifest.ts';
import { type SnapshotFiles, writeFiles } from './snapshot-files.ts';

interface SnapshotContext {
  readonly gold: string;
  readonly namespace: string;
  readonly clusterId: string;
  /** subject → registry id */
  readonly schemas: Readonly<Record<string, number>>;
  readonly peopleTopic: string;
  readonly reelflowVersion: string;
  /** Decides, once the tables are computed, whether they are published. Default: they are. */
  readonly isWorthIt?: (manifest: Manifest) => boolean;
  /** Which dumps an input is. */
  readonly dumpsIn?: (input: Manifest['input']) => Promise<Manifest['dumps']>;
  /** Length of the history of ratings, in days before the newest dump. */
  readonly historyDays: number;
  /** Default: the built-in ones. */
  readonly tables?: readonly GoldTable[];
  /** How long the SQL of a user's table may take, in milliseconds: the others wait for it. */
  readonly userTableMs?: number;
  /** Tables that are left out because their cubes are not complete, with the reason. */
  readonly waiting?: ReadonlyMap<string, string>;
}

/** Writes and publishes a snapshot of the store, unless it is not worth it. @throws ReelflowError diskFull, goldUnusable */
export async function publishSnapshot(store: CubeStore, context: SnapshotContext): Promise<Manifest> {
  const {
    gold,
    tables: declared = goldTables,
    waiting = new Map<string, string>(),
    userTableMs = 60_000,
  } = context;
  const created = new Date();
  const id = nextSnapshotId(newestId(gold), created);
  const building = join(snapshotsFolder(gold), `.${id}`);
  try {
    makeFolder(building);
    mkdirSync(join(building, 'cubes'));
    const maker = makerOf(context.reelflowVersion, store.cubeSet, declared);
    const earlier = EarlierFiles.of(store, gold, maker);
    const files = await writeFiles(store, building, { declared, waiting, maker, userTableMs }, earlier);
    const manifest = await manifestOf(store, context, id, created, files);
    if (context.isWorthIt?.(manifest) === false) {
      removeQuietly(building);
      return manifest;
    }
    crashPoint('after-parquet-before-manifest');

    writeFileSync(join(building, 'manifest.json'), `${JSON.stringify(manifest, undefined, 2)}\n`);
    syncPath(join(building, 'manifest.json'));
    syncPath(building);

    await putInPlace(gold, building, manifest, declared);
    // After a crash before this line, the next snapshot takes over no file.
    await store.recordPublished({ snapshot: id, maker, revisions: store.revisions });
    return manifest;
  } catch (thrown) {
    removeQuietly(building);
    throw asStorageError(thrown, goldStorage(gold));
  }
}

/** Steps 3 to 5: makes a complete folder the newest snapshot. After a failure the folder has its old name again. */
export async function putInPlace(
  gold: string,
  building: string,
  manifest: Manifest,
  tables: readonly GoldTable[] = goldTables,
): Promise<void> {
  const folder = snapshotFolder(gold, manifest.id);
  renameSync(building, folder);
  try {
    syncPath(snapshotsFolder(gold));
    await writeCatalogue(gold, manifest, tables);
    crashPoint('after-manifest-before-current');

    const next = join(gold, '.CURRENT');
    writeFileSync(next, `${manifest.id}\n`);
    syncPath(next);
    renameSync(next, join(gold, 'CURRENT'));
    syncPath(gold);
  } catch (thrown) {
    if (currentSnapshot(gold) !== manifest.id) renameSync(folder, building);
    throw thrown;
  }
}

/** The failure that made a folder useless matters more than one of its removal; the next retention removes the rest. */
function removeQuietly(folder: string): void {
  try {
    rmSync(folder, { recursive: true, force: true });
  } catch {
    // The next retention tries again.
  }
}

async function manifestOf(
  store: CubeStore,
  context: SnapshotContext,
  id: string,
  created: Date,
  files: SnapshotFiles,
): Promise<Manifest> {
  const input: Manifest['input'] = {};
  const accounting: Record<string, RecordCounts> = {};
  const count = (topic: string, counts: RecordCounts) => {
    accounting[topic] = sumOf(accounting[topic] ?? noRecords, counts);
  };
  const shards: Manifest['shards'] = {};
  const deltas: Manifest['deltas'] = {};
  for (const { shard, shards: all, chain, next, lastDelta, counts } of store.shards.values()) {
    deltas[shard] = next;
    shards[shard] = {
      generation: chain.generation,
      cubeSet: chain.cubeSet,
      shards: all,
      lastDelta,
      sources: Object.fromEntries(
        Object.entries(counts).map(([topic, of]) => [
          topic,
          {
            ...of,
            next: chain.position[topic] ?? 0,
            gaps: (chain.gaps[topic] ?? []).map(([from, to]) => [from, to]),
          },
        ]),
      ),
    };
    for (const [topic, to] of Object.entries(chain.position)) {
      input[topic] = { ...input[topic], [shard]: [startAfter(chain.gaps[topic] ?? []), to] };
    }
    for (const [topic, of] of Object.entries(counts)) count(topic, of);
  }
  const names: Manifest['names'] = {};
  for (const state of store.peopleStates.values()) {
    names[state.partition] = sumOf(noRecords, state);
    input[context.peopleTopic] = {
      ...input[context.peopleTopic],
      [state.partition]: [state.start ?? 0, state.next],
    };
    count(context.peopleTopic, state);
  }
  return {
    id,
    created: created.toISOString(),
    namespace: context.namespace,
    clusterId: context.clusterId,
    ...files,
    input,
    ...(context.dumpsIn !== undefined && { dumps: await context.dumpsIn(input) }),
    accounting,
    deltas,
    shards,
    names,
    history: store.ratings.summary(context.historyDays),
    ...(store.titles.isRead && { titleNames: { gaps: store.titles.lacking(store.shards) } }),
    schemas: { ...context.schemas },
    versions: {
      reelflow: context.reelflowVersion,
      duckdb: duckdbVersion(),
      contentHash: contentHashVersion,
      manifest: manifestVersion,
    },
  };
}
