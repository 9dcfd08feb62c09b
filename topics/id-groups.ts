/**
 * Groups of ids: 50 consecutive ids of a dataset. A message replaces whole groups, and the dump index holds one entry
 * for each. A group never crosses a block, so all its rows lie in one partition. The size is part of the wire format:
 * it never changes.
 */
import { blockSize, idMax } from './catalog.ts';

export const groupSize = 50;
export const groupsOfBlock = blockSize / groupSize;
export const groupMax = Math.floor(idMax / groupSize);

/** The group that an id belongs to. */
export function groupOf(id: number): number {
  return (id / groupSize) | 0;
}

/** The smallest id of a group. */
export function firstIdOf(group: number): number {
  return group * groupSize;
}

/** The number of the block in which a group lies. */
export function blockOfGroup(group: number): number {
  return (group / groupsOfBlock) | 0;
}
