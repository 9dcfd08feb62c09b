/**
 * Randomness for the synthetic dataset without a state: a pure function of the row number decides about a row, so each
 * row can be computed on its own.
 */

/** A well-mixed 32-bit number for each 32-bit number (lowbias32, one to one). Source: Chris Wellons, hash-prospector. */
function mix(h: number): number {
  h ^= h >>> 16;
  h = Math.imul(h, 0x21f0aaad);
  h ^= h >>> 15;
  h = Math.imul(h, 0x735a2d97);
  return h ^ (h >>> 15);
}

/** The random number of row `n`; `next` gives further ones. */
export const chanceOf = (salt: number, n: number): number => mix(salt ^ Math.imul(n, 0x9e3779b1));
export const next = (h: number): number => mix((h + 0x9e3779b9) | 0);

/** An integer in [0, below), for below up to 2^32. */
export const scaled = (h: number, below: number): number =>
  Math.floor((h >>> 0) * 2.3283064365386963e-10 * below);
/** To compare with the low 16 bits of a random number: they are lower in this share of cases. */
export const share = (part: number): number => Math.round(part * 65536);

/** A seeded one-to-one mapping of 0 … count − 1: a Feistel network, walked until it falls inside. */
export function permutation(count: number, seed: number): (n: number) => number {
  const half = Math.max(1, Math.ceil(Math.log2(Math.max(2, count)) / 2));
  const mask = (1 << half) - 1;
  const salt = mix(seed ^ 0x5bd1e995);
  return (n) => {
    let at = n;
    do {
      let left = Math.floor(at / (mask + 1));
      let right = at & mask;
      for (let round = 1; round <= 4; round++) {
        const mixed = left ^ (mix(right ^ Math.imul(salt, round)) & mask);
        left = right;
        right = mixed;
      }
      at = left * (mask + 1) + right;
    } while (at >= count);
    return at;
  };
}

/** A lookup from `size` equally likely numbers to the index of a weight; every weight gets one at least. */
export function drawTable(weights: readonly number[], size = 65536): Uint16Array {
  const sum = weights.reduce((a, b) => a + b, 0);
  const raised = weights.map((weight) => Math.max(weight / sum, 1.5 / size));
  const raisedSum = raised.reduce((a, b) => a + b, 0);
  const table = new Uint16Array(size);
  let index = 0;
  let upTo = raised[0] as number;
  for (let n = 0; n < size; n++) {
    while (index < weights.length - 1 && ((n + 0.5) / size) * raisedSum >= upTo)
      upTo += raised[++index] as number;
    table[n] = index;
  }
  return table;
}

/** Weights that fall with the rank: (rank + offset)^−power. */
export const fallingWeights = (count: number, offset: number, power: number): number[] =>
  Array.from({ length: count }, (_, rank) => (rank + offset) ** -power);

/** Linear between the given [share, value] points, which run from share 0 to 1. */
export function quantile(points: readonly (readonly [number, number])[], at: number): number {
  let n = 1;
  while (n < points.length - 1 && (points[n]?.[0] ?? 1) < at) n++;
  const [x0, y0] = points[n - 1] as [number, number];
  const [x1, y1] = points[n] as [number, number];
  return y0 + ((y1 - y0) * (at - x0)) / (x1 - x0);
}

/**
 * Rows per title repeat in a shuffled cycle, so that the title of a row is found without a sum over all earlier
 * titles. The lengths of the cycles are coprime, so their combinations do not repeat.
 */
interface Cycle {
  readonly length: number;
  /** Rows of one whole cycle. */
  readonly total: number;
  /** Rows before each title of the cycle. */
  readonly start: Int32Array;
  /** Title of each row of the cycle. */
  readonly owner: Int32Array;
}

/** @param rowsAt rows of the title at a share of the titles, which are sorted by it */
export function cycle(length: number, seed: number, rowsAt: (share: number) => number): Cycle {
  const shuffled = permutation(length, seed ^ length);
  const rows = Array.from({ length }, (_, n) => Math.floor(rowsAt((shuffled(n) + 0.5) / length)));
  const start = new Int32Array(length + 1);
  for (const [n, count] of rows.entries()) start[n + 1] = (start[n] as number) + count;
  const owner = Int32Array.from(rows.flatMap((count, n) => new Array<number>(count).fill(n)));
  return { length, total: owner.length, start, owner };
}

export const rowCountOf = ({ length, total, start }: Cycle, titles: number): number =>
  Math.floor(titles / length) * total + (start[titles % length] as number);

export const has = ({ length, start }: Cycle, title: number): boolean => {
  const at = title % length;
  return start[at + 1] !== start[at];
};

/** The title of a row. */
export const titleOf = (cycle: Cycle, row: number): number => {
  const round = Math.floor(row / cycle.total);
  return round * cycle.length + (cycle.owner[row - round * cycle.total] as number);
};

/** The place of a row among those of its title, from 1. */
export const orderingOf = (cycle: Cycle, row: number): number => {
  const inCycle = row - Math.floor(row / cycle.total) * cycle.total;
  return inCycle - (cycle.start[cycle.owner[inCycle] as number] as number) + 1;
};

/**
 * `count` ids as numbers, in the order of their texts. The order is that of the real dumps: 7-digit ids with a leading
 * zero first, then each 7-digit id followed by the ten 8-digit ids that begin with it.
 * @param spread ids per used id, which leaves gaps
 */
export function idLayout(count: number, spread: number, salt: number): (n: number) => number {
  const low = Math.min(999_999, Math.floor(count * spread * 0.15));
  const jitter = Math.floor(spread);
  return (n) => {
    const slot = Math.floor(n * spread) + (jitter > 1 ? (chanceOf(salt, n) >>> 8) % jitter : 0);
    if (slot < low) return slot + 1;
    const group = Math.floor((slot - low) / 11);
    const within = slot - low - group * 11;
    return within === 0 ? 1_000_000 + group : (1_000_000 + group) * 10 + within - 1;
  };
}

/**
 * How credits fall on people: the rank of fame at a uniform chance x is ((x + c)^8 − c^8) × scale, a power law with
 * a tail of people with one to three credits. The offset c keeps the most famous person's credits plausible (some
 * 30,000 in a full dump), and `cast`, the number of ranks, is such that `draws` credits meet `wanted` people.
 */
export function fameOf(
  titles: number,
  wanted: number,
  draws: number,
): { cast: number; rank: (x: number) => number } {
  const offset = 0.35 * (12_300_000 / titles) ** 0.125;
  const low = offset ** 8;
  const span = (1 + offset) ** 8 - low;
  let cast = wanted;
  for (let round = 0; round < 8; round++) {
    let met = 0;
    for (let n = 0.5; n < 1000; n++) {
      const credits = ((draws / cast) * span) / (8 * ((n / 1000) * span + low) ** 0.875);
      met += (1 - Math.exp(-credits)) / 1000;
    }
    cast = wanted / met;
  }
  const scale = cast / span;
  const rank = (x: number): number => {
    const square = (x + offset) * (x + offset);
    const fourth = square * square;
    return Math.floor((fourth * fourth - low) * scale);
  };
  return { cast: Math.max(1, Math.round(cast)), rank };
}

/** A step near the golden section of `count` that visits all of 0 … count − 1 before it repeats. */
export function coprimeStride(count: number): number {
  const divisor = (a: number, b: number): number => (b === 0 ? a : divisor(b, a % b));
  let stride = Math.max(1, Math.floor(count * 0.618));
  while (divisor(stride, count) !== 1) stride++;
  return stride;
}
