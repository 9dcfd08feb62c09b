/**
 * Hashes the rows of a file by groups of ids. AssemblyScript, compiled by `npm run wasm`; its wrapper is
 * `producers/refresh/group-reader.ts`.
 *
 * A step mixes eight bytes of a row into the running hash of its id: it is a bijection of the hash, so rows that differ in one step
 * never collide. A group's hash is the sum over its ids. Each summand passes an avalanche finalizer first: without one, the sums
 * of such multiplicative hashes cancel each other out.
 *
 * It reads up to 8 bytes past a row.
 */

const slackBytes: i32 = 64;

/** What `readRun` has done: words, in this order. */
export const resultsAt: i32 = 1024;
/** Lanes, one for each length of ids, with an open group each. */
export const lanesAt: i32 = 1088;
export const laneBytes: i32 = 256;
const lanes: i32 = 3;
const idsOfGroup: i32 = 50;
// Fields of a lane.
const groupAt: i32 = 0;
const idAt: i32 = 4;
const hashAt: i32 = 8;
/** Of the ids that have ended; of a closed group, its hash. */
export const sumAt: i32 = 16;
/** Rows by place of the id in the group. */
export const countsAt: i32 = 24;

/** Bytes of the file: the beginning of a line from the piece before, then a piece. */
export const inputAt: i32 = lanesAt + lanes * laneBytes;
export const lineBytesMax: i32 = 1_000_001;
export const pieceBytesMax: i32 = 256 * 1024;
memory.grow((inputAt + lineBytesMax + pieceBytesMax + slackBytes) / 65_536 + 1);

/** What `readRun` found. Numbers from 0 on: a run of rows of the group in this lane. */
const stray: i32 = -1;
const unsorted: i32 = -2;
/** `otherGroup - lane`: the group of the lane has to be closed first. */
const otherGroup: i32 = -3;

const tab: u32 = 0x09;
const newline: u32 = 0x0a;
const carriageReturn: u32 = 0x0d;
const quote: u32 = 0x22;
const zero: u32 = 0x30;
const newlines: u64 = 0x0a0a0a0a0a0a0a0a;
const lowest: u64 = 0x0101010101010101;
const highest: u64 = 0x8080808080808080;

const seed: u64 = 0x6a09e667bb67ae85;
const factor: u64 = 0x9e3779b97f4a7c15;

let letters: u32 = 0;
let idColumn: i32 = 0;

/** Position after the line that was hashed. */
let next: i32 = 0;

/** @param prefix the two letters of the ids, little-endian */
export function configure(prefix: u32, column: i32): void {
  letters = prefix;
  idColumn = column;
  for (let at = lanesAt; at < lanesAt + lanes * laneBytes; at += laneBytes) {
    memory.fill(at, 0, laneBytes);
    store<i32>(at + groupAt, -1);
    store<i32>(at + idAt, -1);
  }
}

/**
 * Reads adjacent rows of one group, or one row without an id, from `from` on and before `to`, which lies behind a newline.
 * The results: position after them; their number; the last id; the hash of a row without an id, two words.
 * @param lost bytes of the first line that were too many to keep
 * @returns a lane, or what was found instead of rows with ids
 */
export function readRun(from: i32, to: i32, lost: i32): i32 {
  let id = idOfLine(from);
  if (id < 0) {
    store<u64>(resultsAt + 12, avalanche(hashLine(seed, from, lost)));
    store<i32>(resultsAt, next);
    return stray;
  }
  const lane = id < 10_000_000 ? 0 : id < 100_000_000 ? 1 : 2;
  const at = lanesAt + lane * laneBytes;
  let open = load<i32>(at + idAt);
  if (id < open) return unsorted;
  const group = id / idsOfGroup;
  const openGroup = load<i32>(at + groupAt);
  if (group !== openGroup) {
    if (openGroup >= 0) return otherGroup - lane;
    store<i32>(at + groupAt, group);
    store<u64>(at + sumAt, 0);
    memory.fill(at + countsAt, 0, 4 * idsOfGroup);
  }
  const firstId = group * idsOfGroup;
  let hash = load<u64>(at + hashAt);
  let sum = load<u64>(at + sumAt);
  let rows = 0;
  let extra = lost;
  next = from;
  do {
    if (id !== open) {
      if (open >= firstId) sum += avalanche(hash);
      open = id;
      hash = seed;
    }
    hash = hashLine(hash, next, extra);
    extra = 0;
    rows++;
    const place = at + countsAt + 4 * (id - firstId);
    store<i32>(place, load<i32>(place) + 1);
    if (next >= to) break;
    id = idOfLine(next);
  } while (id >= open && id < firstId + idsOfGroup);
  store<i32>(at + idAt, open);
  store<u64>(at + hashAt, hash);
  store<u64>(at + sumAt, sum);
  store<i32>(resultsAt, next);
  store<i32>(resultsAt + 4, rows);
  store<i32>(resultsAt + 8, open);
  return lane;
}

/** Ends the last id of a lane's group. The lane keeps this id, to notice a lower one. */
export function closeGroup(lane: i32): void {
  const at = lanesAt + lane * laneBytes;
  store<u64>(at + sumAt, load<u64>(at + sumAt) + avalanche(load<u64>(at + hashAt)));
  store<i32>(at + groupAt, -1);
}

/** Mixes the line at `from`, with its newline, into a hash, and passes over it. */
function hashLine(before: u64, from: i32, lost: i32): u64 {
  let hash = before;
  let p = from;
  for (;;) {
    const word = load<u64>(p);
    const x = word ^ newlines;
    // The highest bit of each byte that may be a newline; the lowest of them is one.
    const marks = (x - lowest) & ~x & highest;
    if (marks === 0) {
      hash = step(hash, word);
      p += 8;
      continue;
    }
    // The newline is part of the hash, the bytes behind it are not.
    const bits = ctz(marks) + 1;
    hash = step(hash, word & (u64.MAX_VALUE >> (64 - bits)));
    next = p + ((bits >> 3) as i32);
    return lost > 0 ? step(hash, lost) : hash;
  }
}

function step(hash: u64, word: u64): u64 {
  const product = (hash ^ word) * factor;
  return product ^ (product >> 32);
}

/** Murmur3's finalizer: every bit of the input changes half of the bits of the output. */
function avalanche(hash: u64): u64 {
  let x = hash ^ (hash >> 33);
  x *= 0xff51afd7ed558ccd;
  x ^= x >> 33;
  x *= 0xc4ceb9fe1a85ec53;
  return x ^ (x >> 33);
}

/** The number of the id of a line, which may have quotes around it; -1 when it has no id of the dataset. */
function idOfLine(from: i32): i32 {
  let p = from;
  for (let passed = 0; passed < idColumn; p++) {
    const byte = load<u8>(p) as u32;
    if (byte === newline) return -1;
    if (byte === tab) passed++;
  }
  const isQuoted = load<u8>(p) === quote;
  if (isQuoted) p++;
  if (load<u16>(p) !== letters) return -1;
  const digitsAt = p + 2;
  let id = 0;
  p = digitsAt;
  for (let digit = digitAt(p); digit <= 9; digit = digitAt(p)) {
    id = id * 10 + digit;
    p++;
  }
  const digits = p - digitsAt;
  if (digits !== 7 && ((digits !== 8 && digits !== 9) || load<u8>(digitsAt) === zero)) return -1;
  if (isQuoted && load<u8>(p) === quote) p++;
  const behind = load<u8>(p) as u32;
  return behind === tab || behind === newline || behind === carriageReturn ? id : -1;
}

/** Above 9 if there is no digit. */
function digitAt(at: i32): u32 {
  return (load<u8>(at) as u32) - zero;
}
