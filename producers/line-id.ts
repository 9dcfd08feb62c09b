/** The id at the beginning of a line or in another column of it, read from bytes. */

const newline = 0x0a;
const tab = 0x09;
const carriageReturn = 0x0d;
const zero = 0x30;
const quote = 0x22;
const digitsMin = 7;

export class LineId {
  readonly #prefix: number;
  readonly #prefixSecond: number;
  readonly #column: number;

  /** @param column the place of the id in a line, from 0 */
  constructor(prefix: 'tt' | 'nm', column: number) {
    this.#prefix = prefix.charCodeAt(0);
    this.#prefixSecond = prefix.charCodeAt(1);
    this.#column = column;
  }

  /** The number of the id of the line at `start`, which ends with a newline; -1 when it has no id of the dataset. */
  at(bytes: Buffer, start: number): number {
    let p = start;
    for (let passed = 0; passed < this.#column; p++) {
      if (bytes[p] === newline) return -1;
      if (bytes[p] === tab) passed++;
    }
    return this.#read(bytes, p);
  }

  /** The id may have quotes around it. */
  #read(bytes: Buffer, at: number): number {
    const p = bytes[at] === quote ? at + 1 : at;
    if (bytes[p] !== this.#prefix || bytes[p + 1] !== this.#prefixSecond) return -1;
    let q = p + 2;
    let id = 0;
    for (;;) {
      const digit = (bytes[q] as number) - zero;
      if (digit < 0 || digit > 9) break;
      id = id * 10 + digit;
      q++;
    }
    const digits = q - p - 2;
    const wellFormed =
      digits === digitsMin ||
      ((digits === digitsMin + 1 || digits === digitsMin + 2) && bytes[p + 2] !== zero);
    const behind = bytes[p > at && bytes[q] === quote ? q + 1 : q];
    return wellFormed && (behind === tab || behind === newline || behind === carriageReturn) ? id : -1;
  }
}
