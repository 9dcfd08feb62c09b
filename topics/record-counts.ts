/** How the records of a source topic count. */

/** Every record is counted once: it changed the store, changed nothing, or could not be used. */
export interface RecordCounts {
  readonly applied: number;
  readonly duplicate: number;
  readonly rejected: number;
  /** Rows that replacements removed. They are rows of the store, not records, so no other count includes them. */
  readonly removed: number;
}

export const noRecords: RecordCounts = { applied: 0, duplicate: 0, rejected: 0, removed: 0 };

/** All records, whatever became of them. */
export const recordsOf = ({ applied, duplicate, rejected }: Omit<RecordCounts, 'removed'>) =>
  applied + duplicate + rejected;

/** What was counted since `before`. */
export function differenceOf(now: RecordCounts, before: RecordCounts): RecordCounts {
  return {
    applied: now.applied - before.applied,
    duplicate: now.duplicate - before.duplicate,
    rejected: now.rejected - before.rejected,
    removed: now.removed - before.removed,
  };
}

/** The sum of two counts, without the other properties that they may have. */
export function sumOf(a: RecordCounts, b: RecordCounts): RecordCounts {
  return {
    applied: a.applied + b.applied,
    duplicate: a.duplicate + b.duplicate,
    rejected: a.rejected + b.rejected,
    removed: a.removed + b.removed,
  };
}
