/**
 * Ends a command before its work is done: after a signal, or when the reader of standard output has closed it. The command
 * sees one abort signal, finishes what must not be left half done, and returns.
 */
import { readFileSync } from 'node:fs';

/** Exit codes as a shell reports a program that a signal ended. */
const exitCodesOf = { SIGINT: 130, SIGTERM: 143, SIGPIPE: 141 } as const;
type StopReason = keyof typeof exitCodesOf;

const controller = new AbortController();

/** Aborts at the first SIGTERM or SIGINT; a second one ends the process at once. */
export function stopSignal(): AbortSignal {
  for (const name of ['SIGTERM', 'SIGINT'] as const) process.once(name, () => stop(name));
  if (process.env.npm_command === 'exec') stopWithLauncher();
  return controller.signal;
}

const lookForLauncherEveryMs = 500;

/**
 * Stops when npx has ended. A killed npx in the background passes no signal on, and the command would continue to run unseen. npx
 * starts a shell, which starts the command, so the shell gets a new parent when npx ends.
 */
function stopWithLauncher(): void {
  const launcher = () => `${process.ppid} ${parentOf(process.ppid)}`;
  const first = launcher();
  const timer = setInterval(() => {
    if (launcher() === first) return;
    clearInterval(timer);
    stop('SIGTERM');
  }, lookForLauncherEveryMs);
  timer.unref();
}

/** The parent of another process; '' without /proc. */
function parentOf(pid: number): string {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, 'utf8');
    // The second field is the program's name in parentheses, which may itself contain blanks and parentheses.
    return stat.slice(stat.lastIndexOf(')') + 2).split(' ')[1] ?? '';
  } catch {
    return '';
  }
}

/** Ends the command as a signal would. */
export function stop(reason: StopReason): void {
  controller.abort(reason);
}

/** Undefined while nothing asks the command to end. */
export const stopReason = (): StopReason | undefined =>
  controller.signal.aborted ? (controller.signal.reason as StopReason) : undefined;

/** The exit code of a command that was stopped before its result was complete. */
export function stoppedExitCode(): number {
  const reason = stopReason();
  return reason === undefined ? 1 : exitCodesOf[reason];
}

/** Ends the command with the exit code of its signal. @param text what is not done, or how to continue */
export function endInterrupted(text: string): void {
  process.stderr.write(`Interrupted${text}\n`);
  process.exitCode = stoppedExitCode();
}
