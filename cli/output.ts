/** Standard output, where results go; standard error has logs, progress and errors. */
import { exitCodes, messageOf, systemCodeOf } from '../runtime/errors.ts';
import { stop } from './stop.ts';

let isClosed = false;

/** Prints a line, or several. Does nothing once the reader has gone. */
export function print(text: string): void {
  if (!isClosed) process.stdout.write(`${text}\n`);
}

export function printJson(value: unknown): void {
  print(JSON.stringify(value));
}

/** Whether the output can no longer be written. */
export const isOutputClosed = (): boolean => isClosed;

/**
 * Handles the failures of both streams. Without it each would be an uncaught exception with a stack trace.
 * - The reader of standard output has gone, as `head` does: the command stops, with the exit code of SIGPIPE.
 * - Standard output cannot be written, as on a full disk: an error with its exit code, because the result is lost.
 * - Standard error cannot be written: nothing can be reported, and the work goes on.
 */
export function watchOutput(): void {
  process.stdout.on('error', (thrown) => {
    if (isClosed) return;
    isClosed = true;
    if (systemCodeOf(thrown) !== 'EPIPE') {
      process.stderr.write(
        `Error: Standard output cannot be written\nDetail: ${messageOf(thrown)}\n` +
          'Hint: Free space where it is redirected to, then run the command again.\n',
      );
      process.exitCode = systemCodeOf(thrown) === 'ENOSPC' ? exitCodes.diskFull : exitCodes.defect;
    }
    stop('SIGPIPE');
  });
  process.stderr.on('error', () => {});
}
