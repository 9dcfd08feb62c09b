/**
 * Backups of shard stores, in a folder that members may share: `<cluster>/<namespace>/shard-<n>/<id>` holds a copy of a
 * store and a card that describes it. A backup is complete or absent, because it is built under a name with a leading dot
 * and renamed. A backup only saves time: `planRestore` decides whether it may be used, its bytes must match the card, and
 * `planShard` then treats the restored store like any other old store.
 */
import { randomUUID } from 'node:crypto';
import { existsSync, mkdirSync, readdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { DuckDBInstance } from '@duckdb/node-api';
import { z } from 'zod';
import { interruptOn } from '../database/duckdb.ts';
import { databasePath, sqlText } from '../database/sql.ts';
import { crashPoint } from '../runtime/crash-points.ts';
import { messageOf } from '../runtime/errors.ts';
import { copyFileHashed, fileSha256, makeFolder, syncPath } from '../runtime/files.ts';
import { messagesBefore, type Position } from '../topics/position.ts';
import { type BackupCard, planRestore, type StoreKind } from './restore-plan.ts';
import { kindOf, type ShardIdentity, type ShardStore } from './shard-store.ts';
import { freshStorePath } from './store-folder.ts';

/** Backups to keep of each shard: one more than needed, in case the newest is damaged. */
const keep = 2;
const idPattern = /^\d{17}-[0-9a-f]{8}$/;
const cardFile = 'backup.json';
const storeFile = 'store.duckdb';

const cardSchema = z.object({
  format: z.int(),
  clusterId: z.string(),
  namespace: z.string(),
  shard: z.int(),
  shards: z.int(),
  generation: z.int(),
  position: z.record(z.string(), z.int()),
  records: z.int(),
  /** Of the copied file. */
  sha256: z.string(),
});
type Card = z.infer<typeof cardSchema>;

export class Backups {
  readonly #instance: DuckDBInstance;
  readonly #folder: string;

  /** @param folder of one cluster and namespace */
  constructor(instance: DuckDBInstance, folder: string) {
    this.#instance = instance;
    this.#folder = folder;
  }

  /**
   * Writes a backup, unless one of this kind is as far already:
   *
   * 1. copy the database in one transaction while the store continues, and read the position from the copy;
   * 2. hash and sync the copy, write the card last, sync both and their folder;
   * 3. rename the folder, sync its parent, then remove older backups and leftovers of crashes.
   *
   * @param signal interrupts the copy; then no backup appears
   * @returns records in the backup, or undefined if none was needed
   */
  async write(store: ShardStore, signal: AbortSignal): Promise<number | undefined> {
    const kind = kindOf(store.identity);
    const folder = this.#folderOf(kind.shard);
    makeFolder(folder);
    const before = this.#cards(kind.shard);
    const isAsFar = (card: BackupCard | undefined) =>
      card !== undefined && isSameKind(card, kind) && messagesBefore(card.position) >= store.messagesSeen;
    if ([...before.values()].some(isAsFar)) return undefined;

    const stamp = new Date().toISOString().replaceAll(/\D/g, '');
    const id = `${stamp}-${randomUUID().slice(0, 8)}`;
    const building = join(folder, `.${id}`);
    try {
      mkdirSync(building);
      const path = join(building, storeFile);
      const { position, records } = await this.#copy(store, path, signal);
      signal.throwIfAborted();
      const card: Card = { ...kind, position, records, sha256: await fileSha256(path) };
      syncPath(path);
      writeFileSync(join(building, cardFile), `${JSON.stringify(card)}\n`);
      syncPath(join(building, cardFile));
      syncPath(building);
      signal.throwIfAborted();
      crashPoint('after-backup-before-rename');
      renameSync(building, join(folder, id));
      syncPath(folder);
      this.#retain(folder);
      return records;
    } catch (thrown) {
      rmSync(building, { recursive: true, force: true });
      throw thrown;
    }
  }

  /**
   * Copies the freshest useful backup into a state folder, as a store of its own.
   * @param published the published position of the shard
   * @param storeMessages messages that the present store has processed; undefined without a store
   * @param starts where the logs begin, if a store must not lie before that
   * @returns the path of the copy, or undefined if no backup is useful
   */
  async restore(
    identity: ShardIdentity,
    state: string,
    published: Position,
    storeMessages: number | undefined,
    starts: Position,
    warn: (what: string) => void,
  ): Promise<string | undefined> {
    const { shard } = identity;
    const cards = this.#cards(shard);
    const { restore, ignored } = planRestore(cards, kindOf(identity), published, storeMessages, starts);
    for (const [id, why] of ignored) warn(`backup ${join(this.#folderOf(shard), id)} is ignored: ${why}`);
    for (const id of restore) {
      const from = join(this.#folderOf(shard), id);
      const path = freshStorePath(state, shard);
      const part = `${path}.part`;
      try {
        if ((await copyFileHashed(join(from, storeFile), part)) === cards.get(id)?.sha256) {
          renameSync(part, path);
          syncPath(state);
          warn(`restored from backup ${from}`);
          return path;
        }
        warn(`backup ${from} is ignored: it is damaged`);
      } catch (thrown) {
        warn(`backup ${from} cannot be used: ${messageOf(thrown)}`);
      }
      rmSync(part, { force: true });
    }
    return undefined;
  }

  #folderOf(shard: number): string {
    return join(this.#folder, `shard-${shard}`);
  }

  #ids(folder: string): string[] {
    return existsSync(folder) ? readdirSync(folder).filter((name) => idPattern.test(name)) : [];
  }

  /** The cards of a shard's backups; undefined if a card cannot be read. */
  #cards(shard: number): Map<string, Card | undefined> {
    const folder = this.#folderOf(shard);
    return new Map(
      this.#ids(folder).map((id) => {
        try {
          const text = readFileSync(join(folder, id, cardFile), 'utf8');
          return [id, cardSchema.safeParse(JSON.parse(text)).data] as const;
        } catch {
          return [id, undefined] as const;
        }
      }),
    );
  }

  /** @returns the position of the copy: the store may be further by now */
  async #copy(
    store: ShardStore,
    path: string,
    signal: AbortSignal,
  ): Promise<{ position: Position; records: number }> {
    const catalog = `backup_${randomUUID().replaceAll('-', '')}`;
    const connection = await this.#instance.connect();
    const stopInterrupting = interruptOn(signal, connection);
    try {
      signal.throwIfAborted();
      await connection.run(`ATTACH ${sqlText(databasePath(path))} AS ${catalog}`);
      await connection.run(`COPY FROM DATABASE ${store.catalog} TO ${catalog}`);
      const rows = await connection.runAndReadAll(
        `SELECT topic, next, applied + duplicate + rejected FROM ${catalog}.source`,
      );
      const sources = rows
        .getRows()
        .map(([topic, next, seen]) => [String(topic), Number(next), Number(seen)] as const);
      await connection.run(`CHECKPOINT ${catalog}`);
      return {
        position: Object.fromEntries(sources.map(([topic, next]) => [topic, next])),
        records: sources.reduce((sum, [, , seen]) => sum + seen, 0),
      };
    } finally {
      stopInterrupting();
      await connection.run(`DETACH DATABASE IF EXISTS ${catalog}`).catch(() => undefined);
      connection.closeSync();
    }
  }

  /** Keeps the newest backups. A backup that another member is building loses its folder, fails, and is repeated later. */
  #retain(folder: string): void {
    const old = this.#ids(folder).sort().slice(0, -keep);
    for (const id of old) {
      // Renamed first: a crash during the removal must not leave half a backup under its name.
      renameSync(join(folder, id), join(folder, `.${id}`));
    }
    for (const name of readdirSync(folder)) {
      if (name.startsWith('.')) rmSync(join(folder, name), { recursive: true, force: true });
    }
  }
}

const isSameKind = (card: StoreKind, kind: StoreKind) =>
  (Object.keys(kind) as (keyof StoreKind)[]).every((name) => card[name] === kind[name]);
