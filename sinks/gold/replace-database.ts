/**
 * Replaces a database that others open: by rename, so a reader has the old one or the new one whole. DuckDB cannot open a
 * database under every path, and writes a log beside it: so it is built in a temporary folder and copied.
 */
import { copyFileSync, renameSync, rmSync } from 'node:fs';
import { basename, dirname, join } from 'node:path';
import { syncPath } from '../../runtime/files.ts';

/** @param built a closed database. @param beforeRename called when all is ready */
export function replaceDatabase(path: string, built: string, beforeRename = () => {}): void {
  const building = join(dirname(path), `.${basename(path)}`);
  try {
    copyFileSync(built, building);
    syncPath(building);
    beforeRename();
    // A log of the old file does not belong to the new one.
    rmSync(`${path}.wal`, { force: true });
    renameSync(building, path);
  } catch (thrown) {
    // On a full disk the next attempt needs the space.
    rmSync(building, { force: true });
    throw thrown;
  }
}
