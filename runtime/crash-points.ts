/**
 * Named points where a test kills this process with SIGKILL, like a power cut. Without `REELFLOW_CRASH_AT` they cost one
 * comparison with a constant.
 */

// REELFLOW_CRASH_AT=name, or name:N for the Nth passage.
const [armed, passage] = (process.env.REELFLOW_CRASH_AT ?? '').split(':');
let passagesLeft = Number(passage ?? '1');

/** Ends the process at once, without any clean-up, when `REELFLOW_CRASH_AT` names this point. */
export function crashPoint(name: string): void {
  if (armed === '' || name !== armed) return;
  passagesLeft -= 1;
  if (passagesLeft === 0) process.kill(process.pid, 'SIGKILL');
}
