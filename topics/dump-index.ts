/**
 * The messages of `imdb.dump-index`, a compacted topic of one partition: per dataset one message for each block of ids
 * that has entries, and a directory.
 *
 * A directory is a statement about a prefix of the dataset's log: before its marks, the topic holds what the entries of
 * the listed blocks say. It names the hash of each of these messages. So a directory and the blocks that match it are
 * true together, whatever another writer put between them, before them or behind them; a block that is missing, damaged
 * or of another writer is noticed, and its groups are unknown. Nothing has to be written in one transaction.
 *
 * All numbers are little-endian. A first byte above `indexVersion` is a format of a newer version.
 */
import { createHash } from 'node:crypto';
import { crc32 } from 'node:zlib';
import type { DatasetName } from './catalog.ts';
import { groupsOfBlock } from './id-groups.ts';

export const indexVersion = 1;

/** The message is of a format that this version does not know. */
export class NewerIndex extends Error {
  constructor(version: number) {
    super(`format ${version}, this version knows ${indexVersion}`);
    this.name = 'NewerIndex';
  }
}

/** The bytes are not a message of the index. */
export class DamagedIndex extends Error {
  constructor(detail: string) {
    super(detail);
    this.name = 'DamagedIndex';
  }
}

/** Key of the message that holds the directory of a dataset. */
export const directoryKey = (dataset: DatasetName): string => dataset;
/** Key of the message that holds a block of entries. */
export const blockMessageKey = (dataset: DatasetName, block: number): string => `${dataset}/${block}`;

/** Entries of the groups of a block, in columns; see `GroupEntries`. */
interface BlockEntries {
  /** 0 absent, 1 known, 2 unknown. */
  readonly state: Uint8Array;
  readonly low: Int32Array;
  readonly high: Int32Array;
  readonly maskLow: Int32Array;
  readonly maskHigh: Int32Array;
  readonly rows: Int32Array;
}

const statesBytes = groupsOfBlock / 4;
const maskBytes = 7;
const hashBytes = 8;
const rowsBytesMax = 5;

/** States (two bits each), then of the groups present masks, row counts and, of the known ones, hashes. */
export function encodeBlock(entries: BlockEntries): Buffer {
  const { state, low, high, maskLow, maskHigh, rows } = entries;
  const bytes = Buffer.alloc(1 + statesBytes + groupsOfBlock * (maskBytes + rowsBytesMax + hashBytes));
  bytes[0] = indexVersion;
  let at = 1 + statesBytes;
  for (let i = 0; i < groupsOfBlock; i++) {
    const place = 1 + (i >> 2);
    bytes[place] = (bytes[place] as number) | ((state[i] as number) << (2 * (i & 3)));
    if (state[i] === 0) continue;
    at = bytes.writeInt32LE(maskLow[i] as number, at);
    at = bytes.writeUIntLE((maskHigh[i] as number) & 0x3ffff, at, 3);
  }
  for (let i = 0; i < groupsOfBlock; i++) {
    if (state[i] === 0) continue;
    let rest = rows[i] as number;
    for (; rest > 0x7f; rest >>>= 7) bytes[at++] = (rest & 0x7f) | 0x80;
    bytes[at++] = rest;
  }
  for (let i = 0; i < groupsOfBlock; i++) {
    if (state[i] !== 1) continue;
    at = bytes.writeInt32LE(low[i] as number, at);
    at = bytes.writeInt32LE(high[i] as number, at);
  }
  return bytes.subarray(0, at);
}

/** Fills entries that are empty. The caller has compared the hash of the message. @throws NewerIndex, DamagedIndex */
export function decodeBlock(bytes: Buffer, entries: BlockEntries): void {
  checkVersion(bytes);
  try {
    const { state, low, high, maskLow, maskHigh, rows } = entries;
    let at = 1 + statesBytes;
    for (let i = 0; i < groupsOfBlock; i++) {
      state[i] = (bytes.readUInt8(1 + (i >> 2)) >> (2 * (i & 3))) & 3;
      if (state[i] === 3) throw new RangeError(`state 3 of group ${i}`);
      if (state[i] === 0) continue;
      maskLow[i] = bytes.readInt32LE(at);
      maskHigh[i] = bytes.readUIntLE(at + 4, 3);
      at += maskBytes;
    }
    for (let i = 0; i < groupsOfBlock; i++) {
      if (state[i] === 0) continue;
      let value = 0;
      for (let shift = 0; ; shift += 7) {
        const byte = bytes.readUInt8(at++);
        value |= (byte & 0x7f) << shift;
        if (byte < 0x80) break;
        if (shift > 28) throw new RangeError('a number without end');
      }
      rows[i] = value;
    }
    for (let i = 0; i < groupsOfBlock; i++) {
      if (state[i] !== 1) continue;
      low[i] = bytes.readInt32LE(at);
      high[i] = bytes.readInt32LE(at + 4);
      at += hashBytes;
    }
    if (at !== bytes.length) throw new RangeError(`${bytes.length - at} bytes behind the end`);
  } catch (thrown) {
    if (!(thrown instanceof RangeError)) throw thrown;
    throw new DamagedIndex(thrown.message);
  }
}

/** Up to where the entries hold in one partition. */
export interface IndexMark {
  /** First offset of the log then: what was before it is not accounted for. */
  readonly start: number;
  /** Messages before this offset are accounted for. */
  readonly offset: number;
  /** Hash of the message before it, hexadecimal; empty where the log holds none. */
  readonly hash: string;
  /** Of the message before that one, or empty; absent in an index of an earlier version. */
  readonly previous?: string;
  /** The begin of the last whole base: the log may start there as well as at `start`. */
  readonly base?: number;
}

/** Rows of a dump that have no id of the dataset: how many, and the sum of their hashes. */
export interface Strays {
  readonly rows: number;
  readonly low: number;
  readonly high: number;
}

export const noStrays: Strays = { rows: 0, low: 0, high: 0 };

export interface Directory {
  readonly runId: string;
  /** Date of the dump, milliseconds since 1970. */
  readonly asOfMs: number;
  /** Of header, schema, row rules and hash: where it differs, no entry can be compared. */
  readonly fingerprint: string;
  readonly strays: Strays;
  /** Records that the topic holds since its last whole base, or since its start; absent in an index of an earlier version. */
  readonly records?: number;
  /** By partition. */
  readonly marks: readonly IndexMark[];
  /** By partition of the dead-letter topic: letters before this offset are accounted for. Absent: none is. */
  readonly letters?: readonly number[];
  /** Hash of each block's message, by block number. */
  readonly blocks: ReadonlyMap<number, string>;
}

const blockHashBytes = 6;

/** The hash by which a directory names the message of a block. */
export function blockHash(value: Buffer): string {
  return createHash('sha256')
    .update(value)
    .digest('hex')
    .slice(0, 2 * blockHashBytes);
}

/** Version, JSON of all but the blocks with its length, blocks (number, hash), CRC-32. */
export function encodeDirectory({ blocks, ...head }: Directory): Buffer {
  const json = Buffer.from(JSON.stringify(head));
  const fixed = Buffer.alloc(5);
  fixed[0] = indexVersion;
  fixed.writeUInt32LE(json.length, 1);
  const list = Buffer.alloc(blocks.size * (4 + blockHashBytes));
  let at = 0;
  for (const [block, hash] of [...blocks].sort(([a], [b]) => a - b)) {
    at = list.writeUInt32LE(block, at);
    at += list.write(hash, at, 'hex');
  }
  const body = Buffer.concat([fixed, json, list]);
  const sum = Buffer.alloc(4);
  sum.writeUInt32LE(crc32(body));
  return Buffer.concat([body, sum]);
}

/** @throws NewerIndex, DamagedIndex */
export function decodeDirectory(bytes: Buffer): Directory {
  checkVersion(bytes);
  if (bytes.length < 9) throw new DamagedIndex('cut off');
  const body = bytes.subarray(0, bytes.length - 4);
  if (crc32(body) !== bytes.readUInt32LE(body.length)) throw new DamagedIndex('wrong checksum');
  const listAt = 5 + body.readUInt32LE(1);
  const head = JSON.parse(body.subarray(5, listAt).toString()) as Omit<Directory, 'blocks'>;
  const blocks = new Map<number, string>();
  for (let at = listAt; at < body.length; at += 4 + blockHashBytes) {
    blocks.set(body.readUInt32LE(at), body.subarray(at + 4, at + 4 + blockHashBytes).toString('hex'));
  }
  return { ...head, blocks };
}

function checkVersion(bytes: Buffer): void {
  const version = bytes[0];
  if (version === undefined || version === 0) throw new DamagedIndex('no version');
  if (version > indexVersion) throw new NewerIndex(version);
}
