/**
 * The size of the dump index for the ids of full dumps, without their rows: `node --expose-gc bench/index-size.ts`. Entries, messages
 * and directories are the product's own; ids are spread evenly over their range, and hashes are random.
 */
import { zstdCompressSync } from 'node:zlib';
import { GroupEntries } from '../producers/refresh/group-entries.ts';
import type { DatasetName } from '../topics/catalog.ts';
import { blockHash, encodeBlock, encodeDirectory } from '../topics/dump-index.ts';
import { groupSize } from '../topics/id-groups.ts';

/** Ids with rows, rows, and the highest id: round figures of the full dumps. The size follows from the highest ids. */
const dumps: readonly [DatasetName, number, number, number][] = [
  ['title.basics', 11_700_000, 11_700_000, 37_000_000],
  ['title.ratings', 1_570_000, 1_570_000, 37_000_000],
  ['title.principals', 10_400_000, 93_000_000, 37_000_000],
  ['title.akas', 8_300_000, 52_000_000, 37_000_000],
  ['title.crew', 11_700_000, 11_700_000, 37_000_000],
  ['title.episode', 9_000_000, 9_000_000, 37_000_000],
  ['name.basics', 14_400_000, 14_400_000, 17_500_000],
];
const requestBytes = 900_000;
const megabytes = (bytes: number) => (bytes / 1e6).toFixed(1);

function entriesOf(ids: number, rows: number, highest: number): GroupEntries {
  const entries = new GroupEntries();
  const random = () => (Math.random() * 2 ** 32) | 0;
  for (let group = 0; group * groupSize < highest; group++) {
    let [maskLow, maskHigh, own] = [0, 0, 0];
    for (let bit = 0; bit < groupSize; bit++) {
      if (Math.random() >= ids / highest) continue;
      own++;
      if (bit < 32) maskLow |= 1 << bit;
      else maskHigh |= 1 << (bit - 32);
    }
    const entry = { low: random(), high: random(), maskLow, maskHigh };
    if (own > 0) entries.put(group, { ...entry, rows: Math.round((own * rows) / ids) });
  }
  return entries;
}

const held: GroupEntries[] = [];
const total = { blocks: 0, groups: 0, bytes: 0, packed: 0 };
globalThis.gc?.();
const before = process.memoryUsage();
for (const [dataset, ids, rows, highest] of dumps) {
  const entries = entriesOf(ids, rows, highest);
  held.push(entries);
  const blocks = new Map<number, string>();
  const values: Buffer[] = [];
  for (const number of entries.blocks) {
    const value = encodeBlock(entries.block(number) as NonNullable<ReturnType<typeof entries.block>>);
    blocks.set(number, blockHash(value));
    values.push(value);
  }
  const strays = { rows: 0, low: 0, high: 0 };
  const head = { runId: dataset, asOfMs: 0, fingerprint: '', strays, marks: [] };
  values.push(encodeDirectory({ ...head, blocks }));
  const all = Buffer.concat(values);
  let packed = 0;
  for (let at = 0; at < all.length; at += requestBytes)
    packed += zstdCompressSync(all.subarray(at, at + requestBytes)).length;
  const groups = [...entries].length;
  console.log(
    `${dataset}: ${blocks.size} blocks, ${groups} groups, ${(all.length / groups).toFixed(1)} bytes a group, ${megabytes(all.length)} MB, ${megabytes(packed)} MB packed`,
  );
  total.blocks += blocks.size;
  total.groups += groups;
  total.bytes += all.length;
  total.packed += packed;
}
globalThis.gc?.();
const after = process.memoryUsage();
const memory = after.heapUsed + after.arrayBuffers - before.heapUsed - before.arrayBuffers;
console.log(
  `all: ${total.blocks} blocks, ${total.groups} groups, ${megabytes(total.bytes)} MB, ${megabytes(total.packed)} MB packed; ${megabytes(memory)} MB of memory for ${held.length} datasets`,
);
