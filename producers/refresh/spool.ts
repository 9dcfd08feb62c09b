/**
 * Packed records on disk, between the pass that compares a dump and the one that sends it: a dump that turns out to be
 * implausible at its last row was never sent, and an accepted one is neither unpacked nor encoded twice.
 */
import { type FileHandle, mkdir, open, rm } from 'node:fs/promises';
import { dirname } from 'node:path';

interface Place {
  readonly partition: number;
  readonly at: number;
  readonly bytes: number;
}

export interface SpooledBatch {
  readonly partition: number;
  readonly batch: Buffer;
}

export class Spool {
  readonly #path: string;
  readonly #places: Place[] = [];
  #file: FileHandle | undefined;
  #end = 0;

  constructor(path: string) {
    this.#path = path;
  }

  get bytes(): number {
    return this.#end;
  }

  async write(partition: number, batch: Buffer): Promise<void> {
    if (this.#file === undefined) {
      await mkdir(dirname(this.#path), { recursive: true });
      this.#file = await open(this.#path, 'w+');
    }
    await this.#file.write(batch, 0, batch.length, this.#end);
    this.#places.push({ partition, at: this.#end, bytes: batch.length });
    this.#end += batch.length;
  }

  /** The batches in the order in which they were written. */
  async *read(): AsyncGenerator<SpooledBatch> {
    for (const { partition, at, bytes } of this.#places) {
      const batch = Buffer.allocUnsafe(bytes);
      await (this.#file as FileHandle).read(batch, 0, bytes, at);
      yield { partition, batch };
    }
  }

  /** Removes the file. What was written can no longer be read. */
  async close(): Promise<void> {
    this.#places.length = 0;
    await this.#file?.close();
    this.#file = undefined;
    await rm(this.#path, { force: true });
  }
}
