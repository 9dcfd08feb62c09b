/** Writes Avro's binary encoding. */

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
    const bytes = Buffer.from(value);
    this.long(bytes.length);
    this.raw(bytes);
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

  #room(more: number): void {
    if (this.length + more <= this.bytes.length) return;
    const next = Buffer.allocUnsafe(Math.max(this.bytes.length * 2, this.length + more));
    this.bytes.copy(next, 0, 0, this.length);
    this.bytes = next;
  }
}
