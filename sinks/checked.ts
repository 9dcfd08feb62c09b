/**
 * The newest input whose tables equal those of a snapshot. Such input is not published: it would push older snapshots out of
 * retention and tell readers nothing new. It is not part of gold either, because a snapshot never changes: it lies beside the
 * sink's state, and is lost without harm, as the sink then computes the tables once more.
 */
import { readFileSync, renameSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { type RecordCounts, recordsOf } from '../topics/record-counts.ts';
import type { Manifest } from './gold/manifest.ts';
import { completes } from './held-dumps.ts';

export interface Checked extends Pick<Manifest, 'input' | 'shards' | 'accounting'> {
  /** The snapshot whose tables are equal. */
  readonly snapshot: string;
  /** ISO 8601, UTC. */
  readonly at: string;
}

const fileIn = (folder: string) => join(folder, 'checked.json');

/** @param folder of the sink's state. @returns undefined if nothing newer than the snapshot was checked */
export function readChecked(folder: string, snapshot: string | undefined): Checked | undefined {
  try {
    const checked = JSON.parse(readFileSync(fileIn(folder), 'utf8')) as Checked;
    return checked.snapshot === snapshot ? checked : undefined;
  } catch {
    // Absent, or half written before a power cut.
    return undefined;
  }
}

/** @param folder of the sink's state */
export function writeChecked(folder: string, checked: Checked): void {
  const next = `${fileIn(folder)}.new`;
  writeFileSync(next, JSON.stringify(checked));
  renameSync(next, fileIn(folder));
}

/** Records of the checked input that the snapshot does not name. */
export function recordsSince({ accounting }: Manifest, checked: Checked): number {
  const total = (of: Readonly<Record<string, RecordCounts>>) =>
    Object.values(of).reduce((sum, counts) => sum + recordsOf(counts), 0);
  return total(checked.accounting) - total(accounting);
}

/**
 * Whether a snapshot would tell readers nothing that CURRENT does not tell: equal tables of the same declarations, of the same generation, cubes, gaps and
 * start of the input, which a base moves, no more rejected records, which the tables lack, and no dump that has become complete. Only the ends of the input and
 * counts of records without effect may differ.
 */
export function tellsNothingNew(next: Manifest, current: Manifest | undefined): boolean {
  if (current === undefined) return false;
  if (completes(next.dumps ?? {}, current)) return false;
  const told = ({ tables, leftOut, input, shards, accounting, history, titleNames }: Manifest) =>
    JSON.stringify({
      starts: sorted(input, (partitions) => sorted(partitions, ([start]) => start)),
      tables: sorted(tables, ({ contentHash, declaration }) => [contentHash, declaration]),
      leftOut,
      shards: sorted(shards, ({ generation, cubeSet, shards: all, sources }) => [
        generation,
        cubeSet,
        all,
        sorted(sources, ({ gaps }) => gaps),
      ]),
      rejected: sorted(accounting, ({ rejected }) => rejected),
      history,
      titleNames,
    });
  return told(next) === told(current);
}

const sorted = <T>(of: Readonly<Record<string, T>>, part: (value: T) => unknown) =>
  Object.entries(of)
    .map(([name, value]) => [name, part(value)] as const)
    .sort(([a], [b]) => (a < b ? -1 : 1));
