/**
 * Why a command is to end before its work is done: a signal, or a reader of standard output that has gone. The command
 * sees one abort signal, finishes what must not be left half done, and returns.
 */

/** Exit codes as a shell reports a program that a signal ended. */
const exitCodesOf = { SIGINT: 130, SIGTERM: 143, SIGPIPE: 141 } as const;
export type StopReason = keyof typeof exitCodesOf;

const controller = new AbortController();

/** Aborts at the first SIGTERM or SIGINT; a second one ends the process at once. */
export function stopSignal(): AbortSignal {
  for (const name of ['SIGTERM', 'SIGINT'] as const) process.once(name, () => stop(name));
  return controller.signal;
}

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
