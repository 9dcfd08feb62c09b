/**
 * Entries for the groups of one dataset, in blocks of 200 groups as typed arrays (about 4 kB per block that occurs). An entry
 * is `known` if the topic holds exactly the rows of its hash, and `unknown` if the topic may hold rows of the group. A group
 * without an entry has no rows on the topic.
 */
import { blockOfGroup, groupOf, groupSize, groupsOfBlock } from '../../topics/id-groups.ts';
import type { Touched } from './devices.ts';

export const entryState = { absent: 0, known: 1, unknown: 2 } as const;

export class EntryBlock {
  readonly state = new Uint8Array(groupsOfBlock);
  readonly low = new Int32Array(groupsOfBlock);
  readonly high = new Int32Array(groupsOfBlock);
  /** One bit for each id that has rows, or, in an unknown entry, may have: ids 0 to 31 of the group. */
  readonly maskLow = new Int32Array(groupsOfBlock);
  /** Ids 32 to 49. */
  readonly maskHigh = new Int32Array(groupsOfBlock);
  readonly rows = new Int32Array(groupsOfBlock);
}

export interface GroupEntry {
  readonly low: number;
  /** Inverted if at least one row of the group was refused: each dump that still has such rows counts them again. */
  readonly high: number;
  readonly maskLow: number;
  readonly maskHigh: number;
  readonly rows: number;
}

/** One group of `entries`, with its place in its block. */
interface GroupAt {
  readonly group: number;
  readonly block: EntryBlock;
  readonly at: number;
}

export class GroupEntries {
  readonly #blocks = new Map<number, EntryBlock>();

  /** Numbers of the blocks that occur, ascending. */
  get blocks(): number[] {
    return [...this.#blocks.keys()].sort((a, b) => a - b);
  }

  block(number: number): EntryBlock | undefined {
    return this.#blocks.get(number);
  }

  setBlock(number: number, block: EntryBlock): void {
    this.#blocks.set(number, block);
  }

  stateOf(group: number): number {
    return this.#blocks.get(blockOfGroup(group))?.state[group % groupsOfBlock] ?? entryState.absent;
  }

  /** Whether the group is known to hold exactly the rows of this hash. */
  holds(group: number, low: number, high: number): boolean {
    const block = this.#blocks.get(blockOfGroup(group));
    if (block === undefined) return false;
    const at = group % groupsOfBlock;
    return block.state[at] === entryState.known && block.low[at] === low && block.high[at] === high;
  }

  /** The same for rows of which at least one was refused. */
  holdsRefused(group: number, low: number, high: number): boolean {
    return this.holds(group, low, ~high);
  }

  put(group: number, entry: GroupEntry): void {
    const block = this.#blockFor(group);
    const at = group % groupsOfBlock;
    block.state[at] = entryState.known;
    block.low[at] = entry.low;
    block.high[at] = entry.high;
    block.maskLow[at] = entry.maskLow;
    block.maskHigh[at] = entry.maskHigh;
    block.rows[at] = entry.rows;
  }

  /** The group has no rows any more. */
  remove(group: number): void {
    const block = this.#blocks.get(blockOfGroup(group));
    if (block === undefined) return;
    const at = group % groupsOfBlock;
    block.state[at] = entryState.absent;
    block.maskLow[at] = 0;
    block.maskHigh[at] = 0;
    block.rows[at] = 0;
  }

  /** Another producer wrote rows of this id: its group is unknown. */
  touchId(id: number): void {
    const block = this.makeUnknown(groupOf(id));
    const at = groupOf(id) % groupsOfBlock;
    const bit = id % groupSize;
    if (bit < 32) block.maskLow[at] = (block.maskLow[at] as number) | (1 << bit);
    else block.maskHigh[at] = (block.maskHigh[at] as number) | (1 << (bit - 32));
  }

  /** Another producer wrote this message: it empties the groups that it replaces, and all its groups are unknown. */
  touch({ replaces, ids }: Pick<Touched, 'replaces' | 'ids'>): void {
    for (const group of replaces) {
      const block = this.makeUnknown(group);
      const at = group % groupsOfBlock;
      block.maskLow[at] = 0;
      block.maskHigh[at] = 0;
    }
    for (const id of ids) this.touchId(id);
  }

  /** Makes the group unknown, never absent: the topic may hold rows of it. Keeps the ids that it may hold. */
  makeUnknown(group: number): EntryBlock {
    const block = this.#blockFor(group);
    block.state[group % groupsOfBlock] = entryState.unknown;
    return block;
  }

  /** As `makeUnknown`, for every group that has an entry. */
  makeAllUnknown(isMeant: (block: number) => boolean = () => true): void {
    for (const [number, { state }] of this.#blocks) {
      if (!isMeant(number)) continue;
      for (let at = 0; at < groupsOfBlock; at++)
        if (state[at] !== entryState.absent) state[at] = entryState.unknown;
    }
  }

  /** Every group that has an entry, by number. */
  *[Symbol.iterator](): Generator<GroupAt> {
    for (const number of this.blocks) {
      const block = this.#blocks.get(number) as EntryBlock;
      for (let at = 0; at < groupsOfBlock; at++) {
        if (block.state[at] !== entryState.absent) yield { group: number * groupsOfBlock + at, block, at };
      }
    }
  }

  #blockFor(group: number): EntryBlock {
    const number = blockOfGroup(group);
    let block = this.#blocks.get(number);
    if (block === undefined) {
      block = new EntryBlock();
      this.#blocks.set(number, block);
    }
    return block;
  }
}

/** The entry at a place of a block. */
export function entryAt(block: EntryBlock, at: number): GroupEntry {
  return {
    low: block.low[at] as number,
    high: block.high[at] as number,
    maskLow: block.maskLow[at] as number,
    maskHigh: block.maskHigh[at] as number,
    rows: block.rows[at] as number,
  };
}

/**
 * The entry of a group of a file.
 * @param masks of the ids that have rows which are not refused
 * @param hasRefused whether at least one row was refused
 */
export function entryOfRows(
  { low, high, rows }: Pick<GroupEntry, 'low' | 'high' | 'rows'>,
  { maskLow, maskHigh }: Pick<GroupEntry, 'maskLow' | 'maskHigh'>,
  hasRefused: boolean,
): GroupEntry {
  return { low, high: hasRefused ? ~high : high, maskLow, maskHigh, rows };
}

/** Number of ids in a mask. */
export function idsIn(maskLow: number, maskHigh: number): number {
  return bitsIn(maskLow) + bitsIn(maskHigh);
}

function bitsIn(word: number): number {
  let x = word - ((word >>> 1) & 0x55555555);
  x = (x & 0x33333333) + ((x >>> 2) & 0x33333333);
  return Math.imul((x + (x >>> 4)) & 0x0f0f0f0f, 0x01010101) >>> 24;
}

/** The ids of a mask, ascending. */
export function* idsOf(group: number, maskLow: number, maskHigh: number): Generator<number> {
  for (let bit = 0; bit < groupSize; bit++) {
    const isSet = bit < 32 ? (maskLow >>> bit) & 1 : (maskHigh >>> (bit - 32)) & 1;
    if (isSet === 1) yield group * groupSize + bit;
  }
}
