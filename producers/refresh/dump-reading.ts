/** Reads a file of a dump, and the errors for a file that is damaged, changed or cut off. */
import { stat } from 'node:fs/promises';
import { ReelflowError } from '../../runtime/errors.ts';
import { bytesOf } from '../../runtime/file-bytes.ts';
import { checkText, damaged, type InputFile } from '../input-files.ts';

/**
 * Reads the unpacked bytes of the file.
 * @param rows the number of rows read so far, for the error of a damaged file
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

/** @throws ReelflowError inputChanged, also if the file is gone */
export async function checkUnchanged(file: InputFile): Promise<void> {
  const now = await stat(file.path).catch(() => undefined);
  if (now?.size !== file.size || now.mtime.getTime() !== file.modified.getTime())
    throw changedMeanwhile(file);
}

export function changedMeanwhile({ name }: InputFile): ReelflowError {
  return new ReelflowError('inputChanged', `${name} changed while it was read`, {
    detail: 'Its size, its date or its rows differ from those of the first reading.',
    hint: 'Run the same command again. Replace a file by renaming a finished one.',
  });
}

export function withoutNewline({ name }: InputFile, rows: number): ReelflowError {
  return new ReelflowError('cutFile', `${name} does not end with a newline`, {
    detail: `It ends inside line ${rows + 1}. Nothing of it was sent.`,
    hint: 'Fetch the file again: its last row may be cut off. If the file is whole, end it with a newline.',
  });
}
