/**
 * A reader that follows CURRENT as any client may: at every look the snapshot that CURRENT names has a manifest that can
 * be parsed and every file with its size, and is never older than the one before.
 *
 * A snapshot may be retired between the look at CURRENT and the look at its files; then CURRENT has moved on. A reader
 * that finds a file gone looks at CURRENT again, and only a snapshot that CURRENT still names counts as damaged.
 */
import { readFileSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { messageOf } from '../../runtime/errors.ts';
import { currentSnapshot, readManifest, snapshotFolder } from '../../sinks/gold/manifest.ts';

interface Followed {
  readonly looks: number;
  /** Different snapshots that were seen. */
  readonly snapshots: number;
  readonly violations: readonly string[];
}

interface Follower {
  /** What was seen until now. */
  readonly seen: Followed;
  stop(): Promise<Followed>;
}

/** Follows CURRENT of a gold folder until `stop`. */
export function followCurrent(gold: string, periodMs: number): Follower {
  const violations: string[] = [];
  let looks = 0;
  let snapshots = 0;
  let last = '';
  let over = false;
  const look = () => {
    const id = currentSnapshot(gold);
    if (id === undefined) {
      if (last !== '') violations.push(`CURRENT is gone after ${last}`);
      return;
    }
    if (id < last) violations.push(`CURRENT went back from ${last} to ${id}`);
    try {
      inspect(gold, id);
    } catch (thrown) {
      if (currentSnapshot(gold) === id) violations.push(`${id}: ${messageOf(thrown)}`);
      return;
    }
    looks += 1;
    if (id !== last) snapshots += 1;
    last = id;
  };
  const following = (async () => {
    while (!over) {
      try {
        look();
      } catch (thrown) {
        violations.push(messageOf(thrown));
      }
      await delay(periodMs);
    }
    look();
  })();
  return {
    get seen() {
      return { looks, snapshots, violations };
    },
    stop: async () => {
      over = true;
      await following;
      return { looks, snapshots, violations };
    },
  };
}

/** @throws when a file of the snapshot is missing, cut or no Parquet file */
function inspect(gold: string, id: string): void {
  const manifest = readManifest(gold, id);
  if (manifest.id !== id) throw new Error(`the manifest is of ${manifest.id}`);
  for (const [table, { bytes }] of Object.entries(manifest.tables)) {
    const file = join(snapshotFolder(gold, id), `${table}.parquet`);
    const { size } = statSync(file);
    if (size !== bytes) throw new Error(`${table}.parquet has ${size} bytes, the manifest says ${bytes}`);
    const content = readFileSync(file);
    if (content.subarray(-4).toString() !== 'PAR1') throw new Error(`${table}.parquet does not end as one`);
  }
}
