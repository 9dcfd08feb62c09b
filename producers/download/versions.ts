/**
 * Which version of each dump a folder holds, as its server named it: the file `.download/versions.json` beside the dumps.
 * With it a later download asks for a file only if it has changed.
 */
import { readFile, rename, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { z } from 'zod';

const version = z.object({
  url: z.string(),
  etag: z.string().optional(),
  modified: z.string().optional(),
  /** Size of the file on disk. Another one is another file. */
  bytes: z.number(),
});
const versions = z.record(z.string(), version);

export type Version = z.infer<typeof version>;

/** Beside the dumps: the lock of a download, and the versions. */
export const ownFolder = (folder: string) => join(folder, '.download');
const nameIn = (folder: string) => join(ownFolder(folder), 'versions.json');

/** The known versions by file name. An absent or damaged file knows none, and costs a download. */
export async function readVersions(folder: string): Promise<Record<string, Version>> {
  try {
    return versions.parse(JSON.parse(await readFile(nameIn(folder), 'utf8')));
  } catch {
    return {};
  }
}

/** Replaces the entry of one file, by a rename. */
export async function writeVersion(folder: string, file: string, found: Version): Promise<void> {
  const all = { ...(await readVersions(folder)), [file]: found };
  const name = nameIn(folder);
  await writeFile(`${name}.new`, `${JSON.stringify(all, undefined, 2)}\n`);
  await rename(`${name}.new`, name);
}
