/**
 * Files that a snapshot takes over from the one before it, because nothing that they are made from has changed. They are hard
 * links, so retention may remove either snapshot, or copies where the file system has no links.
 */
import { createHash } from 'node:crypto';
import { copyFileSync, existsSync, linkSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { version as duckdbVersion } from '@duckdb/node-api';
import { fileSha256, syncPath } from '../../runtime/files.ts';
import { columnNotes } from '../../tables/column-notes.ts';
import { contentHashVersion } from '../../tables/content-hash.ts';
import type { GoldTable } from '../../tables/gold-table.ts';
import type { CubeStore } from '../cube-store.ts';
import { currentSnapshot, type Manifest, manifestVersion, readManifest, snapshotFolder } from './manifest.ts';

/** Changes with everything but the rows that decides the bytes of a snapshot. @param cubes their fingerprint */
export function makerOf(reelflowVersion: string, cubes: string, tables: readonly GoldTable[]): string {
  const versions = [reelflowVersion, duckdbVersion(), manifestVersion, contentHashVersion];
  const declared = [cubes, tables, columnNotes];
  return createHash('sha256')
    .update(JSON.stringify([versions, declared]))
    .digest('hex')
    .slice(0, 16);
}

/**
 * The relations that a table reads, also those that its SQL names without declaring them: one too many costs a table that is
 * written, one too few would be a wrong table.
 * @param known relations of the store
 */
export function relationsOf(
  { reads, integers, select, beside = '' }: GoldTable,
  known: ReadonlySet<string>,
): string[] {
  const words = [integers, select, beside].join(' ').match(/\w+/g) ?? [];
  const named = words.map((word) => word.replace(/_sums$/, '')).filter((word) => known.has(word));
  return [...new Set([...reads, ...named])];
}

/** What the name of a file with later rows of a cube adds to that of the cube. */
const laterFile = /^\.[1-9]$/;
/** With more files, or with files of more than half of the bytes of the sums, a cube is written as a whole again. */
const laterFilesMax = 8;

interface EarlierCube {
  /** By name, their entries in the manifest. */
  readonly files: NonNullable<Manifest['cubes']>;
  /** The file that must be written besides, with the rows after a revision; absent if there are none. */
  readonly next?: { readonly file: string; readonly after: number };
}

export class EarlierFiles {
  readonly #folder: string;
  readonly #manifest: Manifest;
  readonly #isUnchanged: (relation: string) => boolean;
  readonly #relations: ReadonlySet<string>;
  /** Of the earlier snapshot. */
  readonly #revisions: Readonly<Record<string, number>>;

  private constructor(folder: string, manifest: Manifest, store: CubeStore) {
    this.#folder = folder;
    this.#manifest = manifest;
    const { revisions, published } = store;
    this.#relations = new Set(Object.keys(revisions));
    this.#revisions = published?.revisions ?? {};
    this.#isUnchanged = (relation) =>
      revisions[relation] !== undefined && revisions[relation] === published?.revisions[relation];
  }

  /**
   * The files of the snapshot that CURRENT names.
   * @returns undefined unless it was made from this store by the same maker
   */
  static of(store: CubeStore, gold: string, maker: string): EarlierFiles | undefined {
    const current = currentSnapshot(gold);
    if (current === undefined || store.published?.snapshot !== current || store.published.maker !== maker) {
      return undefined;
    }
    return new EarlierFiles(snapshotFolder(gold, current), readManifest(gold, current), store);
  }

  /** Links the file of a table. @returns its entry in the manifest, undefined if it must be written */
  async table(table: GoldTable, into: string): Promise<Manifest['tables'][string] | undefined> {
    if (!relationsOf(table, this.#relations).every(this.#isUnchanged)) return undefined;
    const { name } = table;
    return this.#link(`${name}.parquet`, this.#manifest.tables[name], into);
  }

  /**
   * Links the export of a cube: a file with its sums, and files with the rows that came after it.
   * @returns undefined if the cube must be written as a whole
   */
  async cube(name: string, into: string): Promise<EarlierCube | undefined> {
    const all = this.#manifest.cubes ?? {};
    const isLater = (file: string) => file.startsWith(`${name}.`) && laterFile.test(file.slice(name.length));
    const later = Object.keys(all).filter(isLater);
    const bytes = later.reduce((sum, file) => sum + (all[file]?.bytes ?? 0), 0);
    const revision = this.#revisions[name];
    const isUnchanged = this.#isUnchanged(name);
    const isLong = later.length >= laterFilesMax || bytes * 2 > (all[name]?.bytes ?? 0);
    if (revision === undefined || (!isUnchanged && isLong)) return undefined;
    const files: EarlierCube['files'] = {};
    for (const file of [name, ...later]) {
      const entry = await this.#link(join('cubes', `${file}.parquet`), all[file], into);
      if (entry === undefined) {
        // `restore` reads every file that it finds.
        for (const linked of Object.keys(files)) rmSync(join(into, 'cubes', `${linked}.parquet`));
        return undefined;
      }
      files[file] = entry;
    }
    return isUnchanged
      ? { files }
      : { files, next: { file: `${name}.${later.length + 1}`, after: revision } };
  }

  /** A file that was lost or altered is not handed on. */
  async #link<Entry extends { readonly sha256: string }>(
    path: string,
    entry: Entry | undefined,
    into: string,
  ): Promise<Entry | undefined> {
    const from = join(this.#folder, path);
    if (entry === undefined || !existsSync(from) || (await fileSha256(from)) !== entry.sha256)
      return undefined;
    const to = join(into, path);
    try {
      linkSync(from, to);
    } catch {
      // No links across mounts, on some network file systems, and above 65,000 names of a file.
      copyFileSync(from, to);
      syncPath(to);
    }
    return entry;
  }
}
