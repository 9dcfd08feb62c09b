/** The backup of a shard that is being written, at most one at a time, while the shard continues to work. */
import { reasonOf } from '../runtime/errors.ts';
import type { Logger } from '../runtime/logger.ts';
import type { Backups } from './backup.ts';
import type { ShardStore } from './shard-store.ts';

export class BackupRun {
  readonly #backups: Backups;
  readonly #log: Logger;
  #running: { readonly end: AbortController; readonly done: Promise<void> } | undefined;

  constructor(backups: Backups, logger: Logger) {
    this.#backups = backups;
    this.#log = logger;
  }

  /** Writes a backup of the store as it is now. A failure is logged and has no other effect. */
  async write(store: ShardStore): Promise<void> {
    if (this.#running !== undefined) return;
    const end = new AbortController();
    const startedMs = performance.now();
    const done = this.#backups
      .write(store, end.signal)
      .then((records) => {
        if (records === undefined) return;
        this.#log.info({ records, ms: Math.round(performance.now() - startedMs) }, 'backup written');
      })
      .catch((thrown) => {
        if (!end.signal.aborted) this.#log.warn({ reason: reasonOf(thrown) }, 'the backup failed');
      })
      .finally(() => {
        this.#running = undefined;
      });
    this.#running = { end, done };
    await done;
  }

  /** Interrupts the backup. */
  async end(): Promise<void> {
    this.#running?.end.abort();
    await this.#running?.done;
  }
}
