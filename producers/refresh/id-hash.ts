/**
 * The 64-bit hash by which a dump is compared with the one before, as two halves of 32 bits.
 *
 * A step mixes eight bytes of a row, as two words, into the running halves (a, b) of its id: `a = mixA(a, b, first)`, then
 * `b = mixB(b, a, second)`. A step is a bijection of the state, so rows that differ in one step never collide. A group's hash
 * is the sum over its ids. Each summand passes an avalanche finalizer first: without one, the sums of such multiplicative
 * hashes cancel each other out.
 */
export const seedA = 0x6a09e667 | 0;
export const seedB = 0xbb67ae85 | 0;
const factorA = 0x9e3779b1 | 0;
const factorB = 0x85ebca77 | 0;

/** The first word of a step into the first half. */
export function mixA(a: number, b: number, word: number): number {
  const m = Math.imul((a + b) ^ word, factorA);
  return m ^ (m >>> 15);
}

/** The second word of a step into the second half. @param a the first half after `mixA` */
export function mixB(b: number, a: number, word: number): number {
  const m = Math.imul(((b << 13) | (b >>> 19)) ^ a ^ word, factorB);
  return m ^ (m >>> 17);
}

/** Murmur3's finalizer: every bit of the input changes half of the bits of the output. */
function avalanche(h: number): number {
  let x = h ^ (h >>> 16);
  x = Math.imul(x, 0x85ebca6b);
  x ^= x >>> 13;
  x = Math.imul(x, 0xc2b2ae35);
  return x ^ (x >>> 16);
}

/** The low half of an id's summand. */
export function finalLow(a: number, b: number): number {
  return avalanche(a ^ Math.imul(b, factorA));
}

/** The high half; together with the low one a bijection of (a, b). */
export function finalHigh(b: number, low: number): number {
  return avalanche(b + ((low << 16) | (low >>> 16)));
}
