/** The stores of a state folder: which files belong to a shard, and which of them its owner goes on with. */
import { randomUUID } from 'node:crypto';
import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import type { DuckDBInstance } from '@duckdb/node-api';
import { removeDatabase } from '../database/duckdb.ts';
import { databasePath, sqlText } from '../database/sql.ts';
import { messageOf, ReelflowError } from '../runtime/errors.ts';
import { makeFolder } from '../runtime/files.ts';
import { isAttached, type ShardIdentity, ShardStore } from './shard-store.ts';
import { asStoreError, StoreLocked } from './store-errors.ts';

const storePrefix = (shard: number) => `shard-${shard}.`;

/** A path for a new store, with an id of its own. */
export const freshStorePath = (folder: string, shard: number) =>
  join(folder, `${storePrefix(shard)}${randomUUID().slice(0, 8)}.duckdb`);

/** The files of a shard's stores. */
export function storeFiles(folder: string, shard: number): string[] {
  return readdirSync(folder)
    .filter((name) => name.startsWith(storePrefix(shard)) && name.endsWith('.duckdb'))
    .map((name) => join(folder, name));
}

/** Creates an empty store in a folder. @throws ReelflowError stateUnusable */
export function createStore(
  instance: DuckDBInstance,
  folder: string,
  identity: ShardIdentity,
): Promise<ShardStore> {
  return ShardStore.create(instance, freshStorePath(folder, identity.shard), identity);
}

/**
 * Opens the store of a shard that has processed the most messages, and waits up to `patienceMs` if another owner holds it.
 * Deletes stores that are behind, or of another generation or format. Creates a store if none can be had.
 * @param restore copies a backup that is further than `storeMessages` into the folder; undefined if there is none
 * @throws ReelflowError stateUnusable, foreignCluster
 */
export async function openFurthest(
  instance: DuckDBInstance,
  folder: string,
  identity: ShardIdentity,
  patienceMs: number,
  warn: (what: string) => void,
  restore: (storeMessages: number | undefined) => Promise<string | undefined> = async () => undefined,
): Promise<ShardStore> {
  try {
    makeFolder(folder);
  } catch (thrown) {
    throw asStoreError(thrown, folder);
  }
  const startedMs = performance.now();
  for (;;) {
    let best: ShardStore | undefined;
    let locked = false;
    for (const path of storeFiles(folder, identity.shard)) {
      try {
        const found = await ShardStore.open(instance, path, identity);
        if (!(found instanceof ShardStore)) {
          warn(`store ${path} is rebuilt: ${found.unusable}`);
          removeDatabase(path);
        } else if (best === undefined || found.messagesSeen > best.messagesSeen) {
          await best?.remove();
          best = found;
        } else {
          await found.remove();
        }
      } catch (thrown) {
        if (!(thrown instanceof StoreLocked)) {
          await best?.close();
          throw thrown;
        }
        locked = true;
      }
    }
    if (best === undefined && locked && performance.now() - startedMs <= patienceMs) {
      await sleep(100);
      continue;
    }
    const path = await restore(best?.messagesSeen);
    const restored = path === undefined ? undefined : await openRestored(instance, path, identity, warn);
    if (restored !== undefined) await best?.remove();
    const store = restored ?? best;
    if (store !== undefined) return store;
    if (locked)
      warn(`another owner holds the store of shard ${identity.shard}: building a new one beside it`);
    return createStore(instance, folder, identity);
  }
}

/** Opens a copy of a backup. A copy that cannot be used is deleted: the shard goes on without it. */
async function openRestored(
  instance: DuckDBInstance,
  path: string,
  identity: ShardIdentity,
  warn: (what: string) => void,
): Promise<ShardStore | undefined> {
  let why: string;
  try {
    const store = await ShardStore.open(instance, path, identity);
    if (store instanceof ShardStore) return store;
    why = store.unusable;
  } catch (thrown) {
    why = thrown instanceof ReelflowError ? `${thrown.message}: ${thrown.detail}` : messageOf(thrown);
  }
  warn(`the restored store ${path} is not used: ${why}`);
  removeDatabase(path);
  return undefined;
}

/**
 * How many messages the stores of a folder have processed, by shard. The assigner gives a shard to the member whose store
 * is furthest. Stores that are held or cannot be read are left out.
 */
export async function surveyStores(
  instance: DuckDBInstance,
  folder: string,
  shards: number,
): Promise<Map<number, number>> {
  const survey = new Map<number, number>();
  const connection = await instance.connect();
  for (let shard = 0; shard < shards; shard++) {
    for (const path of storeFiles(folder, shard)) {
      if (isAttached(path)) continue;
      try {
        await connection.run(`ATTACH ${sqlText(databasePath(path))} AS survey (READ_ONLY)`);
        const rows = await connection.runAndReadAll('SELECT coalesce(sum(next), 0) FROM survey.source');
        survey.set(shard, Math.max(survey.get(shard) ?? 0, Number(rows.getRows()[0]?.[0])));
      } catch {
        // Held or damaged: the owner of the shard reports it when it opens the store.
      }
      await connection.run('DETACH survey').catch(() => undefined);
    }
  }
  connection.closeSync();
  return survey;
}
