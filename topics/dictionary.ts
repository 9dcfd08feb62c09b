/**
 * Numbers for strings with few distinct values, such as genres and regions. The same bytes always get the same number.
 * Numbers are dense from 0, in the order in which the strings first occur. A look-up allocates nothing.
 */
import { isUtf8 } from 'node:buffer';

export class Dictionary {
  #slots = new Int32Array(1024).fill(-1);
  #values: Uint8Array[] = [];
  #hashes: number[] = [];

  get size(): number {
    return this.#values.length;
  }

  /**
   * The number of the bytes `from[start, end)`, which are added if they are new.
   * @returns -1 for bytes that are not UTF-8: decoded as text, two such words could become equal
   */
  numberOf(from: Uint8Array, start: number, end: number): number {
    let hash = 0x811c9dc5;
    for (let i = start; i < end; i++) hash = Math.imul(hash ^ (from[i] as number), 0x01000193);
    hash = (hash ^ (hash >>> 15)) | 0;
    const mask = this.#slots.length - 1;
    let slot = hash & mask;
    for (;;) {
      const number = this.#slots[slot] as number;
      if (number < 0) return this.#add(hash, slot, from.slice(start, end));
      if (this.#hashes[number] === hash && sameBytes(this.#values[number] as Uint8Array, from, start, end)) {
        return number;
      }
      slot = (slot + 1) & mask;
    }
  }

  /** The number of a text, which is added if it is new. */
  numberOfText(text: string): number {
    const bytes = Buffer.from(text);
    return this.numberOf(bytes, 0, bytes.length);
  }

  /** The UTF-8 bytes of a number of this dictionary. */
  bytesOf(number: number): Uint8Array {
    const bytes = this.#values[number];
    if (bytes === undefined) throw new RangeError(`no dictionary entry ${number}`);
    return bytes;
  }

  textOf(number: number): string {
    return Buffer.from(this.bytesOf(number)).toString();
  }

  #add(hash: number, slot: number, bytes: Uint8Array): number {
    if (!isUtf8(bytes)) return -1;
    const number = this.#values.length;
    this.#values.push(Uint8Array.from(bytes));
    this.#hashes.push(hash);
    this.#slots[slot] = number;
    if (this.#values.length * 2 > this.#slots.length) this.#grow();
    return number;
  }

  #grow(): void {
    const slots = new Int32Array(this.#slots.length * 2).fill(-1);
    const mask = slots.length - 1;
    this.#hashes.forEach((hash, number) => {
      let slot = hash & mask;
      while ((slots[slot] as number) >= 0) slot = (slot + 1) & mask;
      slots[slot] = number;
    });
    this.#slots = slots;
  }
}

function sameBytes(value: Uint8Array, from: Uint8Array, start: number, end: number): boolean {
  if (value.length !== end - start) return false;
  for (let i = 0; i < value.length; i++) if (value[i] !== from[start + i]) return false;
  return true;
}
