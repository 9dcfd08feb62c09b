import { blockSize } from './catalog.ts';

const wordsOfBlock = Math.ceil(blockSize / 32);

/** A set of ids as bits, in blocks of 10,000 ids. Only blocks that occur take memory (1.25 kB each). */
export class IdSet {
  readonly #blocks: (Uint32Array | undefined)[] = [];
  #isEmpty = true;

  get isEmpty(): boolean {
    return this.#isEmpty;
  }

  has(id: number): boolean {
    const bits = this.#blocks[(id / blockSize) | 0];
    if (bits === undefined) return false;
    const bit = id % blockSize;
    return ((bits[bit >>> 5] as number) & (1 << (bit & 31))) !== 0;
  }

  add(id: number): void {
    const block = (id / blockSize) | 0;
    let bits = this.#blocks[block];
    if (bits === undefined) {
      bits = new Uint32Array(wordsOfBlock);
      this.#blocks[block] = bits;
    }
    const bit = id % blockSize;
    bits[bit >>> 5] = (bits[bit >>> 5] as number) | (1 << (bit & 31));
    this.#isEmpty = false;
  }
}
