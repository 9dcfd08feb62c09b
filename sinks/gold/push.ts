/**
 * Pushes snapshots of a gold folder to a bucket, and pulls them. A push writes the objects of a snapshot, its manifest last, and
 * then replaces CURRENT with a conditional request. So a reader that follows CURRENT finds a complete snapshot at every moment
 * and never an older one, and of two concurrent pushes one fails.
 *
 * The folder is the original, the bucket its copy. Every step can be repeated: after a crash, the next push completes it.
 */
import { rmSync } from 'node:fs';
import { join } from 'node:path';
import { crashPoint } from '../../runtime/crash-points.ts';
import { ReelflowError } from '../../runtime/errors.ts';
import type { GoldTable } from '../../tables/gold-table.ts';
import { goldTables } from '../../tables/gold-tables.ts';
import { type BeforeRemoval, Bucket, bucketPlaceOf } from './bucket.ts';
import { currentManifest, type Manifest, snapshotsFolder } from './manifest.ts';
import type { Keep } from './retention.ts';
import { putInPlace } from './snapshot.ts';

interface PushReport {
  /** The snapshot that CURRENT in the bucket names. */
  readonly snapshot: string;
  /** False if CURRENT named it before. */
  readonly pushed: boolean;
  readonly bytes: number;
  /** Snapshots that were removed from the bucket. */
  readonly removed: readonly string[];
}

/**
 * Pushes the snapshot that CURRENT of the folder names, and removes those of the bucket that `keep` does not
 * name and that are not pinned in the folder.
 * @throws ReelflowError goldUnusable, if there is nothing to push, a file was altered, or the bucket is newer; foreignCluster;
 *   busy, if another push has replaced CURRENT meanwhile; bucketUnusable
 */
export async function pushGold(
  gold: string,
  url: string,
  keep: Keep,
  before: BeforeRemoval = async () => undefined,
): Promise<PushReport> {
  const manifest = currentManifest(gold);
  if (manifest === undefined) {
    throw new ReelflowError('goldUnusable', 'There is no snapshot to push', {
      detail: `${gold} has no CURRENT.`,
      hint: 'Publish one with `reelflow sink --once`.',
    });
  }
  const bucket = new Bucket(bucketPlaceOf(url));
  try {
    // 1. identity of the bucket, and the CURRENT that may be replaced
    const { id } = manifest;
    const current = await bucket.current();
    const earlier = current && (await bucket.manifest(current.id));
    if (earlier !== undefined) refuseForeign(bucket.url, earlier, manifest);
    if (current?.id === id)
      return { snapshot: id, pushed: false, bytes: 0, removed: await bucket.retain(gold, keep, id, before) };
    // 2. files, then manifest
    const bytes = await bucket.putSnapshot(gold, manifest, earlier);
    crashPoint('after-objects-before-bucket-current');
    // 3. CURRENT
    await bucket.replaceCurrent(id, current?.tag);
    return { snapshot: id, pushed: true, bytes, removed: await bucket.retain(gold, keep, id, before) };
  } finally {
    bucket.close();
  }
}

/**
 * Fetches the snapshot that CURRENT of the bucket names and makes it CURRENT of the folder: for readers elsewhere, and for a
 * sink that has lost its folder. The caller holds the lock of the gold folder.
 * @returns its id, and whether it was fetched
 * @throws ReelflowError goldUnusable, if the bucket has none or an object was altered; foreignCluster; bucketUnusable
 */
export async function pullGold(
  gold: string,
  url: string,
  tables: readonly GoldTable[] = goldTables,
): Promise<{ snapshot: string; pulled: boolean }> {
  const bucket = new Bucket(bucketPlaceOf(url));
  try {
    const current = await bucket.current();
    if (current === undefined) {
      throw new ReelflowError('goldUnusable', 'The bucket holds no snapshot', {
        detail: url,
        hint: 'Push one with `reelflow gold push`.',
      });
    }
    const manifest = await bucket.manifest(current.id);
    const own = currentManifest(gold);
    if (own !== undefined) refuseForeign(gold, own, manifest);
    if (own?.id === manifest.id) return { snapshot: own.id, pulled: false };
    const building = join(snapshotsFolder(gold), `.${manifest.id}`);
    try {
      await bucket.getSnapshot(manifest, building);
      await putInPlace(gold, building, manifest, tables);
    } finally {
      rmSync(building, { recursive: true, force: true });
    }
    return { snapshot: manifest.id, pulled: true };
  } finally {
    bucket.close();
  }
}

/** @throws ReelflowError foreignCluster, or goldUnusable if the existing snapshot is newer */
function refuseForeign(where: string, existing: Manifest, incoming: Manifest): void {
  if (existing.clusterId !== incoming.clusterId || existing.namespace !== incoming.namespace) {
    throw new ReelflowError('foreignCluster', 'The destination belongs to another cluster or namespace', {
      detail: `${where}: cluster ${existing.clusterId}, namespace '${existing.namespace}'; the snapshot is of ${incoming.clusterId}, '${incoming.namespace}'.`,
      hint: 'Use another folder or prefix.',
    });
  }
  if (existing.id > incoming.id) {
    throw new ReelflowError('goldUnusable', 'The destination is newer', {
      detail: `${where} has ${existing.id}, the snapshot is ${incoming.id}.`,
      hint: 'CURRENT never goes back. Check whether another sink serves the same namespace.',
    });
  }
}
