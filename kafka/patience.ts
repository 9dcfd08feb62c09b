/** Requests that are repeated while their failure passes by itself. */
import { setTimeout as sleep } from 'node:timers/promises';

/**
 * @param patienceMs how long this failure is waited out, since the first request; 0 for one that does not pass
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
