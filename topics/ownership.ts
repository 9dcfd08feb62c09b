/** Checks that records lie in the partition of their block, where the partitioner puts them. */
import { blockKey, blockSize, partitionOf } from './catalog.ts';
import { RejectedMessage } from './chunk.ts';
import { blockOfGroup } from './id-groups.ts';
import type { Columns } from './rows.ts';

export class Ownership {
  readonly #prefix: string;
  readonly #partitions: number;
  /** Partition of each block plus one; 0 means not computed yet. */
  readonly #owners = new Uint16Array(100_000);

  /** @param prefix of the ids: `tt` or `nm` */
  constructor(prefix: string, partitions: number) {
    this.#prefix = prefix;
    this.#partitions = partitions;
  }

  /**
   * Checks the ids in column 0 from row `from` on.
   * @param records number of records in the message
   * @throws RejectedMessage wrong_partition
   */
  check(rows: Columns, from: number, partition: number, records: number): void {
    const ids = rows.int(0);
    let last = -1;
    for (let row = from; row < rows.length; row++) {
      const block = ((ids[row] as number) / blockSize) | 0;
      if (block === last) continue;
      last = block;
      const owner = this.#ownerOf(block);
      if (owner === partition) continue;
      const key = blockKey(this.#prefix, block);
      throw new RejectedMessage('wrong_partition', `block ${key} belongs to partition ${owner}`, records);
    }
  }

  /**
   * Checks the groups that a message replaces.
   * @param records how many records the message holds
   * @throws RejectedMessage wrong_partition
   */
  checkGroups(groups: Int32Array, partition: number, records: number): void {
    for (const group of groups) {
      const block = blockOfGroup(group);
      const owner = this.#ownerOf(block);
      if (owner === partition) continue;
      throw new RejectedMessage(
        'wrong_partition',
        `group ${group} of block ${blockKey(this.#prefix, block)} belongs to partition ${owner}`,
        records,
      );
    }
  }

  #ownerOf(block: number): number {
    const known = this.#owners[block] as number;
    if (known > 0) return known - 1;
    const owner = partitionOf(blockKey(this.#prefix, block), this.#partitions);
    this.#owners[block] = owner + 1;
    return owner;
  }
}
