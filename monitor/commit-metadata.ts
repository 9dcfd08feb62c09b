/** What reelflow's groups write into the metadata of a commit, for monitors. */
import { jsonObjectOf } from '../runtime/json.ts';

export interface CommitMetadata {
  /** Timestamp of the last processed message, in milliseconds since 1970. */
  readonly recordTs: number | null;
  readonly committedAt: number | null;
  /** Messages from the committed offset up to this one are read and being processed. */
  readonly readNext: number | null;
  /** Mean of all processed messages. */
  readonly recordsPerMessage: number | null;
}

/** @returns nulls for metadata of other programs */
export function readMetadata(text: string): CommitMetadata {
  const fields = jsonObjectOf(text) ?? {};
  const positive = (name: string) => {
    const value = fields[name];
    return typeof value === 'number' && Number.isFinite(value) && value > 0 ? value : null;
  };
  return {
    recordTs: positive('recordTs'),
    committedAt: positive('committedAt'),
    readNext: positive('readNext'),
    recordsPerMessage: positive('recordsPerMessage'),
  };
}
