/**
 * Keeps a DuckLake catalogue of gold up to date: a file, or an object of a bucket that the snapshots are pushed to. Each
 * change replaces it whole, by a rename or by a conditional request. So a reader has a catalogue of the old or of the new
 * snapshots, and never waits for the sink, nor the sink for a reader.
 *
 * The catalogue follows from the snapshots that exist, so each attempt does what earlier ones have left.
 */
import { copyFileSync, existsSync, mkdtempSync, renameSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { basename, dirname, join, resolve } from 'node:path';
import { crashPoint } from '../../runtime/crash-points.ts';
import { messageOf, ReelflowError } from '../../runtime/errors.ts';
import { syncPath } from '../../runtime/files.ts';
import { buildLake, type LakeChange, newestInLake } from './ducklake.ts';

/** Where a catalogue lies: the path of a file, or a bucket's prefix and a name below it. */
export type LakePlace =
  | { readonly kind: 'file'; readonly path: string }
  | { readonly kind: 'object'; readonly prefix: string; readonly name: string };

/** @param url as `ATTACH` takes it. @throws ReelflowError usage */
export function lakePlaceOf(url: string): LakePlace {
  const [, path = ''] = /^ducklake:(.+)$/.exec(url) ?? [];
  const [, prefix, name] = /^(s3:\/\/[^/]+(?:\/.+)?)\/([^/]+)$/.exec(path) ?? [];
  if (prefix !== undefined && name !== undefined) return { kind: 'object', prefix, name };
  if (path !== '' && !path.endsWith('/') && !/^[a-z][a-z0-9+.-]*:/i.test(path)) return { kind: 'file', path };
  throw new ReelflowError('usage', `${url} is not a catalogue that reelflow can write`, {
    detail: 'A catalogue is a DuckDB file, in a folder or in a bucket.',
    hint: 'Write it as ducklake:FILE or ducklake:s3://bucket/FILE.',
  });
}

export interface LakeOptions {
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
    if (this.place.kind !== 'file') return;
    const { path } = this.place;
    if (!existsSync(path)) return;
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
    const change =
      place.kind === 'file'
        ? await this.#replaceFile(place.path, snapshots)
        : await this.#replaceObject(place, snapshots);
    this.#newest = change.newest;
    return change;
  }

  async #replaceFile(path: string, snapshots: readonly string[]): Promise<LakeChange> {
    return inWorkshop(path, async (workshop) => {
      const old = existsSync(path) ? copyIn(path, workshop) : undefined;
      const change = await this.#build(workshop, old, snapshots);
      if (!change.isChanged) return change;
      const building = join(dirname(path), `.${basename(path)}`);
      try {
        copyFileSync(join(workshop, builtName), building);
        syncPath(building);
        crashPoint('before-lake-rename');
        // A log of the old file does not belong to the new one.
        rmSync(`${path}.wal`, { force: true });
        renameSync(building, path);
      } catch (thrown) {
        // On a full disk the next attempt needs the space.
        rmSync(building, { force: true });
        throw thrown;
      }
      syncPath(dirname(path));
      crashPoint('after-lake-before-retention');
      return change;
    });
  }

  async #replaceObject(
    { prefix, name }: { prefix: string; name: string },
    snapshots: readonly string[],
  ): Promise<LakeChange> {
    const { Bucket, placeOf } = await import('./bucket.ts');
    const bucket = new Bucket(placeOf(prefix));
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
    const { gold, clusterId, namespace, bucket } = this.#options;
    const dataPath = `${(bucket ?? resolve(gold)).replace(/\/+$/, '')}/`;
    return buildLake(old, join(workshop, builtName), { gold, dataPath, clusterId, namespace, snapshots });
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
async function inWorkshop<T>(where: string, work: (workshop: string) => Promise<T>): Promise<T> {
  let workshop: string | undefined;
  try {
    workshop = mkdtempSync(join(tmpdir(), 'reelflow-lake-'));
    return await work(workshop);
  } catch (thrown) {
    if (thrown instanceof ReelflowError && thrown.kind !== 'lakeUnusable') throw thrown;
    const {
      message = undefined,
      detail = messageOf(thrown),
      hint = undefined,
    } = thrown instanceof ReelflowError ? thrown : {};
    throw new ReelflowError('lakeUnusable', message ?? 'The lake cannot be written', {
      detail: `${where}: ${detail}`,
      hint:
        hint ?? 'Check permissions and free space. Gold is complete; the next attempt adds what is missing.',
      cause: thrown,
    });
  } finally {
    if (workshop !== undefined) rmSync(workshop, { recursive: true, force: true });
  }
}
