/** The parts of Avro's binary encoding that chunks and deltas use, read from bytes that may be damaged. */

/** Bytes that do not follow the schema, or a value that no row may have. */
export class MalformedRows extends Error {
  readonly reason: 'undecodable' | 'invalid_value';
  constructor(reason: 'undecodable' | 'invalid_value', detail: string) {
    super(detail);
    this.name = 'MalformedRows';
    this.reason = reason;
  }
}

/** Count of the next array block; skips its byte size if present. @returns [count, position after it] */
export function readBlockCount(from: Uint8Array, start: number): [number, number] {
  let [count, at] = readLong(from, start);
  if (count < 0) {
    count = -count;
    [, at] = readLong(from, at);
  }
  // Every record takes at least one byte. A larger count is damage, and must not make us reserve memory.
  if (count > from.length - at)
    throw new MalformedRows('undecodable', `${count} records in ${from.length} bytes`);
  return [count, at];
}

/** A zigzag varint as a number. @returns [value, position after it] @throws MalformedRows past the end or ±2^52 */
export function readLong(from: Uint8Array, start: number): [number, number] {
  let at = start;
  let scale = 1;
  let value = 0;
  for (;;) {
    const byte = from[at++];
    if (byte === undefined) throw new MalformedRows('undecodable', 'cut off');
    value += (byte & 0x7f) * scale;
    if (byte < 0x80) break;
    scale *= 128;
    if (scale > 2 ** 56) throw new MalformedRows('undecodable', 'number too long');
  }
  if (value > Number.MAX_SAFE_INTEGER) throw new MalformedRows('undecodable', 'number too large');
  return [value % 2 === 0 ? value / 2 : -(value + 1) / 2, at];
}

/** A string. @returns [text, position after it] */
export function readString(from: Uint8Array, start: number): [string, number] {
  const [size, at] = readLong(from, start);
  if (size < 0 || at + size > from.length) throw new MalformedRows('undecodable', 'string past the end');
  return [Buffer.from(from.buffer, from.byteOffset + at, size).toString(), at + size];
}
