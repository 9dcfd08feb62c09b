/**
 * Keeps a lake over gold up to date: a DuckLake catalogue, which is a file or an object of the bucket that the snapshots are
 * pushed to, or Iceberg tables in a folder (`iceberg.ts`). Each change replaces a catalogue whole, by a rename or by a
 * conditional request. So a reader has the old or the new one, and never waits for the sink, nor the sink for a reader.
 *
 * A lake follows from the snapshots that exist, so each attempt does what earlier ones have left.
 */
import { copyFileSync, existsSync } from 'node:fs';
import { dirname, join, resolve } from 'node:path';
import { crashPoint } from '../../runtime/crash-points.ts';
import { messageOf, ReelflowError } from '../../runtime/errors.ts';
import { syncPath, withTemporaryFolder } from '../../runtime/files.ts';
import { buildLake, type LakeChange, type LakeContent, newestInLake } from './ducklake.ts';
import { newestInIceberg, writeIceberg } from './iceberg.ts';
import { replaceDatabase } from './replace-database.ts';

/** Where a lake lies: a catalogue's file, or a bucket's prefix and a name below it, or the folder of Iceberg tables. */
export type LakePlace =
  | { readonly kind: 'file'; readonly path: string }
  | { readonly kind: 'folder'; readonly path: string }
  | { readonly kind: 'object'; readonly prefix: string; readonly name: string };

/** @param url as `ATTACH` takes it. @throws ReelflowError usage */
export function lakePlaceOf(url: string): LakePlace {
  const [, format, path = ''] = /^(ducklake|iceberg):(.+)$/.exec(url) ?? [];
  const isLocal = path !== '' && !/^[a-z][a-z0-9+.-]*:/i.test(path);
  if (format === 'iceberg' && isLocal) return { kind: 'folder', path };
  const [, prefix, name] = /^(s3:\/\/[^/]+(?:\/.+)?)\/([^/]+)$/.exec(path) ?? [];
  if (format === 'ducklake' && isLocal && !path.endsWith('/')) return { kind: 'file', path };
  if (format === 'ducklake' && prefix !== undefined && name !== undefined)
    return { kind: 'object', prefix, name };
  throw new ReelflowError('usage', `${url} is not a lake that reelflow can write`, {
    detail:
      'It writes a DuckLake catalogue as a DuckDB file, in a folder or in a bucket, and Iceberg tables in a folder.',
    hint: 'Write it as ducklake:FILE, ducklake:s3://bucket/FILE or iceberg:DIR.',
  });
}

interface LakeOptions {
  readonly gold: string;
  readonly clusterId: string;
  readonly namespace: string;
  /** Where readers find the snapshots: the bucket that they are pushed to; default the gold folder. */
  readonly bucket?: string | undefined;
}

export class Lake {
  readonly place: LakePlace;
  readonly #options: LakeOptions;
  #newest: string | undefined;

  constructor(place: LakePlace, options: LakeOptions) {
    this.place = place;
    this.#options = options;
  }

  /** The snapshot of the newest version, as far as this process knows. */
  get newest(): string | undefined {
    return this.#newest;
  }

  /**
   * Reads which snapshot an existing file shows.
   * @throws ReelflowError lakeUnusable, foreignCluster, if the file is not a catalogue of this gold: it is not replaced
   */
  async open(): Promise<void> {
    if (this.place.kind === 'object') return;
    const { kind, path } = this.place;
    if (!existsSync(path)) return;
    if (kind === 'folder') {
      this.#newest = await mapErrors(path, async () => newestInIceberg(path, this.#options));
      return;
    }
    this.#newest = await inWorkshop(path, (workshop) => newestInLake(copyIn(path, workshop), this.#options));
  }

  /**
   * Makes the catalogue show exactly these snapshots, as far as they are newer than its newest version or in it.
   * @param snapshots ids, oldest first, without those that are removed next
   * @throws ReelflowError lakeUnusable, foreignCluster; for an object also bucketUnusable, and busy, if another program has
   *   replaced it meanwhile
   */
  async show(snapshots: readonly string[]): Promise<LakeChange> {
    const { place } = this;
    const change = await (place.kind === 'file'
      ? this.#replaceFile(place.path, snapshots)
      : place.kind === 'object'
        ? this.#replaceObject(place, snapshots)
        : mapErrors(place.path, () => writeIceberg(resolve(place.path), this.#contentOf(snapshots))));
    this.#newest = change.newest;
    return change;
  }

  async #replaceFile(path: string, snapshots: readonly string[]): Promise<LakeChange> {
    return inWorkshop(path, async (workshop) => {
      const old = existsSync(path) ? copyIn(path, workshop) : undefined;
      const change = await this.#build(workshop, old, snapshots);
      if (!change.isChanged) return change;
      replaceDatabase(path, join(workshop, builtName), () => crashPoint('before-lake-rename'));
      syncPath(dirname(path));
      crashPoint('after-lake-before-retention');
      return change;
    });
  }

  async #replaceObject(
    { prefix, name }: { prefix: string; name: string },
    snapshots: readonly string[],
  ): Promise<LakeChange> {
    const { Bucket, bucketPlaceOf } = await import('./bucket.ts');
    const bucket = new Bucket(bucketPlaceOf(prefix));
    try {
      return await inWorkshop(`${prefix}/${name}`, async (workshop) => {
        const old = join(workshop, oldName);
        const tag = await bucket.getFile(name, old);
        const change = await this.#build(workshop, tag === undefined ? undefined : old, snapshots);
        if (change.isChanged) await bucket.replaceFile(name, join(workshop, builtName), tag);
        return change;
      });
    } finally {
      bucket.close();
    }
  }

  #build(workshop: string, old: string | undefined, snapshots: readonly string[]): Promise<LakeChange> {
    return buildLake(old, join(workshop, builtName), this.#contentOf(snapshots));
  }

  #contentOf(snapshots: readonly string[]): LakeContent {
    const { gold, clusterId, namespace, bucket } = this.#options;
    const dataPath = `${(bucket ?? resolve(gold)).replace(/\/+$/, '')}/`;
    return { gold, dataPath, clusterId, namespace, snapshots };
  }
}

const oldName = 'old.ducklake';
const builtName = 'built.ducklake';

/** DuckDB cannot open a database under every path, and writes a log beside it. @returns the copy */
function copyIn(path: string, workshop: string): string {
  const copy = join(workshop, oldName);
  copyFileSync(path, copy);
  return copy;
}

/** Runs `work` with a temporary folder. @param where the catalogue, for errors. @throws ReelflowError lakeUnusable */
function inWorkshop<T>(where: string, work: (workshop: string) => Promise<T>): Promise<T> {
  return mapErrors(where, () => withTemporaryFolder('lake', work));
}

/** @param where the lake, for errors. @throws ReelflowError lakeUnusable for errors of files and DuckDB */
async function mapErrors<T>(where: string, work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (thrown) {
    if (thrown instanceof ReelflowError && thrown.kind !== 'lakeUnusable') throw thrown;
    const [what, detail, hint] =
      thrown instanceof ReelflowError
        ? [thrown.message, thrown.detail, thrown.hint]
        : [
            'The lake cannot be written',
            messageOf(thrown),
            'Check permissions and free space. Gold is complete; the next attempt adds what is missing.',
          ];
    throw new ReelflowError('lakeUnusable', what, { detail: `${where}: ${detail}`, hint, cause: thrown });
  }
}
