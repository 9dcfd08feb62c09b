/** IMDb ids as bytes. */
const tab = 0x09;
const newline = 0x0a;
const zero = 0x30;
const titlePrefix = 0x74;

/** What `parseId` returns for bytes that are no id of the prefix. */
export const notId = -4;

/**
 * The number in the field at `at`: prefix, then 7 digits, or 8 to 9 without a leading zero.
 * @param prefix first letter of `tt` or `nm`: it tells the prefixes apart, the second follows from it
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
