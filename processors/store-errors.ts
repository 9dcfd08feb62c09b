/** Errors of a store's file. */
import { isFileError, messageOf, ReelflowError, systemCodeOf } from '../runtime/errors.ts';

/** Another owner holds the file. */
export class StoreLocked extends Error {
  constructor(path: string) {
    super(`${path} is in use`);
    this.name = 'StoreLocked';
  }
}

/** Turns an error of the file or the disk into a ReelflowError; anything else is a defect and passes unchanged. */
export function asWorkError(thrown: unknown, path: string): unknown {
  const isOfFile = /no space left|IO Error|corrupt|serializ|checksum|invalidated|permission|read-only/i;
  return isFileError(thrown) || isOfFile.test(messageOf(thrown)) ? asStoreError(thrown, path) : thrown;
}

/** Turns any error of opening a file into a ReelflowError, and a held lock into StoreLocked. */
export function asStoreError(thrown: unknown, path: string): unknown {
  if (thrown instanceof ReelflowError || thrown instanceof StoreLocked) return thrown;
  const message = messageOf(thrown);
  if (/conflicting lock|could not set lock|already attached|being used by another process/i.test(message)) {
    return new StoreLocked(path);
  }
  if (/no space left/i.test(message) || systemCodeOf(thrown) === 'ENOSPC') {
    return new ReelflowError('diskFull', 'The disk under the state folder is full', {
      detail: `${path}: ${message}`,
      hint: 'Free some space and start again; nothing is lost.',
      cause: thrown,
    });
  }
  return new ReelflowError('stateUnusable', 'The state of a shard cannot be used', {
    detail: `${path}: ${message}`,
    hint: 'If the file is damaged, move it away: the processor rebuilds the shard from its topics.',
    cause: thrown,
  });
}
