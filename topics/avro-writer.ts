/** Writes Avro's binary encoding, rows straight from columns of numbers. */
import type { Dictionary } from './dictionary.ts';
import { nullInt, op, type RowPlan } from './row-plan.ts';

/** A growable buffer that Avro values are written to. */
export class AvroWriter {
  bytes = Buffer.allocUnsafe(64 * 1024);
  length = 0;

  /** A copy of the bytes written so far. */
  take(): Buffer {
    return Buffer.from(this.bytes.subarray(0, this.length));
  }

  long(value: number): void {
    this.#room(10);
    let rest = value >= 0 ? value * 2 : -value * 2 - 1;
    while (rest >= 0x80) {
      this.bytes[this.length++] = (rest % 128) | 0x80;
      rest = Math.floor(rest / 128);
    }
    this.bytes[this.length++] = rest;
  }

  string(value: string): void {
    this.#bytesWithLength(Buffer.from(value));
  }

  raw(value: Uint8Array): void {
    this.#room(value.length);
    this.bytes.set(value, this.length);
    this.length += value.length;
  }

  byte(value: number): void {
    this.#room(1);
    this.bytes[this.length++] = value;
  }

  #bytesWithLength(value: Uint8Array): void {
    this.long(value.length);
    this.raw(value);
  }

  /**
   * Writes one record from row `row` of `columns`, which are in the order of the plan. The plan must keep every field, in the
   * forms int, long and dictionary.
   */
  row(plan: RowPlan, columns: readonly ArrayLike<number>[], row: number): void {
    for (const step of plan.steps) {
      const value = (columns[step.column] as ArrayLike<number>)[row] as number;
      if (step.nullable) {
        const isNull = value === nullInt;
        this.byte(isNull ? 0 : 2);
        if (isNull) continue;
      }
      if (step.op === op.dictionary) this.#bytesWithLength((step.dictionary as Dictionary).bytesOf(value));
      else this.long(value);
    }
  }

  #room(more: number): void {
    if (this.length + more <= this.bytes.length) return;
    const next = Buffer.allocUnsafe(Math.max(this.bytes.length * 2, this.length + more));
    this.bytes.copy(next, 0, 0, this.length);
    this.bytes = next;
  }
}
