/**
 * The bytes of a chunk before its records: wire header, run, number, date and record count. They are written last, to
 * end exactly where the records begin, because only a finished chunk knows its record count.
 */
import { varint } from './varint.ts';

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
    this.#before = Buffer.concat([wire, varint(run.length), run]);
    this.#asOf = varint(asOf.getTime());
    this.end = marginBytes + this.#before.length + longBytesMax + this.#asOf.length + longBytesMax;
  }

  /** @returns where the header begins */
  write(bytes: Buffer, chunk: number, records: number): number {
    const header = Buffer.concat([this.#before, varint(chunk), this.#asOf, varint(records)]);
    const start = this.end - header.length;
    header.copy(bytes, start);
    return start;
  }
}
