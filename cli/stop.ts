/**
 * Why a command is to end before its work is done: a signal, or a reader of standard output that has gone. The command
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
 * npx in the background ends when it is killed, and passes no signal on: the command would run on unseen. npx starts a shell,
 * which starts the command. So the end of npx shows as a new parent of the shell.
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

/** The parent of another process, where /proc tells; '' elsewhere. */
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
