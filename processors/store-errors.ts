/** Errors of a store's file. */
import { asOpeningError, asStorageError, type Storage, storageFaultOf } from '../database/storage-errors.ts';

/** Another owner holds the file. */
export class StoreLocked extends Error {
  constructor(path: string) {
    super(`${path} is in use`);
    this.name = 'StoreLocked';
  }
}

const storageOf = (path: string): Storage => ({
  path,
  folder: 'the state folder',
  kind: 'stateUnusable',
  unusable: 'The state of a shard cannot be used',
  hint: 'If the file is damaged, move it away: the processor rebuilds the shard from its topics.',
  hintWhenDenied: 'Name another folder with --state, or check its permissions.',
  hintWhenFull: 'Free disk space and start again; nothing is lost.',
});

/** Turns an error of the file or the disk into a ReelflowError; anything else is a defect and passes unchanged. */
export const asWorkError = (thrown: unknown, path: string) => mapped(thrown, path, asStorageError);

/** Turns any error of opening a file into a ReelflowError, and a held lock into StoreLocked. */
export const asStoreError = (thrown: unknown, path: string) => mapped(thrown, path, asOpeningError);

function mapped(thrown: unknown, path: string, map: typeof asStorageError): unknown {
  if (thrown instanceof StoreLocked) return thrown;
  return storageFaultOf(thrown) === 'locked' ? new StoreLocked(path) : map(thrown, storageOf(path));
}
