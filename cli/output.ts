/** Standard output, where results go; standard error has logs, progress and errors. */
import { exitCodes, messageOf, systemCodeOf } from '../runtime/errors.ts';
import { filled } from '../runtime/terminal.ts';
import { stop, stoppedExitCode } from './stop.ts';

let isClosed = false;

/** Prints a line, or several. Does nothing once standard output has failed. */
export function print(text: string): void {
  if (!isClosed) process.stdout.write(`${text}\n`);
}

/** Prints sentences: on a terminal their lines break between words. */
export function printFilled(text: string): void {
  print(filled(text));
}

/** Prints a value as one line of JSON. */
export function printJson(value: unknown): void {
  print(JSON.stringify(value));
}

/**
 * Handles the failures of both streams. Without it each would be an uncaught exception with a stack trace.
 * - The reader has closed standard output, like `head`: the command stops, with the exit code of SIGPIPE.
 * - Standard output cannot be written, as on a full disk: the command stops with an error, because its result is lost.
 * - Standard error cannot be written: nothing can be reported, and the work continues.
 */
export function watchOutput(): void {
  process.stdout.on('error', (thrown) => {
    if (isClosed) return;
    isClosed = true;
    stop('SIGPIPE');
    const code = systemCodeOf(thrown);
    if (code !== 'EPIPE') {
      process.stderr.write(
        `Error: Standard output cannot be written\nDetail: ${messageOf(thrown)}\n` +
          'Hint: Check the file or device that it is redirected to, then run the command again.\n',
      );
    }
    const exitCode =
      code === 'EPIPE' ? stoppedExitCode() : code === 'ENOSPC' ? exitCodes.diskFull : exitCodes.defect;
    // At the end of the process, because an exit code that the command sets counts, unless it is success.
    process.once('exit', () => {
      process.exitCode = process.exitCode || exitCode;
    });
  });
  process.stderr.on('error', () => {});
}
