/**
 * The bytes of a chunk before its records: wire header, run, number, date and record count. They are written last, to
 * end exactly where the records begin, because only a finished chunk knows its record count.
 */

/** Free bytes in a chunk's memory before its value and after it; a record batch is framed there. */
export const marginBytes = 64;

const longBytesMax = 10;

export class HeaderWriter {
  /** Where every header ends and the records begin. */
  readonly end: number;
  readonly #before: Buffer;
  readonly #asOf: Buffer;

  constructor(schemaId: number, runId: string, asOf: Date) {
    const wire = Buffer.alloc(5);
    wire.writeInt32BE(schemaId, 1);
    const run = Buffer.from(runId);
    this.#before = Buffer.concat([wire, longBytes(run.length), run]);
    this.#asOf = longBytes(asOf.getTime());
    this.end = marginBytes + this.#before.length + longBytesMax + this.#asOf.length + longBytesMax;
  }

  /** @returns where the header begins */
  write(bytes: Buffer, chunk: number, records: number): number {
    const header = Buffer.concat([this.#before, longBytes(chunk), this.#asOf, longBytes(records)]);
    const start = this.end - header.length;
    header.copy(bytes, start);
    return start;
  }
}

/** An Avro long: zigzag, then seven bits a byte, low ones first. */
function longBytes(value: number): Buffer {
  const bytes: number[] = [];
  let rest = BigInt.asUintN(64, (BigInt(value) << 1n) ^ (BigInt(value) >> 63n));
  while (rest > 0x7fn) {
    bytes.push(Number(rest & 0x7fn) | 0x80);
    rest >>= 7n;
  }
  return Buffer.from([...bytes, Number(rest)]);
}
