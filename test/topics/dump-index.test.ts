/** The messages of the dump index: what is written is what is read, and damage is noticed or changes nothing. */
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { EntryBlock } from '../../producers/refresh/group-entries.ts';
import {
  blockHash,
  DamagedIndex,
  type Directory,
  decodeBlock,
  decodeDirectory,
  encodeBlock,
  encodeDirectory,
  indexVersion,
  NewerIndex,
} from '../../topics/dump-index.ts';
import { groupsOfBlock } from '../../topics/id-groups.ts';

const word = fc.integer();
const entry = fc.record({
  at: fc.nat(groupsOfBlock - 1),
  state: fc.constantFrom(1, 2),
  low: word,
  high: word,
  maskLow: word,
  maskHigh: fc.nat(0x3ffff),
  rows: fc.oneof(fc.nat(300), fc.nat()),
});
const block = fc.array(entry, { maxLength: groupsOfBlock }).map((list) => {
  const made = new EntryBlock();
  for (const { at, state, low, high, maskLow, maskHigh, rows } of list) {
    made.state[at] = state;
    made.low[at] = state === 1 ? low : 0;
    made.high[at] = state === 1 ? high : 0;
    made.maskLow[at] = maskLow;
    made.maskHigh[at] = maskHigh;
    made.rows[at] = rows;
  }
  return made;
});
const hash = fc.uint8Array({ minLength: 6, maxLength: 6 }).map((bytes) => Buffer.from(bytes).toString('hex'));
const directory: fc.Arbitrary<Directory> = fc.record({
  runId: fc.string(),
  asOfMs: fc.nat(),
  fingerprint: fc.string(),
  strays: fc.record({ rows: fc.nat(), low: word, high: word }),
  marks: fc.array(fc.record({ start: fc.nat(), offset: fc.nat(), hash: fc.string() })),
  blocks: fc.array(fc.tuple(fc.nat(99_999), hash)).map((list) => new Map(list.sort(([a], [b]) => a - b))),
});

function decodedBlock(bytes: Buffer): EntryBlock {
  const into = new EntryBlock();
  decodeBlock(bytes, into);
  return into;
}

test('a block is read as it was written', () => {
  fc.assert(
    fc.property(block, (one) => {
      expect(decodedBlock(encodeBlock(one))).toEqual(one);
    }),
  );
});

test('a directory is read as it was written', () => {
  fc.assert(
    fc.property(directory, (one) => {
      expect(decodeDirectory(encodeDirectory(one))).toEqual(one);
    }),
  );
});

test('every changed bit and every truncation of a directory is noticed', () => {
  fc.assert(
    fc.property(directory, fc.nat(), fc.nat(7), fc.boolean(), (one, place, bit, isCut) => {
      const bytes = encodeDirectory(one);
      const at = 1 + (place % (bytes.length - 1));
      if (!isCut) bytes[at] = (bytes[at] as number) ^ (1 << bit);
      expect(() => decodeDirectory(isCut ? bytes.subarray(0, at) : bytes)).toThrow(DamagedIndex);
    }),
  );
});

test('every changed bit of a block changes its hash', () => {
  fc.assert(
    fc.property(block, fc.nat(), fc.nat(7), (one, place, bit) => {
      const bytes = encodeBlock(one);
      const before = blockHash(bytes);
      const at = place % bytes.length;
      bytes[at] = (bytes[at] as number) ^ (1 << bit);
      expect(blockHash(bytes)).not.toBe(before);
    }),
  );
});

test('every truncation of a block is damage', () => {
  fc.assert(
    fc.property(block, fc.nat(), (one, place) => {
      const bytes = encodeBlock(one);
      expect(() => decodedBlock(bytes.subarray(0, place % bytes.length))).toThrow(DamagedIndex);
    }),
  );
});

test('a message of a newer version is said to be one', () => {
  const bytes = Buffer.of(indexVersion + 1, 0, 0, 0, 0, 0, 0, 0, 0, 0);
  expect(() => decodedBlock(bytes)).toThrow(NewerIndex);
  expect(() => decodeDirectory(bytes)).toThrow(NewerIndex);
});

test('a directory of all blocks that ids of nine digits can have fits a message', () => {
  const blocks = new Map(Array.from({ length: 90_000 }, (_, number) => [number, 'a1b2c3d4e5f6']));
  const marks = Array.from({ length: 64 }, () => ({ start: 0, offset: 1e9, hash: 'f'.repeat(32) }));
  const bytes = encodeDirectory({
    runId: 'run',
    asOfMs: 0,
    fingerprint: '',
    strays: { rows: 0, low: 0, high: 0 },
    marks,
    blocks,
  });
  expect(bytes.length).toBeLessThan(1_000_000);
});
