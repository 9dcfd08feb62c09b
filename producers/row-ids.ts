/** IMDb ids as bytes: how a row's id is checked, measured and copied without a string. */
const tab = 0x09;
const newline = 0x0a;
const zero = 0x30;

/** What `parseId` returns for bytes that are no id of the prefix. */
export const notId = -4;

/** First letters of the two prefixes, `tt` and `nm`. */
export const titlePrefix = 0x74;
export const personPrefix = 0x6e;

/**
 * The number in the field at `at`: prefix, then 7 digits, or 8 to 9 without a leading zero.
 * @param prefix `titlePrefix` or `personPrefix`: the first letter tells the prefixes apart, the second follows from it
 * @returns the number; `notId` otherwise
 */
export function parseId(bytes: Buffer, at: number, prefix: number): number {
  if (bytes[at] !== prefix || bytes[at + 1] !== (prefix === titlePrefix ? 0x74 : 0x6d)) return notId;
  let id = 0;
  let p = at + 2;
  for (;;) {
    const digit = (bytes[p] as number) - zero;
    if (digit < 0 || digit > 9) break;
    id = id * 10 + digit;
    p++;
  }
  const digits = p - at - 2;
  const isWellFormed = digits === 7 || ((digits === 8 || digits === 9) && bytes[at + 2] !== zero);
  const endsHere = bytes[p] === tab || bytes[p] === newline;
  return isWellFormed && endsHere ? id : notId;
}

/** Bytes of the text of an id, prefix included. */
export function idLength(id: number): number {
  return id < 10_000_000 ? 9 : id < 100_000_000 ? 10 : 11;
}

/** Copies the longest possible id, in three words; the next field overwrites what follows a shorter one. */
export function copyId(from: DataView, p: number, to: DataView, q: number): void {
  to.setInt32(q, from.getInt32(p, true), true);
  to.setInt32(q + 4, from.getInt32(p + 4, true), true);
  to.setInt32(q + 8, from.getInt32(p + 8, true), true);
}
