/**
 * Keeps packed records on disk between comparing a dump and sending it. So nothing of an implausible dump is sent, even if
 * only its last row shows that, and an accepted dump is unpacked and encoded once.
 */
import { type FileHandle, open, rm } from 'node:fs/promises';
import { dirname } from 'node:path';
import { makeFolder } from '../../runtime/files.ts';
import type { Chunk } from '../chunk-writer.ts';
import { packRecordSync } from '../record-batch.ts';

/** A chunk whose record was packed, so that its memory can be used again. */
export interface PackedChunk extends Pick<Chunk, 'partition' | 'number' | 'records' | 'from'> {
  readonly packed: Buffer;
  /** Before compression. */
  readonly bytes: number;
}

export function packedChunkOf(chunk: Chunk): PackedChunk {
  const { partition, number, records, from, value } = chunk;
  return { partition, number, records, from, bytes: value.length, packed: packRecordSync(chunk) };
}

/** Where a chunk is in the file. */
interface SpooledChunk extends Omit<PackedChunk, 'packed'> {
  readonly at: number;
  readonly packedBytes: number;
}

export class Spool {
  readonly #path: string;
  readonly #chunks: SpooledChunk[] = [];
  #file: FileHandle | undefined;
  #end = 0;

  constructor(path: string) {
    this.#path = path;
  }

  get bytes(): number {
    return this.#end;
  }

  async write({ packed, ...chunk }: PackedChunk): Promise<void> {
    if (this.#file === undefined) {
      makeFolder(dirname(this.#path));
      this.#file = await open(this.#path, 'w+');
    }
    await this.#file.write(packed, 0, packed.length, this.#end);
    this.#chunks.push({ ...chunk, at: this.#end, packedBytes: packed.length });
    this.#end += packed.length;
  }

  /** The chunks in the order in which they were written. */
  async *read(): AsyncGenerator<PackedChunk> {
    for (const { at, packedBytes, ...chunk } of this.#chunks) {
      const packed = Buffer.allocUnsafe(packedBytes);
      await (this.#file as FileHandle).read(packed, 0, packedBytes, at);
      yield { ...chunk, packed };
    }
  }

  /** Removes the file and forgets its chunks. */
  async close(): Promise<void> {
    this.#chunks.length = 0;
    await this.#file?.close();
    this.#file = undefined;
    await rm(this.#path, { force: true });
  }
}
