/** Repeats requests while their failure is one that passes by itself. */
import { setTimeout as sleep } from 'node:timers/promises';

/**
 * @param patienceMs how long after the first request this failure may persist; 0 for one that does not pass
 * @throws the last failure
 */
export async function patiently<T>(
  request: () => Promise<T>,
  pauseMs: number,
  patienceMs: (thrown: unknown) => number,
): Promise<T> {
  const startedMs = performance.now();
  for (;;) {
    try {
      return await request();
    } catch (thrown) {
      if (performance.now() - startedMs >= patienceMs(thrown)) throw thrown;
      await sleep(pauseMs);
    }
  }
}
