/** Reading a file of a dump to its end, and what may be wrong with it. */
import { stat } from 'node:fs/promises';
import { ReelflowError } from '../../runtime/errors.ts';
import { bytesOf } from '../../runtime/file-bytes.ts';
import { checkText, damaged, type InputFile } from '../input-files.ts';

/**
 * The unpacked bytes of the file.
 * @param rows how many rows of them were read, for the error of a damaged file
 * @throws ReelflowError input
 */
export async function* piecesOf(
  file: InputFile,
  rows: () => number,
  onProgress: (bytesRead: number) => void,
): AsyncGenerator<Buffer> {
  const pieces = bytesOf(file, { read: onProgress });
  try {
    for (;;) {
      const piece = await pieces
        .next()
        .then((next) => {
          if (next.done !== true) checkText(next.value);
          return next;
        })
        .catch((thrown) => {
          throw damaged(file, `line ${rows() + 1}; nothing of it was sent`, thrown);
        });
      if (piece.done === true) return;
      yield piece.value;
    }
  } finally {
    await pieces.return(undefined);
  }
}

/** @throws ReelflowError inputChanged */
export async function checkUnchanged(file: InputFile): Promise<void> {
  const { size, mtime } = await stat(file.path);
  if (size !== file.size || mtime.getTime() !== file.modified.getTime()) throw changedMeanwhile(file);
}

export function changedMeanwhile({ name }: InputFile): ReelflowError {
  return new ReelflowError('inputChanged', `${name} changed while it was read`, {
    detail: 'Its size, its date or its rows are not those of the first pass.',
    hint: 'Replace files by renaming finished ones. Run the same command again.',
  });
}

export function withoutNewline({ name }: InputFile, rows: number): ReelflowError {
  return new ReelflowError('cutFile', `${name} does not end with a newline`, {
    detail: `It breaks off in line ${rows + 1}. Nothing of it was sent.`,
    hint: 'Fetch the file again: its last row may be cut off. If the file is whole, end it with a newline.',
  });
}
